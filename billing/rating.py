"""What does a usage cost at a price? Exact charge lines and one total.

Pure. One exact sum in integers, rounded half up to whole nano-USD once per attempt; floats never take part.

Which units are charged at which rate (a rate that is not stated falls back to the one named; without a
fallback the unit is not charged):

    input         input - cache_read - cache_write - audio_input, at least 0       input
    cache_read    cache_read                                                       cache_read, else input
    cache_write   cache_write                                                      cache_write, else input
    audio_input   audio_input                                                      audio_input, else input
    output        output - reasoning (if it has a rate) - audio_output, at least 0 output
    reasoning     reasoning, if its rate is stated                                 reasoning
    audio_output  audio_output                                                     audio_output, else output
    request       1                                                                usd_per_request

Providers are known to report more cached than sent tokens (373 of 235): then the cached ones are charged as
stated and the uncached ones are none. Lines sum to the total: each is rounded down, and the nano-USD that are
missing go to the lines with the largest remainders (the earlier line when two are equal).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final, NamedTuple

from billing.pricebook import PriceVersion
from billing.usage import Usage

NANOUSD_PER_USD: Final = 1_000_000_000
# USD per million tokens -> nano-USD per token.
NANOUSD_PER_TOKEN: Final = 1_000
MAX_CACHED_PRICES: Final = 10_000

INPUT, CACHE_READ, CACHE_WRITE, AUDIO_INPUT, OUTPUT, REASONING, AUDIO_OUTPUT, REQUEST = (
    "input",
    "cache_read",
    "cache_write",
    "audio_input",
    "output",
    "reasoning",
    "audio_output",
    "request",
)


class UsageUnknownError(ValueError):
    """Usage without numbers cannot be rated: unknown is not zero."""


# Named tuples: this is the hot path, and they are made in half of a frozen dataclass's time (0.4 µs).
class Line(NamedTuple):
    """One meter of a charge. For the meter `request`, the rate is USD per request, not per million tokens."""

    meter: str
    quantity: int
    usd_per_mtok: Decimal
    nanousd: int


class Rated(NamedTuple):
    """What one attempt costs: the total and the lines that sum to it. Lines of nothing are left out."""

    total_nanousd: int
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class _Rates:
    """A price as integers: nano-USD per unit times `scale`. None: not stated and no fallback."""

    source: object
    scale: int
    input: tuple[int, Decimal] | None
    cache_read: tuple[int, Decimal] | None
    cache_write: tuple[int, Decimal] | None
    audio_input: tuple[int, Decimal] | None
    output: tuple[int, Decimal] | None
    reasoning: tuple[int, Decimal] | None
    audio_output: tuple[int, Decimal] | None
    request: tuple[int, Decimal] | None


_cache: dict[int, _Rates] = {}


def rate(usage: Usage, price: PriceVersion) -> Rated:
    """Rate one attempt's usage at one price. Raises UsageUnknownError when input or output is not known."""
    parts, scale = _parts_of(usage, price)
    return _sum(parts, scale)


def total_nanousd(usage: Usage, price: PriceVersion) -> int:
    """`rate(...)`'s total without its lines, for every request that is served. Raises UsageUnknownError."""
    parts, scale = _parts_of(usage, price)
    total = 0
    for _, quantity, per_unit in parts:
        total += quantity * per_unit[0]
    return total if scale == 1 else (2 * total + scale) // (2 * scale)


def _parts_of(usage: Usage, price: PriceVersion) -> tuple[list[tuple[str, int, tuple[int, Decimal]]], int]:
    sent, generated = usage.input_tokens, usage.output_tokens
    if sent is None or generated is None or usage.kind == "unknown":
        raise UsageUnknownError("usage without token counts cannot be rated")
    rates = _cache.get(price.id)
    # The id finds the entry, the identity of the rates proves it: a test may reuse an id.
    if rates is None or rates.source is not price.rates:
        rates = _prepare(price)
    # (meter, quantity, (scaled nano-USD per unit, rate)), without meters of nothing.
    parts: list[tuple[str, int, tuple[int, Decimal]]] = []
    cache_read, cache_write, audio_input = (
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.audio_input_tokens,
    )
    uncached = sent - cache_read - cache_write - audio_input
    if uncached > 0 and rates.input is not None:
        parts.append((INPUT, uncached, rates.input))
    if cache_read and rates.cache_read is not None:
        parts.append((CACHE_READ, cache_read, rates.cache_read))
    if cache_write and rates.cache_write is not None:
        parts.append((CACHE_WRITE, cache_write, rates.cache_write))
    if audio_input and rates.audio_input is not None:
        parts.append((AUDIO_INPUT, audio_input, rates.audio_input))
    plain = generated - usage.audio_output_tokens
    if rates.reasoning is not None:
        plain -= usage.reasoning_tokens
    if plain > 0 and rates.output is not None:
        parts.append((OUTPUT, plain, rates.output))
    if usage.reasoning_tokens and rates.reasoning is not None:
        parts.append((REASONING, usage.reasoning_tokens, rates.reasoning))
    if usage.audio_output_tokens and rates.audio_output is not None:
        parts.append((AUDIO_OUTPUT, usage.audio_output_tokens, rates.audio_output))
    if rates.request is not None:
        parts.append((REQUEST, 1, rates.request))
    return parts, rates.scale


def _sum(parts: list[tuple[str, int, tuple[int, Decimal]]], scale: int) -> Rated:
    amounts = [quantity * per_unit[0] for _, quantity, per_unit in parts]
    if scale == 1:
        whole, total = amounts, sum(amounts)
    else:
        total = (2 * sum(amounts) + scale) // (2 * scale)
        whole = [amount // scale for amount in amounts]
        missing = total - sum(whole)
        if missing:
            # At most one each: fewer are missing than lines have a remainder.
            by_remainder = sorted(range(len(amounts)), key=lambda index: -(amounts[index] % scale))
            for index in by_remainder[:missing]:
                whole[index] += 1
    return Rated(
        total,
        tuple(
            [
                Line(meter, quantity, per_unit[1], nanousd)
                for (meter, quantity, per_unit), nanousd in zip(parts, whole, strict=True)
            ]
        ),
    )


def _prepare(price: PriceVersion) -> _Rates:
    stated = price.rates
    exact: dict[str, Fraction] = {
        name: Fraction(value) * (NANOUSD_PER_USD if name == "usd_per_request" else NANOUSD_PER_TOKEN)
        for name, value in stated.items()
    }
    scale = 1
    for value in exact.values():
        # Denominators are powers of ten without their common factors; one multiple of all makes integers.
        scale = math.lcm(scale, value.denominator)

    def find(name: str, fallback: str = "") -> tuple[int, Decimal] | None:
        for candidate in (name, fallback):
            if candidate in exact:
                return int(exact[candidate] * scale), stated[candidate]
        return None

    rates = _Rates(
        source=stated,
        scale=scale,
        input=find("input_usd_per_mtok"),
        cache_read=find("cache_read_usd_per_mtok", "input_usd_per_mtok"),
        cache_write=find("cache_write_usd_per_mtok", "input_usd_per_mtok"),
        audio_input=find("audio_input_usd_per_mtok", "input_usd_per_mtok"),
        output=find("output_usd_per_mtok"),
        reasoning=find("reasoning_usd_per_mtok"),
        audio_output=find("audio_output_usd_per_mtok", "output_usd_per_mtok"),
        request=find("usd_per_request"),
    )
    if len(_cache) >= MAX_CACHED_PRICES:
        _cache.clear()
    _cache[price.id] = rates
    return rates
