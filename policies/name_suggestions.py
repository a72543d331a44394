"""Which names may be typed where a form asks for a tenant, a project or a key? A text field that offers them.

Reads: tenants, projects, keys in use; at most so many of each, others can be typed all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from django import forms
from django.forms.renderers import BaseRenderer
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from policies.models import ApiKey, Project, Tenant

MOST_OF_A_KIND: Final = 200


def list_tenant_names() -> list[str]:
    """Tenants by name."""
    rows = Tenant.objects.filter(is_enabled=True).order_by("name")
    return list(rows.values_list("name", flat=True)[:MOST_OF_A_KIND])


def list_scope_names() -> list[str]:
    """Tenants, their projects (acme/web) and keys (acme/web/dev)."""
    projects = Project.objects.filter(is_enabled=True, tenant__is_enabled=True)
    keys = ApiKey.objects.filter(revoked_at=None, replaced_by=None, project__is_enabled=True)
    return [
        *list_tenant_names(),
        *_paths(projects.order_by("tenant__name", "name").values_list("tenant__name", "name")),
        *_paths(
            keys.order_by("project__tenant__name", "project__name", "name").values_list(
                "project__tenant__name", "project__name", "name"
            )
        ),
    ]


def _paths(rows: Any) -> list[str]:
    return ["/".join(names) for names in rows[:MOST_OF_A_KIND]]


class SuggestingInput(forms.TextInput):
    """A text field with names to choose from."""

    def __init__(self, list_names: Callable[[], list[str]]) -> None:
        # Firefox offers nothing in a field that says "off".
        super().__init__(attrs={"autocomplete": "on"})
        self.list_names = list_names

    def render(
        self,
        name: str,
        value: Any,
        attrs: Mapping[str, Any] | None = None,
        renderer: BaseRenderer | None = None,
    ) -> SafeString:
        """Write the field, and the names beside it."""
        list_id = f"{(attrs or {}).get('id', name)}-names"
        field = super().render(name, value, {**(attrs or {}), "list": list_id}, renderer)
        options = format_html_join("", '<option value="{}"></option>', ((one,) for one in self.list_names()))
        return format_html('{}<datalist id="{}">{}</datalist>', field, list_id, options)
