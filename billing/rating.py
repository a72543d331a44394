"""What does a usage cost at a price? Exact charge lines and one total.

Pure. One exact sum in integers, rounded half up to whole nano-USD once per attempt; floats never take part.

Which units are charged at which rate (a rate that is not stated falls back to the one named; without a
fallback the unit is not charged):

    input         input - cache_read - cache_write - audio_input, at least 0       input
    cache_read    cache_read                                                       cache_read, else input
    cache_write   cache_write - cache_write_1h (if it has a rate)                  cache_write, else input
    cache_write_1h  cache_write_1h, if its rate is stated                          cache_write_1h
    audio_input   audio_input                                                      audio_input, else input
    image_input   image_input, if its rate is stated                               image_input
    output        output - reasoning (if it has a rate) - audio_output, at least 0 output
    reasoning     reasoning, if its rate is stated                                 reasoning
    audio_output  audio_output                                                     audio_output, else output
    image_output  image_output, if its rate is stated                              image_output
    request       1                                                                usd_per_request
    search        search_count                                                     usd_per_search
    image         image_count                                                      usd_per_image
    audio_second  audio_s                                                          usd_per_audio_hour

Tokens of images that are charged apart are taken out of input and output; those of a cache are charged as cached.
Nothing is charged twice: where images or hours of audio have a price of their own and are counted, the tokens that
the usage names for the same images or audio cost nothing, unless these tokens have a rate of their own too.

Which of its limited rates (`pricebook`) holds is looked up first, by the service tier that the answer echoed and by
`input`; the fallbacks above come after. A tier without rates of its own is charged at the standard ones. Of
a marginal rate (NAME+TOKENS), the meter's units up to the limit stay at the rate below. Of a price with windows
(NAME~HH:MM-HH:MM) `price_at` has chosen what holds; rated as it stands, it is charged at the rates without a window.

Providers are known to report more cached than sent tokens (373 of 235): then the cached ones are charged as
stated and the uncached ones are none. Lines sum to the total: each is rounded down, and the nano-USD that are
missing go to the lines with the largest remainders (the earlier line when two are equal).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, NamedTuple

from billing.pricebook import (
    ABOVE,
    BEYOND,
    BY_THE_PIECE,
    RATE_NAMES,
    WITHIN,
    PriceVersion,
    RateKey,
    read_rate_key,
)
from billing.usage import Usage

NANOUSD_PER_USD: Final = 1_000_000_000
# USD per million tokens -> nano-USD per token.
NANOUSD_PER_TOKEN: Final = 1_000
MAX_CACHED_PRICES: Final = 10_000

(
    INPUT,
    CACHE_READ,
    CACHE_WRITE,
    CACHE_WRITE_1H,
    AUDIO_INPUT,
    OUTPUT,
    REASONING,
    AUDIO_OUTPUT,
    REQUEST,
    SEARCH,
    IMAGE_INPUT,
    IMAGE_OUTPUT,
    IMAGE,
    AUDIO_SECOND,
) = (
    "input",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "audio_input",
    "output",
    "reasoning",
    "audio_output",
    "request",
    "search",
    "image_input",
    "image_output",
    "image",
    "audio_second",
)
METERS: Final = (
    INPUT, CACHE_READ, CACHE_WRITE, CACHE_WRITE_1H, AUDIO_INPUT, OUTPUT, REASONING, AUDIO_OUTPUT, REQUEST, SEARCH,
    IMAGE_INPUT, IMAGE_OUTPUT, IMAGE, AUDIO_SECOND,
)  # fmt: skip
# For how many units the rate of a meter stands; that of all others for a million tokens.
PIECES: Final[Mapping[str, int]] = {REQUEST: 1, SEARCH: 1, IMAGE: 1, AUDIO_SECOND: 3600}
A_MILLION: Final = 1_000_000


class UsageUnknownError(ValueError):
    """Usage without numbers cannot be rated: unknown is not zero."""


# (meter, quantity, (nano-USD per unit times the scale, rate))
Part = tuple[str, int, tuple[int, Decimal]]


# Named tuples: this is the hot path, and they are made in half of a frozen dataclass's time (0.4 µs).
class Line(NamedTuple):
    """One meter of a charge. For the meters of PIECES the rate is not for a million tokens."""

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

    source: Any
    scale: int
    input: tuple[int, Decimal] | None
    cache_read: tuple[int, Decimal] | None
    cache_write: tuple[int, Decimal] | None
    cache_write_1h: tuple[int, Decimal] | None
    audio_input: tuple[int, Decimal] | None
    output: tuple[int, Decimal] | None
    reasoning: tuple[int, Decimal] | None
    audio_output: tuple[int, Decimal] | None
    request: tuple[int, Decimal] | None
    search: tuple[int, Decimal] | None
    image_input: tuple[int, Decimal] | None
    image_output: tuple[int, Decimal] | None
    image: tuple[int, Decimal] | None
    audio_second: tuple[int, Decimal] | None
    # Audio has a price by the hour and none of its own by the token.
    is_audio_by_hour: bool
    # Meter -> ((units up to which the rate before holds, rate beyond), ...), ascending; None: no marginal rates.
    marginal: Mapping[str, tuple[tuple[int, tuple[int, Decimal]], ...]] | None = None
    # Of a price with limited rates, what holds when; None: these rates hold always.
    variants: _Variants | None = None


@dataclass(frozen=True, slots=True)
class _Variants:
    """Service tier ("" is every other) -> (sizes of the input, ascending; rates up to each, and beyond the last)."""

    by_tier: Mapping[str, tuple[tuple[int, ...], tuple[_Rates, ...]]]

    def choose(self, service_tier: str, input_tokens: int) -> _Rates:
        starts, rates = self.by_tier.get(service_tier) or self.by_tier[""]
        return rates[bisect_left(starts, input_tokens)]


_cache: dict[int, _Rates] = {}
# Of prices with windows: (price, variant) -> rates, so that the hours of a day do not take each other's place.
_variant_cache: dict[tuple[int, int], _Rates] = {}


def rate(usage: Usage, price: PriceVersion) -> Rated:
    """Rate one attempt's usage at one price. Raises UsageUnknownError when input or output is not known."""
    parts, scale = parts_of(usage, price)
    return sum_parts(parts, scale)


def total_nanousd(usage: Usage, price: PriceVersion) -> int:
    """`rate(...)`'s total without its lines, for every request that is served. Raises UsageUnknownError."""
    parts, scale = parts_of(usage, price)
    total = 0
    for _, quantity, per_unit in parts:
        total += quantity * per_unit[0]
    return total if scale == 1 else (2 * total + scale) // (2 * scale)


def parts_of(usage: Usage, price: PriceVersion) -> tuple[list[Part], int]:
    """The units of each meter with their rate, and the scale of all rates. Raises UsageUnknownError."""
    # At once: one by one, by name, takes longer.
    (
        kind,
        sent,
        generated,
        cache_read,
        cache_write,
        reasoning,
        audio_input,
        audio_output,
        _,
        tier,
        _,
        write_1h,
        searches,
        image_input,
        image_output,
        images,
        seconds,
    ) = usage
    if sent is None or generated is None or kind == "unknown":
        raise UsageUnknownError("usage without token counts cannot be rated")
    rates = _cache.get(price.id)
    # The id finds the entry, the identity of the rates proves it: a test may reuse an id.
    if rates is None or rates.source is not price.rates:
        rates = _find_variant(price) if price.variant else _prepare(price)
    if rates.variants is not None:
        rates = rates.variants.choose(tier, sent)
    parts: list[Part] = []  # without meters of nothing
    uncached = sent - cache_read - cache_write - audio_input
    image_input = max(0, min(image_input, uncached)) if rates.image_input is not None else 0
    uncached -= image_input  # of an image that a cache gave back the tokens are charged as cached
    if uncached > 0 and rates.input is not None:
        parts.append((INPUT, uncached, rates.input))
    if cache_read and rates.cache_read is not None:
        parts.append((CACHE_READ, cache_read, rates.cache_read))
    if cache_write and rates.cache_write is not None:
        if write_1h and rates.cache_write_1h is not None:
            write_1h = min(write_1h, cache_write)
            cache_write -= write_1h
            if cache_write:
                parts.append((CACHE_WRITE, cache_write, rates.cache_write))
            parts.append((CACHE_WRITE_1H, write_1h, rates.cache_write_1h))
        else:
            parts.append((CACHE_WRITE, cache_write, rates.cache_write))
    if audio_input and rates.audio_input is not None and not (seconds and rates.is_audio_by_hour):
        parts.append((AUDIO_INPUT, audio_input, rates.audio_input))
    if image_input and rates.image_input is not None:
        parts.append((IMAGE_INPUT, image_input, rates.image_input))
    plain = generated - audio_output
    if rates.reasoning is not None:
        plain -= reasoning
    if image_output:
        image_output = min(image_output, max(plain, 0))
        if rates.image_output is not None:
            if image_output:
                parts.append((IMAGE_OUTPUT, image_output, rates.image_output))
            plain -= image_output
        elif images and rates.image is not None:
            plain -= image_output
    if plain > 0 and rates.output is not None:
        parts.append((OUTPUT, plain, rates.output))
    if reasoning and rates.reasoning is not None:
        parts.append((REASONING, reasoning, rates.reasoning))
    if audio_output and rates.audio_output is not None:
        parts.append((AUDIO_OUTPUT, audio_output, rates.audio_output))
    if rates.request is not None:
        parts.append((REQUEST, 1, rates.request))
    if searches and rates.search is not None:
        parts.append((SEARCH, searches, rates.search))
    if images and rates.image is not None:
        parts.append((IMAGE, images, rates.image))
    if seconds and rates.audio_second is not None:
        parts.append((AUDIO_SECOND, seconds, rates.audio_second))
    if rates.marginal is not None:
        parts = _split_marginal(parts, rates.marginal)
    return parts, rates.scale


def _split_marginal(
    parts: list[Part], marginal: Mapping[str, tuple[tuple[int, tuple[int, Decimal]], ...]]
) -> list[Part]:
    split = []
    for meter, quantity, per_unit in parts:
        begun = 0
        for start, beyond in marginal.get(meter, ()):
            if quantity <= start:
                break
            split.append((meter, start - begun, per_unit))
            begun, per_unit = start, beyond
        split.append((meter, quantity - begun, per_unit))
    return split


def sum_parts(parts: list[Part], scale: int) -> Rated:
    """Round the exact sum once, and divide it among the lines."""
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


def _find_variant(price: PriceVersion) -> _Rates:
    rates = _variant_cache.get((price.id, price.variant))
    if rates is None or rates.source is not price.rates:
        if len(_variant_cache) >= MAX_CACHED_PRICES:
            _variant_cache.clear()
        rates = _variant_cache[price.id, price.variant] = _read_price(price)
    return rates


def _prepare(price: PriceVersion) -> _Rates:
    if len(_cache) >= MAX_CACHED_PRICES:
        _cache.clear()
    rates = _cache[price.id] = _read_price(price)
    return rates


def _read_price(price: PriceVersion) -> _Rates:
    stated = price.rates
    if all(name in RATE_NAMES for name in stated):
        return _as_integers(stated, {}, source=stated)
    by_tier = _prepare_limited({name: rate for name, rate in stated.items() if WITHIN not in name})
    # Any rates will do here, but for their source: what holds is chosen for each usage.
    return replace(by_tier[""][1][0], source=stated, variants=_Variants(by_tier))


def _prepare_limited(stated: Mapping[str, Decimal]) -> dict[str, tuple[tuple[int, ...], tuple[_Rates, ...]]]:
    keys = {read_rate_key(text): value for text, value in stated.items()}
    by_tier = {}
    for tier in {key.service_tier for key in keys} | {""}:
        own = {key.name for key in keys if key.service_tier == tier}
        # A name that the tier prices goes by the tier's limits alone; the standard rate stands in below them.
        holding = {
            key: value
            for key, value in keys.items()
            if key.service_tier == tier or (not key.service_tier and (key.name not in own or not key.limit))
        }
        starts = tuple(sorted({key.start_tokens for key in holding if key.limit == ABOVE}))
        by_tier[tier] = (starts, tuple(_rates_above(holding, start) for start in (0, *starts)))
    return by_tier


def _rates_above(holding: Mapping[RateKey, Decimal], start_tokens: int) -> _Rates:
    """What holds for inputs above `start_tokens`, up to the next limit."""
    flat: dict[str, Decimal] = {}
    beyond: dict[str, list[tuple[int, Decimal]]] = {}
    # Standard rates first, so that a tier's own replace them; then by size, so that the largest reached one stays.
    for key in sorted(holding, key=lambda key: (key.service_tier, key.start_tokens)):
        if key.limit == BEYOND:
            beyond.setdefault(key.name, []).append((key.start_tokens, holding[key]))
        elif key.start_tokens <= start_tokens:
            flat[key.name] = holding[key]
    return _as_integers(flat, beyond, source=None)


def _as_integers(
    stated: Mapping[str, Decimal], beyond: Mapping[str, list[tuple[int, Decimal]]], *, source: object
) -> _Rates:
    def exactly(name: str, value: Decimal) -> Fraction:
        pieces = BY_THE_PIECE.get(name)
        return Fraction(value) * (NANOUSD_PER_TOKEN if pieces is None else Fraction(NANOUSD_PER_USD, pieces))

    exact = {name: exactly(name, value) for name, value in stated.items()}
    marginal = {
        name: [(n, exactly(name, value), value) for n, value in rows] for name, rows in beyond.items()
    }
    scale = 1
    for value in (*exact.values(), *[value for rows in marginal.values() for _, value, _ in rows]):
        # Denominators have few prime factors (those of ten, and of an hour); one multiple of all makes integers.
        scale = math.lcm(scale, value.denominator)

    def find(name: str, fallback: str = "") -> tuple[int, Decimal] | None:
        for candidate in (name, fallback):
            if candidate in exact:
                return int(exact[candidate] * scale), stated[candidate]
        return None

    return _Rates(
        source=source,
        scale=scale,
        input=find("input_usd_per_mtok"),
        cache_read=find("cache_read_usd_per_mtok", "input_usd_per_mtok"),
        cache_write=find("cache_write_usd_per_mtok", "input_usd_per_mtok"),
        cache_write_1h=find("cache_write_1h_usd_per_mtok"),
        audio_input=find("audio_input_usd_per_mtok", "input_usd_per_mtok"),
        output=find("output_usd_per_mtok"),
        reasoning=find("reasoning_usd_per_mtok"),
        audio_output=find("audio_output_usd_per_mtok", "output_usd_per_mtok"),
        request=find("usd_per_request"),
        search=find("usd_per_search"),
        image_input=find("image_input_usd_per_mtok"),
        image_output=find("image_output_usd_per_mtok"),
        image=find("usd_per_image"),
        audio_second=find("usd_per_audio_hour"),
        is_audio_by_hour="usd_per_audio_hour" in exact and "audio_input_usd_per_mtok" not in exact,
        marginal={
            name.removesuffix("_usd_per_mtok"): tuple(
                (n, (int(value * scale), rate)) for n, value, rate in rows
            )
            for name, rows in marginal.items()
        }
        or None,
    )
