"""How does a budget come to be, change and go?

Writes: budget, its windows, change_event. The only writer of budgets; what is spent and leased of a window is written
by `leasing` and `budget_settling`.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone

from billing.budget_adjusting import sum_adjustments, sum_deployment_adjustments
from billing.budget_arithmetic import Span, span_at
from billing.budget_scopes import list_successors
from billing.budget_settling import BUDGET_LOCK, sum_attempt_days, sum_attempts, sum_records
from billing.models import Budget, BudgetWindow
from billing.money import usd_text
from policies import changes
from policies.errors import InvalidValueError, NameTakenError
from policies.models import ApiKey, Deployment, Model, Project, Tenant

# Sums of amounts stay far from 64 bits.
MAX_LIMIT_NANOUSD = 10**17
# A deployment serves tenants of many time zones, and providers bill by days of UTC.
DEPLOYMENT_TIME_ZONE = "UTC"


@transaction.atomic
def create_budget(
    *,
    window: str,
    limit_nanousd: int,
    actor: str,
    tenant: Tenant | None = None,
    project: Project | None = None,
    api_key: ApiKey | None = None,
    model: Model | None = None,
    deployment: Deployment | None = None,
    is_hard: bool = True,
    may_lower_limit: bool = True,
    now: dt.datetime | None = None,
) -> Budget:
    """Create a budget of a tenant, project or key (for one model or all), or of a deployment alone. What its window has
    cost so far counts; one `total` counts from now on.

    Raises InvalidValueError, and NameTakenError when this scope has one of this window and kind.
    """
    _check(tenant, project, api_key, window, limit_nanousd)
    _check_owner(tenant, project, api_key, model, deployment)
    if api_key is not None:
        project = api_key.project
    scope: dict[str, Any] = {
        "tenant": tenant,
        "project": project,
        "api_key": api_key,
        "model": model,
        "deployment": deployment,
        "window": window,
        "is_hard": is_hard,
    }
    if Budget.objects.filter(**scope).exists():
        raise NameTakenError(
            f"{api_key or project or tenant or f'deployment {deployment}'} has a {'hard' if is_hard else 'soft'}"
            f" budget by {window}{'' if model is None else f' for {model}'}: change it"
        )
    at = now or timezone.now()
    time_zone = DEPLOYMENT_TIME_ZONE if tenant is None else tenant.time_zone
    # From here to the commit no record is stored: it would be counted twice, or not at all.
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [BUDGET_LOCK])
    span = span_at(
        window,  # type: ignore[arg-type]  # checked above
        time_zone,
        at.timestamp(),
        counted_from_unix_s=int(at.timestamp()),
    )
    budget = Budget.objects.create(
        **scope,
        limit_nanousd=limit_nanousd,
        may_lower_limit=may_lower_limit,
        time_zone=time_zone,
        counted_from=dt.datetime.fromtimestamp(span.starts_unix_s, dt.UTC),
        created_by=actor[:150],
    )
    _open_window(budget, span)
    _record(budget, actor=actor, action="create", after=_describe(budget))
    return budget


def _open_window(budget: Budget, span: Span) -> None:
    """The window that runs when a budget is made, with what its records have cost so far."""
    BudgetWindow.objects.create(
        budget=budget,
        starts_at=budget.counted_from,
        ends_at=None if span.ends_unix_s is None else dt.datetime.fromtimestamp(span.ends_unix_s, dt.UTC),
        limit_nanousd=budget.limit_nanousd,
        spent_nanousd=_sum_so_far(budget),
    )


def _sum_so_far(budget: Budget) -> int:
    """What the records since a budget's first moment cost, and what was priced of them afterwards."""
    if budget.deployment_id is not None:
        return _sum_at_deployment(budget.deployment_id, budget.counted_from)
    key_id = budget.api_key_id
    counted: dict[str, Any] = {
        "tenant_id": budget.tenant_id,
        "project_id": budget.project_id,
        "key_ids": [] if key_id is None else list_successors([key_id])[key_id],
        "since": budget.counted_from,
        "model_id": budget.model_id,
    }
    return sum_records(**counted) + sum_adjustments(**counted)


def _sum_at_deployment(deployment_id: int, since: dt.datetime) -> int:
    """Days that are whole come from their sums: the ingester waits meanwhile. Before them there is what a `total`
    counts, which begins at any second: this one, and what a clock that jumped says came later."""
    today = since.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if since == today:
        return sum_attempt_days(deployment_id=deployment_id, since=today.date())
    tomorrow = today + dt.timedelta(days=1)
    part: dict[str, Any] = {"deployment_id": deployment_id, "since": since, "until": tomorrow}
    whole = sum_attempt_days(deployment_id=deployment_id, since=tomorrow.date())
    return whole + sum_attempts(**part) + sum_deployment_adjustments(**part)


@transaction.atomic
def change_budget(
    *,
    budget: Budget,
    actor: str,
    limit_nanousd: int | None = None,
    may_lower_limit: bool | None = None,
    is_enabled: bool | None = None,
) -> Budget:
    """Change a budget's limit, from the window on that runs, or switch it. None: as it is. Raises InvalidValueError.

    Workers notice a lower limit within a second, and give back what no request holds; what is held stays promised.
    """
    row = Budget.objects.select_for_update().get(pk=budget.pk)
    before = _describe(row)
    if limit_nanousd is not None:
        _check_limit(limit_nanousd)
        row.limit_nanousd = limit_nanousd
        BudgetWindow.objects.filter(
            Q(ends_at__isnull=True) | Q(ends_at__gt=timezone.now()), budget=row
        ).update(limit_nanousd=limit_nanousd)
    if may_lower_limit is not None:
        row.may_lower_limit = may_lower_limit
    if is_enabled is not None:
        row.is_enabled = is_enabled
    after = _describe(row)
    if after == before:
        return row
    row.save(update_fields=["limit_nanousd", "may_lower_limit", "is_enabled"])
    changed = [name for name in after if after[name] != before[name]]
    _record(
        row,
        actor=actor,
        action="change",
        before={name: before[name] for name in changed},
        after={name: after[name] for name in changed},
    )
    return row


@transaction.atomic
def delete_budget(*, budget: Budget, actor: str) -> None:
    """Delete a budget with its windows and leases. Records stay as they are."""
    row = Budget.objects.select_for_update().get(pk=budget.pk)
    _record(row, actor=actor, action="delete", before=_describe(row))
    row.delete()


def _check_owner(
    tenant: Tenant | None,
    project: Project | None,
    api_key: ApiKey | None,
    model: Model | None,
    deployment: Deployment | None,
) -> None:
    if deployment is None and tenant is None:
        raise InvalidValueError({"tenant": ["name a tenant, or a deployment"]})
    if deployment is not None and (tenant or project or api_key or model):
        raise InvalidValueError(
            {
                "deployment": [
                    "a deployment's budget counts for all callers: without tenant, project, key or model"
                ]
            }
        )


def _check(
    tenant: Tenant | None, project: Project | None, api_key: ApiKey | None, window: str, limit_nanousd: int
) -> None:
    if window not in Budget.Window.values:
        raise InvalidValueError({"window": [f"{window!r} is not one of {', '.join(Budget.Window.values)}"]})
    _check_limit(limit_nanousd)
    if api_key is not None and project is not None and api_key.project_id != project.pk:
        raise InvalidValueError({"api_key": [f"{api_key} is not a key of {project}"]})
    owner = api_key.project if api_key is not None else project
    if owner is not None and (tenant is None or owner.tenant_id != tenant.pk):
        raise InvalidValueError({"tenant": [f"{owner} does not belong to {tenant}"]})
    if api_key is not None and (api_key.replaced_by_id is not None or api_key.revoked_at is not None):
        raise InvalidValueError({"api_key": [f"{api_key} is revoked or replaced: choose the key in use"]})


def _check_limit(limit_nanousd: int) -> None:
    if not 0 < limit_nanousd <= MAX_LIMIT_NANOUSD:
        raise InvalidValueError({"limit_usd": ["a limit is more than 0 and at most 100,000,000 USD"]})


def _describe(budget: Budget) -> dict[str, Any]:
    return {
        "window": budget.window,
        **({} if budget.model is None else {"model": budget.model.name}),
        "limit_usd": usd_text(budget.limit_nanousd),
        "is_hard": budget.is_hard,
        "may_lower_limit": budget.may_lower_limit,
        "is_enabled": budget.is_enabled,
    }


def _record(
    budget: Budget,
    *,
    actor: str,
    action: str,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> None:
    changes.record_change(
        actor=actor,
        action=action,
        object_type="budget",
        object_id=budget.pk,
        object_name=f"{budget.scope()} by {budget.window}",
        before=before,
        after=after,
    )
