"""Who may take how much in a minute, what of it is taken right now, and how does a limit change in the browser?

Reads: rate_limit, rate_window. Writes: nothing itself, calls `policies.rate_limits`.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from gateway.dataplane.rate_windows import COUNTS_S, Window
from policies import rate_limits
from policies.models import RateLimit
from policies.permissions import Ability, actor_name, needs
from policies.rate_limit_forms import RateLimitChangeForm, RateLimitForm
from policies.views.answering import (
    edits_a_row,
    is_confirmed,
    posted,
    rows_to_edit,
    run_and_return,
    show_form,
)

ROWS_SHOWN = 500
IN_FORCE = "within 2 seconds in every worker"


class Meter(NamedTuple):
    """One kind of limit: what is taken of it, as far as workers have told."""

    name: str
    limit: int
    taken: int

    @property
    def percent(self) -> int:
        return min(100, self.taken * 100 // self.limit)


class Row(NamedTuple):
    """One owner's limits."""

    limit: RateLimit
    url: str
    meters: tuple[Meter, ...]


@needs(Ability.READ)
@require_safe
def list_limits(request: HttpRequest) -> HttpResponse:
    """All limits, with what of them was taken in the last minute."""
    now_s = time.time()
    found = list(_limits()[: ROWS_SHOWN + 1])
    rows = [Row(limit, _url_of(limit), _meters(limit, now_s)) for limit in found[:ROWS_SHOWN]]
    context = {"rows": rows, "has_more": len(found) > ROWS_SHOWN, "rows_shown": ROWS_SHOWN}
    return render(request, "rate_limits/list.html", context)


@needs(Ability.CONFIGURE)
@require_http_methods(["GET", "HEAD", "POST"])
def create_limit(request: HttpRequest) -> HttpResponse:
    """Limit somebody; `?kind=` and `?name=` fill in whom."""
    initial = {"kind": request.GET.get("kind", "key")[:20], "name": request.GET.get("name", "")[:320]}
    form = RateLimitForm(posted(request), initial=initial)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        made = form.run(
            lambda: rate_limits.set_rate_limit(
                owner=data["owner"], actor=actor_name(request), **form.limits()
            )
        )
        if made is not None:
            messages.success(request, f"{data['owner']} is limited, {IN_FORCE}.")
            return redirect("rate-limits")
    return show_form(
        request,
        form,
        title="New rate limit",
        back=("Rate limits", reverse("rate-limits")),
        submit="Set limit",
        intro="A request counts for the limits of its key, its project and its tenant. What does not fit is refused"
        " with 429 and the time to wait. A deployment that is full is left out, and the next one is tried.",
    )


@needs(Ability.CONFIGURE)
@edits_a_row
def change_limit(request: HttpRequest, pk: int) -> HttpResponse:
    """Change what an owner may take."""
    row = get_object_or_404(rows_to_edit(request, _limits()), pk=pk)
    form = RateLimitChangeForm(posted(request), stored=rate_limits.describe(row))
    if request.method == "POST" and form.is_valid():
        changed = form.run(
            lambda: rate_limits.set_rate_limit(owner=row.owner(), actor=actor_name(request), **form.limits())
        )
        if changed is not None:
            messages.success(request, f"The limit is changed, {IN_FORCE}.")
            return redirect("rate-limits")
    return show_form(
        request, form, title=f"Rate limit of {row}", back=("Rate limits", reverse("rate-limits"))
    )


@needs(Ability.CONFIGURE)
@require_POST
def delete_limit(request: HttpRequest, pk: int) -> HttpResponse:
    """Take a limit back, when its owner's name was typed."""
    row = get_object_or_404(_limits(), pk=pk)
    if not is_confirmed(request, str(row.owner())):
        return redirect("rate-limits")
    return run_and_return(
        request,
        lambda: rate_limits.set_rate_limit(owner=row.owner(), actor=actor_name(request)),
        done=f"{row.owner()} is not limited any more, {IN_FORCE}.",
        to="rate-limits",
    )


def _limits() -> QuerySet[RateLimit]:
    return RateLimit.objects.select_related(
        "window", "tenant", "project__tenant", "api_key__project__tenant", "deployment"
    ).order_by("deployment__name", "tenant__name", "project__tenant__name", "project__name", "id")


def _url_of(limit: RateLimit) -> str:
    if limit.deployment_id is not None:
        return reverse("deployment", args=[limit.deployment_id])
    if limit.api_key_id is not None:
        return reverse("key", args=[limit.api_key_id])
    tenant_id = limit.tenant_id if limit.project is None else limit.project.tenant_id
    return reverse("tenant", args=[tenant_id])


def _meters(limit: RateLimit, now_s: float) -> tuple[Meter, ...]:
    window = Window.of(limit.window.state)
    recent = [taken for second, taken in window.seconds.items() if second + COUNTS_S > now_s]
    running = sum(lease.running for lease in window.leases.values() if lease.expires_s > now_s)
    found = (
        ("requests a minute", limit.requests_per_minute, sum(requests for requests, _ in recent)),
        ("tokens a minute", limit.tokens_per_minute, sum(tokens for _, tokens in recent)),
        ("at once", limit.concurrent, running),
    )
    return tuple(Meter(name, value, taken) for name, value, taken in found if value is not None)
