"""Which days have sums made for questions with a label, and who makes them?

Reads: usage_by_key_label_set_day. Writes: usage_by_key_label_day, usage_by_key_set_day, label_set, label_day.
In the sums by key and all labels of a request those of a label are scattered over millions of rows; by one label each,
and by key and label set alone, they are few and stand together, but would cost the ingester rows for each request. So
they are made when a day is over, from the sums that are there. Whoever counts anything more on such a day says so in
the same transaction (`rollups.forget_label_days`): a day is read here, or where it was counted, and never a part of it.
"""

from __future__ import annotations

import datetime as dt
from typing import Final, NamedTuple

from django.db import connection, transaction

from billing.models import LabelDay, UsageByLabelDay
from billing.periods import hold_period_alone
from billing.rollups import DAY_SUMS, KEY_DAY_KEYS, KEY_LABEL_DAY_KEYS

# One makes sums at a time: two of the same day would each add their rows.
MAKING_LOCK: Final = 0x6C6162656C646179
SUMS: Final = ", ".join(name for name, _ in DAY_SUMS)


class Made(NamedTuple):
    """A table of such sums: what it sums by, and in which order. Those that are read together stand together."""

    name: str
    keys: tuple[str, ...]
    source: str
    order: str

    @property
    def table(self) -> str:
        return f"billing_{self.name.replace('_', '')}"

    @property
    def summed(self) -> str:
        """The statement that sums a day (`%(day)s`) of what was counted."""
        keys = ", ".join(self.keys)
        sums = ", ".join(f"sum({name}) AS {name}" for name, _ in DAY_SUMS)
        return f"SELECT {keys}, {sums} FROM {self.source} WHERE day = %(day)s GROUP BY {keys}"  # noqa: S608  (names of ours)


BY_LABEL: Final = Made(
    "usage_by_key_label_day",
    tuple(name for name, _ in KEY_LABEL_DAY_KEYS),
    "billing_usagebykeylabelsetday, unnest(label_ids) AS label_id",
    "label_id, api_key_id",
)
BY_SET: Final = Made(
    "usage_by_key_set_day",
    (*(name for name, _ in KEY_DAY_KEYS), "label_set_id"),
    "(SELECT sums.*, sets.id AS label_set_id FROM billing_usagebykeylabelsetday sums"
    " JOIN billing_labelset sets USING (label_ids)) with_sets",
    "label_set_id, api_key_id",
)
_ADD_SETS: Final = """
INSERT INTO billing_labelset (label_ids) SELECT DISTINCT label_ids FROM billing_usagebykeylabelsetday
WHERE day = %(day)s AND cardinality(label_ids) > 1 ON CONFLICT DO NOTHING
"""
_SPLIT: Final = """
SELECT counted.day::date, coalesce(made.is_whole, false)
FROM generate_series(%s::timestamp, %s::timestamp, interval '1 day') AS counted (day)
LEFT JOIN billing_labelday made ON made.day = counted.day::date
WHERE EXISTS (SELECT FROM billing_usagebylabelday u WHERE u.day = counted.day::date)
"""


class Days(NamedTuple):
    """The days of a period that have labels: those whose sums made here may be read, and the others."""

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
        cursor.execute(_ADD_SETS, {"day": day})
        for made in (BY_LABEL, BY_SET):
            cursor.execute(f"DELETE FROM {made.table} WHERE day = %s", [day])  # noqa: S608  (a name of ours)
            columns = ", ".join([*made.keys, SUMS])
            cursor.execute(
                f"INSERT INTO {made.table} ({columns}) {made.summed} ORDER BY {made.order}", {"day": day}
            )
        is_whole = bool(LabelDay.objects.filter(day=day).update(is_whole=True))
        if not is_whole:
            transaction.set_rollback(True)
    return is_whole


def _hold_making() -> None:
    """Announce nothing while a day is summed: what was counted before would not be in those sums."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [MAKING_LOCK])
