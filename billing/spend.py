"""How much was spent, by whom, on what, against the period before?

Reads: the rollups by day and by label (by `billing.reports`) and names. The page, the CSV and the XLSX of one question
all come from one `read_spend`; all its reads see one moment, so its total is the sum of its rows, of its days and of
its series.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, TypeVar

from django.db.models import Case, F, Sum, Value, When

from billing import reports
from billing.models import Label
from billing.reports import DayTotals, Scope, Spent
from billing.spend_questions import DAY, LabelGroup, Question

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
NOTHING: Final = Spent()
T = TypeVar("T", bound=Spent)


@dataclass(frozen=True, slots=True)
class Row:
    """One tenant, key, model and so on, or one day (`day` is set, and nothing is before)."""

    id: int | None
    name: str
    totals: DayTotals
    before: Spent
    day: dt.date | None = None

    @property
    def change_nanousd(self) -> int:
        return self.totals.cost_nanousd - self.before.cost_nanousd

    @property
    def change_ratio(self) -> float | None:
        """Of what was spent before; None when that was nothing."""
        return self.change_nanousd / self.before.cost_nanousd if self.before.cost_nanousd else None


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
    rows: tuple[Row, ...]
    total: Row
    days: tuple[dt.date, ...]
    series: tuple[Series, ...]

    @property
    def day_totals_nanousd(self) -> list[int]:
        """What each day cost, over all series."""
        return [sum(parts) for parts in zip(*(one.nanousd for one in self.series), strict=True)]


def read_spend(question: Question) -> Spend:
    """Answer in four queries at most, whatever the number of keys. Rows have no names yet: `with_names`."""
    with reports.one_moment():
        if question.by == "day":
            return _by_day(question)
        rows = read_rows(question)
        days, series = _series(question, rows)
    return Spend(question, rows, total_of(rows), days, series)


def read_rows(question: Question) -> tuple[Row, ...]:
    """What each one spent, now and before, dearest first; who did nothing in both periods is not there."""
    assert question.by != "day"
    if question.label_group is not None:
        return _sorted(_label_rows(question, question.label_group))
    column = reports.DIMENSIONS[question.by][0]
    period, scope = question.period, question.scope
    # Two queries that sum what they need cost half of one with a condition in every sum.
    before = {
        row[column]: reports.read_sums(Spent, row)
        for row in reports.days_of(period.before_first_day, period.before_last_day, scope, by=column)
        .values(column)
        .annotate(**reports.sums_of(Spent))
    }
    found = [
        Row(row[column], "", reports.read_sums(DayTotals, row), before.pop(row[column], NOTHING))
        for row in reports.days_of(period.first_day, period.last_day, scope, by=column)
        .values(column)
        .annotate(**reports.sums_of(DayTotals))
    ]
    found += [Row(row_id, "", DayTotals(), spent) for row_id, spent in before.items()]
    return _sorted(found)


def _sorted(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Dearest first."""
    return tuple(
        sorted(
            rows,
            key=lambda row: (
                -row.totals.cost_nanousd,
                -row.totals.request_count,
                -row.before.cost_nanousd,
                row.id or 0,
            ),
        )
    )


def _label_rows(question: Question, group: LabelGroup) -> list[Row]:
    """One row a value, and one without id for what has none: what the values leave of the total."""
    period, scope = question.period, question.scope
    now = _sums_by_label(DayTotals, period.first_day, period.last_day, scope, group)
    before = _sums_by_label(Spent, period.before_first_day, period.before_last_day, scope, group)
    rows = [
        Row(label_id, "", now.get(label_id, DayTotals()), before.get(label_id, NOTHING))
        for label_id in now.keys() | before.keys()
    ]
    unallocated = Row(
        None,
        "",
        reports.take_away(
            reports.totals(first_day=period.first_day, last_day=period.last_day, scope=scope), now.values()
        ),
        reports.take_away(
            reports.read_sums(
                Spent,
                reports.days_of(period.before_first_day, period.before_last_day, scope, by="day").aggregate(
                    **reports.sums_of(Spent)
                ),
            ),
            before.values(),
        ),
    )
    return (
        [*rows, unallocated] if unallocated.totals != DayTotals() or unallocated.before != NOTHING else rows
    )


def _sums_by_label(
    kind: type[T], first_day: dt.date, last_day: dt.date, scope: Scope, group: LabelGroup
) -> dict[int, T]:
    rows = reports.labels_of(first_day, last_day, scope, kind=group.kind, name=group.name)
    return {
        row["label_id"]: reports.read_sums(kind, row)
        for row in rows.values("label_id").annotate(**reports.sums_of(kind))
    }


def with_names(question: Question, rows: Sequence[Row]) -> list[Row]:
    """The same rows with what they are called; one query. A page asks for those that it shows."""
    if question.by == "day":
        return list(rows)
    table = Label if question.label_group is not None else reports.DIMENSIONS[question.by][1]
    names = reports.names_of(table, [row.id for row in rows if row.id is not None])
    return [replace(row, name=_name(question, row.id, names)) for row in rows]


def total_of(rows: Sequence[Row]) -> Row:
    """The sum of rows, in both periods."""
    return Row(
        id=None,
        name="Total",
        totals=reports.add_up(DayTotals, [row.totals for row in rows]),
        before=reports.add_up(Spent, [row.before for row in rows]),
    )


def _by_day(question: Question) -> Spend:
    period, scope = question.period, question.scope
    points = reports.series_by_day(first_day=period.first_day, last_day=period.last_day, scope=scope)
    rows = tuple(
        Row(None, point.day.isoformat(), point.totals, NOTHING, point.day) for point in reversed(points)
    )
    before = reports.totals(first_day=period.before_first_day, last_day=period.before_last_day, scope=scope)
    total = Row(None, "Total", reports.add_up(DayTotals, [point.totals for point in points]), before)
    costs = Series("Spend", tuple(point.totals.cost_nanousd for point in points))
    return Spend(question, rows, total, tuple(point.day for point in points), (costs,))


def _series(question: Question, rows: tuple[Row, ...]) -> tuple[tuple[dt.date, ...], tuple[Series, ...]]:
    """The dearest rows by day, and the others together."""
    period = question.period
    days = tuple(period.first_day + DAY * index for index in range(period.day_count))
    spending = [row for row in rows if row.totals.cost_nanousd]
    shown = with_names(question, spending[:SERIES_SHOWN])
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
    cases = [When(**{f"{column}__in": [row_id for row_id in ids if row_id is not None]}, then=F(column))]
    if None in ids:
        cases.append(When(**{f"{column}__isnull": True}, then=Value(reports.NONE)))
    rows = (
        reports.days_of(question.period.first_day, question.period.last_day, question.scope, by=column)
        .annotate(bucket=Case(*cases, default=Value(_OTHERS)))
        .values("day", "bucket")
        .annotate(cost=Sum("cost_nanousd"))
    )
    return {(row["day"], row["bucket"]): int(row["cost"]) for row in rows}


def _label_costs_by_day(
    question: Question, group: LabelGroup, ids: list[int | None]
) -> dict[tuple[dt.date, int], int]:
    """What stands under no label is what the labels leave of each day."""
    period, scope = question.period, question.scope
    bucket = Case(
        When(label_id__in=[i for i in ids if i is not None], then=F("label_id")), default=Value(_OTHERS)
    )
    rows = reports.labels_of(period.first_day, period.last_day, scope, kind=group.kind, name=group.name)
    grouped = rows.annotate(bucket=bucket).values("day", "bucket").annotate(cost=Sum("cost_nanousd"))
    found = {(row["day"], row["bucket"]): int(row["cost"]) for row in grouped}
    labelled: dict[dt.date, int] = {}
    for (day, _), cost in found.items():
        labelled[day] = labelled.get(day, 0) + cost
    where = reports.NONE if None in ids else _OTHERS
    for point in reports.series_by_day(first_day=period.first_day, last_day=period.last_day, scope=scope):
        left = point.totals.cost_nanousd - labelled.get(point.day, 0)
        found[point.day, where] = found.get((point.day, where), 0) + left
    return found


def _name(question: Question, row_id: int | None, names: Mapping[int, str]) -> str:
    if row_id is None:
        group = question.label_group
        return NO_NAME[question.by if group is None else group.kind]
    return names.get(row_id, f"{question.by} {row_id}")
