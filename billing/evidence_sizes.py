"""How long were the requests behind judgements?

Reads: request_record, workload_usage. No text: input tokens, as the records have them.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable

from django.db import connection
from django.db.models import Sum

from billing.models import WorkloadUsage
from billing.request_times import ForeignIdError, started_at_of


def read_input_tokens(request_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, int]:
    """The input tokens of these requests, where a record is kept and says them."""
    wanted: list[uuid.UUID] = []
    times: list[dt.datetime] = []
    for request_id in request_ids:
        try:
            times.append(started_at_of(request_id))
        except ForeignIdError:
            continue
        wanted.append(request_id)
    if not wanted:
        return {}
    with connection.cursor() as cursor:
        # With its time, each id is looked up in one month's partition.
        cursor.execute(
            "SELECT r.id, r.input_tokens FROM unnest(%s::uuid[], %s::timestamptz[]) AS wanted (id, at)"
            " JOIN billing_requestrecord r ON r.id = wanted.id AND r.started_at = wanted.at"
            " WHERE r.input_tokens IS NOT NULL",
            [wanted, times],
        )
        return dict(cursor.fetchall())


def read_mean_input_tokens(*, since: dt.date) -> dict[str, float]:
    """How long the requests of each workload are on average, since a day (UTC)."""
    sums = (
        WorkloadUsage.objects.filter(day__gte=since)
        .values_list("workload")
        .annotate(tokens=Sum("input_tokens"), count=Sum("request_count"))
        .order_by("workload")
    )
    return {workload: tokens / count for workload, tokens, count in sums if tokens and count}
