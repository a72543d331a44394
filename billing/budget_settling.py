"""What did new records cost the budgets? Windows and leases, in the transaction that stores the records.

Writes: budget_window, budget_lease. `spent` of a window is what its records cost, each counted once: only records that
were really inserted come here. A request's own leases say into which windows it went; where it has none (the budget is
soft, or was not known to the worker yet) its time does.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from django.db import connection

from billing.budget_arithmetic import Span, span_at
from billing.budget_scopes import BudgetScopes, load_scopes
from billing.journal_lines import Intent, Outcome
from billing.leasing import find_window
from policies.models import Deployment

# Shared by whoever stores records, exclusive for whoever makes a budget: its first window is summed from the records,
# so no record may come in beside that.
BUDGET_LOCK = 0x627564676574

Changes = defaultdict[Any, list[int]]


def begin_settling() -> BudgetScopes:
    """Keep new budgets away until the end of the transaction; return those there are."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock_shared(%s)", [BUDGET_LOCK])
    return load_scopes()


def settle_records(
    pairs: Sequence[tuple[Intent, Outcome]], inserted: Collection[UUID], scopes: BudgetScopes
) -> None:
    """Count these records, of those that were inserted, into their windows. Call inside the transaction."""
    by_lease: Changes = defaultdict(lambda: [0, 0])
    by_span: Changes = defaultdict(lambda: [0, 0])
    spans: dict[int, Span] = {}
    window_of_lease = _windows_of(_leases_of(pairs))
    costs = _ModelCosts(is_needed=scopes.has_models or any(intent.model_leases for intent, _ in pairs))
    for intent, outcome in pairs:
        if intent.id not in inserted:
            continue
        cost = outcome.cost_nanousd or 0
        # Whoever died or lost track may have spent all that was held.
        uncertain = intent.hold_nanousd if outcome.status == "interrupted" else outcome.uncertain_nanousd
        if not cost and not uncertain and not costs.is_needed:
            continue
        budgets_of_leases = set()
        for lease in intent.leases:
            if lease in window_of_lease:
                budgets_of_leases.add(window_of_lease[lease][0])
                _add(by_lease, lease, cost, uncertain)
        for lease, held, model_id in intent.model_leases:
            if lease in window_of_lease:
                budgets_of_leases.add(window_of_lease[lease][0])
                of_model, unknown = costs.find(outcome, model_id)
                _add(by_lease, lease, of_model, held if outcome.status == "interrupted" else unknown)
        at_unix_s = intent.started_at.timestamp()
        for terms in scopes.find(intent.tenant_id, intent.project_id, intent.api_key_id):
            if terms.id in budgets_of_leases or at_unix_s < terms.counted_from_unix_s:
                continue
            span = spans.get(terms.id)
            if span is None or not span.holds(at_unix_s):  # calendars are slow, and a batch is of one day
                span = spans[terms.id] = span_at(
                    terms.window, terms.time_zone, at_unix_s, counted_from_unix_s=terms.counted_from_unix_s
                )
            used = (cost, uncertain) if terms.model_id is None else costs.find(outcome, terms.model_id)
            _add(by_span, (terms.id, span), *used)
    if by_lease or by_span:
        _write(by_lease, by_span, window_of_lease)


def _leases_of(pairs: Sequence[tuple[Intent, Outcome]]) -> set[UUID]:
    found = {lease for intent, _ in pairs for lease in intent.leases}
    return found | {held.lease for intent, _ in pairs for held in intent.model_leases}


class _ModelCosts:
    """What of a request's cost each model's attempts were. `is_needed` False: no budget asks."""

    def __init__(self, *, is_needed: bool) -> None:
        self.is_needed = is_needed
        # Deployments are few, and read once a batch.
        rows = Deployment.objects.values_list("id", "model_id") if is_needed else ()
        self._model_of: dict[int, int] = dict(rows)

    def find(self, outcome: Outcome, model_id: int) -> tuple[int, int]:
        """Known, and at most what nobody knows."""
        known = sum(
            attempt.cost_nanousd or 0
            for attempt in outcome.attempts
            if self._model_of.get(attempt.deployment_id) == model_id
        )
        return known, dict(outcome.uncertain_by_model).get(model_id, 0)


def _add(changes: Changes, key: Any, cost: int, uncertain: int) -> None:
    if not cost and not uncertain:
        return
    change = changes[key]
    change[0] += cost
    change[1] += uncertain


def _windows_of(leases: Collection[UUID]) -> dict[UUID, tuple[int, int]]:
    """(budget, window) of each lease that is there."""
    if not leases:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT l.id, w.budget_id, w.id FROM billing_budgetlease l"
            " JOIN billing_budgetwindow w ON w.id = l.window_id WHERE l.id = ANY(%s)",
            [list(leases)],
        )
        return {row[0]: (row[1], row[2]) for row in cursor.fetchall()}


def _write(by_lease: Changes, by_span: Changes, window_of_lease: dict[UUID, tuple[int, int]]) -> None:
    by_window: Changes = defaultdict(lambda: [0, 0])
    for lease, (cost, uncertain) in by_lease.items():
        _add(by_window, window_of_lease[lease][1], cost, uncertain)
    spans: list[tuple[int, Span]] = list(by_span)
    for budget_id, span in spans:
        window = find_window(budget_id, span)
        if window is not None:
            _add(by_window, window.id, *by_span[budget_id, span])
    with connection.cursor() as cursor:
        window_ids = sorted(by_window)
        cursor.execute(
            "SELECT id FROM billing_budgetwindow WHERE id = ANY(%s) ORDER BY id FOR UPDATE", [window_ids]
        )
        leases = sorted(by_lease)
        released: dict[int, int] = defaultdict(int)
        if leases:
            cursor.execute(
                "SELECT id FROM billing_budgetlease WHERE id = ANY(%s) ORDER BY id FOR UPDATE", [leases]
            )
            cursor.execute(
                "UPDATE billing_budgetlease l SET settled_nanousd = settled_nanousd + d.used"
                " FROM unnest(%s::uuid[], %s::bigint[]) AS d (id, used) WHERE l.id = d.id"
                " RETURNING l.window_id, greatest(0, amount_nanousd - settled_nanousd + d.used)"
                " - greatest(0, amount_nanousd - settled_nanousd)",
                [leases, [sum(by_lease[lease]) for lease in leases]],
            )
            for window_id, amount in cursor.fetchall():
                released[window_id] += amount
        cursor.execute(
            "UPDATE billing_budgetwindow w SET spent_nanousd = spent_nanousd + d.spent,"
            " uncertain_nanousd = uncertain_nanousd + d.uncertain, leased_nanousd = leased_nanousd - d.released"
            " FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])"
            " AS d (id, spent, uncertain, released) WHERE w.id = d.id",
            [
                window_ids,
                [by_window[window_id][0] for window_id in window_ids],
                [by_window[window_id][1] for window_id in window_ids],
                [released[window_id] for window_id in window_ids],
            ],
        )


def sum_records(
    *,
    tenant_id: int,
    project_id: int | None,
    key_ids: Collection[int],
    since: dt.datetime,
    model_id: int | None = None,
) -> int:
    """What the records of a scope cost since a time, or their attempts at one model, in nano-USD.

    Without what they were charged since, when they were priced afterwards: that is `budget_adjusting.sum_adjustments`.
    """
    cost, joined = "r.cost_nanousd", ""
    if model_id is not None:
        cost = "a.cost_nanousd"
        joined = (
            " JOIN billing_attemptrecord a ON a.request_id = r.id AND a.started_at = r.started_at"
            " AND a.deployment_id IN (SELECT id FROM policies_deployment WHERE model_id = %s)"
        )
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT coalesce(sum({cost}), 0)::bigint FROM billing_requestrecord r{joined}"  # noqa: S608  (constants)
            " WHERE r.tenant_id = %s AND r.started_at >= %s AND (%s::bigint IS NULL OR r.project_id = %s)"
            " AND (cardinality(%s::bigint[]) = 0 OR r.api_key_id = ANY(%s))",
            [
                *([] if model_id is None else [model_id]),
                tenant_id,
                since,
                project_id,
                project_id,
                list(key_ids),
                list(key_ids),
            ],
        )
        (total,) = cursor.fetchone()
        return int(total)
