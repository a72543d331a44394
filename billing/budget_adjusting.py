"""What do budgets count anew when requests are priced afterwards?

Writes: budget_window, in the transaction that writes the adjustments. Windows that had ended when the run was made stay
as they were; those that run count the difference, also beyond their limit: then nothing more is lent.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from django.db import connection

from billing.budget_arithmetic import Span, span_at
from billing.budget_settling import begin_settling
from billing.leasing import find_window
from billing.models import Adjustment
from policies.snapshot import BudgetTerms

# What the attempts at each deployment, or model, cost more than their records say. A replacement names all that have a
# price.
ATTEMPT_CHANGE = "sum((e.attempt->>2)::bigint - coalesce(a.cost_nanousd, 0))::bigint"
ATTEMPT_CHANGES = """billing_adjustment j CROSS JOIN LATERAL jsonb_array_elements(j.attempts) e (attempt)
JOIN billing_attemptrecord a ON a.request_id = j.request_id AND a.started_at = j.started_at
    AND a.number = (e.attempt->>0)::int
"""
_OF_ATTEMPTS = f"SELECT j.request_id, {{whose}}, {ATTEMPT_CHANGE} FROM {ATTEMPT_CHANGES}"  # noqa: S608  (constants)
OF_DEPLOYMENTS = _OF_ATTEMPTS.format(whose="a.deployment_id")
OF_MODELS = _OF_ATTEMPTS.format(whose="d.model_id") + "JOIN policies_deployment d ON d.id = a.deployment_id\n"


def count_adjustments(rows: Sequence[Adjustment], *, made_at: dt.datetime) -> None:
    """Count what stored pairs change into the windows that run. Call inside their transaction."""
    scopes = begin_settling()
    if not scopes.tenant_ids and not scopes.by_deployment:
        return
    of_all: dict[object, int] = defaultdict(int)
    requests: dict[object, Adjustment] = {}
    for row in rows:
        of_all[row.request_id] += row.cost_nanousd
        requests[row.request_id] = row
    of_models = _read_changes(OF_MODELS, rows) if scopes.has_models else {}
    of_deployments = _read_changes(OF_DEPLOYMENTS, rows) if scopes.by_deployment else {}
    changes: dict[tuple[int, Span], int] = defaultdict(int)
    for request_id, row in requests.items():
        for terms in scopes.find(row.tenant_id, row.project_id, row.api_key_id):
            span = _running_span(terms, row.started_at, made_at)
            if span is not None:
                model_id = terms.model_id
                nanousd = of_all[request_id] if model_id is None else of_models.get((request_id, model_id), 0)
                changes[terms.id, span] += nanousd
    for (request_id, deployment_id), nanousd in of_deployments.items():
        for terms in scopes.by_deployment.get(deployment_id, ()):
            span = _running_span(terms, requests[request_id].started_at, made_at)
            if span is not None:
                changes[terms.id, span] += nanousd
    _write(changes)


def _running_span(terms: BudgetTerms, started_at: dt.datetime, made_at: dt.datetime) -> Span | None:
    """The window of a request, None where it counts in none, or in one that had ended."""
    at_unix_s = started_at.timestamp()
    if at_unix_s < terms.counted_from_unix_s:
        return None
    span = span_at(terms.window, terms.time_zone, at_unix_s, counted_from_unix_s=terms.counted_from_unix_s)
    return None if span.ends_unix_s is not None and span.ends_unix_s <= made_at.timestamp() else span


def sum_adjustments(
    *,
    tenant_id: int,
    project_id: int | None,
    key_ids: Collection[int],
    since: dt.datetime,
    model_id: int | None = None,
) -> int:
    """What requests of a scope were charged afterwards, or their attempts at one model, in nano-USD."""
    scope = (
        "j.tenant_id = %s AND j.started_at >= %s AND (%s::bigint IS NULL OR j.project_id = %s)"
        " AND (cardinality(%s::bigint[]) = 0 OR j.api_key_id = ANY(%s))"
    )
    arguments: list[Any] = [tenant_id, since, project_id, project_id, list(key_ids), list(key_ids)]
    statement = f"SELECT sum(j.cost_nanousd) FROM billing_adjustment j WHERE {scope}"  # noqa: S608  (constants)
    if model_id is not None:
        statement = (
            f"SELECT sum(m.nanousd) FROM ({OF_MODELS} WHERE {scope} AND d.model_id = %s GROUP BY 1, 2)"  # noqa: S608
        )
        statement += " m (request_id, model_id, nanousd)"
        arguments.append(model_id)
    with connection.cursor() as cursor:
        cursor.execute(statement, arguments)
        (total,) = cursor.fetchone()
        return int(total or 0)


def sum_deployment_adjustments(*, deployment_id: int, since: dt.datetime, until: dt.datetime) -> int:
    """What attempts at a deployment were charged afterwards, of requests of this time, in nano-USD."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {ATTEMPT_CHANGE} FROM {ATTEMPT_CHANGES} WHERE a.deployment_id = %s"  # noqa: S608  (constants)
            " AND j.started_at >= %s AND j.started_at < %s",
            [deployment_id, since, until],
        )
        (total,) = cursor.fetchone()
        return int(total or 0)


def _read_changes(statement: str, rows: Sequence[Adjustment]) -> dict[tuple[object, int], int]:
    with connection.cursor() as cursor:
        cursor.execute(statement + " WHERE j.id = ANY(%s) GROUP BY 1, 2", [[row.pk for row in rows]])
        return {(row[0], row[1]): row[2] for row in cursor.fetchall()}


def _write(changes: dict[tuple[int, Span], int]) -> None:
    by_window: dict[int, int] = defaultdict(int)
    for (budget_id, span), nanousd in changes.items():
        window = find_window(budget_id, span) if nanousd else None
        if window is not None:
            by_window[window.id] += nanousd
    with connection.cursor() as cursor:
        for window_id in sorted(by_window):  # in the order in which everybody locks them
            cursor.execute(
                "UPDATE billing_budgetwindow SET spent_nanousd = spent_nanousd + %s WHERE id = %s",
                [by_window[window_id], window_id],
            )
