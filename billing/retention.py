"""Which months of request records may go, and how do they go?

Writes: drops monthly partitions of request_record and attempt_record, change_event. Rollups stay, so sums by day and
hour stay; what is gone for good are the single requests with their decisions and attempts.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from django.db import OperationalError, connection, transaction

from billing.partitions import add_months, drop_months_before, list_months, month_of
from policies.changes import record_change
from policies.errors import InvalidValueError
from policies.models import ChangeEvent

OBJECT_TYPE = "request_records"
MIN_KEEP_MONTHS = 1
MAX_KEEP_MONTHS = 1200
# Dropping a partition waits for every transaction that reads or writes records, and everything after it waits for the
# drop: the ingester and the console must not stand still because of one long report.
LOCK_TIMEOUT_MS = 3_000


class MonthBusyError(Exception):
    """Somebody reads or writes the records for longer than the drop may wait. Try again later."""


@dataclass(frozen=True, slots=True)
class Month:
    """A month of records. `request_count` is what the database's statistics say, None before the first of them."""

    first_day: dt.date
    size_bytes: int
    request_count: int | None


def list_old_months(*, keep_months: int, now: dt.datetime) -> list[Month]:
    """The months that lie further back than the current one and `keep_months` before it, oldest first.

    So the current and the last month are never among them. Raises InvalidValueError for less than one month.
    """
    if not MIN_KEEP_MONTHS <= keep_months <= MAX_KEEP_MONTHS:
        text = f"this month and at least the one before it are kept: give 1 to {MAX_KEEP_MONTHS}"
        raise InvalidValueError({"keep_months": [text]})
    oldest_kept = add_months(month_of(now), -keep_months)
    return [_measure(month) for month in list_months() if month < oldest_kept]


def drop_old_months(*, keep_months: int, now: dt.datetime, actor: str) -> list[Month]:
    """Drop what `list_old_months` names, month by month, each with its entry in the audit log; return what is gone.

    Raises MonthBusyError; the months before the busy one are gone by then.
    """
    old = list_old_months(keep_months=keep_months, now=now)
    for month in old:
        _drop(month, actor=actor)
    return old


def find_records_since() -> dt.date | None:
    """The first day after everything that was ever dropped; None if nothing was.

    A late line of the journal can bring a dropped month back with a few records in it: what this says still holds.
    """
    names = ChangeEvent.objects.filter(object_type=OBJECT_TYPE, action="drop").values_list(
        "object_name", flat=True
    )
    newest = max(names, default=None)
    return None if newest is None else add_months(dt.date.fromisoformat(f"{newest}-01"), 1)


def _drop(month: Month, *, actor: str) -> None:
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
            drop_months_before(add_months(month.first_day, 1))
            record_change(
                actor=actor,
                action="drop",
                object_type=OBJECT_TYPE,
                object_id=month.first_day.year * 100 + month.first_day.month,
                object_name=f"{month.first_day:%Y-%m}",
                before={"size_bytes": month.size_bytes, "request_count_estimate": month.request_count},
            )
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", "") != "55P03":  # lock_not_available
            raise
        raise MonthBusyError(
            f"the records of {month.first_day:%Y-%m} are in use (a report, an export, a backup): try again later"
        ) from error


def _measure(month: dt.date) -> Month:
    suffix = f"{month:%Y_%m}"
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_total_relation_size(r.oid) + pg_total_relation_size(a.oid), r.reltuples"
            " FROM pg_class r, pg_class a WHERE r.oid = %s::regclass AND a.oid = %s::regclass",
            [f"billing_requestrecord_{suffix}", f"billing_attemptrecord_{suffix}"],
        )
        size_bytes, count = cursor.fetchone()
    return Month(month, int(size_bytes), None if count < 0 else int(count))
