"""What happens now? Today, the last hours, and the newest requests, as the home page shows them.

Reads: usage_by_hour, the sums of today by `billing.reports`; for percentiles and error codes of the last hour also
request_record, at most 10,000 of its newest rows. Hours are UTC.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, fields

from django.db import connection

from billing.models import UsageByHour
from billing.reports import DAY, Group, Totals, add_up, group_by, read_sums, sums_of

HOUR = dt.timedelta(hours=1)
MAX_RAW_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class HourTotals(Totals):
    """Totals with what mean latency needs."""

    duration_ms_sum: float = 0.0
    first_token_ms_sum: float = 0.0
    first_token_count: int = 0

    @property
    def mean_duration_ms(self) -> float | None:
        """None without requests."""
        return self.duration_ms_sum / self.request_count if self.request_count else None

    @property
    def mean_first_token_ms(self) -> float | None:
        """None when no request had a first token."""
        return self.first_token_ms_sum / self.first_token_count if self.first_token_count else None


@dataclass(frozen=True, slots=True)
class HourPoint:
    """One hour of a series; hours without requests are there too."""

    begins_at: dt.datetime
    totals: HourTotals


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """How often an error code came up."""

    status: str
    error_code: str
    count: int


@dataclass(frozen=True, slots=True)
class LastHour:
    """The newest requests of the last 60 minutes. `is_cut`: there were more than are looked at."""

    request_count: int
    is_cut: bool
    p50_duration_ms: float | None
    p95_duration_ms: float | None
    p50_first_token_ms: float | None
    p95_first_token_ms: float | None
    errors: tuple[ErrorCount, ...]


@dataclass(frozen=True, slots=True)
class TodaySummary:
    """The home page. Yesterday's last, partial hour counts in proportion to the minutes that have passed."""

    now: dt.datetime
    today: HourTotals
    yesterday_until_now: HourTotals
    last_24_hours: tuple[HourPoint, ...]
    top_keys: tuple[Group, ...]
    last_hour: LastHour


def series_by_hour(
    *,
    since: dt.datetime,
    until: dt.datetime,
    tenant_id: int | None = None,
    deployment_id: int | None = None,
) -> list[HourPoint]:
    """One point an hour, from the hour of `since` to the hour of `until`, both included."""
    first, last = _hour_of(since), _hour_of(until)
    exact = {"tenant_id": tenant_id, "deployment_id": deployment_id}
    rows = (
        UsageByHour.objects.filter(hour__gte=first, hour__lte=last)
        .filter(**{name: value for name, value in exact.items() if value is not None})
        .values("hour")
        .annotate(**sums_of(HourTotals))
    )
    found = {row["hour"]: read_sums(HourTotals, row) for row in rows}
    hours = (first + HOUR * index for index in range((last - first) // HOUR + 1))
    return [HourPoint(hour, found.get(hour, HourTotals())) for hour in hours]


def today_summary(now: dt.datetime) -> TodaySummary:
    """Read everything the home page shows, in a handful of queries."""
    now = now.astimezone(dt.UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    this_hour = _hour_of(now)
    points = series_by_hour(since=min(midnight - DAY, this_hour - 23 * HOUR), until=now)
    today = [point.totals for point in points if point.begins_at >= midnight]
    yesterday = [point.totals for point in points if midnight - DAY <= point.begins_at < this_hour - DAY]
    partial = next((point.totals for point in points if point.begins_at == this_hour - DAY), HourTotals())
    passed_s = int((now - this_hour).total_seconds())
    return TodaySummary(
        now=now,
        today=add_up(HourTotals, today),
        yesterday_until_now=add_up(HourTotals, [*yesterday, _share(partial, passed_s)]),
        last_24_hours=tuple(points[-24:]),
        top_keys=tuple(group_by("key", first_day=now.date(), last_day=now.date(), limit=5)),
        last_hour=read_last_hour(now),
    )


def read_last_hour(now: dt.datetime) -> LastHour:
    """Percentiles and errors of the last 60 minutes, over at most 10,000 of the newest requests."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH newest AS (
                SELECT status, error_code, duration_ms, first_token_ms FROM billing_requestrecord
                WHERE started_at > %s AND started_at <= %s ORDER BY started_at DESC, id DESC LIMIT %s
            )
            SELECT NULL, NULL, count(*),
                percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ms),
                percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms),
                percentile_cont(0.5) WITHIN GROUP (ORDER BY first_token_ms),
                percentile_cont(0.95) WITHIN GROUP (ORDER BY first_token_ms)
            FROM newest
            UNION ALL
            (SELECT status, error_code, count(*), NULL, NULL, NULL, NULL FROM newest
            WHERE status NOT IN ('ok', 'cancelled') GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 5)
            """,
            [now - HOUR, now, MAX_RAW_ROWS + 1],
        )
        summary, *errors = sorted(cursor.fetchall(), key=lambda row: (row[0] is not None, -row[2]))
    return LastHour(
        request_count=min(summary[2], MAX_RAW_ROWS),
        is_cut=summary[2] > MAX_RAW_ROWS,
        p50_duration_ms=summary[3],
        p95_duration_ms=summary[4],
        p50_first_token_ms=summary[5],
        p95_first_token_ms=summary[6],
        errors=tuple(ErrorCount(status, code, count) for status, code, count, *_ in errors),
    )


def _share(part: HourTotals, passed_s: int) -> HourTotals:
    """The part of an hour's totals that falls to its first seconds, money and counts rounded down."""
    return HourTotals(
        **{
            f.name: getattr(part, f.name) * passed_s / 3600
            if f.type == "float"
            else getattr(part, f.name) * passed_s // 3600
            for f in fields(HourTotals)
        }
    )


def _hour_of(at: dt.datetime) -> dt.datetime:
    return at.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)
