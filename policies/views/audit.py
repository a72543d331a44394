"""Who changed what, before and after?

Reads: change_event.
"""

from __future__ import annotations

from typing import Any

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from policies.models import ChangeEvent
from policies.permissions import Ability, needs

PAGE_SIZE = 50
OBJECT_TYPES = (
    "api_key", "billing_profile", "budget", "credit", "deployment", "exchange_rate", "model", "person", "policy",
    "price", "project", "provider", "request_records", "sale_term", "tenant",
)  # fmt: skip


@needs(Ability.SEE_AUDIT)
@require_safe
def list_changes(request: HttpRequest) -> HttpResponse:
    """The newest changes; filters `type`, `object`, `q` and the page (`before`) live in the address."""
    filters = {
        name: value for name in ("type", "object", "q") if (value := request.GET.get(name, "").strip())
    }
    events = ChangeEvent.objects.all()
    if "type" in filters:
        events = events.filter(object_type=filters["type"])
    if filters.get("object", "").isdecimal():
        events = events.filter(object_id=int(filters["object"][:18]))
    if "q" in filters:
        text = filters["q"].replace("\0", "")
        events = events.filter(
            Q(object_name__icontains=text) | Q(actor__icontains=text) | Q(action__icontains=text)
        )
    before = request.GET.get("before", "")
    if before.isdecimal():
        events = events.filter(id__lt=int(before[:18]))
    rows = list(events.order_by("-id")[: PAGE_SIZE + 1])
    context = {
        "rows": [{"event": event, "fields": list_fields(event)} for event in rows[:PAGE_SIZE]],
        "older": rows[PAGE_SIZE - 1].pk if len(rows) > PAGE_SIZE else None,
        "is_first_page": not before,
        "filters": filters,
        "search": filters.get("q", ""),
        "object_types": OBJECT_TYPES,
    }
    return render(request, "audit/list.html", context)


def list_fields(event: ChangeEvent) -> list[dict[str, Any]]:
    """The changed fields, each with its value before and after."""
    before, after = event.before or {}, event.after or {}
    return [
        {"name": name, "before": before.get(name), "after": after.get(name), "is_new": name not in before}
        for name in sorted({*before, *after})
    ]
