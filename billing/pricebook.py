"""Which price is in force at a time, and what does it say?

Pure. Reads the `rates` of a price row into exact numbers. A rate is named, and may be limited:

    input_usd_per_mtok                what a million input tokens cost
    input_usd_per_mtok>200000         all of them, when the request sends more than 200,000 tokens (a cliff)
    input_usd_per_mtok+200000         those of them beyond 200,000 (marginal)
    input_usd_per_mtok@flex           when the answer echoes this service tier
    input_usd_per_mtok@flex>200000    both
    input_usd_per_mtok~16:30-00:30    when the request begins within these hours (UTC; 00:30 is not in it)
    input_usd_per_mtok@flex~16:30-00:30>200000    all three

Where no window of a rate holds, the rate without one does. `price_at` and `PriceVersion.at` give the price as it is at
a moment, without windows: that is what `billing.rating` is handed, so that rating knows no clock.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from itertools import combinations
from typing import Final, NamedTuple

# Rate name -> what it multiplies. All are USD; `_per_mtok` per million tokens, the others by the piece or the hour.
RATE_NAMES = (
    "input_usd_per_mtok",
    "cache_read_usd_per_mtok",
    "cache_write_usd_per_mtok",
    "cache_write_1h_usd_per_mtok",
    "output_usd_per_mtok",
    "reasoning_usd_per_mtok",
    "audio_input_usd_per_mtok",
    "audio_output_usd_per_mtok",
    "image_input_usd_per_mtok",
    "image_output_usd_per_mtok",
    "usd_per_request",
    "usd_per_search",
    "usd_per_image",
    "usd_per_audio_hour",
)
# How many of what is counted one of these prices pays for: an hour is counted in seconds.
BY_THE_PIECE: Final[Mapping[str, int]] = {
    "usd_per_request": 1,
    "usd_per_search": 1,
    "usd_per_image": 1,
    "usd_per_audio_hour": 3600,
}
MAX_RATE = Decimal("1000000")
MAX_RATES: Final = 100
# What is charged at another rate while its own is not stated; the other rates have no such stand-in.
FALLBACKS: Final[Mapping[str, str]] = {
    "cache_read_usd_per_mtok": "input_usd_per_mtok",
    "cache_write_usd_per_mtok": "input_usd_per_mtok",
    "cache_write_1h_usd_per_mtok": "cache_write_usd_per_mtok",
    "audio_input_usd_per_mtok": "input_usd_per_mtok",
    "reasoning_usd_per_mtok": "output_usd_per_mtok",
    "audio_output_usd_per_mtok": "output_usd_per_mtok",
    "image_input_usd_per_mtok": "input_usd_per_mtok",
    "image_output_usd_per_mtok": "output_usd_per_mtok",
}
# Answers that echo one of these are charged at the rates that name no service tier.
STANDARD_TIERS: Final = frozenset({"", "auto", "default", "standard", "on_demand"})
ABOVE, BEYOND, WITHIN = ">", "+", "~"
MINUTES_A_DAY: Final = 1440
_LIMIT = re.compile(r"[@>+~]")
_KEY = re.compile(
    r"([a-z0-9_]+)(?:@([a-z0-9][a-z0-9_-]{0,39}))?(?:~(\d\d:\d\d)-(\d\d:\d\d))?(?:([>+])([1-9][0-9]{0,11}))?",
    re.ASCII,
)
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)", re.ASCII)


class PriceError(ValueError):
    """A rate that is not a finite, non-negative decimal number, or not a rate we know."""


class Window(NamedTuple):
    """Hours of the day, as minutes after midnight UTC; `end_minute` is not in it. It may cross midnight."""

    start_minute: int
    end_minute: int

    def holds(self, minute: int) -> bool:
        """Say whether a minute of the day falls into it."""
        if self.start_minute < self.end_minute:
            return self.start_minute <= minute < self.end_minute
        return minute >= self.start_minute or minute < self.end_minute

    def overlaps(self, other: Window) -> bool:
        """Say whether a minute falls into both."""
        return self.holds(other.start_minute) or other.holds(self.start_minute)

    def __str__(self) -> str:
        return "-".join(f"{minute // 60:02}:{minute % 60:02}" for minute in self)


class RateKey(NamedTuple):
    """The name of a rate, taken apart. `limit` is ABOVE, BEYOND or empty; `start_tokens` belongs to it."""

    name: str
    service_tier: str = ""
    limit: str = ""
    start_tokens: int = 0
    window: Window | None = None

    def __str__(self) -> str:
        tier = f"@{self.service_tier}" if self.service_tier else ""
        window = f"{WITHIN}{self.window}" if self.window else ""
        return f"{self.name}{tier}{window}" + (f"{self.limit}{self.start_tokens}" if self.limit else "")


@dataclass(frozen=True, slots=True)
class PriceVersion:
    """One immutable price. `rates` holds only the rates that were stated.

    `hours`: of a price with windows, from which minutes of the day on it is which price without windows. Those have
    the same id and a number of their own, `variant`.
    """

    id: int
    deployment_id: int
    effective_from_unix_s: float
    rates: Mapping[str, Decimal]
    variant: int = 0
    hours: tuple[tuple[int, ...], tuple[PriceVersion, ...]] | None = field(
        init=False, default=None, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if any(WITHIN in name for name in self.rates):
            object.__setattr__(self, "hours", _by_hours(self))

    def at(self, unix_s: float) -> PriceVersion:
        """This price as it is at a moment: itself, unless it has windows."""
        if self.hours is None:
            return self
        starts, variants = self.hours
        return variants[bisect_right(starts, int(unix_s // 60) % MINUTES_A_DAY) - 1]

    def changes_at(self, unix_s: float) -> float:
        """When this price begins, or is another for the next time; infinity: never again."""
        if self.effective_from_unix_s > unix_s:
            return self.effective_from_unix_s
        if self.hours is None:
            return math.inf
        starts, variants = self.hours
        if variants[0].rates == variants[-1].rates:
            starts = starts[1:]  # a window that goes on over midnight
        midnight = int(unix_s // 86_400) * 86_400
        moments = [midnight + day * 86_400 + minute * 60.0 for day in (0, 1) for minute in starts]
        return min(moment for moment in moments if moment > unix_s)

    def every_hour(self) -> tuple[PriceVersion, ...]:
        """All that this price can be over a day."""
        return (self,) if self.hours is None else self.hours[1]


def is_limited_rate(text: str) -> bool:
    """Say whether this names a rate with a tier, a window or a number of tokens, rightly written or not."""
    return _LIMIT.split(text, maxsplit=1)[0] in RATE_NAMES and text not in RATE_NAMES


def read_rate_key(key: str) -> RateKey:
    """Take `input_usd_per_mtok@flex>200000` apart. Raises PriceError."""
    match = _KEY.fullmatch(key)
    if match is None or match[1] not in RATE_NAMES:
        raise PriceError(
            f"{key}: no such rate; known are {', '.join(RATE_NAMES)}, each also as NAME@TIER, NAME>TOKENS,"
            " NAME~HH:MM-HH:MM"
        )
    name, tier, begins, ends, limit, start = match.groups()
    if tier in STANDARD_TIERS:
        raise PriceError(f"{key}: {tier} is the standard tier, its rate stands without a tier")
    if limit == BEYOND and name in BY_THE_PIECE:
        raise PriceError(f"{key}: what is charged by the piece has no part beyond a number of tokens")
    window = Window(_minute(begins, key), _minute(ends, key)) if begins else None
    if window is not None and window.start_minute == window.end_minute:
        raise PriceError(f"{key}: the window ends where it begins; a rate of all hours stands without one")
    return RateKey(name, tier or "", limit or "", int(start or 0), window)


def _minute(text: str, key: str) -> int:
    match = _TIME.fullmatch(text)
    if match is None:
        raise PriceError(f"{key}: {text} is no time of day, from 00:00 to 23:59 UTC")
    return int(match[1]) * 60 + int(match[2])


def parse_rates(raw: Mapping[str, object]) -> dict[str, Decimal]:
    """Read {"input_usd_per_mtok": "0.05", ...}. Raises PriceError naming the rate and what is wrong."""
    rates: dict[str, Decimal] = {}
    is_plain = True
    for name, text in raw.items():
        if name not in RATE_NAMES:
            read_rate_key(name)
            is_plain = False
        if isinstance(text, bool) or not isinstance(text, (str, int, Decimal)):
            raise PriceError(f'{name}: write the number as a text, for example "0.05"')
        try:
            value = Decimal(_plain(text))
        except InvalidOperation:
            raise PriceError(f"{name}: {text!r} is not a number") from None
        if not value.is_finite() or not 0 <= value <= MAX_RATE:
            raise PriceError(f"{name}: {text!r} is outside 0 to {MAX_RATE} USD")
        rates[name] = value.copy_abs()  # nothing less is nothing
    if not rates:
        raise PriceError("a price states at least one rate")
    if not is_plain:
        _check_limited(rates)
    return rates


def _plain(text: str | int | Decimal) -> str | int | Decimal:
    """Python reads 1_0 as ten, and digits of every script; people who write that mean something else, or mistype."""
    return "" if isinstance(text, str) and ("_" in text or not text.isascii()) else text


def _check_limited(rates: Mapping[str, Decimal]) -> None:
    """A limited rate must not leave a hole below it, nor claim the same tokens as another."""
    if len(rates) > MAX_RATES:
        raise PriceError(f"a price states at most {MAX_RATES} rates")
    limits: dict[tuple[str, str, Window | None], str] = {}
    for text in rates:
        key = read_rate_key(text)
        if text == key.name:
            continue
        stand_in: str | None = key.name
        while stand_in is not None and stand_in not in rates:
            stand_in = FALLBACKS.get(stand_in)
        if stand_in is None:
            raise PriceError(f"{text}: {key.name} is missing, which holds where this one does not")
        kind = (key.name, key.service_tier, key.window)
        if limits.setdefault(kind, key.limit) != key.limit:
            if limits[kind] and key.limit:
                raise PriceError(
                    f"{text}: NAME>TOKENS and NAME+TOKENS of one rate overlap; state one kind of them"
                )
            limits[kind] = limits[kind] or key.limit
    windows: dict[tuple[str, str], list[Window]] = {}
    for name, tier, window in limits:
        if window is not None:
            windows.setdefault((name, tier), []).append(window)
    for (name, _), listed in windows.items():
        for one, other in combinations(listed, 2):
            if one.overlaps(other):
                raise PriceError(f"{name}: the windows {one} and {other} overlap")


def _by_hours(price: PriceVersion) -> tuple[tuple[int, ...], tuple[PriceVersion, ...]]:
    """Say for each stretch of the day what a price is: a name's rates of the window that holds, else those without."""
    keys = {read_rate_key(text): value for text, value in price.rates.items()}
    starts = sorted({0, *(minute for key in keys if key.window is not None for minute in key.window)})
    variants = []
    for number, minute in enumerate(starts, start=1):
        holding = {key: value for key, value in keys.items() if key.window and key.window.holds(minute)}
        own = {(key.name, key.service_tier) for key in holding}
        # Below the limits of a window stands the rate without one, as below those of a tier.
        always = {
            key: value
            for key, value in keys.items()
            if key.window is None and ((key.name, key.service_tier) not in own or not key.limit)
        }
        rates = {
            str(key._replace(window=None)): value
            for group in (always, holding)
            for key, value in group.items()
        }
        variants.append(
            PriceVersion(price.id, price.deployment_id, price.effective_from_unix_s, rates, variant=number)
        )
    return tuple(starts), tuple(variants)


def list_windows(rate_names: Iterable[str], unix_s: float) -> list[Window]:
    """The windows of these rates that hold at a moment."""
    minute = int(unix_s // 60) % MINUTES_A_DAY
    windows = [read_rate_key(name).window for name in rate_names if WITHIN in name]
    return [window for window in windows if window is not None and window.holds(minute)]


def price_at(versions: Sequence[PriceVersion], at_unix_s: float) -> PriceVersion | None:
    """The version in force, as it is at that moment: the newest that had begun.

    `versions` are sorted by `effective_from_unix_s`.
    """
    index = bisect_right(versions, at_unix_s, key=lambda version: version.effective_from_unix_s)
    return versions[index - 1].at(at_unix_s) if index else None
