"""Have budgets' windows spent what their records say, and do their leases add up?

Reads: budget, its windows and leases, records, attempts, attempts_by_day, adjustments, change_event. One statement a
window, so that what comes in meanwhile is on both sides or on none. What is uncertain stands in no record and cannot
be proved.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import NamedTuple

from django.db import connection

from billing.budget_adjusting import ATTEMPT_CHANGE, ATTEMPT_CHANGES, OF_DEPLOYMENTS, OF_MODELS
from billing.budget_scopes import list_successors
from billing.budget_standing import OWNERS
from billing.models import Budget, BudgetWindow
from billing.partitions import add_months
from billing.retention import find_records_since
from billing.rollups import ATTEMPT_DAY
from policies.models import ChangeEvent

# `r` is a record, an attempt or an adjustment: all have these columns, attempts the time alone.
_WINDOW = "r.started_at >= w.starts_at AND (w.ends_at IS NULL OR r.started_at < w.ends_at)"
_SCOPE = f"""r.tenant_id = %(tenant)s AND {_WINDOW}
    AND (%(project)s::bigint IS NULL OR r.project_id = %(project)s)
    AND (%(keys)s::bigint[] IS NULL OR r.api_key_id = ANY(%(keys)s))"""
# Corrections of a window that had ended are not counted in it (`billing.budget_adjusting`).
_IN_TIME = """EXISTS (SELECT FROM billing_reratingrun n WHERE n.id = r.run_id
    AND (w.ends_at IS NULL OR n.made_at < w.ends_at))"""
_RECORDS = f"SELECT sum(r.cost_nanousd) FROM billing_requestrecord r WHERE {_SCOPE}"  # noqa: S608  (constants)
_RECORDS_OF_MODEL = f"""SELECT sum(a.cost_nanousd) FROM billing_requestrecord r
    JOIN billing_attemptrecord a ON a.request_id = r.id AND a.started_at = r.started_at
    JOIN policies_deployment d ON d.id = a.deployment_id AND d.model_id = %(model)s WHERE {_SCOPE}"""  # noqa: S608
_ADJUSTED = f"SELECT sum(r.cost_nanousd) FROM billing_adjustment r WHERE {_SCOPE} AND {_IN_TIME}"  # noqa: S608
_ADJUSTED_OF_MODEL = f"""SELECT sum(m.nanousd) FROM (
    {OF_MODELS} JOIN billing_adjustment r ON r.id = j.id WHERE {_SCOPE} AND {_IN_TIME} AND d.model_id = %(model)s
    GROUP BY 1, 2) m (request_id, model_id, nanousd)"""  # noqa: S608
_AT_DEPLOYMENT = f"""SELECT sum(r.cost_nanousd) FROM billing_attemptrecord r
    WHERE r.deployment_id = %(deployment)s AND {_WINDOW}"""  # noqa: S608
_ADJUSTED_AT_DEPLOYMENT = f"""SELECT sum(m.nanousd) FROM (
    {OF_DEPLOYMENTS} JOIN billing_adjustment r ON r.id = j.id WHERE {_WINDOW} AND {_IN_TIME}
    AND a.deployment_id = %(deployment)s GROUP BY 1, 2) m (request_id, deployment_id, nanousd)"""  # noqa: S608

_ATTEMPT_DAYS = f"""
SELECT day, deployment_id, sum(stored_count)::bigint, sum(count)::bigint, sum(stored)::bigint, sum(cost)::bigint
FROM (
    SELECT {ATTEMPT_DAY} AS day, deployment_id, 0 AS stored_count, count(*) AS count, 0 AS stored,
        coalesce(sum(cost_nanousd), 0) AS cost
    FROM billing_attemptrecord WHERE started_at >= %(begin)s AND started_at < %(end)s GROUP BY 1, 2
    UNION ALL
    SELECT (j.started_at AT TIME ZONE 'UTC')::date, a.deployment_id, 0, 0, 0, {ATTEMPT_CHANGE}
    FROM {ATTEMPT_CHANGES} WHERE j.started_at >= %(begin)s AND j.started_at < %(end)s GROUP BY 1, 2
    UNION ALL
    SELECT day, deployment_id, attempt_count, 0, cost_nanousd, 0
    FROM billing_attemptsbyday WHERE day >= %(first)s AND day < %(after)s
) both_sides GROUP BY 1, 2 HAVING sum(stored_count) <> sum(count) OR sum(stored) <> sum(cost) ORDER BY 1, 2
"""  # noqa: S608  (constants)


class WrongBudget(NamedTuple):
    """One number of a window that is not what it should be."""

    kind: str
    what: str
    stored: str
    expected: str


class _Window(NamedTuple):
    spent_nanousd: int
    leased_nanousd: int
    used_nanousd: int
    limit_nanousd: int
    of_records: int
    of_adjustments: int
    of_leases: int


def find_wrong_budgets() -> Iterator[WrongBudget]:
    """Compare every window whose records are all there."""
    since = find_records_since()
    budgets = Budget.objects.select_related(*OWNERS).order_by("id")
    successors = list_successors({row.api_key_id for row in budgets if row.api_key_id is not None})
    for budget in budgets:
        windows = BudgetWindow.objects.filter(budget=budget).order_by("starts_at")
        if since is not None:
            windows = windows.filter(
                starts_at__gte=dt.datetime(since.year, since.month, since.day, tzinfo=dt.UTC)
            )
        for window in windows:
            keys = None if budget.api_key_id is None else successors[budget.api_key_id]
            yield from _compare(budget, window, keys)


def find_wrong_attempt_days(month: dt.date) -> Iterator[WrongBudget]:
    """Days of a deployment in a month whose sums are not those of its attempts."""
    after = add_months(month, 1)
    begin, end = (dt.datetime(day.year, day.month, 1, tzinfo=dt.UTC) for day in (month, after))
    with connection.cursor() as cursor:
        cursor.execute(_ATTEMPT_DAYS, {"first": month, "after": after, "begin": begin, "end": end})
        for day, deployment, *sums in cursor.fetchall():
            for name, stored, expected in (("attempt_count", *sums[:2]), ("cost_nanousd", *sums[2:])):
                if stored != expected:
                    what = f"day {day}, deployment {deployment}"
                    yield WrongBudget(f"attempts_by_day.{name}", what, str(stored), str(expected))


def _compare(budget: Budget, window: BudgetWindow, keys: list[int] | None) -> Iterator[WrongBudget]:
    found = _read(budget, window, keys)
    if found is None:  # deleted meanwhile
        return
    what = f"budget of {budget.scope()} from {window.starts_at:%Y-%m-%d %H:%M}"
    expected = found.of_records + found.of_adjustments
    if found.spent_nanousd != expected:
        yield WrongBudget("budget spent", what, str(found.spent_nanousd), str(expected))
    if found.leased_nanousd != found.of_leases:
        yield WrongBudget("budget leased", what, str(found.leased_nanousd), str(found.of_leases))
    taken = found.used_nanousd + found.leased_nanousd
    if found.leased_nanousd and taken > found.limit_nanousd and not _is_explained(budget, window, found):
        yield WrongBudget("budget over its limit", what, str(taken), f"at most {found.limit_nanousd}")


def _is_explained(budget: Budget, window: BudgetWindow, found: _Window) -> bool:
    """More may be taken than the limit where it was lowered, spent was corrected, or the budget came into a window."""
    if found.of_adjustments or budget.created_at >= window.starts_at:
        return True
    changed = ChangeEvent.objects.filter(object_type="budget", object_id=budget.pk, action="change")
    return changed.filter(at__gte=window.starts_at, after__has_key="limit_usd").exists()


def _read(budget: Budget, window: BudgetWindow, keys: list[int] | None) -> _Window | None:
    if budget.deployment_id is not None:
        records, adjusted = _AT_DEPLOYMENT, _ADJUSTED_AT_DEPLOYMENT
    elif budget.model_id is not None:
        records, adjusted = _RECORDS_OF_MODEL, _ADJUSTED_OF_MODEL
    else:
        records, adjusted = _RECORDS, _ADJUSTED
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT w.spent_nanousd, w.leased_nanousd, w.spent_nanousd + w.uncertain_nanousd, w.limit_nanousd,
                coalesce(({records}), 0)::bigint,
                coalesce(({adjusted}), 0)::bigint,
                coalesce((SELECT sum(greatest(0, l.amount_nanousd - l.settled_nanousd))
                    FROM billing_budgetlease l WHERE l.window_id = w.id), 0)::bigint
            FROM billing_budgetwindow w WHERE w.id = %(window)s
            """,  # noqa: S608  (constants)
            {
                "window": window.pk,
                "tenant": budget.tenant_id,
                "project": budget.project_id,
                "keys": keys,
                "model": budget.model_id,
                "deployment": budget.deployment_id,
            },
        )
        row = cursor.fetchone()
        return None if row is None else _Window(*row)
