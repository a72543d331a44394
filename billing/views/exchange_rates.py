"""What is a dollar in other currencies, since when, and how is a rate added in the browser?

Reads: exchange_rate, billing_profile. Writes: nothing itself, calls `billing.exchange_rates`.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

from django.contrib import messages
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from billing.credit_forms import RateForm
from billing.currencies import CURRENCIES
from billing.exchange_rates import add_rate
from billing.models import BillingProfile, ExchangeRate
from policies.permissions import Ability, actor_name, needs
from policies.views.answering import posted, show_form

RATES_SHOWN: Final = 500
# A rate that is older was probably forgotten, not kept.
OLD_AFTER_DAYS: Final = 35


@needs(Ability.READ)
@require_safe
def list_rates(request: HttpRequest) -> HttpResponse:
    """All rates, by currency, newest first; and currencies that statements need and that have none."""
    today = timezone.now().astimezone(dt.UTC).date()
    rows, seen = list[dict[str, Any]](), set[str]()
    days_seen = set[tuple[str, dt.date]]()
    for row in ExchangeRate.objects.all()[:RATES_SHOWN]:
        is_corrected = (row.currency, row.first_day) in days_seen
        days_seen.add((row.currency, row.first_day))
        state = "planned" if row.first_day > today else "before"
        if state == "before" and not is_corrected and row.currency not in seen:
            seen.add(row.currency)
            state = "in force" if row.last_day is None or row.last_day >= today else "ended"
        rows.append(
            {
                "row": row,
                "rate": f"{row.rate.normalize():f}",
                "name": CURRENCIES.get(row.currency, ""),
                "state": "corrected" if is_corrected else state,
                "age_days": (today - row.first_day).days,
                "is_old": state == "in force" and (today - row.first_day).days > OLD_AFTER_DAYS,
            }
        )
    in_force = {one["row"].currency for one in rows if one["state"] == "in force"}
    used = BillingProfile.objects.exclude(currency="USD").values_list("currency").annotate(Count("id"))
    missing = sorted((currency, count) for currency, count in used if currency not in in_force)
    return render(request, "credits/rates.html", {"rows": rows, "missing": missing})


@needs(Ability.SET_BILLING)
@require_http_methods(["GET", "HEAD", "POST"])
def create_rate(request: HttpRequest) -> HttpResponse:
    """Add a rate; `?currency=` fills in of what."""
    today = timezone.now().astimezone(dt.UTC).date()
    form = RateForm(
        posted(request), initial={"currency": request.GET.get("currency", "EUR")[:3], "first_day": today}
    )
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        row = form.run(lambda: add_rate(**data, actor=actor_name(request)))
        if row is not None:
            messages.success(request, f"The rate of {row.currency} holds from {row.first_day}.")
            return redirect("exchange-rates")
    return show_form(
        request,
        form,
        title="New exchange rate",
        back=("Exchange rates", reverse("exchange-rates")),
        submit="Add rate",
        intro="A statement takes the rate of the last day of its month and keeps it for good.",
    )
