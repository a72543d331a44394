"""Which days have sums by one label each, and who makes them?

Reads: usage_by_key_label_set_day. Writes: usage_by_key_label_day, label_day.
In the sums by all labels of a request those of one label are scattered over millions of rows; by one label they are
few and stand together, but would cost the ingester a row for each label of each request. So they are made when a day is
over, from the sums that are there. Whoever counts anything more on such a day says so in the same transaction
(`rollups.forget_label_days`): a day is read here, or where it was counted, and never a part of it.
"""

from __future__ import annotations

import datetime as dt
from typing import Final, NamedTuple

from django.db import connection, transaction

from billing.models import LabelDay, UsageByLabelDay
from billing.periods import hold_period_alone
from billing.rollups import DAY_SUMS, KEY_LABEL_DAY_KEYS

# One makes sums at a time: two of the same day would each add their rows.
MAKING_LOCK: Final = 0x6C6162656C646179
KEYS: Final = ", ".join(name for name, _ in KEY_LABEL_DAY_KEYS)
SUMS: Final = ", ".join(name for name, _ in DAY_SUMS)
SUMMED: Final = f"""SELECT {KEYS}, {", ".join(f"sum({name}) AS {name}" for name, _ in DAY_SUMS)}
FROM billing_usagebykeylabelsetday, unnest(label_ids) AS label_id WHERE day = %(day)s GROUP BY {KEYS}"""  # noqa: S608
# In the order in which they are read: the rows of a label stand on few pages.
_MAKE: Final = (
    f"INSERT INTO billing_usagebykeylabelday ({KEYS}, {SUMS}) {SUMMED} ORDER BY label_id, api_key_id"
)
_SPLIT: Final = """
SELECT counted.day::date, coalesce(made.is_whole, false)
FROM generate_series(%s::timestamp, %s::timestamp, interval '1 day') AS counted (day)
LEFT JOIN billing_labelday made ON made.day = counted.day::date
WHERE EXISTS (SELECT FROM billing_usagebylabelday u WHERE u.day = counted.day::date)
"""


class Days(NamedTuple):
    """The days of a period that have labels: those whose sums by one label may be read, and the others."""

    whole: list[dt.date]
    others: list[dt.date]


def split_days(first_day: dt.date, last_day: dt.date) -> Days:
    """Tell them apart, both ends included. One query."""
    found = Days([], [])
    with connection.cursor() as cursor:
        cursor.execute(_SPLIT, [first_day, last_day])
        for day, is_whole in cursor.fetchall():
            (found.whole if is_whole else found.others).append(day)
    return found


def list_due_days(*, today: dt.date) -> list[dt.date]:
    """The days before this one that have labels and are not whole; the newest first."""
    counted = UsageByLabelDay.objects.filter(day__lt=today).order_by("-day")
    whole = LabelDay.objects.filter(is_whole=True)
    return list(counted.exclude(day__in=whole.values("day")).values_list("day", flat=True).distinct())


def sum_day(day: dt.date) -> bool:
    """Make a day's sums; False when more was counted on it meanwhile, so that they are to be made again.

    Nothing that counts waits for the summing: it is only kept out while the day is announced. Whatever it counted
    before is then seen here, and what it counts later takes the announcement away.
    """
    with transaction.atomic():
        _hold_making()
        hold_period_alone()
        LabelDay.objects.bulk_create([LabelDay(day=day)], ignore_conflicts=True)
    with transaction.atomic(), connection.cursor() as cursor:
        _hold_making()
        cursor.execute("DELETE FROM billing_usagebykeylabelday WHERE day = %s", [day])
        cursor.execute(_MAKE, {"day": day})
        is_whole = bool(LabelDay.objects.filter(day=day).update(is_whole=True))
        if not is_whole:
            transaction.set_rollback(True)
    return is_whole


def _hold_making() -> None:
    """Announce nothing while a day is summed: what was counted before would not be in those sums."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [MAKING_LOCK])
