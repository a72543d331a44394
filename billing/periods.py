"""On which day does a request count, now that some months are closed?

Reads: period_lock. Writes: late_posting. The sums by day, and so spend and statements, go by the posting day: the
request's own UTC day, or the first open one when its own is closed. Hours and budgets stay at the request's own time.
Whoever stores records or adjustments holds the period open (shared); whoever closes one holds it alone, so that no
record slips into a month that is being closed.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

from django.db import connection

from billing.models import PeriodLock
from billing.partitions import add_months

PERIOD_LOCK: Final = 0x706572696F64
_CLOSED_UNTIL: Final = "(SELECT closed_until FROM billing_periodlock)"
# Of rows with `started_at`, while they are stored: `greatest` passes over null. Later, late_posting says it.
POSTING_DAY: Final = f"greatest((started_at AT TIME ZONE 'UTC')::date, {_CLOSED_UNTIL})"
_LATE: Final = f"(started_at AT TIME ZONE 'UTC')::date < {_CLOSED_UNTIL}"


def hold_open_period() -> None:
    """Keep the period as it is until the end of the transaction; others may hold it too."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock_shared(%s)", [PERIOD_LOCK])


def hold_period_alone() -> None:
    """Keep everybody from storing records until the end of the transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [PERIOD_LOCK])


def find_closed_until() -> dt.date | None:
    """The first day of the open period; None while nothing is closed."""
    return PeriodLock.objects.values_list("closed_until", flat=True).first()


def is_closed(month: dt.date) -> bool:
    """Whether the month that begins on this day is closed."""
    closed_until = find_closed_until()
    return closed_until is not None and month < closed_until


def posting_day(started_at: dt.datetime) -> dt.date:
    """The day on which a request of that time counts, if it is stored now."""
    own = started_at.astimezone(dt.UTC).date()
    closed_until = find_closed_until()
    return own if closed_until is None else max(own, closed_until)


def count_foreign_reversals(month: dt.date, *, tenant_id: int | None = None) -> int:
    """How many unpriced requests of closed months were taken out of this one's count when they got a price.

    Without them the count of a month says too little of its own requests.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM billing_lateposting l WHERE l.number = 1 AND l.posted_on >= %(first)s"
            " AND l.posted_on < %(after)s AND (%(tenant)s::bigint IS NULL OR l.tenant_id = %(tenant)s)"
            " AND NOT EXISTS (SELECT FROM billing_lateposting r WHERE r.request_id = l.request_id"
            " AND r.number = 0 AND r.posted_on >= %(first)s AND r.posted_on < %(after)s)",
            {"first": month, "after": add_months(month, 1), "tenant": tenant_id},
        )
        return int(cursor.fetchone()[0])


def late_postings_of(source: str, *, request_id: str, number: str) -> str:
    """The statement that notes the rows of `source` (all three names are of ours) that are not of the open period."""
    return f"""INSERT INTO billing_lateposting (request_id, number, started_at, posted_on, tenant_id, posted_at)
    SELECT {request_id}, {number}, started_at, {_CLOSED_UNTIL}, tenant_id, now() FROM {source} WHERE {_LATE}
    ON CONFLICT DO NOTHING"""  # noqa: S608  (see above)


def posted_rows(table: str, *, is_by_day: bool) -> str:
    """The records or adjustments of a month, as a source of rows with `posted_on`, for statements of ours.

    Parameters: begin and end of the month. By day, those count that were posted into the month.
    """
    in_month = "started_at >= %(begin)s AND started_at < %(end)s"
    if not is_by_day:
        return f"(SELECT * FROM {table} WHERE {in_month}) posted"  # noqa: S608  (a name of ours)
    request_id, number = ("id", "0") if table == "billing_requestrecord" else ("request_id", "source.number")
    same = f"l.request_id = source.{request_id} AND l.number = {number}"
    return f"""(
        SELECT source.*, (started_at AT TIME ZONE 'UTC')::date AS posted_on FROM {table} source
        WHERE {in_month} AND NOT EXISTS (SELECT FROM billing_lateposting l WHERE {same})
        UNION ALL
        SELECT source.*, l.posted_on FROM billing_lateposting l
        JOIN {table} source ON {same} AND source.started_at = l.started_at
        WHERE l.posted_on >= %(first)s AND l.posted_on < %(last)s
    ) posted"""  # noqa: S608  (names of ours)
