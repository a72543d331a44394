"""Which programs may change the configuration, how do they get a token, and how is it taken back?

Reads: management_token. Writes: nothing itself, calls `policies.management_tokens`.
"""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from policies.management_token_forms import IssueTokenForm
from policies.management_tokens import issue_token, revoke_token, state_of
from policies.models import ManagementToken
from policies.permissions import Ability, actor_name, needs
from policies.views.answering import is_confirmed, posted, run_and_return, show_form

# Tokens are made by hand; a page of this many is a sign of something else than a missing second page.
MAX_ROWS = 500


@needs(Ability.ISSUE_TOKENS)
@require_safe
def list_tokens(request: HttpRequest) -> HttpResponse:
    """All tokens, those that still work first."""
    now = timezone.now()
    tokens = ManagementToken.objects.order_by("revoked_at", "name")[:MAX_ROWS]
    rows = [
        {"token": token, "state": state_of(token, now=now), "dialog": f"revoke-{token.pk}"}
        for token in tokens
    ]
    rows.sort(key=lambda row: row["state"] != "active")
    return render(
        request, "management_tokens/list.html", {"rows": rows, "public_url": settings.POINTSMAN_PUBLIC_URL}
    )


@needs(Ability.ISSUE_TOKENS)
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def issue(request: HttpRequest) -> HttpResponse:
    """Issue a token and show its secret, this once."""
    form = IssueTokenForm(posted(request))
    if request.method == "POST" and form.is_valid():
        fields = dict(form.cleaned_data)
        issued = form.run(lambda: issue_token(actor=actor_name(request), **fields))
        if issued is not None:
            # The answer to the POST itself: the secret must not pass through a session or an address.
            context = {"token": issued[0], "secret": issued[1], "public_url": settings.POINTSMAN_PUBLIC_URL}
            return render(request, "management_tokens/secret.html", context)
    return show_form(
        request,
        form,
        title="Issue a management token",
        back=("Management tokens", reverse("management-tokens")),
        submit="Issue token",
    )


@needs(Ability.ISSUE_TOKENS)
@require_POST
def revoke(request: HttpRequest, pk: int) -> HttpResponse:
    """Take a token back for good."""
    token = get_object_or_404(ManagementToken, pk=pk)
    if not is_confirmed(request, token.name):
        return redirect("management-tokens")
    return run_and_return(
        request,
        lambda: revoke_token(token=token, actor=actor_name(request)),
        done=f"{token.name} is revoked: its next request is refused.",
        to="management-tokens",
    )
