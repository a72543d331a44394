"""What would this policy document have done to past requests? Pages to start, watch, cancel and read backtests.

Reads: backtest, policy. Writes: through `billing.backtesting`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from billing.backtest_traffic import list_sources
from billing.backtest_words import (
    LEVELS,
    MISMATCHES,
    NOT_COMPARED,
    ratio,
    say_counts,
    say_refusal,
    signed_percent,
    signed_usd,
    with_shares,
)
from billing.backtesting import (
    MAX_DAYS,
    STALE_S,
    cancel_backtest,
    find_active,
    start_backtest,
)
from billing.models import Backtest, BacktestState
from policies.documents import normalise_document
from policies.errors import ConfigurationError
from policies.models import Policy, PolicyVersion
from policies.permissions import Ability, actor_name, needs

DEFAULT_DAYS = 7
RUNS_SHOWN = 50


@needs(Ability.READ)
@require_safe
def list_backtests(request: HttpRequest, pk: int) -> HttpResponse:
    """A policy's backtests, newest first, and the form that starts one; `?source=` chooses its rules."""
    policy = get_object_or_404(Policy.objects.select_related("live_version", "draft"), pk=pk)
    runs = list(
        Backtest.objects.filter(policy=policy)
        .select_related("policy", "version", "traffic")
        .defer("document")[:RUNS_SHOWN]
    )
    context = {
        "policy": policy,
        "runs": runs,
        "rows": [_listed(run) for run in runs],
        "active": next((run for run in runs if run.state in ("waiting", "running")), None),
        "versions": policy.versions.only("number", "policy_id", "note")[:20],
        "draft_differs": _draft_differs(policy),
        "source": request.GET.get("source", ""),
        "traffic": list_sources(policy, since=timezone.now() - dt.timedelta(days=DEFAULT_DAYS)),
        "days": DEFAULT_DAYS,
        "max_days": MAX_DAYS,
    }
    return render(request, "backtests/list.html", context)


@needs(Ability.READ)
@require_safe
def show_backtest(request: HttpRequest, pk: int) -> HttpResponse:
    """One backtest: how far it is, or what it found. As a fragment for the page that polls it."""
    run = get_object_or_404(
        Backtest.objects.select_related("policy__draft", "policy__live_version", "version", "traffic"), pk=pk
    )
    context: dict[str, Any] = {
        "run": run,
        "policy": run.policy,
        "traffic": run.source,
        "is_active": run.state in (BacktestState.WAITING, BacktestState.RUNNING),
        "is_stale": is_stale(run),
        "is_of_draft": _is_of_draft(run),
        "share_done": run.done_count / run.total_count if run.total_count else 0.0,
    }
    if run.result is not None:
        context |= _told(run.result)
    is_fragment = bool(request.headers.get("HX-Request"))
    return render(request, "backtests/_run.html" if is_fragment else "backtests/detail.html", context)


@needs(Ability.CONFIGURE)
@require_POST
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """Stop a run."""
    run = get_object_or_404(Backtest, pk=pk)
    if not cancel_backtest(run=run, actor=actor_name(request)):
        messages.info(request, "The backtest was over already.")
    return redirect("backtest", pk=run.pk)


def _is_of_draft(run: Backtest) -> bool:
    """Whether these rules are the draft as it is now, and not live."""
    draft, live = getattr(run.policy, "draft", None), run.policy.live_version
    if draft is None or (live is not None and live.document == run.document):
        return False
    try:
        return bool(normalise_document(draft.document) == run.document)
    except (KeyError, TypeError, AttributeError):
        return False  # a draft may hold anything until it is published


def is_stale(run: Backtest) -> bool:
    """Its process said nothing for a while: another one will take it up."""
    beat = run.heartbeat_at
    return run.state == BacktestState.RUNNING and (
        beat is None or (timezone.now() - beat).total_seconds() > STALE_S
    )


@needs(Ability.CONFIGURE)
@require_POST
def start(request: HttpRequest, pk: int) -> HttpResponse:
    """Start a backtest.

    `source` is draft, live, a version's number, or `again` with `run`; `traffic` the id of the policy whose requests
    it runs over, "" for the likeliest; `days`.
    """
    policy = get_object_or_404(Policy.objects.select_related("live_version", "draft"), pk=pk)
    active = find_active(policy)
    if active is not None:
        messages.info(request, "A backtest of this policy is under way; here it is.")
        return redirect("backtest", pk=active.pk)
    days_text = request.POST.get("days", str(DEFAULT_DAYS)).strip()
    days = int(days_text) if days_text.isdecimal() and len(days_text) < 5 else 0
    document, label, traffic_id = _document_of(policy, request.POST)
    traffic = Policy.objects.filter(pk=traffic_id).first() if traffic_id else None
    if document is None or (traffic_id and traffic is None):
        messages.error(
            request, f"Nothing was started: there is no such {'document' if document is None else 'policy'}."
        )
        return redirect("policy-backtests", pk=policy.pk)
    try:
        run = start_backtest(
            policy=policy,
            document=document,
            days=days,
            actor=actor_name(request),
            label=label,
            traffic=traffic,
        )
    except ConfigurationError as refusal:
        messages.error(request, f"Nothing was started: {refusal}")
        return redirect("policy-backtests", pk=policy.pk)
    return redirect("backtest", pk=run.pk)


def _document_of(
    policy: Policy, posted: Mapping[str, str]
) -> tuple[Mapping[str, Any] | None, str, int | None]:
    """What is to be run, what to call it ("": as the verb names it), over whose requests (None: the verb chooses)."""
    source, traffic = posted.get("source", "draft"), posted.get("traffic", "")
    traffic_id = int(traffic[:18]) if traffic.isdecimal() else None
    if source == "again" and (run_id := posted.get("run", "")).isdecimal():
        run = Backtest.objects.filter(policy=policy, pk=int(run_id[:18])).first()
        return (run.document, run.label, run.traffic_id or policy.pk) if run is not None else (None, "", None)
    draft = getattr(policy, "draft", None)
    if source == "draft":
        if draft is None:
            return None, "", None
        return draft.document, f"draft, revision {draft.revision}", traffic_id
    version: PolicyVersion | None = policy.live_version
    if source.isdecimal():
        version = policy.versions.filter(number=int(source[:9])).first()
    return (version.document, "", traffic_id) if version is not None else (None, "", None)


def _listed(run: Backtest) -> dict[str, Any]:
    """A run with the few figures that the list shows."""
    result = run.result
    if not result or not result["count"]:
        return {"run": run, "cost": "–", "moved": None, "no_candidate": None}
    return {
        "run": run,
        "cost": signed_percent(ratio(result["cost"]["now"], result["cost"]["then"])),
        "moved": result["moved"] / result["count"],
        "no_candidate": result["no_candidate"],
    }


def _draft_differs(policy: Policy) -> bool:
    draft, live = getattr(policy, "draft", None), policy.live_version
    return draft is not None and (live is None or draft.document != live.document)


def _told(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result with shares, signs and sentences."""
    cost, latency, reproduction = result["cost"], result["latency"], result["reproduction"]
    then = cost["then"]
    return {
        "result": result,
        "cost": {
            **cost,
            "change": signed_usd(cost["difference"]),
            "percent": signed_percent(ratio(cost["now"], then)),
            "low_text": signed_usd(cost["low"]),
            "high_text": signed_usd(cost["high"]),
            "is_exact": cost["low"] == cost["high"],
            "is_sure": cost["low"] > 0 or cost["high"] < 0 or cost["low"] == cost["high"],
        },
        "latencies": [
            {
                **found,
                "title": title,
                "percent": signed_percent(ratio(found["now_ms"] or 0, found["then_ms"] or 0)),
            }
            for title, found in (
                ("First token", latency["first_token"]),
                ("Whole answer", latency["duration"]),
            )
            if found is not None
        ],
        "moved_share": result["moved"] / result["count"] if result["count"] else None,
        "mixes": [
            (title, with_shares(result[name]))
            for title, name in (("Model", "models"), ("Deployment", "deployments"), ("Rule", "rules"))
        ],
        "tenants": [
            {
                **row,
                "change": signed_usd(row["difference"]),
                "percent": signed_percent(ratio(row["now"], row["then"])),
            }
            for row in result["tenants"]
        ],
        "moved_sample": _with_tenants(result["moved_sample"], result),
        "not_compared": say_counts(result["not_compared"], NOT_COMPARED),
        "levels": say_counts(result["expected_from"], LEVELS),
        "refusals": [(count, say_refusal(code)) for code, count in result["reasons"].items()],
        "refused_sample": [
            {**entry, "why": "; ".join(say_refusal(code) for code in entry["reasons"])}
            for entry in _with_tenants(result["no_candidate_sample"], result)
        ],
        "mismatches": say_counts(reproduction["reasons"], MISMATCHES) if reproduction else [],
        "mismatch_sample": [
            {
                **entry,
                "why": MISMATCHES.get(entry["reason"], entry["reason"]),
                "first_then": next(iter(entry["then"]), ""),
                "first_now": next(iter(entry["now"]), ""),
            }
            for entry in reproduction["sample"]
        ]
        if reproduction
        else [],
    }


def _with_tenants(entries: list[dict[str, Any]], result: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = {row["id"]: row["name"] for row in result["tenants"]}
    return [{**entry, "tenant_name": names.get(entry["tenant"], "")} for entry in entries]
