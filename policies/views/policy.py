"""How is a routed request decided? Pages over policies and their versions, for reading.

Reads: policy, policy_version, tenant, deployment.
"""

from __future__ import annotations

from typing import Any

from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from policies.models import Deployment, Policy
from policies.permissions import Ability, needs

VERSIONS_SHOWN = 20


@needs(Ability.READ)
@require_safe
def list_policies(request: HttpRequest) -> HttpResponse:
    """All policies."""
    policies = Policy.objects.select_related("live_version").annotate(tenant_count=Count("tenants"))
    return render(request, "policies/list.html", {"policies": policies})


@needs(Ability.READ)
@require_safe
def show_policy(request: HttpRequest, pk: int) -> HttpResponse:
    """One policy as it is live, or one of its versions with `?version=`."""
    policy = get_object_or_404(
        Policy.objects.select_related("live_version").prefetch_related("tenants"), pk=pk
    )
    versions = list(policy.versions.all()[:VERSIONS_SHOWN])
    wanted = request.GET.get("version", "")
    shown = policy.live_version
    if wanted.isdecimal():
        shown = get_object_or_404(policy.versions, number=int(wanted))
    document: dict[str, Any] = shown.document if shown else {}
    context = {
        "policy": policy,
        "versions": versions,
        "shown": shown,
        "document": document,
        "rules": list_rules(document),
    }
    return render(request, "policies/detail.html", context)


def list_rules(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The rules with their deployments as rows, so that each can be linked (one query)."""
    rules = document.get("rules", [])
    chosen = [[_choice(item) for item in rule.get("deployments", [])] for rule in rules]
    names = {choice["name"] for choices in chosen for choice in choices}
    names |= {_choice(item)["name"] for rule in rules for item in rule.get("fallbacks", [])}
    ids = dict(Deployment.objects.filter(name__in=names).values_list("name", "id"))
    listed = []
    for rule, choices in zip(rules, chosen, strict=True):
        total = sum(float(choice["weight"]) for choice in choices) or 1.0
        for choice in choices:
            choice["id"] = ids.get(choice["name"])
            choice["share"] = float(choice["weight"]) / total if rule.get("strategy") == "weighted" else None
        fallbacks = [_choice(item) for item in rule.get("fallbacks", [])]
        for choice in fallbacks:
            choice["id"] = ids.get(choice["name"])
        listed.append({**rule, "choices": choices, "fallback_choices": fallbacks})
    return listed


def _choice(item: Any) -> dict[str, Any]:
    return {"weight": 1, **item} if isinstance(item, dict) else {"name": item, "weight": 1}
