"""What of its leases does this worker hold, and who waits for more? The `Budgets` port, in memory.

Pure but for one lock: requests hold and settle on the event loop, `gateway/budget_leases.py` lends on a thread of its
own. A hold that fits into a lease asks nobody; one that does not waits for that thread.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from billing.budget_arithmetic import Lease, Span, WindowNumbers, span_at
from policies.snapshot import BudgetTerms

# A request waits so long for a lease before it is told that nobody can say whether it fits.
ANSWER_WAIT_S = 4.0
# Of that, for other workers to give back what they do not need.
OTHERS_WAIT_S = 1.5
MAX_SPANS = 10_000

Key = tuple[int, int]  # a budget, and where its window begins


class BudgetShortError(Exception):
    """An amount does not fit. `fits_nanousd` is the most that would."""

    def __init__(self, terms: BudgetTerms, span: Span, numbers: WindowNumbers, fits_nanousd: int) -> None:
        super().__init__(f"{terms.name}: only {fits_nanousd} nano-USD fit")
        self.terms = terms
        self.span = span
        self.numbers = numbers
        self.fits_nanousd = fits_nanousd


class BudgetUnknownError(Exception):
    """Nobody can say whether it fits: the database does not answer, or the budget is just going."""


@dataclass(slots=True)
class Hold:
    """What one request holds of its budgets. `parts`: lease and amount; a lease may stand twice."""

    nanousd: int = 0
    parts: list[tuple[Lease, int]] = field(default_factory=list)

    def lease_ids(self) -> list[str]:
        return list(dict.fromkeys(lease.id for lease, _ in self.parts))


@dataclass(slots=True)
class PartHold:
    """What one request holds of the budgets of one model or deployment, and the most that an attempt there can cost."""

    terms: tuple[BudgetTerms, ...]
    hold: Hold
    attempt_nanousd: int


def is_answered(future: asyncio.Future[Any]) -> bool:
    """Say whether what was waited for has come, also where the one who waited was stopped in that very moment.

    `asyncio.wait_for` is of no use there: by the release of Python it loses the answer, or that somebody was stopped.
    """
    return future.done() and not future.cancelled() and future.exception() is None


@dataclass(slots=True, eq=False)
class Want:
    """A request that waits for a part of a lease. The thread answers with the lease in which it holds, or an error."""

    terms: BudgetTerms
    span: Span
    nanousd: int
    asked_at_s: float
    answer: Callable[[Lease | Exception], None]

    @property
    def key(self) -> Key:
        return (self.terms.id, self.span.starts_unix_s)


class LeaseBook:
    """This worker's leases. `lock` guards them; nothing is awaited and no query is made while it is held."""

    def __init__(self, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self.lock = threading.Lock()
        self.leases: dict[Key, Lease] = {}
        # How windows stood when the thread last looked.
        self.numbers: dict[Key, WindowNumbers] = {}
        self.wants: deque[Want] = deque()
        self.is_wanted = threading.Event()
        self.now_s = now_s
        self._spans: dict[int, tuple[BudgetTerms, Span]] = {}

    # For requests, on the event loop

    async def hold(self, budgets: tuple[BudgetTerms, ...], nanousd: int, /, *, at_unix_s: float) -> Hold:
        """Hold an amount of every budget. Raises BudgetShortError or BudgetUnknownError; then nothing is held."""
        hold = Hold()
        await self.extend(hold, budgets, nanousd, at_unix_s=at_unix_s)
        return hold

    async def extend(
        self, hold: Hold, budgets: tuple[BudgetTerms, ...], nanousd: int, /, *, at_unix_s: float
    ) -> None:
        """Hold more for the same request. Raises as `hold` does; then it holds what it held before."""
        parts: list[tuple[Lease, int]] = []
        try:
            for terms in budgets:
                parts.append((await self._hold_one(terms, nanousd, at_unix_s), nanousd))
        except BaseException:
            self._give_back(parts)
            raise
        hold.parts += parts
        hold.nanousd += nanousd

    def settle(self, hold: Hold, nanousd: int, /) -> None:
        """End a hold: what it cost is spent of every lease, the rest is free again."""
        with self.lock:
            spent_of: set[str] = set()
            for lease, held in hold.parts:
                cost = 0 if lease.id in spent_of else nanousd
                spent_of.add(lease.id)
                lease.settle(held, cost_nanousd=cost)
        hold.parts = []
        hold.nanousd = 0

    def used_ratio(self, budgets: tuple[BudgetTerms, ...], /, *, at_unix_s: float) -> float:
        """How much of the fullest of these budgets is spent or cannot be known, as far as this worker has heard."""
        ratio = 0.0
        for terms in budgets:
            span = self.span_of(terms, at_unix_s)
            numbers = self.numbers.get((terms.id, span.starts_unix_s))
            if numbers is not None:
                used = numbers.spent_nanousd + numbers.uncertain_nanousd
                ratio = max(ratio, used / numbers.limit_nanousd)
        return round(ratio, 4)

    def remaining_nanousd(self, budgets: tuple[BudgetTerms, ...], /, *, at_unix_s: float) -> int | None:
        """What is not spent of the tightest of these, at least 0; None where this worker has heard of none.

        As the windows stood when the thread last looked: without what is held, and without the last requests' cost,
        which the ingester brings within seconds.
        """
        left: int | None = None
        for terms in budgets:
            numbers = self.numbers.get((terms.id, self.span_of(terms, at_unix_s).starts_unix_s))
            if numbers is not None:
                rest = numbers.limit_nanousd - numbers.spent_nanousd - numbers.uncertain_nanousd
                left = rest if left is None else min(left, rest)
        return None if left is None else max(0, left)

    def find_spent(
        self, budgets: tuple[BudgetTerms, ...], nanousd: int, /, *, at_unix_s: float
    ) -> BudgetShortError | None:
        """The budget of which so little is left that an amount cannot fit, whatever others give back.

        None: it may. What is spent or uncertain only grows; a limit that was changed since is the terms'.
        """
        for terms in budgets:
            span = self.span_of(terms, at_unix_s)
            numbers = self.numbers.get((terms.id, span.starts_unix_s))
            if numbers is None:
                continue
            left = terms.limit_nanousd - numbers.spent_nanousd - numbers.uncertain_nanousd
            if nanousd > left and terms.limit_nanousd <= numbers.limit_nanousd:
                return BudgetShortError(terms, span, numbers, max(0, left))
        return None

    def span_of(self, terms: BudgetTerms, at_unix_s: float) -> Span:
        """The window of a budget at a time; remembered, as calendars are slow."""
        known = self._spans.get(terms.id)
        if known is not None and known[0] is terms:
            span = known[1]
            if span.holds(at_unix_s):
                return span
        span = span_at(
            terms.window, terms.time_zone, at_unix_s, counted_from_unix_s=terms.counted_from_unix_s
        )
        if len(self._spans) >= MAX_SPANS:
            self._spans.clear()
        self._spans[terms.id] = (terms, span)
        return span

    async def _hold_one(self, terms: BudgetTerms, nanousd: int, at_unix_s: float) -> Lease:
        span = self.span_of(terms, at_unix_s)
        with self.lock:
            lease = self.leases.get((terms.id, span.starts_unix_s))
            if lease is not None and lease.try_hold(nanousd, now_s=self.now_s()):
                return lease
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Lease] = loop.create_future()

        def deliver(result: Lease | Exception) -> None:
            if future.done():  # nobody waits any more
                if isinstance(result, Lease):
                    self._give_back([(result, nanousd)])
            elif isinstance(result, Lease):
                future.set_result(result)
            else:
                future.set_exception(result)

        def answer(result: Lease | Exception) -> None:
            try:
                loop.call_soon_threadsafe(deliver, result)
            except RuntimeError:  # the loop has ended, and with it the request
                if isinstance(result, Lease):
                    self._give_back([(result, nanousd)])

        self.wants.append(Want(terms, span, nanousd, self.now_s(), answer))
        self.is_wanted.set()
        try:
            async with asyncio.timeout(ANSWER_WAIT_S):
                return await future
        except asyncio.CancelledError:
            if is_answered(future):  # it was lent as the client left
                self._give_back([(future.result(), nanousd)])
            raise
        except TimeoutError:
            if future.done() and not future.cancelled():  # in the last moment
                return future.result()
            raise BudgetUnknownError("no lease in time") from None

    def _give_back(self, parts: list[tuple[Lease, int]]) -> None:
        with self.lock:
            for lease, held in parts:
                lease.settle(held, cost_nanousd=0)

    # For the thread

    def take_wants(self) -> dict[Key, list[Want]]:
        """All that waits, by window, in the order in which it came."""
        self.is_wanted.clear()
        groups: dict[Key, list[Want]] = {}
        while self.wants:
            want = self.wants.popleft()
            groups.setdefault(want.key, []).append(want)
        return groups

    def lease_for(self, want: Want) -> Lease:
        """The lease of a want's window; a new one is empty, and known before the database is asked for it."""
        with self.lock:
            lease = self.leases.get(want.key)
            if lease is None:
                lease = self.leases[want.key] = Lease(str(uuid.uuid4()), want.terms.id, want.span)
            return lease

    def grow(self, lease: Lease, nanousd: int, *, valid_until_s: float, wants: list[Want]) -> None:
        """Put what was lent into a lease and hold it at once for those who waited; others wait for their turn."""
        with self.lock:
            lease.amount_nanousd += nanousd
            lease.valid_until_s = max(lease.valid_until_s, valid_until_s)
            now_s = self.now_s()
            served = [want for want in wants if lease.try_hold(want.nanousd, now_s=now_s)]
        for want in wants:
            if want in served:
                want.answer(lease)
            else:  # somebody else was quicker: once more
                self.wants.append(want)
                self.is_wanted.set()

    def free_nanousd(self, lease: Lease) -> int:
        """What of a lease nobody holds."""
        with self.lock:
            return lease.free_nanousd()
