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
    window_of_lease = _windows_of({lease for intent, _ in pairs for lease in intent.leases})
    for intent, outcome in pairs:
        if intent.id not in inserted:
            continue
        cost = outcome.cost_nanousd or 0
        # Whoever died or lost track may have spent all that was held.
        uncertain = intent.hold_nanousd if outcome.status == "interrupted" else outcome.uncertain_nanousd
        if not cost and not uncertain:
            continue
        budgets_of_leases = set()
        for lease in intent.leases:
            if lease in window_of_lease:
                budgets_of_leases.add(window_of_lease[lease][0])
                _add(by_lease, lease, cost, uncertain)
        at_unix_s = intent.started_at.timestamp()
        for terms in scopes.find(intent.tenant_id, intent.project_id, intent.api_key_id):
            if terms.id in budgets_of_leases or at_unix_s < terms.counted_from_unix_s:
                continue
            span = spans.get(terms.id)
            if span is None or not span.holds(at_unix_s):  # calendars are slow, and a batch is of one day
                span = spans[terms.id] = span_at(
                    terms.window, terms.time_zone, at_unix_s, counted_from_unix_s=terms.counted_from_unix_s
                )
            _add(by_span, (terms.id, span), cost, uncertain)
    if by_lease or by_span:
        _write(by_lease, by_span, window_of_lease)


def _add(changes: Changes, key: Any, cost: int, uncertain: int) -> None:
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
    *, tenant_id: int, project_id: int | None, key_ids: Collection[int], since: dt.datetime
) -> int:
    """What the records of a scope cost since a time, in nano-USD."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(sum(cost_nanousd), 0)::bigint FROM billing_requestrecord"
            " WHERE tenant_id = %s AND started_at >= %s AND (%s::bigint IS NULL OR project_id = %s)"
            " AND (cardinality(%s::bigint[]) = 0 OR api_key_id = ANY(%s))",
            [tenant_id, since, project_id, project_id, list(key_ids), list(key_ids)],
        )
        (total,) = cursor.fetchone()
        return int(total)
