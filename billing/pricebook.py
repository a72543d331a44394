"""Which price is in force at a time, and what does it say?

Pure. Reads the `rates` of a price row into exact numbers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

# Rate name -> what it multiplies. All are USD; `_per_mtok` per million tokens, `usd_per_request` per request.
RATE_NAMES = (
    "input_usd_per_mtok",
    "cache_read_usd_per_mtok",
    "cache_write_usd_per_mtok",
    "output_usd_per_mtok",
    "reasoning_usd_per_mtok",
    "audio_input_usd_per_mtok",
    "audio_output_usd_per_mtok",
    "usd_per_request",
)
MAX_RATE = Decimal("1000000")


class PriceError(ValueError):
    """A rate that is not a finite, non-negative decimal number, or not a rate we know."""


@dataclass(frozen=True, slots=True)
class PriceVersion:
    """One immutable price. `rates` holds only the rates that were stated."""

    id: int
    deployment_id: int
    effective_from_unix_s: float
    rates: Mapping[str, Decimal]


def parse_rates(raw: Mapping[str, object]) -> dict[str, Decimal]:
    """Read {"input_usd_per_mtok": "0.05", ...}. Raises PriceError naming the rate and what is wrong."""
    rates: dict[str, Decimal] = {}
    for name, text in raw.items():
        if name not in RATE_NAMES:
            raise PriceError(f"{name}: no such rate; known are {', '.join(RATE_NAMES)}")
        if isinstance(text, bool) or not isinstance(text, (str, int, Decimal)):
            raise PriceError(f'{name}: write the number as a text, for example "0.05"')
        try:
            value = Decimal(text)
        except InvalidOperation:
            raise PriceError(f"{name}: {text!r} is not a number") from None
        if not value.is_finite() or not 0 <= value <= MAX_RATE:
            raise PriceError(f"{name}: {text!r} is outside 0 to {MAX_RATE} USD")
        rates[name] = value
    if not rates:
        raise PriceError("a price states at least one rate")
    return rates


def price_at(versions: Sequence[PriceVersion], at_unix_s: float) -> PriceVersion | None:
    """The version in force: the newest that had begun. `versions` are sorted by `effective_from_unix_s`."""
    index = bisect_right(versions, at_unix_s, key=lambda version: version.effective_from_unix_s)
    return versions[index - 1] if index else None
