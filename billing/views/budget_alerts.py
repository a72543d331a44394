"""Who hears of budgets, what was noticed, and did it arrive?

Reads: alert_recipient, budget_alert, alert_delivery. Writes: nothing itself, calls `billing.alert_recipients` and
`billing.alert_deliveries`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from celery import current_app
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Prefetch, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from kombu.exceptions import OperationalError

from billing import alert_deliveries, alert_recipients
from billing.budget_forms import RecipientChangeForm, RecipientForm
from billing.budget_standing import OWNERS
from billing.models import AlertDelivery, AlertRecipient, Budget, BudgetAlert
from billing.notifying import is_mail_set_up
from policies.permissions import Ability, actor_name, may, needs
from policies.views.answering import (
    edits_a_row,
    is_confirmed,
    posted,
    rows_to_edit,
    run_and_return,
    show_form,
)

DELIVERY_TASK = "gateway.tasks.deliver_alerts"
RECIPIENTS_SHOWN = 200
DELIVERIES_SHOWN = 20
ALERTS_SHOWN = 20


@needs(Ability.READ)
@require_safe
def show_alerts(request: HttpRequest) -> HttpResponse:
    """Recipients, the last alerts and the last messages."""
    recipients = AlertRecipient.objects.select_related("tenant", *(f"budget__{name}" for name in OWNERS))
    deliveries = AlertDelivery.objects.select_related("recipient").order_by("-created_at", "id")
    shown = list(recipients.order_by("tenant__name", "budget_id", "address")[:RECIPIENTS_SHOWN])
    context = {
        "rows": [
            {"recipient": row, "dialog": f"remove-{row.pk}", "may_change": _may_change(request, row)}
            for row in shown
        ],
        "alerts": list_history(BudgetAlert.objects.all(), limit=ALERTS_SHOWN),
        "deliveries": deliveries[:DELIVERIES_SHOWN],
        "is_mail_set_up": is_mail_set_up(),
        "has_mail": any(row.channel == AlertRecipient.Channel.EMAIL for row in shown),
    }
    return render(request, "budgets/alerts.html", context)


def list_history(alerts: QuerySet[BudgetAlert], *, limit: int) -> list[BudgetAlert]:
    """The newest alerts, each with how many messages of it there are and have arrived."""
    counted = alerts.annotate(
        message_count=Count("deliveries"),
        sent_count=Count("deliveries", filter=Q(deliveries__state=AlertDelivery.State.SENT)),
        failed_count=Count("deliveries", filter=Q(deliveries__state=AlertDelivery.State.FAILED)),
    )
    budgets = Prefetch("window__budget", Budget.objects.select_related(*OWNERS))
    newest = counted.select_related("window").prefetch_related(budgets)
    return list(newest.order_by("-noticed_at", "-id")[:limit])


@needs(Ability.SET_BUDGETS)
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def add_recipient(request: HttpRequest) -> HttpResponse:
    """Add an address; `?budget=` for one budget. A webhook's secret is shown, this once."""
    budget = _budget_of(request)
    form = RecipientForm(
        posted(request),
        initial={"tenant": request.GET.get("tenant", "")[:100]},
        is_of_budget=budget is not None,
        may_allow_private=may(request.user, Ability.CONFIGURE),
    )
    if request.method == "POST" and form.is_valid():
        data: dict[str, Any] = {**form.cleaned_data}
        named = data.pop("tenant", None)
        data.pop("is_of_deployments", None)
        tenant = budget.tenant if budget is not None else named
        added = form.run(
            lambda: alert_recipients.add_recipient(
                tenant=tenant, budget=budget, actor=actor_name(request), **data
            )
        )
        if added is not None:
            recipient, secret = added
            if secret:
                return render(request, "budgets/secret.html", {"recipient": recipient, "secret": secret})
            return redirect("budget-alerts")
    back = ("Alerts", reverse("budget-alerts"))
    of = f"the budget of {budget.scope()}, {budget.get_window_display()}" if budget is not None else "budgets"
    return show_form(
        request,
        form,
        title="New recipient",
        back=back if budget is None else (budget.scope(), reverse("budget", args=[budget.pk])),
        submit="Add recipient",
        intro=f"Hears once when {of} reached 50, 80 and 100 % of the limit, and when it is foreseen that the limit"
        " will be exceeded."
        + (
            ""
            if is_mail_set_up()
            else " Mail is not set up on this installation (EMAIL_URL): mails stand in its log."
        ),
    )


@needs(Ability.SET_BUDGETS)
@edits_a_row
def change_recipient(request: HttpRequest, pk: int) -> HttpResponse:
    """Change an address, a webhook's network or its secret."""
    rows = AlertRecipient.objects.select_related("tenant", *(f"budget__{name}" for name in OWNERS))
    recipient = get_object_or_404(rows_to_edit(request, rows), pk=pk)
    if not _may_change(request, recipient):
        raise PermissionDenied("change a webhook that may be in a private network")
    stored = {"address": recipient.address, "allow_private_network": recipient.allow_private_network}
    form = RecipientChangeForm(
        posted(request),
        stored=stored,
        is_webhook=recipient.channel == AlertRecipient.Channel.WEBHOOK,
        may_allow_private=may(request.user, Ability.CONFIGURE),
    )
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        changed = form.run(
            lambda: alert_recipients.change_recipient(recipient=recipient, actor=actor_name(request), **data)
        )
        if changed is not None:
            messages.success(request, f"{changed.address} is changed.")
            return redirect("budget-alerts")
    return show_form(
        request,
        form,
        title=f"Change {recipient.address}",
        back=("Alerts", reverse("budget-alerts")),
        intro="It goes on hearing of the same budgets. For others, or another way, add a recipient.",
    )


def _may_change(request: HttpRequest, recipient: AlertRecipient) -> bool:
    """Who may reach into the network of the gateway is who sets up providers."""
    ability = Ability.CONFIGURE if recipient.allow_private_network else Ability.SET_BUDGETS
    return may(request.user, ability)


@needs(Ability.SET_BUDGETS)
@require_POST
def send_test(request: HttpRequest, pk: int) -> HttpResponse:
    """Send a test to one recipient, in the background."""
    recipient = get_object_or_404(AlertRecipient.objects.select_related("tenant"), pk=pk)
    answer = run_and_return(
        request,
        lambda: alert_deliveries.send_test(
            recipient=recipient, actor=actor_name(request), now=timezone.now()
        ),
        done=f"A test for {recipient.address} is on its way: see below whether it arrived.",
        to="budget-alerts",
    )
    # Only a hint: the row is there, and the clock brings it within a minute.
    with suppress(OperationalError, OSError):
        current_app.send_task(DELIVERY_TASK, retry=False)
    return answer


@needs(Ability.SET_BUDGETS)
@require_POST
def remove_recipient(request: HttpRequest, pk: int) -> HttpResponse:
    """Remove a recipient, when its address was typed."""
    recipient = get_object_or_404(AlertRecipient.objects.select_related("tenant", "budget"), pk=pk)
    if not is_confirmed(request, recipient.address):
        return redirect("budget-alerts")
    return run_and_return(
        request,
        lambda: alert_recipients.remove_recipient(recipient=recipient, actor=actor_name(request)),
        done=f"{recipient.address} hears of budgets no more.",
        to="budget-alerts",
    )


def _budget_of(request: HttpRequest) -> Budget | None:
    text = request.GET.get("budget", "")
    if not text:
        return None
    rows = Budget.objects.select_related(*OWNERS)
    return get_object_or_404(rows, pk=int(text) if text.isdecimal() and len(text) < 19 else 0)
