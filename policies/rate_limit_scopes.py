"""Which rate limits does a request count for? Those of its tenant, its project, its key; and of a deployment.

Reads: rate_limit, and which keys were replaced by which: old and new secret of one key share its limit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from django.db import connection

from policies.models import RateLimit
from policies.snapshot import RateTerms

_NO_TERMS: tuple[RateTerms, ...] = ()


class RateScopes(NamedTuple):
    """Terms by tenant, project, key (with those that it replaced) and deployment."""

    by_tenant: Mapping[int, RateTerms]
    by_project: Mapping[int, RateTerms]
    by_key: Mapping[int, RateTerms]
    by_deployment: Mapping[int, RateTerms]

    def find(self, tenant_id: int, project_id: int, key_id: int) -> tuple[RateTerms, ...]:
        """All limits that a request of this key counts for, the narrowest first."""
        found = (self.by_key.get(key_id), self.by_project.get(project_id), self.by_tenant.get(tenant_id))
        return tuple(terms for terms in found if terms is not None) or _NO_TERMS


def load_rate_limits() -> RateScopes:
    """Read all limits."""
    by_tenant: dict[int, RateTerms] = {}
    by_project: dict[int, RateTerms] = {}
    by_key: dict[int, RateTerms] = {}
    by_deployment: dict[int, RateTerms] = {}
    rows = RateLimit.objects.select_related(
        "tenant", "project__tenant", "api_key__project__tenant", "deployment"
    )
    for row in rows:
        terms = RateTerms(row.pk, str(row), row.requests_per_minute, row.tokens_per_minute, row.concurrent)
        if row.deployment_id is not None:
            by_deployment[row.deployment_id] = terms
        elif row.api_key_id is not None:
            by_key[row.api_key_id] = terms
        elif row.project_id is not None:
            by_project[row.project_id] = terms
        elif row.tenant_id is not None:
            by_tenant[row.tenant_id] = terms
    for key_id, of_key_id in _predecessors(list(by_key)).items():
        by_key.setdefault(key_id, by_key[of_key_id])
    return RateScopes(by_tenant, by_project, by_key, by_deployment)


def _predecessors(key_ids: Collection[int]) -> dict[int, int]:
    """Keys that were replaced by one of these, with that one."""
    if not key_ids:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH RECURSIVE chain (root, id) AS (SELECT id, id FROM policies_apikey WHERE id = ANY(%s)"
            " UNION SELECT c.root, k.id FROM chain c JOIN policies_apikey k ON k.replaced_by_id = c.id)"
            " SELECT id, root FROM chain WHERE id <> root ORDER BY root, id",
            [list(key_ids)],
        )
        return dict(cursor.fetchall())
