"""How does a judgement about a model's answer become evidence?

Writes: evidence. Evaluation sets and the collecting of feedback call it; failed free checks come with the journal
(`storing.store_failed_checks`). What the evidence teaches is decided later, in `router_learning`.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable
from typing import NamedTuple

from django.db import connection, transaction

from billing.models import Evidence


class Judgement(NamedTuple):
    """One model's answer and how good it was, 0 to 1.

    `pair_id` is the same for answers of several models to one question (those are compared with each other).
    A judgement about a request that was judged before from the same source replaces the older one.
    """

    source: Evidence.Source
    model_id: int
    quality: float
    at: dt.datetime
    workload: str = ""
    task_type: str = ""
    request_id: uuid.UUID | None = None
    pair_id: str = ""
    detail: str = ""
    output_tokens: int | None = None
    latency_ms: float | None = None
    cost_nanousd: int = 0


@transaction.atomic
def record_evidence(judgements: Iterable[Judgement]) -> int:
    """Store judgements and return how many were given. Of two about one request the later one stays."""
    newest: dict[object, Judgement] = {}
    for number, judgement in enumerate(judgements):
        key = number if judgement.request_id is None else (*judgement[:2], judgement.request_id)
        if key not in newest or newest[key].at <= judgement.at:
            newest[key] = judgement
    if not newest:
        return 0
    columns = [list(column) for column in zip(*newest.values(), strict=True)]
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO billing_evidence AS kept (source, model_id, quality, at, workload, task_type, request_id,"
            " pair_id, detail, output_tokens, latency_ms, cost_nanousd)"
            " SELECT * FROM unnest(%s::text[], %s::bigint[], %s::float8[], %s::timestamptz[], %s::text[],"
            " %s::text[], %s::uuid[], %s::text[], %s::text[], %s::bigint[], %s::float8[], %s::bigint[])"
            " ON CONFLICT (request_id, source, model_id) WHERE request_id IS NOT NULL"
            " DO UPDATE SET quality = excluded.quality, at = excluded.at, detail = excluded.detail"
            " WHERE kept.at <= excluded.at",
            columns,
        )
    return len(newest)
