"""Whose is each API key, what is it for, when was it used and what does it spend?

Reads: api_key, change_event, budgets, sums from `billing.reports`. Issuing and the like: policies/views/keys.py.
"""

from __future__ import annotations

from django.conf import settings
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.http import require_safe

from billing import reports
from billing.budget_standing import list_of_key
from billing.key_usage import last_used_days, state_of
from policies.models import ApiKey, ChangeEvent, Project, Tenant
from policies.permissions import Ability, needs

PAGE_SIZE = 100
CHANGES_SHOWN = 10


@needs(Ability.READ)
@require_safe
def list_keys(request: HttpRequest) -> HttpResponse:
    """Keys in use; `?all=1` also revoked and expired ones; filters `q`, `tenant`, `project`."""
    now = timezone.now()
    keys = ApiKey.objects.select_related("project__tenant")
    shows_all = request.GET.get("all") == "1"
    if not shows_all:
        keys = keys.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=now), revoked_at__isnull=True)
    chosen: dict[str, Tenant | Project] = {}
    if (tenant := request.GET.get("tenant", "")).isdecimal():
        chosen["tenant"] = get_object_or_404(Tenant, pk=tenant)
        keys = keys.filter(project__tenant=chosen["tenant"].pk)
    if (project := request.GET.get("project", "")).isdecimal():
        chosen["project"] = get_object_or_404(Project.objects.select_related("tenant"), pk=project)
        keys = keys.filter(project=chosen["project"].pk)
    if text := request.GET.get("q", "").replace("\0", "").strip():
        keys = keys.filter(
            Q(name__icontains=text)
            | Q(owner__icontains=text)
            | Q(secret_hint__icontains=text)
            | Q(project__name__icontains=text)
            | Q(project__tenant__name__icontains=text)
        )
    page = int(number) if (number := request.GET.get("page", "1")).isdecimal() else 1
    first = (min(max(page, 1), 100_000) - 1) * PAGE_SIZE
    found = list(keys[first : first + PAGE_SIZE + 1])
    shown = found[:PAGE_SIZE]
    last_used = last_used_days([key.pk for key in shown])
    this_month = now.date().replace(day=1)
    spent = reports.totals_by_key(last_used, first_day=this_month, last_day=now.date()) if last_used else {}
    context = {
        "rows": [
            {
                "key": key,
                "state": state_of(key, now),
                "usage": spent.get(key.pk, reports.DayTotals()),
                "last_used_on": last_used.get(key.pk),
            }
            for key in shown
        ],
        "q": text,
        "shows_all": shows_all,
        "chosen": chosen,
        "page": page,
        "has_more": len(found) > PAGE_SIZE,
        "has_any": bool(shown) or ApiKey.objects.exists(),
        "today": now.date(),
    }
    return render(request, "keys/list.html", context)


@needs(Ability.READ)
@require_safe
def show_key(request: HttpRequest, pk: int) -> HttpResponse:
    """One key: rights, spend, successor, what was changed."""
    now = timezone.now()
    keys = ApiKey.objects.select_related("project__tenant", "replaced_by", "replaces")
    key = get_object_or_404(keys, pk=pk)
    context = {
        "key": key,
        "state": state_of(key, now),
        "replaces": getattr(key, "replaces", None),
        "usage": reports.totals(
            first_day=now.date().replace(day=1),
            last_day=now.date(),
            scope=reports.Scope(api_key_id=pk),
        ),
        "last_used_on": last_used_days([pk]).get(pk),
        "today": now.date(),
        "budgets": list_of_key(key, now=now),
        "changes": ChangeEvent.objects.filter(object_type="api_key", object_id=pk)[:CHANGES_SHOWN],
        "public_url": settings.POINTSMAN_PUBLIC_URL,
    }
    return render(request, "keys/detail.html", context)
