"""Are the sums by one label, of the days that are over, those by all labels of a request?

Reads: label_day, usage_by_key_label_day, usage_by_key_label_set_day (which is proved by the records: `verifying`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Final

from django.db import connection

from billing.label_days import KEYS, SUMMED, SUMS
from billing.models import LabelDay
from billing.partitions import add_months
from billing.rollups import DAY_SUMS, KEY_LABEL_DAY_KEYS

_COMPARE: Final = f"""
SELECT {KEYS}, {", ".join(f"coalesce(sum({name}) FILTER (WHERE sign < 0), 0)" for name, _ in DAY_SUMS)},
    {", ".join(f"coalesce(sum({name}) FILTER (WHERE sign > 0), 0)" for name, _ in DAY_SUMS)}
FROM (
    SELECT 1 AS sign, summed.* FROM ({SUMMED}) summed
    UNION ALL
    SELECT -1, {KEYS}, {SUMS} FROM billing_usagebykeylabelday WHERE day = %(day)s
) both_sides GROUP BY {KEYS} HAVING {" OR ".join(f"sum(sign * {name}) <> 0" for name, _ in DAY_SUMS)}
"""  # noqa: S608  (names are constants)


def find_wrong_label_days(month: dt.date) -> Iterator[tuple[str, str, str, str]]:
    """Kind, what, stored and expected of each sum that is wrong, of the days of a month that may be read."""
    whole = LabelDay.objects.filter(is_whole=True, day__gte=month, day__lt=add_months(month, 1))
    keys, names = [name for name, _ in KEY_LABEL_DAY_KEYS], [name for name, _ in DAY_SUMS]
    for day in whole.order_by("day").values_list("day", flat=True):
        with connection.cursor() as cursor:
            cursor.execute(_COMPARE, {"day": day})
            rows = cursor.fetchall()
        for row in rows:
            what = ", ".join(
                f"{key} {value}" for key, value in zip(keys, row, strict=False) if value is not None
            )
            stored, expected = row[len(keys) : -len(names)], row[-len(names) :]
            for name, one, other in zip(names, stored, expected, strict=True):
                if one != other:
                    yield f"usage_by_key_label_day.{name}", what, str(one), str(other)
