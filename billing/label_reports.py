"""What do the requests with each label of one kind sum up to, of those that a scope asks for?

Reads: label, and by `reports.days_of` the rollups by label. A request has one label of a kind (of tags: of a name) at
most, so no sum has it twice; what has none is the caller's to say: the total of the scope less these.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import fields
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import BigIntegerField, Sum
from django.db.models.functions import Cast

from billing import reports
from billing.models import UsageByLabelDay
from billing.reports import Scope, Spent, Sums


class Labels(NamedTuple):
    """All labels of a kind; of tags those of a name."""

    kind: str
    name: str


def read_sums_by_label(
    kind: type[Spent], first_day: dt.date, last_day: dt.date, scope: Scope, labels: Labels
) -> dict[int | None, Sums]:
    """Label -> the sums of its requests. One query."""
    rows = reports.days_of(first_day, last_day, scope, by=reports.LABELS)
    names = [f.name for f in fields(kind)]
    sums = ", ".join(f"sum(s.sum_{name})::bigint" for name in names)
    found = _select(rows, ["l.id"], sums, labels, reports.sums_of(kind))
    return {row[0]: row[1:] for row in found}


def read_label_costs_by_day(
    first_day: dt.date,
    last_day: dt.date,
    scope: Scope,
    labels: Labels,
    *,
    shown: Collection[int],
    others: int,
) -> dict[tuple[dt.date, int], int]:
    """(Day, label) -> nano-USD, for the labels that are shown; all other labels together under `others`. One query."""
    rows = reports.days_of(first_day, last_day, scope, by=reports.LABELS)
    bucket = "CASE WHEN l.id = ANY(%s) THEN l.id ELSE %s END"
    costs = {"cost": Cast(Sum("cost_nanousd"), BigIntegerField())}
    found = _select(rows, ["s.day", bucket], "sum(s.cost)::bigint", labels, costs, [list(shown), others])
    return {(day, label_id): cost for day, label_id, cost in found}


def _select(
    rows: Any,
    by: list[str],
    sums: str,
    labels: Labels,
    inner: dict[str, Any],
    values: list[Any] | None = None,
) -> list[tuple[Any, ...]]:
    """Sum by what the labels of a request are together first: those are far fewer than rows."""
    is_by_one = rows.model is UsageByLabelDay
    grouped = rows.values(*(["day"] if len(by) > 1 else []), "label_id" if is_by_one else reports.LABELS)
    statement, asked = grouped.annotate(**inner).query.sql_with_params()
    source = "" if is_by_one else ", unnest(s.label_ids) AS one(label_id)"
    positions = ", ".join(str(index + 1) for index in range(len(by)))
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {', '.join(by)}, {sums} FROM ({statement}) s{source} JOIN billing_label l"  # noqa: S608
            f" ON l.id = {'s' if is_by_one else 'one'}.label_id AND l.kind = %s AND l.name = %s GROUP BY {positions}",
            [*(values or []), *asked, labels.kind, labels.name],
        )
        return list(cursor.fetchall())
