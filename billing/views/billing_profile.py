"""Whose name, address and tax stand on statements, and how is that changed in the browser?

Reads: billing_profile. Writes: nothing itself, calls `billing.billing_profiles`.
"""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone

from billing.billing_profiles import ISSUER_FIELDS, change_profile, hold_profile, profile_of
from billing.credit_forms import IssuerForm, ProfileForm
from billing.exchange_rates import find_rate
from policies.models import Tenant
from policies.permissions import Ability, actor_name, needs
from policies.views.answering import edits_a_row, posted, show_form


@needs(Ability.SET_BILLING)
@edits_a_row
def edit_profile(request: HttpRequest, pk: int) -> HttpResponse:
    """Change what statements to a tenant say of it."""
    tenant = get_object_or_404(Tenant, pk=pk)
    profile = hold_profile(tenant) if request.method == "POST" else profile_of(tenant)
    initial = {name: getattr(profile, name) for name in ProfileForm.base_fields if name != "tax_percent"} | {
        "tax_percent": f"{(profile.tax_ratio * 100).normalize():f}"
    }
    form = ProfileForm(posted(request), stored=initial)
    if request.method == "POST" and form.is_valid():
        changed = form.run(lambda: change_profile(tenant=tenant, actor=actor_name(request), **form.values()))
        if changed is not None:
            messages.success(request, "Saved. Statements that are issued stay as they are.")
            if _lacks_rate(changed.currency):
                messages.warning(
                    request,
                    f"There is no exchange rate of {changed.currency} for today: add one before billing.",
                )
            return redirect("credit", pk=pk)
    return show_form(
        request,
        form,
        title=f"Billing details of {tenant}",
        back=(f"Credit of {tenant}", reverse("credit", args=[pk])),
        intro="For statements that are issued from now on.",
    )


@needs(Ability.SET_BILLING)
@edits_a_row
def edit_issuer(request: HttpRequest) -> HttpResponse:
    """Change who issues statements."""
    profile = hold_profile(None) if request.method == "POST" else profile_of(None)
    form = IssuerForm(posted(request), stored={name: getattr(profile, name) for name in ISSUER_FIELDS})
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        if form.run(lambda: change_profile(tenant=None, actor=actor_name(request), **data)) is not None:
            messages.success(request, "Saved. Statements that are issued stay as they are.")
            return redirect("credits")
    return show_form(
        request,
        form,
        title="Issuer of statements",
        back=("Credit", reverse("credits")),
        intro="Stands at the top of all statements and credit notes that are issued from now on.",
    )


def _lacks_rate(currency: str) -> bool:
    return find_rate(currency=currency, on=timezone.now().date()) is None
