"""Are the sums made for questions with a label, of the days that are over, those of what was counted?

Reads: label_day, usage_by_key_label_day, usage_by_key_set_day, usage_by_key_label_set_day (which is proved by the
records: `verifying`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from django.db import connection

from billing.label_days import BY_LABEL, BY_SET, SUMS, Made
from billing.models import LabelDay
from billing.partitions import add_months
from billing.rollups import DAY_SUMS


def find_wrong_label_days(month: dt.date) -> Iterator[tuple[str, str, str, str]]:
    """Kind, what, stored and expected of each sum that is wrong, of the days of a month that may be read."""
    whole = LabelDay.objects.filter(is_whole=True, day__gte=month, day__lt=add_months(month, 1))
    for day in whole.order_by("day").values_list("day", flat=True):
        for made in (BY_LABEL, BY_SET):
            yield from _find_wrong_sums(made, day)


def _find_wrong_sums(made: Made, day: dt.date) -> Iterator[tuple[str, str, str, str]]:
    keys, names = ", ".join(made.keys), [name for name, _ in DAY_SUMS]
    stored, expected = (
        ", ".join(f"coalesce(sum({name}) FILTER (WHERE sign {side} 0), 0)" for name in names)
        for side in ("<", ">")
    )
    statement = f"""
        SELECT {keys}, {stored}, {expected} FROM (
            SELECT 1 AS sign, summed.* FROM ({made.summed}) summed
            UNION ALL
            SELECT -1, {keys}, {SUMS} FROM {made.table} WHERE day = %(day)s
        ) both_sides GROUP BY {keys} HAVING {" OR ".join(f"sum(sign * {name}) <> 0" for name in names)}
    """  # noqa: S608  (names of ours)
    with connection.cursor() as cursor:
        cursor.execute(statement, {"day": day})
        rows = cursor.fetchall()
    for row in rows:
        what = ", ".join(
            f"{key} {value}" for key, value in zip(made.keys, row, strict=False) if value is not None
        )
        sums = zip(names, row[len(made.keys) : -len(names)], row[-len(names) :], strict=True)
        for name, one, other in sums:
            if one != other:
                yield f"{made.name}.{name}", what, str(one), str(other)
