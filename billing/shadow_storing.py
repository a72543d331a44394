"""How does what shadow requests told become evidence?

Writes: evidence, two rows a pair: of the request that the client got its answer from, with no cost, and of its shadow,
with the shadow's. Both carry the id of the client's request as `pair_id`. Storing twice changes nothing. A pair of
which a deployment is gone is left out: half a comparison tells nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.db import connection

from billing.journal_evidence import Shadow

_INSERT = """
WITH given AS (
    SELECT p.*, first.model_id AS first_model_id, second.model_id AS second_model_id
    FROM unnest(%s::uuid[], %s::timestamptz[], %s::uuid[], %s::text[], %s::text[], %s::bigint[],
        %s::bigint[], %s::float8[], %s::text[], %s::bigint[], %s::float8[],
        %s::bigint[], %s::float8[], %s::text[], %s::bigint[], %s::float8[])
    AS p (id, at, request_id, workload, task_type, cost,
        first_deployment, first_quality, first_detail, first_output, first_ms,
        second_deployment, second_quality, second_detail, second_output, second_ms)
    JOIN policies_deployment first ON first.id = p.first_deployment
    JOIN policies_deployment second ON second.id = p.second_deployment
)
INSERT INTO billing_evidence (source, at, pair_id, workload, task_type, request_id, model_id, quality, detail,
    output_tokens, latency_ms, cost_nanousd)
SELECT 'shadow', at, request_id::text, workload, task_type, request_id, first_model_id, first_quality, first_detail,
    first_output, first_ms, 0 FROM given
UNION ALL
SELECT 'shadow', at, request_id::text, workload, task_type, id, second_model_id, second_quality, second_detail,
    second_output, second_ms, cost FROM given
ON CONFLICT DO NOTHING
"""


def store_shadows(shadows: Sequence[Shadow]) -> None:
    """Insert two rows of evidence for each. Call inside a transaction."""
    rows = [
        (
            one.id,
            one.at,
            one.request_id,
            one.workload,
            one.task_type,
            one.cost_nanousd,
            *one.served,
            *one.other,
        )
        for one in shadows
    ]
    with connection.cursor() as cursor:
        cursor.execute(_INSERT, [list(column) for column in zip(*rows, strict=True)])
