"""Which budgets does a request count for? Of its tenant, its project, its key, and of the deployments it called.

Reads: budget, and which keys replaced which: a budget of a key goes with it when the key is rotated.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from django.db import connection

from billing.models import Budget
from policies.snapshot import BudgetTerms


class BudgetScopes(NamedTuple):
    """Terms by tenant, by project and by key (with the keys that replaced it)."""

    by_tenant: Mapping[int, tuple[BudgetTerms, ...]]
    by_project: Mapping[int, tuple[BudgetTerms, ...]]
    by_key: Mapping[int, tuple[BudgetTerms, ...]]
    tenant_ids: frozenset[int] = frozenset()
    # Whether any budget is for one model.
    has_models: bool = False
    by_deployment: Mapping[int, tuple[BudgetTerms, ...]] = {}

    def find(self, tenant_id: int, project_id: int, key_id: int) -> tuple[BudgetTerms, ...]:
        """All budgets of callers that a request of this key counts for, the widest first."""
        if tenant_id not in self.tenant_ids:
            return ()
        return (
            *self.by_tenant.get(tenant_id, ()),
            *self.by_project.get(project_id, ()),
            *self.by_key.get(key_id, ()),
        )


def load_scopes(*, only_in_force: bool = False) -> BudgetScopes:
    """Read all budgets; with `only_in_force` the hard ones that are switched on."""
    rows = Budget.objects.all()
    if only_in_force:
        rows = rows.filter(is_hard=True, is_enabled=True)
    by_tenant: dict[int, tuple[BudgetTerms, ...]] = {}
    by_project: dict[int, tuple[BudgetTerms, ...]] = {}
    by_key: dict[int, tuple[BudgetTerms, ...]] = {}
    by_deployment: dict[int, tuple[BudgetTerms, ...]] = {}
    tenant_ids: set[int] = set()
    budgets = list(
        rows.select_related(
            "tenant", "project__tenant", "api_key__project__tenant", "model", "deployment"
        ).order_by("id")
    )
    successors = list_successors({row.api_key_id for row in budgets if row.api_key_id is not None})
    for row in budgets:
        terms = terms_of(row)
        if row.deployment_id is not None:
            by_deployment[row.deployment_id] = (*by_deployment.get(row.deployment_id, ()), terms)
        if row.tenant_id is None:
            continue
        tenant_ids.add(row.tenant_id)
        if row.api_key_id is not None:
            for key_id in successors[row.api_key_id]:
                by_key[key_id] = (*by_key.get(key_id, ()), terms)
        elif row.project_id is not None:
            by_project[row.project_id] = (*by_project.get(row.project_id, ()), terms)
        else:
            by_tenant[row.tenant_id] = (*by_tenant.get(row.tenant_id, ()), terms)
    has_models = any(row.model_id is not None for row in budgets)
    return BudgetScopes(by_tenant, by_project, by_key, frozenset(tenant_ids), has_models, by_deployment)


def load_deployment_budgets() -> dict[int, tuple[BudgetTerms, ...]]:
    """The hard budgets of deployments that are switched on, by the deployment's id."""
    found: dict[int, tuple[BudgetTerms, ...]] = {}
    rows = Budget.objects.filter(deployment__isnull=False, is_hard=True, is_enabled=True)
    for row in rows.select_related("deployment").order_by("id"):
        terms = terms_of(row)
        assert terms.deployment_id is not None
        found[terms.deployment_id] = (*found.get(terms.deployment_id, ()), terms)
    return found


def terms_of(budget: Budget) -> BudgetTerms:
    """What workers must know of a budget."""
    return BudgetTerms(
        id=budget.pk,
        name=str(budget),
        window=budget.window,  # type: ignore[arg-type]  # the choices of the column
        time_zone=budget.time_zone,
        limit_nanousd=budget.limit_nanousd,
        counted_from_unix_s=int(budget.counted_from.timestamp()),
        may_lower_limit=budget.may_lower_limit,
        model_id=budget.model_id,
        deployment_id=budget.deployment_id,
    )


def list_successors(key_ids: Collection[int]) -> dict[int, list[int]]:
    """Each key with all that replaced it, itself first."""
    found: dict[int, list[int]] = {key_id: [] for key_id in key_ids}
    for root, key_id in _chains(key_ids):
        found[root].append(key_id)
    return found


def _chains(key_ids: Collection[int]) -> Iterator[tuple[int, int]]:
    if not key_ids:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH RECURSIVE chain (root, id) AS (SELECT id, id FROM policies_apikey WHERE id = ANY(%s)"
            " UNION SELECT c.root, k.replaced_by_id FROM chain c JOIN policies_apikey k ON k.id = c.id"
            " WHERE k.replaced_by_id IS NOT NULL) SELECT root, id FROM chain ORDER BY root, id",
            [list(key_ids)],
        )
        yield from cursor.fetchall()
