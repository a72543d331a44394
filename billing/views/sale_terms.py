"""What are tenants charged where that is not the cost? The pages under Prices, Sale prices.

Reads: `billing.sale_standing`. Writes: nothing itself, calls `billing.sale_terms` and `billing.pricing`. Markups tell
the margin, so the pages are for those who set prices.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from billing import pricing, sale_terms
from billing.charging import FACTOR_SCALE
from billing.sale_book import SaleBook, SaleEntry
from billing.sale_forms import METER_NAMES, EndForm, OwnPriceForm, TermForm
from billing.sale_standing import (
    ASSUMPTIONS,
    HISTORY_SHOWN,
    estimate_month,
    last_month,
    list_entries,
    list_standing,
)
from policies.permissions import Ability, actor_name, needs
from policies.views.answering import posted, show_form

ESTIMATES_SHOWN = 50


@needs(Ability.SET_PRICES)
@require_safe
def list_terms(request: HttpRequest) -> HttpResponse:
    """What holds now and begins next, by whom; what last month would have been charged by it; the history."""
    now = timezone.now()
    entries = list_entries()
    context: dict[str, Any] = {
        "standing": list_standing(entries, now=now),
        "entries": entries[:HISTORY_SHOWN],
        "entry_count": len(entries),
        "meters": METER_NAMES,
        "now": now,
    }
    if entries:
        context |= _estimate(sale_terms.load_sale_terms(), at=now)
    return render(request, "sale_terms/list.html", context)


@needs(Ability.SET_PRICES)
@require_http_methods(["GET", "HEAD", "POST"])
def add_term(request: HttpRequest) -> HttpResponse:
    """Add a markup or discount, after a look at what it would have made of last month if wanted."""
    form = TermForm(posted(request))
    context: dict[str, Any] = {"form": form}
    if request.method == "POST" and form.is_valid():
        now = timezone.now()
        begins = form.since() or now
        if "preview" in request.POST:
            millionths = int(form.factor() * FACTOR_SCALE)
            asked = SaleEntry(form.scope(), begins.timestamp(), millionths)
            context |= _estimate(sale_terms.load_sale_terms([asked]), at=begins)
        else:
            data = form.cleaned_data
            term = form.run(
                lambda: sale_terms.add_term(
                    tenant=data["tenant"],
                    model=data["model"],
                    deployment=data["deployment"],
                    meter=data["meter"],
                    factor=form.factor(),
                    effective_from=form.since(),
                    note=data["note"],
                    actor=actor_name(request),
                )
            )
            if term is not None:
                messages.success(
                    request, "The term is added; requests are charged by it from its beginning on."
                )
                return redirect("sale-terms")
    return render(request, "sale_terms/new.html", context, status=422 if form.errors else 200)


@needs(Ability.SET_PRICES)
@require_http_methods(["GET", "HEAD", "POST"])
def add_own_price(request: HttpRequest) -> HttpResponse:
    """Add a price of the sale book: the tenant is charged by it whatever the cost."""
    form = OwnPriceForm(posted(request))
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        price = form.run(
            lambda: pricing.add_own_price(
                tenant=data["tenant"],
                deployment=data["deployment"],
                rates=form.rates(),
                effective_from=form.since(),
                source=data["source"],
                actor=actor_name(request),
            )
        )
        if price is not None:
            messages.success(request, "The price is added; requests are charged by it from its beginning on.")
            return redirect("sale-terms")
    return show_form(
        request,
        form,
        title="New own price",
        back=("Sale prices", reverse("sale-terms")),
        submit="Add price",
        intro="What one tenant, or all, is charged for one deployment whatever it costs. It is the whole price: markups"
        " and discounts do not touch it.",
    )


@needs(Ability.SET_PRICES)
@require_http_methods(["GET", "HEAD", "POST"])
def end_term(request: HttpRequest) -> HttpResponse:
    """End what holds for the tenant, model or deployment, and meter that the address names."""
    initial = {name: request.GET.get(name, "")[:20] for name in ("tenant", "model", "deployment", "meter")}
    form = EndForm(posted(request), initial=initial)
    if request.method == "POST" and form.is_valid():
        term = form.run(lambda: sale_terms.end_term(**form.cleaned_data, actor=actor_name(request)))
        if term is not None:
            messages.success(request, "It ends; what is less specific holds from then on, else the cost.")
            return redirect("sale-terms")
    return show_form(
        request,
        form,
        title="End these terms",
        back=("Sale prices", reverse("sale-terms")),
        submit="End them",
        intro="From then on the next less specific terms hold; without any, tenants are charged what it costs.",
    )


def _estimate(book: SaleBook, *, at: dt.datetime) -> dict[str, Any]:
    today = timezone.now().date()
    estimates = estimate_month(book, at=at, today=today)
    return {
        "estimates": estimates[:ESTIMATES_SHOWN],
        "estimate_count": len(estimates),
        "cost_nanousd": sum(one.cost_nanousd for one in estimates),
        "charged_nanousd": sum(one.charged_nanousd for one in estimates),
        "would_nanousd": sum(one.would_nanousd for one in estimates),
        "change_nanousd": sum(one.change_nanousd for one in estimates),
        "month": last_month(today)[0],
        "assumptions": ASSUMPTIONS,
        "is_estimated": True,
    }
