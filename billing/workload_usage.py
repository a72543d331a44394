"""What did each workload ask for, and which deployments served it? Records -> sums by day.

Reads: request_record, usage_by_day. Writes: workload_usage, workload_day. A day is summed again, whole, whenever the
rollup by day (which is written with the records) counts another number of requests than last time: so late records
are found, running it twice changes nothing, and days without news cost nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from django.db import connection, transaction
from django.db.models import Sum

from billing.models import UsageByDay, WorkloadDay, WorkloadUsage
from billing.retention import find_records_since

KEEP_DAYS: Final = 90
DAY: Final = dt.timedelta(days=1)
# Summing 100,000 records takes 2.5 s here (25 µs each, most of it reading their JSON).
BUSY_DAY: Final = 100_000

# Of `auto` and of rules that look at words alone records have a workload. A request of several attempts took longer
# than its model did: its time counts for nobody.
_COLLECT = """
INSERT INTO billing_workloadusage (day, workload, task_type, app, tenant_id, api_key_id, policy_id, deployment_id,
    request_count, checkable_count, input_tokens, cache_read_tokens, output_tokens, output_count, cost_nanousd,
    priced_count, latency_count, p50_ms, p95_ms)
SELECT %(day)s, left(r.features->>'workload', 16), left(coalesce(r.features->>'task_type', ''), 40),
    left(coalesce(r.features->>'app', ''), 200), r.tenant_id, r.api_key_id, r.policy_id, r.deployment_id,
    count(*),
    count(*) FILTER (WHERE NOT r.is_stream AND r.endpoint = 'chat' AND r.decision->>'strategy' = 'auto'),
    coalesce(sum(r.input_tokens), 0), coalesce(sum(r.cache_read_tokens), 0), coalesce(sum(r.output_tokens), 0),
    count(r.output_tokens), coalesce(sum(r.cost_nanousd), 0), count(r.cost_nanousd),
    count(r.duration_ms) FILTER (WHERE r.attempt_count = 1),
    percentile_cont(0.5) WITHIN GROUP (ORDER BY CASE WHEN r.attempt_count = 1 THEN r.duration_ms END),
    percentile_cont(0.95) WITHIN GROUP (ORDER BY CASE WHEN r.attempt_count = 1 THEN r.duration_ms END)
FROM billing_requestrecord r
JOIN policies_deployment d ON d.id = r.deployment_id
JOIN policies_apikey k ON k.id = r.api_key_id
JOIN policies_tenant t ON t.id = r.tenant_id
LEFT JOIN policies_policy p ON p.id = r.policy_id
WHERE r.started_at >= %(begins_at)s AND r.started_at < %(ends_at)s AND r.status = 'ok'
    AND r.features->>'workload' <> '' AND (r.policy_id IS NULL OR p.id IS NOT NULL)
GROUP BY 2, 3, 4, 5, 6, 7, 8
"""


class Served(NamedTuple):
    """What one model did on one workload (or on all of a type, or on everything), over days.

    Latencies are means of the days' percentiles, weighted by requests.
    """

    request_count: int
    checkable_count: int
    output_count: int
    output_tokens: int
    latency_count: int
    p50_ms: float
    p95_ms: float


def collect_workloads(*, now: dt.datetime, again_after: dt.timedelta = dt.timedelta(0)) -> list[dt.date]:
    """Sum the days that have news; return them. Days older than `KEEP_DAYS` are forgotten.

    A day that was summed less than `again_after` ago is left, for it has news all the time; a busy one, which takes
    longer, is left longer: with a million records eleven times as long.
    """
    today = now.astimezone(dt.UTC).date()
    first_day = today - DAY * KEEP_DAYS
    # Of days whose records were dropped, what was summed stays: summing again would count late records alone.
    records_since = find_records_since()
    counted = dict(
        UsageByDay.objects.filter(day__gte=max(first_day, records_since or first_day), day__lte=today)
        .values_list("day")
        .annotate(count=Sum("request_count"))
        .order_by("day")
    )
    collected = {row.day: row for row in WorkloadDay.objects.filter(day__gte=first_day)}
    due = [
        day
        for day, count in counted.items()
        if (row := collected.get(day)) is None
        or (row.record_count != count and row.collected_at <= now - again_after * (1 + count / BUSY_DAY))
    ]
    for day in due:
        _collect_day(day, record_count=int(counted[day]), now=now)
    WorkloadUsage.objects.filter(day__lt=first_day).delete()
    WorkloadDay.objects.filter(day__lt=first_day).delete()
    return due


@transaction.atomic
def _collect_day(day: dt.date, *, record_count: int, now: dt.datetime) -> None:
    begins_at = dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)
    with connection.cursor() as cursor:
        # Two that collect at once would each add their rows.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('billing_workloadusage'))")
        cursor.execute("DELETE FROM billing_workloadusage WHERE day = %s", [day])
        cursor.execute(_COLLECT, {"day": day, "begins_at": begins_at, "ends_at": begins_at + DAY})
    # The count was read before the records: what came in between makes the day due again.
    WorkloadDay.objects.update_or_create(
        day=day, defaults={"record_count": record_count, "collected_at": now}
    )


def read_served(*, since: dt.date, by: Iterable[str] = ("workload",)) -> Mapping[tuple[str, ...], Served]:
    """Sums by the columns `by` (workload, task_type) and the model's name, which comes last in the key."""
    columns = [*by]
    names = ", ".join(f"u.{column}" for column in columns) + (", " if columns else "")
    positions = ", ".join(str(place) for place in range(1, len(columns) + 2))
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT {names} m.name, sum(u.request_count), sum(u.checkable_count), sum(u.output_count),
                sum(u.output_tokens), sum(u.latency_count),
                coalesce(sum(u.p50_ms * u.latency_count) / nullif(sum(u.latency_count), 0), 0),
                coalesce(sum(u.p95_ms * u.latency_count) / nullif(sum(u.latency_count), 0), 0)
            FROM billing_workloadusage u
            JOIN policies_deployment d ON d.id = u.deployment_id JOIN policies_model m ON m.id = d.model_id
            WHERE u.day >= %s GROUP BY {positions}
            """,  # noqa: S608  (columns are names of ours)
            [since],
        )
        width = len(columns) + 1
        return {
            row[:width]: Served(
                *(int(n) for n in row[width : width + 5]), *(float(n) for n in row[width + 5 :])
            )
            for row in cursor.fetchall()
        }
