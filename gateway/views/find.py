"""Where is the thing with this name or id? The search field of the menu.

Reads: api_key, model, deployment, provider, policy, tenant, request ids.
"""

from __future__ import annotations

import uuid
from typing import Any

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_safe

from policies.models import ApiKey, Deployment, Model, Policy, Provider, Tenant
from policies.permissions import Ability, needs

PER_KIND = 8


@needs(Ability.READ)
@require_safe
def find(request: HttpRequest) -> HttpResponse:
    """Go to the request with this id, else list what has the text in its name."""
    text = request.GET.get("q", "").replace("\0", "").strip()[:200]
    try:
        request_id = uuid.UUID(text)
    except ValueError:
        groups = list_matches(text) if text else []
        return render(request, "find.html", {"q": text, "groups": groups})
    return redirect("request", request_id=request_id)


def list_matches(text: str) -> list[tuple[str, list[dict[str, str]]]]:
    """Kind -> entries with title, detail and address; kinds without a match are left out."""
    keys = ApiKey.objects.select_related("project__tenant").filter(
        Q(name__icontains=text) | Q(owner__icontains=text) | Q(secret_hint__icontains=text)
    )
    found: list[tuple[str, list[dict[str, str]]]] = [
        ("Policies", _list(Policy.objects.filter(public_id__icontains=text), "policy")),
        ("Models", _list(Model.objects.filter(name__icontains=text), "model")),
        ("Deployments", _list(Deployment.objects.filter(name__icontains=text), "deployment")),
        ("Providers", _list(Provider.objects.filter(name__icontains=text), "provider")),
        ("Tenants", _list(Tenant.objects.filter(name__icontains=text), "tenant")),
        ("API keys", _list(keys, "key")),
    ]
    return [(kind, entries) for kind, entries in found if entries]


def _list(rows: Any, url_name: str) -> list[dict[str, str]]:
    return [
        {
            "title": str(row),
            "detail": getattr(row, "secret_hint", ""),
            "url": reverse(url_name, args=[row.pk]),
        }
        for row in rows[:PER_KIND]
    ]
