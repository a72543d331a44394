"""Of which rows is a question with labels answered? Of days that are over, of sums made for it, where there are any.

Reads: label_day (by `label_days`), label_set. What it gives are the rows of a rollup, or of two: then each day is in
one of them, and sums of the one are added to those of the other.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

from django.db.models import Model, Sum

from billing import reports
from billing.label_days import split_days
from billing.models import (
    LabelSet,
    UsageByKeyLabelDay,
    UsageByKeyLabelSetDay,
    UsageByKeySetDay,
    UsageByLabelDay,
)
from billing.reports import LABELS, Scope, Spent, Sums

# What the sums by key and label set know.
_OF_KEYS: Final = frozenset({"day", "tenant_id", "project_id", "api_key_id", LABELS})


def read_sums_by(
    column: str, first_day: dt.date, last_day: dt.date, scope: Scope, kind: type[Spent]
) -> dict[int | None, Sums]:
    """The sums of days, both included, by what a column holds: `reports.read_sums_by` of all their rows."""
    found: dict[int | None, Sums] = {}
    for rows in list_rows(first_day, last_day, scope, by=column):
        for row_id, sums in reports.read_sums_by(column, rows, kind).items():
            known = found.get(row_id)
            found[row_id] = sums if known is None else reports.sum_up(kind, (known, sums))
    return found


def read_total(first_day: dt.date, last_day: dt.date, scope: Scope, kind: type[Spent]) -> Sums:
    """The sums of days, both included."""
    parts = list_rows(first_day, last_day, scope, by="day")
    return reports.sum_up(kind, [reports.read_total(rows, kind) for rows in parts])


def read_costs_by_day(first_day: dt.date, last_day: dt.date, scope: Scope) -> dict[dt.date, int]:
    """Day -> nano-USD, of days with requests."""
    return {
        row["day"]: int(row["cost"])
        for rows in list_rows(first_day, last_day, scope, by="day")
        for row in rows.values("day").annotate(cost=Sum("cost_nanousd"))
    }


def list_rows(first_day: dt.date, last_day: dt.date, scope: Scope, *, by: str) -> list[Any]:
    """`reports.days_of`, of days that are over from the sums made for such questions, where they are the fewer rows.

    A key's own rows are few anyway, and so are those by label and tenant. Two labels stand in no row of one.
    """
    rows = reports.days_of(first_day, last_day, scope, by=by)
    made = (
        None if scope.api_key_id is not None else _made_for(rows.model, {by, *scope.columns}, scope.label_ids)
    )
    if made is None:
        return [rows]
    days = split_days(first_day, last_day)
    if not days.whole:
        return [rows]
    found = [reports.narrow(made.filter(day__in=days.whole), scope).order_by()]
    if days.others:
        found.append(rows.filter(day__in=days.others))
    return found


def _made_for(counted: type[Model], columns: set[str], label_ids: tuple[int, ...]) -> Any:
    """The rows with these labels of the table that was made for such a question; None where there is none."""
    if len(label_ids) == 1 and counted is not UsageByLabelDay:
        return UsageByKeyLabelDay.objects.filter(label=label_ids[0])
    if len(label_ids) > 1 and counted is UsageByKeyLabelSetDay and columns <= _OF_KEYS:
        sets = LabelSet.objects.filter(label_ids__contains=list(label_ids))
        return UsageByKeySetDay.objects.filter(label_set__in=sets.values("pk"))
    return None
