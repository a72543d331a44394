"""Who is near a limit, what is held right now, and how does a budget change in the browser?

Reads: `billing.budget_standing`. Writes: nothing itself, calls `billing.budgets`.
"""

from __future__ import annotations

import datetime as dt
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from billing import budgets
from billing.alert_recipients import list_recipients
from billing.budget_forms import BudgetChangeForm, BudgetForm
from billing.budget_standing import OWNERS, Standing, list_standing, standing_of
from billing.models import Budget, BudgetAlert, BudgetLease, BudgetWindow
from billing.money import usd_text
from billing.views.budget_alerts import list_history
from policies.models import ChangeEvent
from policies.permissions import Ability, actor_name, needs
from policies.views.answering import (
    edits_a_row,
    is_confirmed,
    posted,
    rows_to_edit,
    run_and_return,
    show_form,
)

WINDOWS_SHOWN = 12
LEASES_SHOWN = 50
CHANGES_SHOWN = 10
ALERTS_SHOWN = 12


@needs(Ability.READ)
@require_safe
def list_budgets(request: HttpRequest) -> HttpResponse:
    """All budgets, the fullest first."""
    rows = list_standing(Budget.objects.all(), now=timezone.now())
    return render(request, "budgets/list.html", {"rows": rows})


@needs(Ability.READ)
@require_safe
def show_budget(request: HttpRequest, pk: int) -> HttpResponse:
    """One budget: how it stands, its earlier windows, who holds what of it."""
    now = timezone.now()
    (standing,) = list_standing(Budget.objects.filter(pk=get_object_or_404(Budget, pk=pk).pk), now=now)
    earlier = BudgetWindow.objects.filter(budget_id=pk, starts_at__lt=standing.starts_at)
    leases = BudgetLease.objects.filter(window__budget_id=pk).order_by("worker", "created_at")
    changes = ChangeEvent.objects.filter(object_type="budget", object_id=pk).order_by("-id")
    context = {
        "budget": standing.budget,
        "now": standing,
        "requests_query": _requests_of(standing),
        "earlier": [
            standing_of(standing.budget, window, now=now)
            for window in earlier.order_by("-starts_at")[:WINDOWS_SHOWN]
        ],
        "leases": [
            {
                "worker": lease.worker,
                "left_nanousd": max(0, lease.amount_nanousd - lease.settled_nanousd),
                "expires_at": lease.expires_at,
                "is_expired": lease.expires_at < now,
            }
            for lease in leases[:LEASES_SHOWN]
        ],
        "changes": changes[:CHANGES_SHOWN],
        "recipients": list_recipients(standing.budget),
        "alerts": list_history(BudgetAlert.objects.filter(window__budget_id=pk), limit=ALERTS_SHOWN),
    }
    return render(request, "budgets/detail.html", context)


def _requests_of(standing: Standing) -> str:
    """The query string of the requests that count in the window that runs."""
    budget = standing.budget
    query: dict[str, str | int] = {"since": f"{standing.starts_at.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"}
    if budget.deployment_id:
        query["deployment"] = budget.deployment_id
    elif budget.api_key_id:
        query["key"] = budget.api_key_id
    elif budget.project_id:
        query["project"] = budget.project_id
    elif budget.tenant_id:
        query["tenant"] = budget.tenant_id
    if budget.model_id:
        query["served"] = budget.model_id
    return urlencode(query)


@needs(Ability.SET_BUDGETS)
@require_http_methods(["GET", "HEAD", "POST"])
def create_budget(request: HttpRequest) -> HttpResponse:
    """Make a budget; `?scope=` fills in whose, `?deployment=` (its id) chooses one."""
    initial = {
        "scope": request.GET.get("scope", "")[:320],
        "deployment": request.GET.get("deployment", "")[:20],
    }
    form = BudgetForm(posted(request), initial=initial)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        budget = form.run(
            lambda: budgets.create_budget(
                **data["scope"],
                model=data["model"],
                deployment=data["deployment"],
                window=data["window"],
                limit_nanousd=data["limit_usd"],
                is_hard=data["is_hard"],
                may_lower_limit=data["may_lower_limit"],
                actor=actor_name(request),
            )
        )
        if budget is not None:
            messages.success(request, "The budget is made; workers keep to it within 2 seconds.")
            return redirect("budget", pk=budget.pk)
    return show_form(
        request,
        form,
        title="New budget",
        back=("Budgets", reverse("budgets")),
        submit="Make budget",
        intro="What the window has cost so far counts. Before each request the most that it can cost is held;"
        " deployments without a price are not used by keys with a hard budget.",
    )


@needs(Ability.SET_BUDGETS)
@edits_a_row
def change_budget(request: HttpRequest, pk: int) -> HttpResponse:
    """Change a budget's limit, or switch it."""
    budget = get_object_or_404(rows_to_edit(request, Budget.objects.select_related(*OWNERS)), pk=pk)
    initial = {
        "limit_usd": usd_text(budget.limit_nanousd),
        "may_lower_limit": budget.may_lower_limit,
        "is_enabled": budget.is_enabled,
    }
    form = BudgetChangeForm(posted(request), stored=initial)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        changed = form.run(
            lambda: budgets.change_budget(
                budget=budget,
                limit_nanousd=data["limit_usd"],
                may_lower_limit=data["may_lower_limit"],
                is_enabled=data["is_enabled"],
                actor=actor_name(request),
            )
        )
        if changed is not None:
            messages.success(request, "The budget is changed, from the window on that runs.")
            return redirect("budget", pk=pk)
    return show_form(
        request,
        form,
        title=f"Change the budget of {budget}",
        back=(str(budget), reverse("budget", args=[pk])),
    )


@needs(Ability.SET_BUDGETS)
@require_POST
def delete_budget(request: HttpRequest, pk: int) -> HttpResponse:
    """Delete a budget, when its owner's name was typed."""
    budget = get_object_or_404(Budget, pk=pk)
    if not is_confirmed(request, budget.scope()):
        return redirect("budget", pk=pk)
    return run_and_return(
        request,
        lambda: budgets.delete_budget(budget=budget, actor=actor_name(request)),
        done="The budget is deleted; nothing is limited by it any more.",
        to="budgets",
    )
