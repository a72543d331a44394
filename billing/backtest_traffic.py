"""On whose requests is a policy's document run? On its own, or, where it has none yet, on those of another policy.

Reads: usage_by_day, policy, tenant. Counts are of whole UTC days, so that they cost one look at the rollups; a run says
exactly how many requests there were.
"""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple

from django.db.models import Q, Sum

from billing.models import UsageByDay
from policies.models import Policy


class Source(NamedTuple):
    """A policy and about how many requests it had in the period."""

    policy: Policy
    request_count: int


def list_sources(policy: Policy, *, since: dt.datetime) -> list[Source]:
    """Whose requests there are: the policy itself, then all others that had any, the likeliest choice first.

    Likelier are policies that the same tenants use, by how many requests those tenants sent. A policy that no tenant
    uses yet may come to be used by any of them.
    """
    tenants = set(policy.tenants.values_list("pk", flat=True))
    shared = Sum("request_count", filter=Q(tenant__in=tenants), default=0)
    rows = (
        UsageByDay.objects.filter(day__gte=since.astimezone(dt.UTC).date(), policy__isnull=False)
        .values("policy")
        .annotate(total=Sum("request_count"), shared=shared)
        .values_list("policy", "total", "shared")
    )
    counted = {policy_id: (shared, total) for policy_id, total, shared in rows if total}
    others = Policy.objects.filter(pk__in=counted.keys() - {policy.pk})
    listed = [Source(other, counted[other.pk][1]) for other in others]
    listed.sort(key=lambda source: (*(-part for part in counted[source.policy.pk]), source.policy.public_id))
    return [Source(policy, counted.get(policy.pk, (0, 0))[1]), *listed]


def choose_source(policy: Policy, *, since: dt.datetime) -> Policy:
    """The policy itself when it had requests, else the likeliest other one, else itself after all."""
    own, *others = list_sources(policy, since=since)
    return own.policy if own.request_count or not others else others[0].policy
