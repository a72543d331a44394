"""How does a deployment get a price in the browser?

Writes: nothing itself, calls `billing.pricing`.
"""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from billing import pricing
from billing.forms import PriceForm
from policies.models import Deployment
from policies.permissions import Ability, actor_name, needs
from policies.views.answering import posted, show_form


@needs(Ability.SET_PRICES)
@require_http_methods(["GET", "HEAD", "POST"])
def add_price(request: HttpRequest, pk: int) -> HttpResponse:
    """Add a dated price; the form begins with the rates that are in force."""
    deployment = get_object_or_404(Deployment, pk=pk)
    present = pricing.find_price_in_force(deployment=deployment, at=timezone.now())
    form = PriceForm(posted(request), initial=PriceForm.initial_of(present.rates) if present else {})
    if request.method == "POST" and form.is_valid():
        price = form.run(
            lambda: pricing.add_price(
                deployment=deployment,
                rates=form.rates(),
                actor=actor_name(request),
                effective_from=form.since(),
                source=form.cleaned_data["source"],
            )
        )
        if price is not None:
            messages.success(
                request, "The price is added; workers rate with it within 2 seconds of its beginning."
            )
            return redirect("deployment", pk=pk)
    return show_form(
        request,
        form,
        title=f"New price of {deployment}",
        back=(deployment.name, reverse("deployment", args=[pk])),
        submit="Add price",
        intro="A price is never changed: a new one takes over from its date, the old ones stay for the requests"
        " that were rated with them.",
    )
