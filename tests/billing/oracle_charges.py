"""What does an attempt cost, and what is charged for it? Worked out a second time, for tests, in plain fractions.

Pure. It shares no code with `billing` and no way of counting either: no integers with a scale, nothing prepared,
nothing remembered; every question goes through all facts. Usage is in the words of the journal.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Final, NamedTuple

_RATE = re.compile(r"(\w+?)(?:@([a-z]+))?(?:~(\d\d):(\d\d)-(\d\d):(\d\d))?(?:([>+])(\d+))?")
METERS: Final = (
    "input", "cache_read", "cache_write", "cache_write_1h", "audio_input", "output", "reasoning", "audio_output",
    "request", "search", "image_input", "image_output", "image", "audio_second",
)  # fmt: skip
# What one of them is of what its rate is stated for.
_PIECES: Final = {"request": 1, "search": 1, "image": 1, "audio_second": Fraction(1, 3600)}


class Price(NamedTuple):
    """Rates of a deployment from `begins` on, in USD a million tokens, or a piece."""

    id: int
    deployment: int
    begins: dt.datetime
    rates: Mapping[str, str]


class Term(NamedTuple):
    """What a scope is charged from `begins` on: a factor of the cost, a price of its own, or (neither) no terms."""

    id: int
    tenant: int | None
    model: int | None
    deployment: int | None
    meter: str
    begins: dt.datetime
    factor: Fraction | None = None
    own: Mapping[str, str] | None = None


class Line(NamedTuple):
    """Units of a meter at one rate (USD a million tokens, or a piece), and what they make in nano-USD.

    `sold_by`: "factor" or "price", and which; 0 where the tenant is charged the cost.
    """

    meter: str
    units: int
    rate: Fraction
    nanousd: int
    sold_by: tuple[str, int] = ("factor", 0)


class Rate(NamedTuple):
    """What a name is charged at: `usd`, and beyond so many units another; None: nothing is stated."""

    usd: Fraction | None
    beyond: tuple[tuple[int, Fraction], ...]


def half_up(exact: Fraction) -> int:
    """The nearest whole number, a half away from zero."""
    size = int(abs(exact) + Fraction(1, 2))
    return size if exact >= 0 else -size


def find_price(prices: Iterable[Price], deployment: int, at: dt.datetime) -> Price | None:
    """The newest price that had begun."""
    begun = [price for price in prices if price.deployment == deployment and price.begins <= at]
    return max(begun, key=lambda price: price.begins, default=None)


def find_first_price(prices: Iterable[Price], deployment: int) -> Price | None:
    """The oldest price there is."""
    own = [price for price in prices if price.deployment == deployment]
    return min(own, key=lambda price: price.begins, default=None)


def cost_lines(usage: Mapping[str, Any], rates: Mapping[str, str], at: dt.datetime) -> list[Line]:
    """The lines of a usage at a price; their sum is rounded once."""
    return _round(_parts(usage, rates, at))


def charge_lines(
    usage: Mapping[str, Any],
    rates: Mapping[str, str],
    at: dt.datetime,
    terms: Sequence[Term],
    *,
    tenant: int,
    model: int,
    deployment: int,
) -> list[Line]:
    """The lines of what a tenant is charged: by the most specific terms of that moment, else the cost."""
    default, by_meter = (Fraction(1), 0), dict[str, tuple[Fraction, int]]()
    for whose in (tenant, None):
        for what in ((None, deployment), (model, None), (None, None)):
            scope = [one for one in terms if (one.tenant, one.model, one.deployment) == (whose, *what)]
            newest: dict[str, Term] = {}
            for one in sorted(scope, key=lambda one: one.begins):
                if one.begins <= at:
                    newest[one.meter] = one
            for meter, one in newest.items():
                if meter and one.factor is not None:
                    by_meter.setdefault(meter, (one.factor, one.id))
            whole = newest.get("")
            if whole is not None and whole.own is not None:
                own = cost_lines(usage, whole.own, at)
                return [line._replace(sold_by=("price", whole.id)) for line in own]
            if whole is not None and whole.factor is not None:
                default = whole.factor, whole.id
                break
        else:
            continue
        break
    factors = {meter: by_meter.get(meter, default) for meter in METERS}
    parts = [(meter, units, usd * factors[meter][0]) for meter, units, usd in _parts(usage, rates, at)]
    return [line._replace(sold_by=("factor", factors[line.meter][1])) for line in _round(parts)]


def _parts(
    usage: Mapping[str, Any], rates: Mapping[str, str], at: dt.datetime
) -> list[tuple[str, int, Fraction]]:
    """(meter, units, USD) of each stretch of units with one rate."""

    def look_up(name: str) -> Rate:
        return _rate_of(rates, name, at, usage["tier"], usage["input"])

    def or_else(name: str, other: str) -> Rate:
        own = look_up(name)
        return own if own.usd is not None else Rate(look_up(other).usd, own.beyond)

    sent, made = usage["input"], usage["output"]
    read, written, heard = usage["cache_read"], usage["cache_write"], usage["audio_in"]
    for_an_hour = min(usage.get("cache_write_1h", 0), written)
    hour, thought = look_up("cache_write_1h_usd_per_mtok"), look_up("reasoning_usd_per_mtok")
    if hour.usd is None:
        for_an_hour = 0
    reasoned = usage["reasoning"] if thought.usd is not None else 0
    spoken = usage["audio_out"]
    text_in = "input_usd_per_mtok"
    text_out = "output_usd_per_mtok"
    # Pictures: apart where they are priced apart; paid for with the picture itself where that has a price.
    pictures, seconds = usage.get("images", 0), usage.get("audio_s", 0)
    shown, drawn = look_up("image_input_usd_per_mtok"), look_up("image_output_usd_per_mtok")
    by_picture, by_hour = look_up("usd_per_image"), look_up("usd_per_audio_hour")
    fresh = max(0, sent - read - written - heard)
    seen = min(usage.get("image_in", 0), fresh) if shown.usd is not None else 0
    painted = min(usage.get("image_out", 0), max(0, made - reasoned - spoken))
    kept_apart = drawn.usd is not None or (by_picture.usd is not None and pictures > 0)
    if seconds and by_hour.usd is not None and look_up("audio_input_usd_per_mtok").usd is None:
        spoken_to = 0
    else:
        spoken_to = heard
    meters = [
        ("input", fresh - seen, look_up(text_in)),
        ("cache_read", read, or_else("cache_read_usd_per_mtok", text_in)),
        ("cache_write", written - for_an_hour, or_else("cache_write_usd_per_mtok", text_in)),
        ("cache_write_1h", for_an_hour, hour),
        ("audio_input", spoken_to, or_else("audio_input_usd_per_mtok", text_in)),
        ("image_input", seen, shown),
        ("output", made - reasoned - spoken - (painted if kept_apart else 0), look_up(text_out)),
        ("reasoning", reasoned, thought),
        ("audio_output", spoken, or_else("audio_output_usd_per_mtok", text_out)),
        ("request", 1, look_up("usd_per_request")),
        ("image_output", painted, drawn),
        ("search", usage.get("searches", 0), look_up("usd_per_search")),
        ("image", pictures, by_picture),
        ("audio_second", seconds, by_hour),
    ]
    parts = []
    for meter, units, rate in meters:
        if rate.usd is None:
            continue
        steps = [(0, rate.usd), *rate.beyond]
        ends = [start for start, _ in rate.beyond] + [units]
        for (start, usd), end in zip(steps, ends, strict=True):
            if min(end, units) > start:
                parts.append((meter, min(end, units) - start, usd))
    return parts


def _rate_of(rates: Mapping[str, str], name: str, at: dt.datetime, tier: str, sent: int) -> Rate:
    """Of all that is said of a name what holds now: for the tier before for all, in a window before always."""
    minute = at.hour * 60 + at.minute
    said: dict[str, list[tuple[bool, str, int, Fraction]]] = {"": []}
    for text, usd in rates.items():
        match = _RATE.fullmatch(text)
        assert match is not None, text
        found, own_tier, *hours, limit, start = match.groups()
        is_timed = hours[0] is not None
        if is_timed:
            begins, ends = int(hours[0]) * 60 + int(hours[1]), int(hours[2]) * 60 + int(hours[3])
            inside = begins <= minute < ends if begins < ends else minute >= begins or minute < ends
            if not inside:
                continue
        if found == name:
            said.setdefault(own_tier or "", []).append(
                (is_timed, limit or "", int(start or 0), Fraction(usd))
            )
    base: Fraction | None = None
    holding: list[tuple[str, int, Fraction]] = []
    for group in (said[""], said.get(tier, []) if tier else []):
        # What is more special takes away the limits of what is less so, and stands upon its rate without a limit.
        for is_timed in (False, True):
            own = [row[1:] for row in group if row[0] == is_timed]
            if own:
                base = next((usd for limit, _, usd in own if not limit), base)
                holding = [row for row in own if row[0]]
    beyond = sorted((start, usd) for limit, start, usd in holding if limit == "+")
    reached = sorted((start, usd) for limit, start, usd in holding if limit == ">" and sent > start)
    return Rate(reached[-1][1] if reached else base, tuple(beyond))


def _round(parts: Sequence[tuple[str, int, Fraction]]) -> list[Line]:
    """Round the sum half up; each line gets its whole nano-USD, and those with the largest rests one more."""
    exact = [units * usd * 10**9 * _PIECES.get(meter, Fraction(1, 10**6)) for meter, units, usd in parts]
    whole = [int(amount) for amount in exact]
    missing = half_up(sum(exact, Fraction(0))) - sum(whole)
    largest = sorted(range(len(exact)), key=lambda place: (whole[place] - exact[place], place))
    for place in largest[:missing]:
        whole[place] += 1
    return [Line(*part, amount) for part, amount in zip(parts, whole, strict=True)]
