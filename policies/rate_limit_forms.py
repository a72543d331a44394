"""What may be typed into the console's forms over rate limits? The verbs check everything again.

Reads: tenants, projects, keys and deployments, by their names.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from policies.forms import ConsoleForm
from policies.models import ApiKey, Deployment, Project, Tenant
from policies.name_suggestions import SuggestingInput, list_scope_names
from policies.rate_limits import LIMIT_FIELDS, MAX_LIMITS, Owner, find_rate_limit


def _number(name: str, label: str, help_text: str) -> forms.IntegerField:
    return forms.IntegerField(
        required=False, min_value=1, max_value=MAX_LIMITS[name], label=label, help_text=help_text
    )


class RateLimitChangeForm(ConsoleForm):
    """How much somebody may take."""

    requests_per_minute = _number(
        "requests_per_minute", "Requests per minute", "In any 60 seconds. Empty: as many as they like."
    )
    tokens_per_minute = _number(
        "tokens_per_minute",
        "Tokens per minute",
        "Input and output. Estimated when a request comes, corrected when its usage is known.",
    )
    concurrent = _number("concurrent", "Requests at once", "Of streams, until their last byte.")

    def limits(self) -> dict[str, int | None]:
        """What was typed, by the names of the verb."""
        return {name: self.cleaned_data[name] for name in LIMIT_FIELDS}

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.errors and not any(data.get(name) for name in LIMIT_FIELDS):
            raise ValidationError("State at least one limit; to lift all of them, delete the limit.")
        return data


class RateLimitForm(RateLimitChangeForm):
    """A new limit."""

    field_order = ["kind", "name", *LIMIT_FIELDS]
    kind = forms.ChoiceField(
        choices=[
            ("key", "API key"),
            ("project", "Project"),
            ("tenant", "Tenant"),
            ("deployment", "Deployment"),
        ],
        label="Whom",
    )
    name = forms.CharField(
        max_length=320,
        widget=SuggestingInput(list_scope_names),
        help_text="acme/web/dev for a key, acme/web for a project, acme for a tenant; a deployment by its name.",
    )

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        if "name" not in data or "kind" not in data:
            return data
        owner = _find_owner(data["kind"], data["name"].strip())
        if owner is None:
            self.add_error("name", f"There is no such {data['kind']}.")
        elif find_rate_limit(owner) is not None:
            self.add_error("name", "It has a limit already: change that one.")
        data["owner"] = owner
        return data


def _find_owner(kind: str, name: str) -> Owner | None:
    """The row that a name stands for. A key's name may hold a slash."""
    if kind == "deployment":
        return Deployment.objects.filter(name=name).first()
    if kind == "tenant":
        return Tenant.objects.filter(name=name).first()
    tenant, _, rest = name.partition("/")
    if kind == "project":
        return Project.objects.filter(tenant__name=tenant, name=rest).select_related("tenant").first()
    project, _, key = rest.partition("/")
    keys = ApiKey.objects.filter(project__tenant__name=tenant, project__name=project, name=key)
    return (
        keys.filter(revoked_at__isnull=True, replaced_by__isnull=True)
        .select_related("project__tenant")
        .first()
    )
