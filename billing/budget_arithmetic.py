"""What fits into a budget? Windows, holds, leases and the most that a request can cost.

Pure. Integers of nano-USD, whole unix seconds; the same arithmetic in every worker and in the ingester.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from fractions import Fraction
from typing import Final, Literal, NamedTuple
from zoneinfo import ZoneInfo

from billing.pricebook import PriceVersion

WindowKind = Literal["day", "week", "month", "total"]

NANOUSD_PER_USD: Final = 1_000_000_000
NANOUSD_PER_TOKEN: Final = 1_000  # of USD per million tokens
# What a lease takes beyond its need: this part of what is left, so that leases shrink near the limit.
SPARE_SHARE: Final = 16
MAX_CACHED_BOUNDS: Final = 10_000
# Nobody can say how often a provider will search: at a price of searches each request holds so many. More are charged
# as what they cost.
HELD_SEARCHES: Final = 10
# Nor how many images a model makes for each answer asked for; no request can state a limit of them.
HELD_IMAGES: Final = 10
# No provider makes fewer tokens of a second of audio (OpenAI 10, Mistral 12.5, Google 32): so the most that the input
# can be in tokens bounds its seconds, too.
LEAST_TOKENS_A_SECOND: Final = 10

_OUTPUT_RATES: Final = ("output", "reasoning", "audio_output", "image_output")


class Span(NamedTuple):
    """One window of a budget. `ends_unix_s` None: it never ends."""

    starts_unix_s: int
    ends_unix_s: int | None

    def holds(self, at_unix_s: float) -> bool:
        """Say whether a moment falls into it."""
        return self.starts_unix_s <= at_unix_s and (self.ends_unix_s is None or at_unix_s < self.ends_unix_s)


def span_at(kind: WindowKind, time_zone: str, at_unix_s: float, *, counted_from_unix_s: int) -> Span:
    """The window that a moment falls into, on the calendar of a time zone.

    A moment before the budget was made (a clock that jumped) belongs to its first window.
    """
    if kind == "total":
        return Span(counted_from_unix_s, None)
    zone = ZoneInfo(time_zone)
    day = datetime.fromtimestamp(max(at_unix_s, counted_from_unix_s), zone).date()
    if kind == "day":
        first, following = day, day + timedelta(days=1)
    elif kind == "week":
        first = day - timedelta(days=day.weekday())
        following = first + timedelta(days=7)
    else:
        first = day.replace(day=1)
        following = (first + timedelta(days=32)).replace(day=1)
    return Span(
        *(int(datetime.combine(midnight, time(), zone).timestamp()) for midnight in (first, following))
    )


class WindowNumbers(NamedTuple):
    """How a window stands. `leased_nanousd` is what workers may still spend of their leases.

    `uncertain_nanousd` is kept for requests whose cost nobody knows: the most that they can have cost.
    """

    limit_nanousd: int
    spent_nanousd: int = 0
    uncertain_nanousd: int = 0
    leased_nanousd: int = 0

    def room_nanousd(self) -> int:
        """What may still be leased."""
        return self.limit_nanousd - self.spent_nanousd - self.uncertain_nanousd - self.leased_nanousd


class Loan(NamedTuple):
    """Which of those who wait are served, by their places, and by how much the lease must grow for that."""

    served: tuple[int, ...]
    grow_nanousd: int


def plan_loan(needs: Sequence[int], *, free_nanousd: int, room_nanousd: int) -> Loan:
    """Serve who fits, in order, and take some more when all do: a lease is there to save round trips."""
    total = 0
    served: list[int] = []
    for place, need in enumerate(needs):
        if total + need <= free_nanousd + max(0, room_nanousd):
            total += need
            served.append(place)
    missing = max(0, total - free_nanousd) if served else 0
    spare = (room_nanousd - missing) // SPARE_SHARE if len(served) == len(needs) and missing else 0
    return Loan(tuple(served), missing + max(0, spare))


@dataclass(slots=True)
class Lease:
    """A part of one window's budget that one worker alone may spend, without asking anybody.

    `spent_nanousd` + `held_nanousd` <= `amount_nanousd`, unless a request cost more than the most it could.
    """

    id: str
    budget_id: int
    span: Span
    amount_nanousd: int = 0
    spent_nanousd: int = 0
    held_nanousd: int = 0
    # Seconds on the worker's own clock, which no one can set.
    valid_until_s: float = 0.0
    used_at_s: float = 0.0

    def free_nanousd(self) -> int:
        """What nobody holds and nobody spent."""
        return self.amount_nanousd - self.spent_nanousd - self.held_nanousd

    def try_hold(self, nanousd: int, *, now_s: float) -> bool:
        """Hold an amount if it fits into a lease that has not expired."""
        if now_s >= self.valid_until_s or nanousd > self.free_nanousd():
            return False
        self.held_nanousd += nanousd
        self.used_at_s = now_s
        return True

    def settle(self, held_nanousd: int, *, cost_nanousd: int) -> None:
        """Give back a hold and keep what it cost; 0 for a request that was refused."""
        self.held_nanousd -= held_nanousd
        self.spent_nanousd += cost_nanousd

    def give_back(self) -> int:
        """Give up what is free; return the amount that stays."""
        self.amount_nanousd -= max(0, self.free_nanousd())
        return self.amount_nanousd


class _Bounds(NamedTuple):
    """The dearest rates of a price as integers: nano-USD a token, a request and an answer of it, times `scale`."""

    source: object
    scale: int
    input: int
    output: int
    request: int
    choice: int


_cache: dict[int, _Bounds] = {}


def most_nanousd(price: PriceVersion, *, input_tokens: int, output_tokens: int, choices: int = 1) -> int:
    """The most that one attempt with so many tokens can cost: every token at the dearest rate of its direction.

    `output_tokens` are those of all `choices` (answers to one request) together.
    """
    _, scale, sent, generated, request, choice = _bounds_of(price)
    return -(-(request + choices * choice + input_tokens * sent + output_tokens * generated) // scale)


def most_output_tokens(
    price: PriceVersion, *, input_tokens: int, nanousd: int, choices: int = 1
) -> int | None:
    """How many output tokens an amount pays for besides the input, at least 0; None: as many as one likes."""
    _, scale, sent, generated, request, choice = _bounds_of(price)
    left = nanousd * scale - request - choices * choice - input_tokens * sent
    if left < 0:
        return 0
    return left // generated if generated else None


def _bounds_of(price: PriceVersion) -> _Bounds:
    bounds = _cache.get(price.id)
    # The id finds the entry, the identity of the rates proves it: a test may reuse an id.
    if bounds is not None and bounds.source is price.rates:
        return bounds
    dearest = dict.fromkeys(("input", "output", "request", "choice", "search", "second"), Fraction(0))
    for name, rate in price.rates.items():
        # Names may carry a limit or a service tier behind them; the dearest of all counts.
        if name.startswith("usd_per_request"):
            direction, per_unit = "request", Fraction(rate) * NANOUSD_PER_USD
        elif name.startswith("usd_per_search"):
            direction, per_unit = "search", Fraction(rate) * NANOUSD_PER_USD
        elif name.startswith("usd_per_image"):
            direction, per_unit = "choice", Fraction(rate) * NANOUSD_PER_USD * HELD_IMAGES
        elif name.startswith("usd_per_audio_hour"):
            direction, per_unit = "second", Fraction(rate) * NANOUSD_PER_USD / 3600
        elif name.startswith(_OUTPUT_RATES):
            direction, per_unit = "output", Fraction(rate) * NANOUSD_PER_TOKEN
        else:
            direction, per_unit = "input", Fraction(rate) * NANOUSD_PER_TOKEN
        dearest[direction] = max(dearest[direction], per_unit)
    dearest["request"] += HELD_SEARCHES * dearest.pop("search")
    dearest["input"] += dearest.pop("second") / LEAST_TOKENS_A_SECOND
    scale = math.lcm(*(rate.denominator for rate in dearest.values()))
    bounds = _Bounds(price.rates, scale, **{name: int(rate * scale) for name, rate in dearest.items()})
    if len(_cache) >= MAX_CACHED_BOUNDS:
        _cache.clear()
    _cache[price.id] = bounds
    return bounds
