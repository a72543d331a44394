"""What did new records cost the budgets? Windows and leases, in the transaction that stores the records.

Writes: budget_window, budget_lease. `spent` of a window is what its records cost, each counted once: only records that
were really inserted come here. A request's own leases say into which windows it went; where it has none (the budget is
soft, or was not known to the worker yet) its time does. A deployment's budgets count what attempts there cost, whoever
asked: shadow and evaluation requests are records as any other.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection

from billing.budget_arithmetic import Span, span_at
from billing.budget_scopes import BudgetScopes, load_scopes
from billing.journal_lines import Intent, Outcome
from billing.leasing import find_window
from billing.request_times import first_id_of
from policies.models import Deployment
from policies.snapshot import BudgetTerms

# Shared by whoever stores records, exclusive for whoever makes a budget: its first window is summed from the records,
# so no record may come in beside that.
BUDGET_LOCK = 0x627564676574

Changes = defaultdict[Any, list[int]]


class Use(NamedTuple):
    """What a request, or its attempts at one model or deployment, cost, and may have cost besides."""

    cost: int
    uncertain: int


def begin_settling() -> BudgetScopes:
    """Keep new budgets away until the end of the transaction; return those there are."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock_shared(%s)", [BUDGET_LOCK])
    return load_scopes()


def list_counted(pairs: Sequence[tuple[Intent, Outcome]], scopes: BudgetScopes) -> list[UUID]:
    """The requests that count for budgets of deployments: they called one that has any, or held of it."""
    of_deployments = scopes.by_deployment
    if not of_deployments:
        return []
    return [
        intent.id
        for intent, outcome in pairs
        if intent.deployment_leases
        or any(attempt.deployment_id in of_deployments for attempt in outcome.attempts)
    ]


def settle_records(
    pairs: Sequence[tuple[Intent, Outcome]], inserted: Collection[UUID], scopes: BudgetScopes
) -> None:
    """Count these records, of those that were inserted, into their windows. Call inside the transaction."""
    by_lease: Changes = defaultdict(lambda: [0, 0])
    by_span: Changes = defaultdict(lambda: [0, 0])
    spans: dict[int, Span] = {}
    window_of_lease = _windows_of(_leases_of(pairs))
    uses = _Uses(needs_models=scopes.has_models or any(intent.model_leases for intent, _ in pairs))
    for intent, outcome in pairs:
        if intent.id not in inserted:
            continue
        budgets_of_leases = set()
        for lease, use in uses.by_lease(intent, outcome):
            if lease in window_of_lease:
                budgets_of_leases.add(window_of_lease[lease][0])
                _add(by_lease, lease, *use)
        at_unix_s = intent.started_at.timestamp()
        for terms in _terms_of(intent, outcome, scopes):
            if terms.id in budgets_of_leases or at_unix_s < terms.counted_from_unix_s:
                continue
            span = spans.get(terms.id)
            if span is None or not span.holds(at_unix_s):  # calendars are slow, and a batch is of one day
                span = spans[terms.id] = span_at(
                    terms.window, terms.time_zone, at_unix_s, counted_from_unix_s=terms.counted_from_unix_s
                )
            _add(by_span, (terms.id, span), *uses.find(intent, outcome, terms))
    if by_lease or by_span:
        _write(by_lease, by_span, window_of_lease)


def _terms_of(intent: Intent, outcome: Outcome, scopes: BudgetScopes) -> Iterator[BudgetTerms]:
    """All budgets that a request counts for: its caller's, and those of the deployments that it called."""
    yield from scopes.find(intent.tenant_id, intent.project_id, intent.api_key_id)
    if scopes.by_deployment:
        for deployment_id in {attempt.deployment_id for attempt in outcome.attempts}:
            yield from scopes.by_deployment.get(deployment_id, ())


def _leases_of(pairs: Sequence[tuple[Intent, Outcome]]) -> set[UUID]:
    found = {lease for intent, _ in pairs for lease in intent.leases}
    for intent, _ in pairs:
        found.update(held.lease for held in intent.model_leases)
        found.update(held.lease for held in intent.deployment_leases)
    return found


class _Uses:
    """What of a request each of its budgets counts. `needs_models` False: no budget is of one model."""

    def __init__(self, *, needs_models: bool) -> None:
        # Deployments are few, and read once a batch.
        rows = Deployment.objects.values_list("id", "model_id") if needs_models else ()
        self._model_of: dict[int, int] = dict(rows)

    def by_lease(self, intent: Intent, outcome: Outcome) -> Iterator[tuple[UUID, Use]]:
        """What counts for each lease that the request holds of."""
        of_all = _use_of_all(intent, outcome)
        for lease in intent.leases:
            yield lease, of_all
        # Whoever died or lost track may have spent all that was held.
        is_lost = outcome.status == "interrupted"
        for lease, held, model_id in intent.model_leases:
            yield lease, Use(0, held) if is_lost else self._of_model(outcome, model_id)
        for lease, held, deployment_id in intent.deployment_leases:
            yield lease, Use(0, held) if is_lost else _use_of_deployment(outcome, deployment_id)

    def find(self, intent: Intent, outcome: Outcome, terms: BudgetTerms) -> Use:
        """What counts for a budget of which the request holds nothing."""
        if terms.deployment_id is not None:
            return _use_of_deployment(outcome, terms.deployment_id)
        if terms.model_id is not None:
            return self._of_model(outcome, terms.model_id)
        return _use_of_all(intent, outcome)

    def _of_model(self, outcome: Outcome, model_id: int) -> Use:
        known = sum(
            attempt.cost_nanousd or 0
            for attempt in outcome.attempts
            if self._model_of.get(attempt.deployment_id) == model_id
        )
        return Use(known, dict(outcome.uncertain_by_model).get(model_id, 0))


def _use_of_all(intent: Intent, outcome: Outcome) -> Use:
    uncertain = intent.hold_nanousd if outcome.status == "interrupted" else outcome.uncertain_nanousd
    return Use(outcome.cost_nanousd or 0, uncertain)


def _use_of_deployment(outcome: Outcome, deployment_id: int) -> Use:
    known = sum(
        attempt.cost_nanousd or 0 for attempt in outcome.attempts if attempt.deployment_id == deployment_id
    )
    return Use(known, dict(outcome.uncertain_by_deployment).get(deployment_id, 0))


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


def sum_attempt_days(*, deployment_id: int, since: dt.date) -> int:
    """What attempts at a deployment cost from a UTC day on, in nano-USD, with what was priced afterwards."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(sum(cost_nanousd), 0)::bigint FROM billing_attemptsbyday"
            " WHERE deployment_id = %s AND day >= %s",
            [deployment_id, since],
        )
        (total,) = cursor.fetchone()
        return int(total)


def sum_attempts(*, deployment_id: int, since: dt.datetime, until: dt.datetime) -> int:
    """What attempts at a deployment cost within a time, in nano-USD; without what was priced afterwards.

    By the ids of their requests, which hold the time and have an index: it reads as much as there is of that time.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(sum(cost_nanousd), 0)::bigint FROM billing_attemptrecord"
            " WHERE deployment_id = %s AND started_at >= %s AND started_at < %s"
            " AND request_id >= %s AND request_id < %s",
            [deployment_id, since, until, first_id_of(since), first_id_of(until)],
        )
        (total,) = cursor.fetchone()
        return int(total)
