"""What does the management API offer? Its description, as pages.

Reads: gateway/openapi.yaml, once.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from gateway.api_reference import Group, read_reference
from policies.permissions import Ability, needs


@cache
def _groups() -> tuple[Group, ...]:
    # The C parser takes 0.13 s for it, the one in Python ten times that.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    path = Path(settings.BASE_DIR) / "gateway" / "openapi.yaml"
    return read_reference(yaml.load(path.read_text(), Loader=loader))  # noqa: S506  (both are safe loaders)


@needs(Ability.READ)
@require_safe
def list_operations(request: HttpRequest) -> HttpResponse:
    """All operations by group."""
    context = {"groups": _groups(), "public_url": settings.POINTSMAN_PUBLIC_URL}
    return render(request, "api_reference/list.html", context)


@needs(Ability.READ)
@require_safe
def show_group(request: HttpRequest, slug: str) -> HttpResponse:
    """The operations of one group, with what each is sent and answers."""
    group = next((group for group in _groups() if group.slug == slug), None)
    if group is None:
        raise Http404
    return render(request, "api_reference/group.html", {"group": group})
