"""How are providers, models and deployments created, changed, switched and tested in the browser?

Writes: nothing itself, calls `policies.cataloguing`. Lists and pages with prices and health: gateway/views/catalog.py.
"""

from __future__ import annotations

from typing import Any, Protocol

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from policies import cataloguing
from policies.catalog_forms import (
    CredentialForm,
    DeploymentForm,
    ModelForm,
    ProviderEditForm,
    ProviderForm,
)
from policies.errors import ConfigurationError
from policies.forms import initial_of
from policies.models import Deployment, Model, Provider
from policies.permissions import Ability, actor_name, needs
from policies.provider_probe import probe_provider
from policies.views.answering import (
    edits_a_row,
    is_confirmed,
    posted,
    rows_to_edit,
    run_and_return,
    show_form,
    tell_refusal,
)

EDIT_METHODS = ["GET", "HEAD", "POST"]


class _Switch(Protocol):
    def __call__(self, *, actor: str, is_enabled: bool) -> object: ...


@needs(Ability.CONFIGURE)
@require_http_methods(EDIT_METHODS)
def create_provider(request: HttpRequest) -> HttpResponse:
    """Add a provider."""
    form = ProviderForm(posted(request))
    if request.method == "POST" and form.is_valid():
        fields = dict(form.cleaned_data)
        provider = form.run(lambda: cataloguing.create_provider(actor=actor_name(request), **fields))
        if provider is not None:
            messages.success(request, f"{provider} is added. Test the connection, then add a deployment.")
            return redirect("provider", pk=provider.pk)
    return show_form(
        request, form, title="New provider", back=("Providers", reverse("providers")), submit="Add provider"
    )


@needs(Ability.CONFIGURE)
@edits_a_row
def edit_provider(request: HttpRequest, pk: int) -> HttpResponse:
    """Change a provider; a credential only together with a base URL at another host."""
    provider = get_object_or_404(rows_to_edit(request, Provider.objects.all()), pk=pk)
    form = ProviderEditForm(posted(request), stored=initial_of(provider, ProviderEditForm))
    if request.method == "POST" and form.is_valid():
        fields = dict(form.cleaned_data)
        row = form.run(
            lambda: cataloguing.change_provider(provider=provider, actor=actor_name(request), **fields)
        )
        if row is not None:
            messages.success(request, f"{row} is saved and live within 2 seconds.")
            return redirect("provider", pk=pk)
    return show_form(
        request, form, title=f"Edit {provider}", back=(str(provider), reverse("provider", args=[pk]))
    )


@needs(Ability.CONFIGURE)
@require_http_methods(EDIT_METHODS)
def replace_credential(request: HttpRequest, pk: int) -> HttpResponse:
    """Replace, refer to or remove the secret that we present to a provider."""
    provider = get_object_or_404(Provider, pk=pk)
    form = CredentialForm(posted(request))
    if request.method == "POST" and form.is_valid():
        fields: dict[str, Any] = {
            "replace": {"credential": form.cleaned_data["credential"]},
            "reference": {"credential_reference": form.cleaned_data["credential_reference"]},
            "remove": {"credential": ""},
        }[form.cleaned_data["kind"]]
        row = form.run(
            lambda: cataloguing.change_provider(provider=provider, actor=actor_name(request), **fields)
        )
        if row is not None:
            messages.success(request, f"The credential of {row} is changed; workers use it within 2 seconds.")
            return redirect("provider", pk=pk)
    return show_form(
        request,
        form,
        title=f"Credential of {provider}",
        back=(str(provider), reverse("provider", args=[pk])),
        intro="The present credential cannot be shown: it is kept encrypted, for the workers alone.",
    )


@needs(Ability.CONFIGURE)
@require_POST
def test_provider(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask the provider for its list of models, off the data plane, and show what came back."""
    provider = get_object_or_404(Provider, pk=pk)
    result = probe_provider(provider)
    is_fragment = bool(request.headers.get("HX-Request"))
    template = "providers/_probe.html" if is_fragment else "providers/probe.html"
    return render(request, template, {"provider": provider, "probe": result})


@needs(Ability.CONFIGURE)
@require_POST
def retry_credential(request: HttpRequest, pk: int) -> HttpResponse:
    """Put a credential that the provider refused back into use, in every worker."""
    provider = get_object_or_404(Provider, pk=pk)
    return run_and_return(
        request,
        lambda: cataloguing.retry_credential(provider=provider, actor=actor_name(request)),
        done=f"Every worker tries the credential of {provider} again within 2 seconds. If it is refused once more,"
        " it is out again.",
        to="provider",
        pk=pk,
    )


@needs(Ability.CONFIGURE)
@require_POST
def switch_provider(request: HttpRequest, pk: int) -> HttpResponse:
    """Enable or disable a provider."""
    row = get_object_or_404(Provider, pk=pk)
    return _switch(
        request,
        row,
        lambda *, actor, is_enabled: cataloguing.change_provider(
            provider=row, actor=actor, is_enabled=is_enabled
        ),
        to="provider",
    )


@needs(Ability.CONFIGURE)
@require_http_methods(EDIT_METHODS)
def create_model(request: HttpRequest) -> HttpResponse:
    """Add a model."""
    form = ModelForm(posted(request))
    if request.method == "POST" and form.is_valid():
        fields = dict(form.cleaned_data)
        model = form.run(lambda: cataloguing.create_model(actor=actor_name(request), **fields))
        if model is not None:
            messages.success(request, f"{model} is added. It can be called once it has a deployment.")
            return redirect("model", pk=model.pk)
    return show_form(request, form, title="New model", back=("Models", reverse("models")), submit="Add model")


@needs(Ability.CONFIGURE)
@edits_a_row
def edit_model(request: HttpRequest, pk: int) -> HttpResponse:
    """Change a model."""
    model = get_object_or_404(rows_to_edit(request, Model.objects.all()), pk=pk)
    form = ModelForm(posted(request), stored=initial_of(model, ModelForm))
    if request.method == "POST" and form.is_valid():
        fields = dict(form.cleaned_data)
        row = form.run(lambda: cataloguing.change_model(model=model, actor=actor_name(request), **fields))
        if row is not None:
            messages.success(request, f"{row} is saved and live within 2 seconds.")
            return redirect("model", pk=pk)
    return show_form(request, form, title=f"Edit {model}", back=(str(model), reverse("model", args=[pk])))


@needs(Ability.CONFIGURE)
@require_POST
def switch_model(request: HttpRequest, pk: int) -> HttpResponse:
    """Enable or disable a model."""
    row = get_object_or_404(Model, pk=pk)
    return _switch(
        request,
        row,
        lambda *, actor, is_enabled: cataloguing.change_model(model=row, actor=actor, is_enabled=is_enabled),
        to="model",
    )


@needs(Ability.CONFIGURE)
@require_http_methods(EDIT_METHODS)
def create_deployment(request: HttpRequest) -> HttpResponse:
    """Add a deployment; `?provider=` and `?model=` choose these beforehand."""
    for kind, needed in (("provider", Provider), ("model", Model)):
        if not needed.objects.exists():
            messages.error(request, f"A deployment is one model at one provider: add a {kind} first.")
            return redirect(f"{kind}-new")
    chosen = {name: request.GET.get(name) for name in ("provider", "model")}
    form = DeploymentForm(posted(request), initial=chosen)
    if request.method == "POST" and form.is_valid():
        fields = dict(form.cleaned_data)
        row = form.run(lambda: cataloguing.create_deployment(actor=actor_name(request), **fields))
        if row is not None:
            messages.success(request, f"{row} is added. Give it a price, so that its requests have a cost.")
            return redirect("deployment", pk=row.pk)
    return show_form(
        request,
        form,
        title="New deployment",
        back=("Deployments", reverse("deployments")),
        submit="Add deployment",
    )


@needs(Ability.CONFIGURE)
@edits_a_row
def edit_deployment(request: HttpRequest, pk: int) -> HttpResponse:
    """Change a deployment."""
    deployment = get_object_or_404(rows_to_edit(request, Deployment.objects.all()), pk=pk)
    form = DeploymentForm(posted(request), stored=initial_of(deployment, DeploymentForm))
    if request.method == "POST" and form.is_valid():
        fields = dict(form.cleaned_data)
        row = form.run(
            lambda: cataloguing.change_deployment(deployment=deployment, actor=actor_name(request), **fields)
        )
        if row is not None:
            messages.success(request, f"{row} is saved and live within 2 seconds.")
            return redirect("deployment", pk=pk)
    return show_form(
        request, form, title=f"Edit {deployment}", back=(str(deployment), reverse("deployment", args=[pk]))
    )


@needs(Ability.CONFIGURE)
@require_POST
def switch_deployment(request: HttpRequest, pk: int) -> HttpResponse:
    """Enable or disable a deployment."""
    row = get_object_or_404(Deployment, pk=pk)
    return _switch(
        request,
        row,
        lambda *, actor, is_enabled: cataloguing.change_deployment(
            deployment=row, actor=actor, is_enabled=is_enabled
        ),
        to="deployment",
    )


@needs(Ability.CONFIGURE)
@require_POST
def delete_catalog_row(request: HttpRequest, kind: str, pk: int) -> HttpResponse:
    """Delete a provider, model or deployment that nothing needs; the verb refuses all others."""
    actor = actor_name(request)
    row: Provider | Model | Deployment
    if kind == "provider":
        row = get_object_or_404(Provider, pk=pk)
    elif kind == "model":
        row = get_object_or_404(Model, pk=pk)
    else:
        row = get_object_or_404(Deployment, pk=pk)
    if not is_confirmed(request, row.name):
        return redirect(kind, pk=pk)
    try:
        if isinstance(row, Provider):
            cataloguing.delete_provider(provider=row, actor=actor)
        elif isinstance(row, Model):
            cataloguing.delete_model(model=row, actor=actor)
        else:
            cataloguing.delete_deployment(deployment=row, actor=actor)
    except ConfigurationError as refusal:
        tell_refusal(request, refusal)
        return redirect(kind, pk=pk)
    messages.success(request, f"{row.name} is deleted.")
    return redirect(f"{kind}s")


def _switch(
    request: HttpRequest, row: Provider | Model | Deployment, verb: _Switch, *, to: str
) -> HttpResponse:
    is_enabled = request.POST.get("enabled") == "1"
    if not is_enabled and not is_confirmed(request, row.name):
        return redirect(to, pk=row.pk)
    return run_and_return(
        request,
        lambda: verb(actor=actor_name(request), is_enabled=is_enabled),
        done=f"{row} is {'enabled' if is_enabled else 'disabled'}, in every worker within 2 seconds.",
        to=to,
        pk=row.pk,
    )
