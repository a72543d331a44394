"""How much was spent, by whom, on what, against the period before?

Reads: the rollups by day and by label (by `billing.reports` and `label_rows`) and names. The page, the CSV and the
XLSX of one question all come from one `read_spend`; all its reads see one moment, so its total is the sum of its rows,
of its days and of its series.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import sub
from typing import Final, NamedTuple

from django.db.models import Case, F, Sum, Value, When

from billing import label_rows, reports
from billing.label_reports import Labels, read_label_costs_by_day, read_sums_by_label
from billing.models import Label
from billing.reports import DayTotals, Scope, Spent, Sums
from billing.spend_questions import DAY, Question
from billing.spend_rows import NOTHING, BothPeriods, MadeWhenSeen, Row

SERIES_SHOWN: Final = 7
NO_NAME: Final = {
    "model": "no model",
    "provider": "no provider",
    "deployment": "no deployment",
    "policy": "no policy",
    "rule": "no rule",
    "app": "no app named",
    "user": "no end user named",
    "tag": "unallocated",
}
# In the chart's query: everything that is in no series of its own. Ids of rows begin at 1, `NONE` is 0.
_OTHERS: Final = -1


class Series(NamedTuple):
    """One colour of the chart: nano-USD by day."""

    name: str
    nanousd: tuple[int, ...]

    @property
    def total_nanousd(self) -> int:
        return sum(self.nanousd)


@dataclass(frozen=True, slots=True)
class Spend:
    """The answer to one question. `rows`: dearest first (days: newest first); they sum to `total`."""

    question: Question
    rows: Sequence[Row]
    total: Row
    days: tuple[dt.date, ...]
    series: tuple[Series, ...]

    @property
    def day_totals_nanousd(self) -> list[int]:
        """What each day cost, over all series."""
        return [sum(parts) for parts in zip(*(one.nanousd for one in self.series), strict=True)]


def read_spend(question: Question) -> Spend:
    """Answer in seven queries at most, whatever the number of keys. Rows have no names yet: `with_names`."""
    with reports.one_moment():
        if question.by == "day":
            return _by_day(question)
        found = read_periods(question)
        row_ids = found.list_dearest_first()
        days, series = _series(question, found, row_ids)
    return Spend(question, MadeWhenSeen(row_ids, found.row_of), found.total(), days, series)


def read_periods(question: Question) -> BothPeriods:
    """What each one spent, now and before; who did nothing in both periods is not there."""
    assert question.by != "day"
    if question.label_group is not None:
        return _by_label(question, question.label_group)
    column = reports.DIMENSIONS[question.by][0]
    period, scope = question.period, question.scope
    # Two queries that sum what they need cost half of one with a condition in every sum.
    return BothPeriods(
        label_rows.read_sums_by(column, period.first_day, period.last_day, scope, DayTotals),
        label_rows.read_sums_by(column, period.before_first_day, period.before_last_day, scope, Spent),
    )


def _by_label(question: Question, group: Labels) -> BothPeriods:
    """One row a value, and one without id for what has none: what the values leave of the total."""
    period, scope = question.period, question.scope
    now = _sums_by_label(DayTotals, period.first_day, period.last_day, scope, group)
    before = _sums_by_label(Spent, period.before_first_day, period.before_last_day, scope, group)
    return BothPeriods(now, before)


def _sums_by_label(
    kind: type[Spent], first_day: dt.date, last_day: dt.date, scope: Scope, group: Labels
) -> dict[int | None, Sums]:
    found = read_sums_by_label(kind, first_day, last_day, scope, group)
    whole = label_rows.read_total(first_day, last_day, scope, kind)
    left = tuple(map(sub, whole, reports.sum_up(kind, found.values())))
    return {**found, None: left} if any(left) else found


def with_names(question: Question, rows: Sequence[Row]) -> list[Row]:
    """The same rows with what they are called; one query. A page asks for those that it shows."""
    if question.by == "day":
        return list(rows)
    table = Label if question.label_group is not None else reports.DIMENSIONS[question.by][1]
    names = reports.names_of(table, [row.id for row in rows if row.id is not None])
    return [replace(row, name=_name(question, row.id, names)) for row in rows]


def _by_day(question: Question) -> Spend:
    period, scope = question.period, question.scope
    points = reports.series_by_day(first_day=period.first_day, last_day=period.last_day, scope=scope)
    rows = tuple(
        Row(None, point.day.isoformat(), point.totals, NOTHING, point.day) for point in reversed(points)
    )
    before = label_rows.read_total(period.before_first_day, period.before_last_day, scope, Spent)
    total = Row(None, "Total", reports.add_up(DayTotals, [point.totals for point in points]), Spent(*before))
    costs = Series("Spend", tuple(point.totals.cost_nanousd for point in points))
    return Spend(question, rows, total, tuple(point.day for point in points), (costs,))


def _series(
    question: Question, found: BothPeriods, row_ids: Sequence[int | None]
) -> tuple[tuple[dt.date, ...], tuple[Series, ...]]:
    """The dearest rows by day, and the others together."""
    period = question.period
    days = tuple(period.first_day + DAY * index for index in range(period.day_count))
    spending = [row_id for row_id in row_ids if found.cost_nanousd(row_id)]
    shown = with_names(question, [found.row_of(row_id) for row_id in spending[:SERIES_SHOWN]])
    costs = _costs_by_day(question, [row.id for row in shown])
    buckets = [(row.name, reports.NONE if row.id is None else row.id) for row in shown]
    if len(spending) > len(shown):
        buckets.append((f"{len(spending) - len(shown):,} others", _OTHERS))
    return days, tuple(
        Series(name, tuple(costs.get((day, bucket), 0) for day in days)) for name, bucket in buckets
    )


def _costs_by_day(question: Question, ids: list[int | None]) -> dict[tuple[dt.date, int], int]:
    if not ids:
        return {}
    assert question.by != "day"
    if question.label_group is not None:
        return _label_costs_by_day(question, question.label_group, ids)
    column = reports.DIMENSIONS[question.by][0]
    named = [row_id for row_id in ids if row_id is not None]
    if question.by == "key" and len(question.label_ids) > 1:
        return _key_costs_by_day(question, named)
    if column in reports.OF_DEPLOYMENT:
        owner_of = reports.owner_of_deployments(column)
        column = "deployment_id"
        cases = [
            When(deployment__in=[pk for pk, owner in owner_of.items() if owner == row_id], then=Value(row_id))
            for row_id in named
        ]
    else:
        cases = [When(**{f"{column}__in": named}, then=F(column))]
    if None in ids:
        cases.append(When(**{f"{column}__isnull": True}, then=Value(reports.NONE)))
    found: dict[tuple[dt.date, int], int] = {}
    # Each day is in one of these.
    for part in label_rows.list_rows(
        question.period.first_day, question.period.last_day, question.scope, by=column
    ):
        rows = (
            part.annotate(bucket=Case(*cases, default=Value(_OTHERS)))
            .values("day", "bucket")
            .annotate(cost=Sum("cost_nanousd"))
        )
        found |= {(row["day"], row["bucket"]): int(row["cost"]) for row in rows}
    return found


def _label_costs_by_day(
    question: Question, group: Labels, ids: list[int | None]
) -> dict[tuple[dt.date, int], int]:
    """What stands under no label is what the labels leave of each day."""
    period, scope = question.period, question.scope
    shown = [row_id for row_id in ids if row_id is not None]
    found = read_label_costs_by_day(
        period.first_day, period.last_day, scope, group, shown=shown, others=_OTHERS
    )
    return _with_the_rest(question, found, reports.NONE if None in ids else _OTHERS)


def _key_costs_by_day(question: Question, key_ids: list[int]) -> dict[tuple[dt.date, int], int]:
    """By several labels the rows of all keys are many more than those of a few and the totals without keys."""
    period = question.period
    found: dict[tuple[dt.date, int], int] = {}
    for rows in label_rows.list_rows(period.first_day, period.last_day, question.scope, by="api_key_id"):
        shown = rows.filter(api_key__in=key_ids).values("day", "api_key").annotate(cost=Sum("cost_nanousd"))
        found |= {(row["day"], row["api_key"]): int(row["cost"]) for row in shown}
    return _with_the_rest(question, found, _OTHERS)


def _with_the_rest(
    question: Question, found: dict[tuple[dt.date, int], int], where: int
) -> dict[tuple[dt.date, int], int]:
    """What these leave of each day stands at `where` too."""
    period, known = question.period, dict[dt.date, int]()
    for (day, _), cost in found.items():
        known[day] = known.get(day, 0) + cost
    costs = label_rows.read_costs_by_day(period.first_day, period.last_day, question.scope)
    for day, cost in costs.items():
        found[day, where] = found.get((day, where), 0) + cost - known.get(day, 0)
    return found


def _name(question: Question, row_id: int | None, names: Mapping[int, str]) -> str:
    if row_id is None:
        group = question.label_group
        return NO_NAME[question.by if group is None else group.kind]
    return names.get(row_id, f"{question.by} {row_id}")
