"""Which policies are there, what is live and drafted, and how much traffic does each rule take?

Reads: policy, policy_draft, policy_version, tenant, deployment, sums from `billing.reports`, `billing.policy_traffic`.
Editing and publishing: policies/views/policy_editor.py and policy_publishing.py.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from typing import Any

from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.http import require_safe

from billing import reports
from billing.backtest_words import ratio, signed_percent
from billing.models import Backtest, BacktestState
from billing.policy_traffic import PolicyTraffic, read_policy_traffic, read_version_traffic
from policies import publishing
from policies.approvals import find_pending
from policies.differences import Difference, list_differences
from policies.models import Deployment, Policy, PolicyVersion
from policies.permissions import Ability, needs

VERSIONS_SHOWN = 20
DRAFT_BACKTESTS_TRIED = 5


@needs(Ability.READ)
@require_safe
def list_policies(request: HttpRequest) -> HttpResponse:
    """All policies with their share of today's requests."""
    today = timezone.now().date()
    groups = reports.group_by("policy", first_day=today, last_day=today)
    total = sum(group.totals.request_count for group in groups)
    counts = {group.id: group.totals.request_count for group in groups}
    policies = Policy.objects.select_related("live_version", "draft").annotate(
        tenant_count=Count("tenants", distinct=True),
        pending_count=Count(
            "publication_requests", filter=Q(publication_requests__status="pending"), distinct=True
        ),
    )
    rows = [
        {
            "policy": policy,
            "change_count": len(list_draft_changes(policy)),
            "request_count": counts.get(policy.pk, 0),
            "share": counts.get(policy.pk, 0) / total if total else None,
        }
        for policy in policies
    ]
    return render(request, "policies/list.html", {"rows": rows})


@needs(Ability.READ)
@require_safe
def show_policy(request: HttpRequest, pk: int) -> HttpResponse:
    """One policy as it is live, or one of its versions with `?version=`."""
    policies = Policy.objects.select_related("live_version", "canary_version", "draft").prefetch_related(
        "tenants"
    )
    policy = get_object_or_404(policies, pk=pk)
    versions = list(policy.versions.all()[:VERSIONS_SHOWN])
    never_live = publishing.list_never_live(policy)
    live = policy.live_version
    shown = live
    wanted = request.GET.get("version", "")
    if wanted.isdecimal() and len(wanted) < 10:
        shown = get_object_or_404(policy.versions, number=int(wanted))
    document: dict[str, Any] = shown.document if shown else {}
    now = timezone.now()
    traffic = read_policy_traffic(policy.pk, now=now)
    backtests = dict(
        Backtest.objects.filter(policy=policy, version__in=versions, state=BacktestState.DONE)
        .order_by("id")
        .values_list("version_id", "id")
    )
    context = {
        "policy": policy,
        "versions": [
            (
                row,
                backtests.get(row.pk),
                _state_of(policy, row, never_live),
                _can_return(policy, row, never_live),
            )
            for row in versions
        ],
        "shown": shown,
        "is_live": shown is not None and shown == live,
        "document": document,
        "rules": list_rules(document, traffic),
        "traffic": traffic,
        "unmatched": traffic.by_rule.get(""),
        "sides": _sides(policy, now),
        "pending": find_pending(policy),
        "draft_changes": (draft_changes := list_draft_changes(policy)),
        "draft_backtest": _find_draft_backtest(policy) if draft_changes else None,
        "against_live": [] if shown is None or live is None else list_differences(live.document, document),
        "changes_of_shown": _changes_of(versions, shown),
        "state_of_shown": _state_of(policy, shown, never_live) if shown is not None else "",
        "can_roll_back": shown is not None and _can_return(policy, shown, never_live),
        "opens_roll_back": request.GET.get("roll_back") == "1",
    }
    return render(request, "policies/detail.html", context)


@needs(Ability.READ)
@require_safe
def show_traffic(request: HttpRequest, pk: int) -> HttpResponse:
    """The share of the last day's requests by rule, for the editor: {"shares": {rule: 0.04}}."""
    traffic = read_policy_traffic(get_object_or_404(Policy, pk=pk).pk, now=timezone.now())
    return JsonResponse({"shares": {name: found.share for name, found in traffic.by_rule.items() if name}})


def _sides(policy: Policy, now: dt.datetime) -> list[dict[str, Any]]:
    """The live version and its canary, each with its traffic since the canary began; [] without a canary."""
    live, canary = policy.live_version, policy.canary_version
    if canary is None or live is None or policy.canary_started_at is None:
        return []
    found = read_version_traffic(policy.pk, [live.pk, canary.pk], since=policy.canary_started_at, now=now)
    return [
        {"name": "live", "version": live, "traffic": found[live.pk]},
        {"name": "canary", "version": canary, "traffic": found[canary.pk]},
    ]


def _state_of(policy: Policy, version: PolicyVersion, never_live: Collection[int]) -> str:
    """What a version is now, in the words of its badge; "" for one that was live before."""
    if version.pk == policy.live_version_id:
        return "live"
    if version.pk == policy.canary_version_id:
        return "canary"
    return "stopped canary" if version.number in never_live else ""


def _can_return(policy: Policy, version: PolicyVersion, never_live: Collection[int]) -> bool:
    """Say whether rolling back to a version would change what serves: its rules are others, or a canary ends."""
    live = policy.live_version
    if live is None or version.pk == live.pk or version.number in never_live:
        return False
    return policy.canary_version_id is not None or bool(list_differences(live.document, version.document))


def list_draft_changes(policy: Policy) -> list[Difference]:
    """What the draft holds that is not live."""
    draft = getattr(policy, "draft", None)
    if draft is None:
        return []
    return list_differences(policy.live_version.document if policy.live_version else {}, draft.document)


def _find_draft_backtest(policy: Policy) -> dict[str, Any] | None:
    """The newest finished backtest of exactly this draft, with its figures."""
    runs = Backtest.objects.filter(policy=policy, state=BacktestState.DONE).select_related(
        "policy", "traffic"
    )
    runs = runs[:DRAFT_BACKTESTS_TRIED]
    for run in runs:
        if run.result and run.result["count"] and not list_differences(run.document, policy.draft.document):
            cost = run.result["cost"]
            return {
                "run": run,
                "cost": signed_percent(ratio(cost["now"], cost["then"])),
                "moved": run.result["moved"] / run.result["count"],
                "no_candidate": run.result["no_candidate"],
            }
    return None


def _changes_of(versions: list[PolicyVersion], shown: PolicyVersion | None) -> list[Difference]:
    """What a version changed against the one before it (among those that are listed)."""
    if shown is None:
        return []
    before = next((version for version in versions if version.number < shown.number), None)
    return list_differences(before.document, shown.document) if before else []


def list_rules(document: dict[str, Any], traffic: PolicyTraffic) -> list[dict[str, Any]]:
    """The rules with their traffic, and their deployments as rows, so that each can be linked (one query)."""
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
        listed.append(
            {
                **rule,
                "choices": choices,
                "fallback_choices": fallbacks,
                "traffic": traffic.by_rule.get(rule.get("name", "")),
            }
        )
    return listed


def _choice(item: Any) -> dict[str, Any]:
    return {"weight": 1, **item} if isinstance(item, dict) else {"name": item, "weight": 1}
