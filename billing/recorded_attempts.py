"""What did a provider do for us, day by day and model by model? Every call counts, also those before a fallback.

Reads: attempt_record, adjustment, deployment; all attempts of the days, so the time grows with them.
"""

from __future__ import annotations

import datetime as dt

from django.db import connection
from django.db.models import Sum

from billing.models import UsageByDay
from billing.provider_bills.bill import Counts
from billing.reconciling import Recorded

_COUNTS = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
_SUMS = ", ".join(f"coalesce(sum((a.usage->>'{name}')::bigint), 0)" for name in _COUNTS)
_RECORDED = f"""
SELECT (a.started_at AT TIME ZONE 'UTC')::date, d.upstream_model,
    count(*) FILTER (WHERE a.usage->>'input_tokens' IS NOT NULL), {_SUMS}, coalesce(sum(a.cost_nanousd), 0),
    count(*) FILTER (WHERE a.cost_nanousd IS NULL AND a.usage->>'input_tokens' IS NOT NULL),
    count(*) FILTER (WHERE a.usage->>'input_tokens' IS NULL AND a.outcome IN ('ok', 'cancelled'))
FROM billing_attemptrecord a JOIN policies_deployment d ON d.id = a.deployment_id
WHERE d.provider_id = %s AND a.started_at >= %s AND a.started_at < %s
GROUP BY 1, 2
"""  # noqa: S608  (names are constants of this file)
# What was priced afterwards stands in adjustments: [number, price, cost] of each attempt.
_PRICED_LATER = """
SELECT (j.started_at AT TIME ZONE 'UTC')::date, d.upstream_model, count(*), sum((priced->>2)::bigint)
FROM billing_adjustment j
CROSS JOIN LATERAL jsonb_array_elements(j.attempts) priced
JOIN billing_attemptrecord a
    ON a.request_id = j.request_id AND a.started_at = j.started_at AND a.number = (priced->>0)::int
JOIN policies_deployment d ON d.id = a.deployment_id
WHERE j.number = 2 AND j.started_at >= %s AND j.started_at < %s AND d.provider_id = %s AND a.cost_nanousd IS NULL
GROUP BY 1, 2
"""


def sum_attempts(
    *, provider_id: int, first_day: dt.date, last_day: dt.date
) -> dict[tuple[dt.date, str], Recorded]:
    """Sum the calls of a provider by UTC day (of the request's start) and upstream model."""
    begins, ends = (
        dt.datetime.combine(day, dt.time(), dt.UTC) for day in (first_day, last_day + dt.timedelta(days=1))
    )
    found: dict[tuple[dt.date, str], Recorded] = {}
    with connection.cursor() as cursor:
        cursor.execute(_RECORDED, [provider_id, begins, ends])
        for day, model, *counts, cost, unpriced, unknown in cursor.fetchall():
            found[day, model] = Recorded(Counts(*map(int, counts)), int(cost), unpriced, unknown)
        cursor.execute(_PRICED_LATER, [begins, ends, provider_id])
        for day, model, count, cost in cursor.fetchall():
            before = found[day, model]
            found[day, model] = before._replace(
                cost_nanousd=before.cost_nanousd + int(cost), unpriced_count=before.unpriced_count - count
            )
    return found


def count_requests(first_day: dt.date, last_day: dt.date) -> int:
    """How many requests `sum_attempts` looks through, from the rollups."""
    days = UsageByDay.objects.filter(day__gte=first_day, day__lte=last_day)
    return int(days.aggregate(total=Sum("request_count"))["total"] or 0)
