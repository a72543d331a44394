"""Which price is in force at a time, and what does it say?

Pure. Reads the `rates` of a price row into exact numbers. A rate is named, and may be limited:

    input_usd_per_mtok                what a million input tokens cost
    input_usd_per_mtok>200000         all of them, when the request sends more than 200,000 tokens (a cliff)
    input_usd_per_mtok+200000         those of them beyond 200,000 (marginal)
    input_usd_per_mtok@flex           when the answer echoes this service tier
    input_usd_per_mtok@flex>200000    both
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final, NamedTuple

# Rate name -> what it multiplies. All are USD; `_per_mtok` per million tokens, `usd_per_request` per request.
RATE_NAMES = (
    "input_usd_per_mtok",
    "cache_read_usd_per_mtok",
    "cache_write_usd_per_mtok",
    "cache_write_1h_usd_per_mtok",
    "output_usd_per_mtok",
    "reasoning_usd_per_mtok",
    "audio_input_usd_per_mtok",
    "audio_output_usd_per_mtok",
    "usd_per_request",
)
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
}
# Answers that echo one of these are charged at the rates that name no service tier.
STANDARD_TIERS: Final = frozenset({"", "auto", "default", "standard", "on_demand"})
ABOVE, BEYOND = ">", "+"
_LIMIT = re.compile(r"[@>+]")
_KEY = re.compile(r"([a-z0-9_]+)(?:@([a-z0-9][a-z0-9_-]{0,39}))?(?:([>+])([1-9][0-9]{0,11}))?")


class PriceError(ValueError):
    """A rate that is not a finite, non-negative decimal number, or not a rate we know."""


@dataclass(frozen=True, slots=True)
class PriceVersion:
    """One immutable price. `rates` holds only the rates that were stated."""

    id: int
    deployment_id: int
    effective_from_unix_s: float
    rates: Mapping[str, Decimal]


class RateKey(NamedTuple):
    """The name of a rate, taken apart. `limit` is ABOVE, BEYOND or empty; `start_tokens` belongs to it."""

    name: str
    service_tier: str = ""
    limit: str = ""
    start_tokens: int = 0


def is_limited_rate(text: str) -> bool:
    """Say whether this names a rate with a service tier or a number of tokens, rightly written or not."""
    return _LIMIT.split(text, maxsplit=1)[0] in RATE_NAMES and text not in RATE_NAMES


def read_rate_key(key: str) -> RateKey:
    """Take `input_usd_per_mtok@flex>200000` apart. Raises PriceError."""
    match = _KEY.fullmatch(key)
    if match is None or match[1] not in RATE_NAMES:
        raise PriceError(
            f"{key}: no such rate; known are {', '.join(RATE_NAMES)}, each also as NAME@TIER, NAME>TOKENS"
        )
    name, tier, limit, start = match.groups()
    if tier in STANDARD_TIERS:
        raise PriceError(f"{key}: {tier} is the standard tier, its rate stands without a tier")
    if limit == BEYOND and name == "usd_per_request":
        raise PriceError(f"{key}: one request has no part beyond a number of tokens")
    return RateKey(name, tier or "", limit or "", int(start or 0))


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
            value = Decimal(text)
        except InvalidOperation:
            raise PriceError(f"{name}: {text!r} is not a number") from None
        if not value.is_finite() or not 0 <= value <= MAX_RATE:
            raise PriceError(f"{name}: {text!r} is outside 0 to {MAX_RATE} USD")
        rates[name] = value
    if not rates:
        raise PriceError("a price states at least one rate")
    if not is_plain:
        _check_limited(rates)
    return rates


def _check_limited(rates: Mapping[str, Decimal]) -> None:
    """A limited rate must not leave a hole below it, nor claim the same tokens as another."""
    if len(rates) > MAX_RATES:
        raise PriceError(f"a price states at most {MAX_RATES} rates")
    limits: dict[tuple[str, str], str] = {}
    for text in rates:
        key = read_rate_key(text)
        if text == key.name:
            continue
        stand_in: str | None = key.name
        while stand_in is not None and stand_in not in rates:
            stand_in = FALLBACKS.get(stand_in)
        if stand_in is None:
            raise PriceError(f"{text}: {key.name} is missing, which holds where this one does not")
        if key.limit and limits.setdefault((key.name, key.service_tier), key.limit) != key.limit:
            raise PriceError(
                f"{text}: NAME>TOKENS and NAME+TOKENS of one rate overlap; state one kind of them"
            )


def price_at(versions: Sequence[PriceVersion], at_unix_s: float) -> PriceVersion | None:
    """The version in force: the newest that had begun. `versions` are sorted by `effective_from_unix_s`."""
    index = bisect_right(versions, at_unix_s, key=lambda version: version.effective_from_unix_s)
    return versions[index - 1] if index else None
