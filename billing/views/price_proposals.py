"""Which prices hold, which are proposed, and what would approving them change? The pages under Prices.

Reads: prices, proposals, rollups of 30 days. Writes: nothing itself, calls `billing.price_proposals`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from billing import price_proposals
from billing.models import Price, PriceProposal, ProposedPrice
from billing.price_estimates import DAYS, Estimate, estimate, sum_last_days
from billing.price_forms import ProposalForm
from billing.rate_changes import RateChange, list_changes
from billing.reports import DayTotals
from billing.rerating import DAYS_LOOKED_AT, count_unpriced_lately
from policies.errors import ConfigurationError
from policies.models import Deployment
from policies.permissions import Ability, actor_name, needs
from policies.views.answering import posted

PROPOSALS_SHOWN = 20
WAITING = ProposedPrice.State.WAITING


@dataclass(frozen=True, slots=True)
class Row:
    """A proposed price as the page shows it."""

    row: ProposedPrice
    changed: Sequence[RateChange]
    same: Sequence[RateChange]
    estimate: Estimate | None

    @property
    def is_doubtful(self) -> bool:
        return any(change.is_doubtful for change in self.changed)


@needs(Ability.READ)
@require_safe
def list_prices(request: HttpRequest) -> HttpResponse:
    """Every deployment with its price in force and how many it had; the proposals."""
    now = timezone.now()
    cost = Price.objects.filter(book=Price.Book.COST, tenant=None)
    in_force = {
        price.deployment_id: price
        for price in cost.filter(effective_from__lte=now)
        .order_by("deployment_id", "-effective_from")
        .distinct("deployment_id")
    }
    history = {
        pk: (count, coming)
        for pk, count, coming in cost.order_by()
        .values_list("deployment")
        .annotate(Count("id"), coming=Count("id", filter=Q(effective_from__gt=now)))
    }
    rows = [
        {
            "deployment": deployment,
            "price": in_force.get(deployment.pk),
            "count": history.get(deployment.pk, (0, 0))[0],
            "is_coming": history.get(deployment.pk, (0, 0))[1] > 0,
        }
        for deployment in Deployment.objects.all()
    ]
    rows.sort(key=lambda row: row["price"] is not None)
    proposals = PriceProposal.objects.annotate(
        waiting=Count("rows", filter=Q(rows__state=WAITING)),
        approved=Count("rows", filter=Q(rows__state=ProposedPrice.State.APPROVED)),
        total=Count("rows"),
    ).order_by("-id")[:PROPOSALS_SHOWN]
    unpriced_count = sum(row["price"] is None for row in rows)
    today = now.astimezone(dt.UTC).date()
    context = {
        "rows": rows,
        "proposals": proposals,
        "unpriced_count": unpriced_count,
        "unpriced_requests": count_unpriced_lately(today),
        "unpriced_days": DAYS_LOOKED_AT,
    }
    return render(request, "prices/list.html", context)


@needs(Ability.SET_PRICES)
@require_http_methods(["GET", "HEAD", "POST"])
def create_proposal(request: HttpRequest) -> HttpResponse:
    """Look at a source."""
    form = ProposalForm(posted(request), request.FILES or None)
    if request.method == "POST" and form.is_valid():
        made = form.run(
            lambda: price_proposals.make_proposal(
                form.source(), actor=actor_name(request), now=timezone.now()
            )
        )
        if made is not None:
            return redirect("price-proposal", pk=made.pk)
    return render(request, "prices/new.html", {"form": form}, status=422 if form.errors else 200)


@needs(Ability.READ)
@require_safe
def show_proposal(request: HttpRequest, pk: int) -> HttpResponse:
    """What would change, row by row, and what the last 30 days would have cost."""
    proposal = get_object_or_404(PriceProposal, pk=pk)
    sums = sum_last_days(timezone.now())
    rows = [
        _as_shown(row, sums) for row in proposal.rows.select_related("deployment", "compared_price", "price")
    ]
    waiting = [row for row in rows if row.row.state == WAITING]
    context: dict[str, Any] = {
        "proposal": proposal,
        "waiting": waiting,
        "decided": [row for row in rows if row.row.state != WAITING],
        "total": _total(waiting),
        "days": DAYS,
        "findings": [one for one in proposal.findings if one["finding"] in ("ambiguous", "inexpressible")],
        "unlisted": [one for one in proposal.findings if one["finding"] == "unlisted"],
        "same": [one for one in proposal.findings if one["finding"] == "same"],
    }
    return render(request, "prices/proposal.html", context)


@needs(Ability.SET_PRICES)
@require_POST
def decide(request: HttpRequest, pk: int) -> HttpResponse:
    """Approve or reject the rows that were chosen."""
    proposal = get_object_or_404(PriceProposal, pk=pk)
    ids = [
        int(text)
        for text in request.POST.getlist("row")
        if text.isascii() and text.isdecimal() and len(text) < 18
    ]
    actor, now = actor_name(request), timezone.now()
    if not ids:
        messages.error(request, "Nothing changed: choose at least one price.")
        return redirect("price-proposal", pk=pk)
    try:
        if request.POST.get("decision") == "approve":
            made = price_proposals.approve(proposal=proposal, row_ids=ids, actor=actor, now=now)
            done = f"{_prices(len(made))} approved; workers rate with what is in force within 2 seconds."
        elif request.POST.get("decision") == "reject":
            reason = request.POST.get("reason", "").replace("\0", "").strip()
            number = price_proposals.reject(
                proposal=proposal, row_ids=ids, actor=actor, now=now, reason=reason
            )
            done = f"{_prices(number)} rejected; prices stay as they are."
        else:
            messages.error(request, "Nothing changed: choose Approve or Reject.")
            return redirect("price-proposal", pk=pk)
    except ConfigurationError as refusal:
        messages.error(request, f"Nothing changed: {refusal}.")
    else:
        messages.success(request, done)
    return redirect("price-proposal", pk=pk)


def _prices(number: int) -> str:
    return "1 price is" if number == 1 else f"{number} prices are"


def _as_shown(row: ProposedPrice, sums: dict[int, DayTotals]) -> Row:
    changes = list_changes(row.compared_price.rates if row.compared_price else None, row.rates)
    totals = sums.get(row.deployment_id)
    return Row(
        row,
        [change for change in changes if not change.is_same],
        [change for change in changes if change.is_same],
        estimate(totals, row.rates) if totals is not None and totals.request_count else None,
    )


def _total(rows: Sequence[Row]) -> dict[str, Any] | None:
    """The sums over all deployments that had traffic, each with its earliest proposed price."""
    first: dict[int, Estimate] = {}
    for row in rows:
        if row.estimate is not None:
            first.setdefault(row.row.deployment_id, row.estimate)
    if not first:
        return None
    found = list(first.values())
    recorded = sum(one.recorded_nanousd for one in found)
    proposed = sum(one.proposed_nanousd for one in found)
    unpriced = sum(one.totals.unpriced_count for one in found)
    return {
        "recorded": recorded,
        "proposed": proposed,
        "ratio": proposed / recorded - 1 if recorded and not unpriced else None,
        "requests": sum(one.totals.request_count for one in found),
        "unpriced": unpriced,
        "is_rough": any(one.is_rough for one in found),
    }
