"""What of a rate limit is taken, what do workers hold of it, and what may one of them have more?

Pure. One state per limit, in the database; `settle` is what becomes of it when a worker tells and asks. The window
slides, second by second: what was taken in one second counts until the 61st after it has begun, so that no 60 seconds
hold more than the limit, wherever they begin.

    used of the window + what workers hold and have not used <= limit      (requests, tokens)
    running + what workers hold for further requests <= limit              (concurrent)

A worker that is not heard of for `LEASE_S` may have used all it held: that counts as taken at the end of its lease.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

WINDOW_S: Final = 60
# A second counts from its beginning, its last request came at its end.
COUNTS_S: Final = WINDOW_S + 1
LEASE_S: Final = 15.0
# What a worker gets beyond its need: this part of what is left, so that shares shrink near the limit.
SPARE_SHARE: Final = 8
# How long a worker that found too little is heard by those who hold something they do not need.
WANTED_S: Final = 2.0
# A clock that says something else than a worker's own count of seconds, by more than this, was set.
MAX_STEP_S: Final = 2.0
# When to ask again where nobody can say: somebody must finish, or give back, first.
LATER_S: Final = 1.0


class Amount(NamedTuple):
    """So much of each kind."""

    requests: int = 0
    tokens: int = 0
    concurrent: int = 0


class Limits(NamedTuple):
    """What is allowed of each kind. None: not limited."""

    requests: int | None = None
    tokens: int | None = None
    concurrent: int | None = None


class Taken(NamedTuple):
    """What was taken in one second of the window's clock, since it was last told; below 0: it was less after all."""

    second: int
    requests: int
    tokens: int


class Report(NamedTuple):
    """What one worker tells of one limit: what it took, runs and keeps; and what it needs besides.

    `clock_s`: what the window's clock says by the worker's own count of seconds; 0 before the first answer.
    """

    worker: str
    taken: tuple[Taken, ...] = ()
    free: Amount = Amount()
    running: int = 0
    needs: tuple[Amount, ...] = ()
    clock_s: float = 0.0


class Answer(NamedTuple):
    """Which needs are served, by their places, and how the window stands.

    `grown` is to be added to what the worker keeps (what is served is in it), `room` is what nobody holds.
    `soonest_s`: in how many seconds the first need that is not served may fit. `resets_s`: in how many the window is
    empty again, of requests and of tokens. `others_hold`: other workers may give back what would help.
    """

    served: tuple[int, ...]
    grown: Amount
    room: Amount
    now_s: float
    short: str = ""
    soonest_s: float = 0.0
    resets_s: tuple[float, float] = (0.0, 0.0)
    others_hold: bool = False
    is_wanted: bool = False
    worker_count: int = 1


@dataclass(slots=True)
class Lease:
    """What one worker holds. `free` it may still use, of `concurrent` besides the requests that run."""

    free: Amount
    running: int
    expires_s: float


@dataclass(slots=True)
class Window:
    """The state of one limit. Its clock never goes back."""

    now_s: float = 0.0
    # second -> requests and tokens taken in it
    seconds: dict[int, list[int]] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)
    # A worker that found too little, and until when others hear of it.
    wanted_by: str = ""
    wanted_until_s: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """As the row keeps it."""
        return {
            "now": self.now_s,
            "seconds": [[second, *taken] for second, taken in sorted(self.seconds.items())],
            "leases": {
                worker: [*lease.free, lease.running, lease.expires_s] for worker, lease in self.leases.items()
            },
            "wanted": [self.wanted_by, self.wanted_until_s],
        }

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Window:
        """The opposite of `as_json`; of an empty state, a window of which nothing is taken."""
        wanted_by, wanted_until_s = state.get("wanted", ("", 0.0))
        return cls(
            state.get("now", 0.0),
            {second: [requests, tokens] for second, requests, tokens in state.get("seconds", ())},
            {
                worker: Lease(Amount(*numbers[:3]), numbers[3], numbers[4])
                for worker, numbers in state.get("leases", {}).items()
            },
            wanted_by,
            wanted_until_s,
        )

    def used(self) -> tuple[int, int]:
        """Requests and tokens taken in the window."""
        taken = self.seconds.values()
        return sum(numbers[0] for numbers in taken), sum(numbers[1] for numbers in taken)


def settle(window: Window, report: Report, limits: Limits, *, now_s: float) -> Answer:
    """Write down what a worker tells, and lend it what it needs as far as that fits. Changes `window`."""
    _advance(window, report, now_s)
    _write_down(window, report.taken)
    before = window.leases.get(report.worker)
    # What it says to have beyond what is written down here has expired: it counts as taken already.
    kept = Amount()
    if before is not None:
        ended = max(0, before.running - report.running)
        most = before.free._replace(concurrent=before.free.concurrent + ended)
        kept = Amount(*(max(0, min(have, had)) for have, had in zip(report.free, most, strict=True)))
    window.leases[report.worker] = Lease(kept, report.running, window.now_s + LEASE_S)
    room = _room(window, limits)
    if min(room) < 0 and any(kept):
        # The limit was lowered, or answers took more than was estimated: what is not used yet is not to be used.
        kept = Amount(*(max(0, have + min(0, left)) for have, left in zip(kept, room, strict=True)))
        window.leases[report.worker] = Lease(kept, report.running, window.now_s + LEASE_S)
        room = _room(window, limits)
    served, missing, left_over, unserved = _serve(report.needs, kept, room)
    is_asked = bool(window.wanted_by) and window.now_s < window.wanted_until_s
    spare = Amount()
    if unserved is None and not is_asked:
        spare = Amount(
            *(
                (left - lack) // SPARE_SHARE if lack and left > lack else 0
                for left, lack in zip(room, missing, strict=True)
            )
        )
    grown = Amount(*(lack + more for lack, more in zip(missing, spare, strict=True)))
    _set_lease(window, report, Amount(*(a + b for a, b in zip(kept, grown, strict=True))))
    room = Amount(*(max(0, left - more) for left, more in zip(room, grown, strict=True)))
    short, soonest_s, others_hold = "", 0.0, False
    if unserved is not None:
        short, soonest_s = _soonest(window, report.needs[unserved], left_over, limits)
        others_hold = _others_hold(window, report.worker, short)
        if others_hold:
            window.wanted_by, window.wanted_until_s = report.worker, window.now_s + WANTED_S
    return Answer(
        served=served,
        grown=Amount(*(now - said + more for now, said, more in zip(kept, report.free, grown, strict=True))),
        room=room,
        now_s=window.now_s,
        short=short,
        soonest_s=soonest_s,
        resets_s=(_reset_s(window, 0), _reset_s(window, 1)),
        others_hold=others_hold,
        is_wanted=is_asked and window.wanted_by != report.worker and any(kept),
        worker_count=len(window.leases) or 1,
    )


def _advance(window: Window, report: Report, now_s: float) -> None:
    """Move the clock on: what is too old counts no more, who was not heard of holds nothing."""
    if report.clock_s and abs(now_s - report.clock_s) > MAX_STEP_S:
        # The server's clock was set. Seconds that a worker has counted are no less long for that.
        now_s = report.clock_s
    window.now_s = now_s = max(window.now_s, now_s)
    for worker, lease in list(window.leases.items()):
        if lease.expires_s <= now_s:
            del window.leases[worker]
            if lease.free.requests or lease.free.tokens:
                numbers = window.seconds.setdefault(int(lease.expires_s), [0, 0])
                numbers[0] += lease.free.requests
                numbers[1] += lease.free.tokens
    for second in [second for second in window.seconds if second + COUNTS_S <= now_s]:
        del window.seconds[second]


def _write_down(window: Window, taken: Sequence[Taken]) -> None:
    newest = int(window.now_s)
    for second, requests, tokens in taken:
        if second + COUNTS_S <= window.now_s:
            continue
        numbers = window.seconds.setdefault(min(second, newest), [0, 0])
        numbers[0] = max(0, numbers[0] + requests)
        numbers[1] = max(0, numbers[1] + tokens)


def _room(window: Window, limits: Limits) -> Amount:
    """What nobody has taken and nobody holds, less than 0 when it is too much; 0 where nothing is limited."""
    used = (*window.used(), sum(lease.running for lease in window.leases.values()))
    return Amount(
        *(
            0
            if limit is None
            else limit - used[kind] - sum(lease.free[kind] for lease in window.leases.values())
            for kind, limit in enumerate(limits)
        )
    )


def _serve(
    needs: Sequence[Amount], kept: Amount, room: Amount
) -> tuple[tuple[int, ...], Amount, Amount, int | None]:
    """Serve who fits, in order: (places, what must be lent for them, what is left, the first place not served)."""
    pool = [have + max(0, left) for have, left in zip(kept, room, strict=True)]
    total = [0, 0, 0]
    served: list[int] = []
    unserved: int | None = None
    for place, need in enumerate(needs):
        if all(not wanted or wanted <= left for wanted, left in zip(need, pool, strict=True)):
            served.append(place)
            for kind, wanted in enumerate(need):
                pool[kind] -= wanted
                total[kind] += wanted
        elif unserved is None:
            unserved = place
    missing = Amount(*(max(0, wanted - have) for wanted, have in zip(total, kept, strict=True)))
    return tuple(served), missing, Amount(*pool), unserved


def _set_lease(window: Window, report: Report, free: Amount) -> None:
    if any(free) or report.running:
        window.leases[report.worker] = Lease(free, report.running, window.now_s + LEASE_S)
    else:
        del window.leases[report.worker]


def _soonest(window: Window, need: Amount, left: Amount, limits: Limits) -> tuple[str, float]:
    """Of which kind there is too little, and in how many seconds there may be enough; the longest counts."""
    found = ("", -1.0)
    for kind, name in enumerate(Amount._fields):
        over = need[kind] - left[kind]
        if limits[kind] is None or not need[kind] or over <= 0:
            continue
        wait_s = LATER_S
        if kind < 2:
            for second, numbers in sorted(window.seconds.items()):
                over -= numbers[kind]
                if over <= 0:
                    wait_s = second + COUNTS_S - window.now_s
                    break
        found = max(found, (name, wait_s), key=lambda pair: pair[1])
    return found[0], max(0.0, found[1])


def _others_hold(window: Window, worker: str, short: str) -> bool:
    return bool(short) and any(
        getattr(lease.free, short) for name, lease in window.leases.items() if name != worker
    )


def _reset_s(window: Window, kind: int) -> float:
    newest = max((second for second, numbers in window.seconds.items() if numbers[kind]), default=None)
    return 0.0 if newest is None else newest + COUNTS_S - window.now_s
