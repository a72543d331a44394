"""Is what a provider's bill says what we recorded? Day by day and model by model.

Pure. Days are UTC days on both sides. A request counts on the day it began; the provider may count it when it ended.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final, NamedTuple

from billing.money import format_usd
from billing.provider_bills.bill import NO_COUNTS, BilledGroup, Counts

COMPARED: Final = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
WORDS: Final = {
    "input_tokens": "tokens sent",
    "cache_read_tokens": "tokens read from a cache",
    "cache_write_tokens": "tokens written to a cache",
    "output_tokens": "tokens generated",
}
# What a dated name has behind the one that is called: gpt-4o-2024-08-06, claude-haiku-4-5-20251001.
_DATE = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8}|latest)$", re.ASCII)
_SEPARATORS = re.compile(r"[\s._-]+")


class Verdict(StrEnum):
    """What comparing a model's day found."""

    MATCHED = "matched"
    PRICE_DRIFT = "price_drift"
    QUANTITY_DRIFT = "quantity_drift"
    COST_DRIFT = "cost_drift"
    MISSING_HERE = "missing_here"
    MISSING_THERE = "missing_there"


class Recorded(NamedTuple):
    """What we recorded of one upstream model on one day.

    `unpriced_count` and `unknown_count` are calls whose cost, whose usage nobody knows.
    """

    counts: Counts
    cost_nanousd: int
    unpriced_count: int = 0
    unknown_count: int = 0


class Tolerance(NamedTuple):
    """What is let pass: a share of the larger number, and of money at least so much a model and day."""

    ratio: Decimal = Decimal("0.005")
    least_nanousd: int = 10_000_000


@dataclass(frozen=True, slots=True)
class Compared:
    """One model's day. `upstream_model` is empty for what is no model of ours, or for a sum over all of them."""

    day: dt.date
    upstream_model: str
    billed_as: str
    verdict: Verdict
    reason: str
    billed: BilledGroup | None
    recorded: Recorded | None


def compare(
    billed: Sequence[BilledGroup],
    recorded: Mapping[tuple[dt.date, str], Recorded],
    *,
    matches: Mapping[str, str],
    tolerance: Tolerance,
) -> list[Compared]:
    """Compare a bill with what was recorded in its days. `matches`: the bill's name -> ours."""
    if all(not group.billed_as for group in billed):
        # The bill tells no models apart: only whole days can be compared.
        recorded = _by_day(recorded)
        matches = {"": ""}
    there: dict[tuple[dt.date, str, str], list[BilledGroup]] = defaultdict(list)
    for group in billed:
        if group.cost_nanousd or any(group.counts):
            model = matches.get(group.billed_as)
            there[(group.day, "?", group.billed_as) if model is None else (group.day, model, "")].append(
                group
            )
    here = {
        (day, model, ""): one
        for (day, model), one in recorded.items()
        if one.cost_nanousd or any(one.counts[1:])
    }
    return [
        _compare_one(key[0], key[1], there.get(key), here.get(key), tolerance)
        for key in sorted(there.keys() | here.keys())
    ]


def match_names(
    names: Iterable[str],
    upstream_models: Sequence[str],
    *,
    chosen: Mapping[str, str],
    is_same: Callable[[str, str], bool],
) -> dict[str, str]:
    """The bill's name -> our upstream model. What could be two of ours, or none, is left out: nobody guesses.

    In this order: what a person has `chosen`; the same name; the same but for case and separators; the same but for
    the date of a snapshot; what a list of models holds to be the same (`is_same`).
    """
    found: dict[str, str] = {}
    rules: tuple[Callable[[str, str], bool], ...] = (
        lambda name, ours: name.lower() == ours.lower(),
        lambda name, ours: _plain(name) == _plain(ours),
        lambda name, ours: _plain(_DATE.sub("", name)) == _plain(_DATE.sub("", ours)),
        is_same,
    )
    for name in names:
        if name in chosen:
            if chosen[name] in upstream_models:
                found[name] = chosen[name]
            continue
        for rule in rules:
            same = [ours for ours in upstream_models if name and rule(name, ours)]
            if same:
                if len(same) == 1:
                    found[name] = same[0]
                break
    return found


def _plain(name: str) -> str:
    return _SEPARATORS.sub("-", name.strip().lower())


def _by_day(recorded: Mapping[tuple[dt.date, str], Recorded]) -> dict[tuple[dt.date, str], Recorded]:
    days: dict[tuple[dt.date, str], Recorded] = {}
    for (day, _), one in recorded.items():
        before = days.get((day, ""), Recorded(Counts(0, 0, 0, 0, 0), 0))
        days[day, ""] = Recorded(
            Counts(*map(_add, before.counts, one.counts)),
            before.cost_nanousd + one.cost_nanousd,
            before.unpriced_count + one.unpriced_count,
            before.unknown_count + one.unknown_count,
        )
    return days


def _add(one: int | None, other: int | None) -> int:
    return (one or 0) + (other or 0)


def _compare_one(
    day: dt.date,
    model: str,
    groups: Sequence[BilledGroup] | None,
    recorded: Recorded | None,
    tolerance: Tolerance,
) -> Compared:
    billed = _join(groups) if groups else None
    verdict, reasons = _judge(billed, recorded, tolerance)
    if recorded is not None and recorded.unpriced_count:
        reasons.append(f"{recorded.unpriced_count:,} calls here have no price")
    if recorded is not None and recorded.unknown_count:
        reasons.append(f"of {recorded.unknown_count:,} calls here nobody knows the usage")
    ours = "" if model == "?" else model
    reason = "; ".join(reasons)
    return Compared(day, ours, billed.billed_as if billed else "", verdict, reason, billed, recorded)


def _judge(
    billed: BilledGroup | None, recorded: Recorded | None, tolerance: Tolerance
) -> tuple[Verdict, list[str]]:
    if recorded is None:
        return Verdict.MISSING_HERE, ["on the bill, and nothing like it was recorded"]
    if billed is None:
        return Verdict.MISSING_THERE, ["recorded, and not on the bill"]
    drifts = []
    for name in COMPARED:
        there, here = getattr(billed.counts, name), getattr(recorded.counts, name) or 0
        if there is not None and abs(there - here) > tolerance.ratio * max(there, here):
            drifts.append(f"{WORDS[name]}: {there:,} there, {here:,} here")
    if drifts:
        return Verdict.QUANTITY_DRIFT, drifts
    if billed.cost_nanousd is None:
        return Verdict.MATCHED, ["quantities agree; the file states no money"]
    gap = abs(billed.cost_nanousd - recorded.cost_nanousd)
    allowed = max(
        tolerance.ratio * max(billed.cost_nanousd, recorded.cost_nanousd), Decimal(tolerance.least_nanousd)
    )
    if gap <= allowed + billed.rounding_nanousd:
        return Verdict.MATCHED, []
    said = f"{format_usd(billed.cost_nanousd)} there, {format_usd(recorded.cost_nanousd)} here"
    if billed.counts[1:] == NO_COUNTS[1:]:
        return Verdict.COST_DRIFT, [f"{said}; the file states no quantities, so it may be either"]
    return Verdict.PRICE_DRIFT, [f"quantities agree; {said}"]


def _join(groups: Sequence[BilledGroup]) -> BilledGroup:
    """One group of all that a model is called on the bill."""
    if len(groups) == 1:
        return groups[0]
    first = groups[0]
    costs = [group.cost_nanousd for group in groups if group.cost_nanousd is not None]
    has_all = all(group.counts != NO_COUNTS for group in groups)
    columns = zip(*(group.counts for group in groups), strict=True)
    counts = Counts(
        *(
            sum(v for v in column if v is not None) if any(v is not None for v in column) else None
            for column in columns
        )
    )
    return BilledGroup(
        first.day,
        ", ".join(group.billed_as for group in groups)[:1000],
        counts if has_all else NO_COUNTS,
        sum(costs) if costs else None,
        sum(group.rounding_nanousd for group in groups),
        sum(group.line_count for group in groups),
    )
