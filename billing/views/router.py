"""What does the automatic router do, what does it know, and who decides that it may? The page "Auto router".

Reads: `billing.router_report`, the router tables, evidence. Writes: nothing itself, calls `policies.router_tables` and
`billing.router_learning`.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe
from kombu.exceptions import OperationalError

from billing import router_learning, tasks
from billing.catalog_ratings import read_router_now
from billing.models import Evidence
from billing.router_report import read_report
from policies import router_tables
from policies.autorouter.cross_validation import MIN_REQUESTS
from policies.errors import ConfigurationError
from policies.models import Model, RouterTable
from policies.permissions import Ability, actor_name, needs
from policies.views.answering import tell_refusal

SPANS = ((1, "1 day"), (7, "7 days"), (30, "30 days"), (90, "90 days"))
DEFAULT_DAYS = 7
VERSIONS_SHOWN = 8
EVIDENCE_SHOWN = 12
# Figures of the evaluation that two versions are compared by: title, what it means, unit.
COMPARED_FIGURES = {
    "typical_error": ("Error of foreseen quality", "how far off typically; less is better", ""),
    "aiq": ("Quality over cost", "AIQ: mean quality from the cheapest model's cost to the dearest's", ""),
    "default_quality": ("Quality at the slider's default", "", ""),
    "default_cost_usd": ("Cost at the slider's default", "of 1,000 requests, 500 tokens in each", "$"),
    "chosen_quality": ("Quality of the model taken for the best", "", ""),
}
_WORKLOAD = re.compile(r"[0-9a-f]{16}")


@needs(Ability.READ)
@require_safe
def show_router(request: HttpRequest) -> HttpResponse:
    """All workloads, busiest first, and the versions of what the router knows; filters `days`, `q`."""
    now = timezone.now()
    days = _days_of(request)
    text = request.GET.get("q", "").replace("\0", "").strip()
    router = read_router_now(now)
    versions = list(RouterTable.objects.defer("document")[:VERSIONS_SHOWN])
    waiting = router_tables.find_waiting_number()
    active = router.row
    context = {
        "report": read_report(router, since=_since(now, days), q=text),
        "router": router,
        "active": active,
        "candidate": RouterTable.objects.filter(number=waiting).defer("document").first()
        if waiting
        else None,
        "versions": versions,
        "can_go_back": active is not None and router_tables.can_roll_back(active),
        "activates_itself": router_tables.activates_itself(),
        "waiting_count": router_learning.count_new_evidence(active),
        "q": text,
        "days": days,
        "spans": SPANS,
    }
    return render(request, "router/router.html", context)


@needs(Ability.READ)
@require_safe
def show_workload(request: HttpRequest, workload: str) -> HttpResponse:
    """One workload: its models with estimates, its evidence, its pin."""
    if not _WORKLOAD.fullmatch(workload):
        raise Http404
    now = timezone.now()
    days = _days_of(request)
    router = read_router_now(now)
    report = read_report(router, since=_since(now, days), workload=workload)
    evidence = list(Evidence.objects.filter(workload=workload).select_related("model")[: EVIDENCE_SHOWN + 1])
    pin = router.tables.pins.get(workload, "")
    if not report.workloads and not evidence and not pin and days < SPANS[-1][0]:
        report = read_report(router, since=_since(now, SPANS[-1][0]), workload=workload)
        days = SPANS[-1][0]
    row = report.workloads[0] if report.workloads else None
    if row is None and not evidence and not pin and workload not in router.tables.workloads:
        raise Http404
    context = {
        "workload": workload,
        "row": row,
        "title": row.title if row else f"Workload {workload[:8]}",
        "pin": pin,
        "known": router.tables.workloads.get(workload),
        "active": router.row,
        "model_names": list(Model.objects.filter(is_enabled=True).values_list("name", flat=True)),
        "evidence": evidence[:EVIDENCE_SHOWN],
        "has_more_evidence": len(evidence) > EVIDENCE_SHOWN,
        "days": days,
        "spans": SPANS,
    }
    return render(request, "router/workload.html", context)


@needs(Ability.READ)
@require_safe
def show_table(request: HttpRequest, pk: int) -> HttpResponse:
    """One version: where it comes from, how it did in its evaluation, what it holds."""
    table = get_object_or_404(RouterTable.objects.select_related("based_on"), pk=pk)
    document: dict[str, Any] = table.document
    gate: dict[str, Any] = table.gate or {}
    context = {
        "table": table,
        "gate": gate,
        "figures": _figures(gate.get("numbers") or {}),
        "numbers": gate.get("numbers") or {},
        "counts": {
            "workloads": len(document.get("workloads") or {}),
            "types": len(document.get("types") or {}),
            "pins": len(document.get("pins") or {}),
            "ratings": len(document.get("ratings") or {}),
        },
        "is_learnt": bool(document.get("learnt_at_unix_s")),
        "default": document.get("default"),
        "proof_count": MIN_REQUESTS,
        "can_go_back": table.state == RouterTable.State.ACTIVE and router_tables.can_roll_back(table),
    }
    return render(request, "router/table.html", context)


def _figures(numbers: Mapping[str, float]) -> list[dict[str, Any]]:
    """What the version in force and the new one came to: {"title", "hint", "in_force", "new", "unit"} each."""
    return [
        {
            "title": title,
            "hint": hint,
            "in_force": numbers[f"{name}_in_force"],
            "new": numbers[f"{name}_new"],
            "unit": unit,
        }
        for name, (title, hint, unit) in COMPARED_FIGURES.items()
        if f"{name}_in_force" in numbers and f"{name}_new" in numbers
    ]


@needs(Ability.CONFIGURE)
@require_POST
def pin_workload(request: HttpRequest, workload: str) -> HttpResponse:
    """Pin a workload to a model, or let the router choose again (empty `model`)."""
    model = request.POST.get("model", "").strip() or None
    if not _WORKLOAD.fullmatch(workload):
        raise Http404
    done = f"The workload is served by {model} whenever it can be" if model else "The router chooses again"
    _run(
        request,
        lambda: router_tables.set_workload_pin(workload=workload, model=model, actor=actor_name(request)),
        done=f"{done}, in every worker within 2 seconds.",
    )
    return redirect("workload", workload=workload)


@needs(Ability.CONFIGURE)
@require_POST
def activate_table(request: HttpRequest, pk: int) -> HttpResponse:
    """Put a version into force."""
    table = get_object_or_404(RouterTable, pk=pk)
    _run(
        request,
        lambda: router_tables.activate(table=table, actor=actor_name(request)),
        done=f"Version {table.number} is in force in every worker within 2 seconds.",
    )
    return redirect("router")


@needs(Ability.CONFIGURE)
@require_POST
def reject_table(request: HttpRequest, pk: int) -> HttpResponse:
    """Turn a candidate down."""
    table = get_object_or_404(RouterTable, pk=pk)
    _run(
        request,
        lambda: router_tables.reject(table=table, actor=actor_name(request)),
        done=f"Version {table.number} is turned down.",
    )
    return redirect("router")


@needs(Ability.CONFIGURE)
@require_POST
def roll_back(request: HttpRequest, pk: int) -> HttpResponse:
    """Go back from version `pk`; when another one is in force by now, nothing happens but a message."""
    table = get_object_or_404(RouterTable, pk=pk)
    if table.state != RouterTable.State.ACTIVE:
        messages.error(request, f"Nothing changed: version {table.number} is not in force any more.")
        return redirect("router")
    _run(
        request,
        lambda: router_tables.roll_back(actor=actor_name(request)),
        done="The version before is in force in every worker within 2 seconds; pins stay.",
    )
    return redirect("router")


@needs(Ability.CONFIGURE)
@require_POST
def learn_now(request: HttpRequest) -> HttpResponse:
    """Collect evidence and make a new version of it, as the daily task does: here where that is quick, else there."""
    if not router_learning.is_quick():
        try:
            tasks.learn_router.apply_async(args=[actor_name(request)], retry=False)
        except (OperationalError, OSError):
            messages.error(request, "The queue of background tasks cannot be reached. Nothing was learnt.")
        else:
            messages.success(request, "A new version is being learnt; it appears here within some minutes.")
        return redirect("router")
    learnt = router_learning.learn_version(now=timezone.now(), actor=actor_name(request))
    if learnt.table is None:
        messages.success(request, f"No new version: {learnt.reason}.")
        return redirect("router")
    if learnt.table.state == RouterTable.State.REJECTED:
        messages.error(
            request,
            f"Version {learnt.table.number} failed its evaluation: its page says why. Nothing changed.",
        )
    else:
        messages.success(
            request, f"Version {learnt.table.number} is learnt from {learnt.evidence_count:,} judgements."
        )
    return redirect("router-table", pk=learnt.table.pk)


@needs(Ability.CONFIGURE)
@require_POST
def change_setting(request: HttpRequest) -> HttpResponse:
    """Choose whether versions that pass their evaluation go into force by themselves."""
    wanted = request.POST.get("activates_itself") == "1"
    router_tables.change_setting(activates_itself=wanted, actor=actor_name(request))
    messages.success(
        request,
        "Versions that pass go into force by themselves."
        if wanted
        else "A person puts new versions into force.",
    )
    return redirect("router")


def _run(request: HttpRequest, verb: Callable[[], object], *, done: str) -> None:
    try:
        verb()
    except ConfigurationError as refusal:
        tell_refusal(request, refusal)
    else:
        messages.success(request, done)


def _days_of(request: HttpRequest) -> int:
    wanted = request.GET.get("days", "")
    return next((days for days, _ in SPANS if str(days) == wanted), DEFAULT_DAYS)


def _since(now: dt.datetime, days: int) -> dt.date:
    return now.date() - dt.timedelta(days=days - 1)
