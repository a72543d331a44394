"""How are API keys issued, rotated and revoked in the browser?

Writes: nothing itself, calls `policies.issuing`. The list and the page of a key need its spend: billing/views/keys.py.
"""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from policies import issuing
from policies.access_forms import IssueKeyForm, RotateKeyForm
from policies.models import ApiKey, Model, Project
from policies.permissions import Ability, actor_name, needs
from policies.views.answering import is_confirmed, posted, run_and_return, show_form


@needs(Ability.ISSUE_KEYS)
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def issue(request: HttpRequest) -> HttpResponse:
    """Issue a key and show its secret, this once; `?project=` chooses the project beforehand."""
    if not Project.objects.exists():
        messages.error(request, "A key belongs to a project: create a tenant with a project first.")
        return redirect("tenants")
    form = IssueKeyForm(posted(request), initial={"project": request.GET.get("project")})
    if request.method == "POST" and form.is_valid():
        fields = dict(form.cleaned_data)
        issued = form.run(lambda: issuing.issue_key(actor=actor_name(request), **fields))
        if issued is not None:
            return _show_secret(request, *issued, title="The key is issued")
    return show_form(
        request, form, title="Issue an API key", back=("API keys", reverse("keys")), submit="Issue key"
    )


@needs(Ability.ISSUE_KEYS)
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def rotate(request: HttpRequest, pk: int) -> HttpResponse:
    """Issue the successor of a key; the old secret goes on for the overlap that was chosen."""
    key = get_object_or_404(ApiKey.objects.select_related("project__tenant"), pk=pk)
    form = RotateKeyForm(posted(request))
    if request.method == "POST" and form.is_valid():
        overlap = form.overlap_time()
        issued = form.run(lambda: issuing.rotate_key(key=key, overlap=overlap, actor=actor_name(request)))
        if issued is not None:
            return _show_secret(request, *issued, title="The key is rotated")
    return show_form(
        request,
        form,
        title=f"Rotate {key.name}",
        back=(key.name, reverse("key", args=[pk])),
        submit="Rotate key",
        intro="A new secret is made, with the same name, project and rights. Put it into the application while the"
        " old one still works.",
    )


@needs(Ability.ISSUE_KEYS)
@require_POST
def revoke(request: HttpRequest, pk: int) -> HttpResponse:
    """Take a key back for good."""
    key = get_object_or_404(ApiKey.objects.select_related("project__tenant"), pk=pk)
    if not is_confirmed(request, key.name):
        return redirect("key", pk=pk)
    return run_and_return(
        request,
        lambda: issuing.revoke_key(key=key, actor=actor_name(request)),
        done=f"{key.name} is revoked: every worker refuses it within 2 seconds.",
        to="key",
        pk=pk,
    )


def _show_secret(request: HttpRequest, key: ApiKey, secret: str, *, title: str) -> HttpResponse:
    """Answer the POST itself with the secret: it must not pass through a session or an address."""
    allowed = key.allowed_models[0] if key.allowed_models else None
    public_id = key.project.tenant.policies.filter(is_enabled=True, live_version__isnull=False).first()
    model = Model.objects.filter(is_enabled=True, deployments__is_enabled=True).first()
    context = {
        "key": key,
        "secret": secret,
        "title": title,
        "example_model": allowed or (public_id and public_id.public_id) or (model and model.name) or "MODEL",
        "public_url": settings.POINTSMAN_PUBLIC_URL,
    }
    return render(request, "keys/secret.html", context)
