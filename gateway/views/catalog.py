"""What can be called, at what price, how healthy? Lists and pages of models, providers and deployments.

Reads: the catalog, prices in force, the health board. Forms and switches: policies/views/catalog.py.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db.models import Count, Prefetch, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.http import require_safe

from billing.catalog_ratings import read_router_now
from billing.models import Price
from gateway.health_board import SEVERITY, read_health
from policies.credentials import credential_state, find_credential_problem
from policies.models import Deployment, Model, Provider
from policies.permissions import Ability, needs


@dataclass(frozen=True, slots=True)
class Row:
    """A deployment as lists show it."""

    deployment: Deployment
    price: Price | None
    state: str
    health: dict[str, Any] | None

    @property
    def failure_ratio(self) -> float | None:
        if not self.health or not self.health["requests"]:
            return None
        return float(self.health["failures"]) / float(self.health["requests"])

    @property
    def out_until(self) -> dt.datetime | None:
        """When it may be tried again; None when it is in, or out until somebody acts."""
        until = self.health.get("until") if self.health else None
        return (
            dt.datetime.fromtimestamp(until, dt.UTC)
            if until and self.state in ("ejected", "cooling")
            else None
        )


@needs(Ability.READ)
@require_safe
def list_models(request: HttpRequest) -> HttpResponse:
    """All models, each with the deployments that serve it."""
    models = Model.objects.prefetch_related(
        Prefetch("deployments", Deployment.objects.select_related("provider", "model"))
    )
    if text := _search_text(request):
        models = models.filter(Q(name__icontains=text) | Q(description__icontains=text))
    listed = list(models)
    rows = _rows([deployment for model in listed for deployment in model.deployments.all()])
    by_model: dict[int, list[Row]] = {}
    for row in rows:
        by_model.setdefault(row.deployment.model_id, []).append(row)
    context = {"models": [(model, by_model.get(model.pk, [])) for model in listed], "q": text}
    return render(request, "models/list.html", context)


@needs(Ability.READ)
@require_safe
def show_model(request: HttpRequest, pk: int) -> HttpResponse:
    """One model: what it can do, who serves it."""
    model = get_object_or_404(Model, pk=pk)
    rows = _rows(model.deployments.select_related("provider", "model"))
    rating = read_router_now(timezone.now()).rating_of(model.name)
    return render(request, "models/detail.html", {"model": model, "rows": rows, "rating": rating})


@needs(Ability.READ)
@require_safe
def list_providers(request: HttpRequest) -> HttpResponse:
    """All providers with their worst deployment's state."""
    providers = Provider.objects.annotate(deployment_count=Count("deployments"))
    states = _provider_states()
    context = {
        "providers": [
            {
                "provider": provider,
                "state": "disabled" if not provider.is_enabled else states.get(provider.pk, "idle"),
                "credential": credential_state(provider),
                "deployment_count": provider.deployment_count,
            }
            for provider in providers
        ]
    }
    return render(request, "providers/list.html", context)


@needs(Ability.READ)
@require_safe
def show_provider(request: HttpRequest, pk: int) -> HttpResponse:
    """One provider: address, credential state, deployments."""
    provider = get_object_or_404(Provider, pk=pk)
    rows = _rows(provider.deployments.select_related("provider", "model"))
    context = {
        "provider": provider,
        "credential": credential_state(provider),
        "credential_problem": find_credential_problem(provider),
        "is_credential_refused": any(row.state == "credential_rejected" for row in rows),
        "rows": rows,
    }
    return render(request, "providers/detail.html", context)


@needs(Ability.READ)
@require_safe
def list_deployments(request: HttpRequest) -> HttpResponse:
    """All deployments with price and health."""
    deployments = Deployment.objects.select_related("provider", "model")
    if text := _search_text(request):
        deployments = deployments.filter(
            Q(name__icontains=text) | Q(upstream_model__icontains=text) | Q(region__icontains=text)
        )
    return render(request, "deployments/list.html", {"rows": _rows(deployments), "q": text})


@needs(Ability.READ)
@require_safe
def show_deployment(request: HttpRequest, pk: int) -> HttpResponse:
    """One deployment: health, price history."""
    deployment = get_object_or_404(Deployment.objects.select_related("provider", "model"), pk=pk)
    (row,) = _rows([deployment])
    prices = list(deployment.prices.filter(book="cost", tenant=None).order_by("-effective_from"))
    context = {
        "row": row,
        "deployment": deployment,
        "prices": prices,
        "budgets": deployment.budgets.order_by("window", "-is_hard"),
        "now": timezone.now(),
    }
    is_fragment = bool(request.headers.get("HX-Request"))
    template = "deployments/_health.html" if is_fragment else "deployments/detail.html"
    return render(request, template, context)


def _search_text(request: HttpRequest) -> str:
    return request.GET.get("q", "").replace("\0", "").strip()


def _rows(deployments: QuerySet[Deployment] | list[Deployment]) -> list[Row]:
    """Deployments with the price in force and live health: one query for all prices."""
    listed = list(deployments)
    prices = {
        price.deployment_id: price
        for price in Price.objects.filter(
            deployment__in=listed, book="cost", tenant=None, effective_from__lte=timezone.now()
        )
        .order_by("deployment_id", "-effective_from")
        .distinct("deployment_id")
    }
    health = read_health(Path(settings.POINTSMAN_DATA_DIR))
    return [
        Row(row, prices.get(row.pk), _state(row, health.get(row.pk)), health.get(row.pk)) for row in listed
    ]


def _state(deployment: Deployment, health: dict[str, Any] | None) -> str:
    if not (deployment.is_enabled and deployment.provider.is_enabled and deployment.model.is_enabled):
        return "disabled"
    return str(health["state"]) if health else "idle"


def _provider_states() -> dict[int, str]:
    health = read_health(Path(settings.POINTSMAN_DATA_DIR))
    worst: dict[int, str] = {}
    for pk, provider_id in Deployment.objects.filter(id__in=health, is_enabled=True).values_list(
        "id", "provider_id"
    ):
        state = str(health[pk]["state"])
        worst[provider_id] = max(worst.get(provider_id, "ok"), state, key=SEVERITY.index)
    return worst
