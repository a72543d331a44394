"""What is missing before a month can be closed, and how far is its closing? The page that closes a month.

Reads: `billing.closing`. Writes: nothing itself, asks `billing.closing` and hints at the task that does it.
"""

from __future__ import annotations

import datetime as dt
import logging
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from celery import current_app
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods
from kombu.exceptions import OperationalError

from billing import closing
from billing.closing import Finding
from billing.drafting import last_day_of
from billing.models import ClosingState, Invoice, InvoiceKind, PeriodClosing
from billing.statement_listing import read_month
from policies.errors import ConfigurationError
from policies.models import Tenant
from policies.permissions import Ability, actor_name, may, needs
from policies.views.answering import is_confirmed

logger = logging.getLogger(__name__)

CLOSE_TASK: Final = "gateway.tasks.run_closing"
UNDER_WAY = (ClosingState.WAITING, ClosingState.RUNNING)


class ShownFinding(NamedTuple):
    """A finding and where one can look into it."""

    finding: Finding
    url: str
    link: str


@needs(Ability.READ)
@require_http_methods(["GET", "HEAD", "POST"])
def close_month(request: HttpRequest, month_text: str) -> HttpResponse:
    """A month before it is closed, while it is, and afterwards. As a fragment for the page that polls it."""
    month = read_month(month_text)
    if month is None:
        raise Http404
    if request.method == "POST":
        return _close(request, month)
    grace_days = _grace_days(request.GET.get("grace", ""))
    row = PeriodClosing.objects.filter(month=month).first()
    context = build_context(month, row, now=timezone.now(), grace_days=grace_days)
    context["may_close"] = may(request.user, Ability.ISSUE_STATEMENTS)
    if not request.headers.get("HX-Request"):
        template = "statements/close.html"
    else:
        # The list of statements loads its card about the open month afterwards: looking a month over takes a moment.
        template = "statements/_next_month.html" if "card" in request.GET else "statements/_closing.html"
    return render(request, template, context)


def build_context(
    month: dt.date, row: PeriodClosing | None, *, now: dt.datetime, grace_days: int = closing.GRACE_DAYS
) -> dict[str, Any]:
    """What the page of a month shows."""
    seen = closing.preview(month=month, now=now, grace_days=grace_days)
    shown = [ShownFinding(one, *link_of(one, month)) for one in seen.findings]
    issued = Invoice.objects.filter(month=month, kind=InvoiceKind.INVOICE, number__isnull=False)
    return {
        "month": month,
        "month_text": f"{month:%Y-%m}",
        "spend_query": urlencode(
            {"period": "custom", "from": month, "to": last_day_of(month), "by": "tenant"}
        ),
        "is_running": month == now.astimezone(dt.UTC).date().replace(day=1),
        "row": row,
        "is_under_way": row is not None and row.state in UNDER_WAY,
        "seen": seen,
        "obstacles": [one for one in shown if one.finding.is_obstacle],
        "notices": [one for one in shown if not one.finding.is_obstacle],
        "grace_days": grace_days,
        "is_waiting": any(one.kind == "grace_not_over" for one in seen.findings),
        "issued_count": issued.count(),
        "left": _left_of(row),
    }


def link_of(finding: Finding, month: dt.date) -> tuple[str, str]:
    """Address and words of the page that helps with a finding; empty where none does."""
    last_day = last_day_of(month)
    days = {"period": "custom", "from": str(month), "to": str(last_day)}
    times = {"since": f"{month}T00:00:00Z", "until": f"{last_day + dt.timedelta(days=1)}T00:00:00Z"}
    if finding.kind == "open_intents":
        return f"{reverse('requests')}?{urlencode(times)}", "Requests of the month"
    if finding.kind == "unmatched_days":
        return f"{reverse('spend')}?{urlencode({**days, 'by': 'day'})}", "Spend by day"
    if finding.kind == "earlier_month_open":
        earlier = closing.find_closable_month(timezone.now())
        return reverse("statement-close", args=[f"{earlier:%Y-%m}"]), f"Close {earlier:%B %Y}"
    if finding.kind == "unpriced":
        return reverse("unpriced"), "Price them"
    if finding.kind == "not_reviewed":
        return f"{reverse('statements')}?month={month:%Y-%m}&state=draft", "The drafts"
    if finding.kind == "no_exchange_rate":
        return reverse("exchange-rates"), "Exchange rates"
    return "", ""


@needs(Ability.ISSUE_STATEMENTS)
def _close(request: HttpRequest, month: dt.date) -> HttpResponse:
    here = reverse("statement-close", args=[f"{month:%Y-%m}"])
    grace_days = _grace_days(request.POST.get("grace", ""))
    if not is_confirmed(request, f"{month:%Y-%m}"):
        return redirect(here)
    now = timezone.now()
    try:
        row = closing.ask_closing(month=month, actor=actor_name(request), now=now, grace_days=grace_days)
    except ConfigurationError as refusal:
        messages.error(request, f"Nothing changed: {refusal}")
        return redirect(here)
    ask_a_worker(row.pk)
    if row.state in UNDER_WAY:
        messages.success(request, f"{month:%B %Y} is being closed.")
    else:
        messages.info(request, f"Nothing changed: {month:%B %Y} was closed already.")
    return redirect(here)


def ask_a_worker(closing_id: int) -> None:
    """Tell a worker; without one, whoever looks for unfinished closings finds it."""
    try:
        current_app.send_task(CLOSE_TASK, args=[closing_id], retry=False)
    except (OperationalError, OSError) as error:
        logger.warning("closing %s waits, the broker cannot be reached: %s", closing_id, error)


def _grace_days(text: str) -> int:
    is_number = text.isascii() and text.isdecimal() and len(text) < 3
    return min(int(text), closing.MAX_GRACE_DAYS) if is_number else closing.GRACE_DAYS


def _left_of(row: PeriodClosing | None) -> list[tuple[Tenant | None, str]]:
    if row is None or not row.left:
        return []
    tenants = Tenant.objects.in_bulk([one["tenant"] for one in row.left])
    return [(tenants.get(one["tenant"]), one["reason"]) for one in row.left]
