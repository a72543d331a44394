"""Do the months that records are about to be written to exist, and which are old enough to go?

Writes: the monthly partitions of request_record and attempt_record, by the database function
`billing_create_month` of migration 0002. Months are dropped whole: deleting rows is refused by a trigger.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable

from django.db import connection, transaction

MONTHS_AHEAD = 2
_PARTITION = re.compile(r"billing_(?:request|attempt)record_(\d{4})_(\d{2})")


def month_of(at: dt.datetime) -> dt.date:
    """The first day of the UTC month in which a time lies."""
    utc = at.astimezone(dt.UTC)
    return dt.date(utc.year, utc.month, 1)


def add_months(month: dt.date, count: int) -> dt.date:
    """The month `count` after (or before) a month."""
    index = month.year * 12 + month.month - 1 + count
    return dt.date(index // 12, index % 12 + 1, 1)


def ensure_months(months: Iterable[dt.date]) -> None:
    """Create the partitions that are missing. Creating one locks the tables for a moment, looking does not."""
    existing = set(list_months())
    for month in sorted(set(months) - existing):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT billing_create_month(%s)", [month])


def ensure_months_ahead(now: dt.datetime) -> None:
    """Create this month and the next ones, so that no batch has to. Run daily."""
    this_month = month_of(now)
    ensure_months(add_months(this_month, ahead) for ahead in range(MONTHS_AHEAD + 1))


def list_months() -> list[dt.date]:
    """The months for which both tables have a partition, oldest first."""
    tables = _list_partitions()
    return sorted(month for month, names in tables.items() if len(names) == 2)


def drop_months_before(month: dt.date) -> list[dt.date]:
    """Drop the partitions of all months before `month`; return which. Rollups stay."""
    dropped = []
    for old, names in sorted(_list_partitions().items()):
        if old < month:
            with transaction.atomic(), connection.cursor() as cursor:
                for name in names:
                    cursor.execute(f"DROP TABLE {connection.ops.quote_name(name)}")
            dropped.append(old)
    return dropped


def _list_partitions() -> dict[dt.date, list[str]]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT child.relname FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid"
            " WHERE inhparent IN ('billing_requestrecord'::regclass, 'billing_attemptrecord'::regclass)"
        )
        names = [row[0] for row in cursor.fetchall()]
    months: dict[dt.date, list[str]] = {}
    for name in names:
        if match := _PARTITION.fullmatch(name):
            months.setdefault(dt.date(int(match[1]), int(match[2]), 1), []).append(name)
    return months
