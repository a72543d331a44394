"""What may be typed into the forms over tenants, projects, keys and people? The verbs check everything again.

Reads: projects, policies and models for choices.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from zoneinfo import available_timezones

from django import forms

from policies.forms import ConsoleForm, ListField
from policies.models import Model, Policy, Project
from policies.permissions import ROLE_DESCRIPTIONS, Role
from policies.retention import RETENTION_LIMITS


class TenantForm(ConsoleForm):
    name = forms.SlugField(max_length=100)
    time_zone = forms.ChoiceField(
        choices=lambda: [(name, name) for name in sorted(available_timezones())],
        initial="UTC",
        help_text="Rules that look at the hour or the weekday use it.",
    )
    allowed_regions = ListField(
        required=False, help_text="Separated by commas, for example eu, ch. Empty: any region."
    )
    retention_limit = forms.ChoiceField(
        choices=list(RETENTION_LIMITS.items()),
        initial="",
        required=False,
        label="Providers that may see its prompts",
        help_text="A deployment of which nobody has said how long it keeps them counts as the worst.",
    )
    policies = forms.MultipleChoiceField(
        choices=lambda: [(p, p) for p in Policy.objects.values_list("public_id", flat=True)],
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="Policies this tenant's keys may ask for.",
    )
    shadow_percent = forms.FloatField(
        min_value=0,
        max_value=100,
        initial=0,
        required=False,
        label="Shadow sampling: share of requests, in per cent",
        help_text="0: off. Of the requests to automatic rules whose answer can be compared exactly (a label, a number,"
        " JSON of such, a tool call; not streamed), this share is sent a second time, in the background, to another"
        " model that the rule could have chosen: the prompt goes to that model's provider as well, and this tenant pays"
        " for the call. Neither answer is stored, only whether the two say the same.",
    )
    shadow_daily_budget_usd = forms.DecimalField(
        min_value=0,
        max_digits=11,
        decimal_places=2,
        initial=0,
        required=False,
        label="Shadow sampling: budget for a day, in USD",
        help_text="Days are in UTC. The most that a call can cost is set aside before it is made, so this is never"
        " overspent.",
    )

    reported_tags = ListField(
        required=False,
        label="Tags that spend is summed by",
        help_text="Members of a request's metadata, separated by commas: cost_centre, feature. Empty: the first five"
        " that its requests name. From now on: what is recorded already is not summed anew.",
    )
    reports_end_users = forms.BooleanField(
        required=False,
        label="Sum spend by end user",
        help_text="Keeps what requests name as safety_identifier or user, as it is: it is shown and exported, so it"
        " should be no e-mail address.",
    )

    def clean_shadow_percent(self) -> float:
        return self.cleaned_data["shadow_percent"] or 0.0

    def clean_shadow_daily_budget_usd(self) -> Decimal:
        return self.cleaned_data["shadow_daily_budget_usd"] or Decimal(0)


class ProjectForm(ConsoleForm):
    name = forms.SlugField(max_length=100, label="Project name")


class IssueKeyForm(ConsoleForm):
    project = forms.ModelChoiceField(
        queryset=Project.objects.select_related("tenant"), help_text="Its tenant pays for the key's requests."
    )
    name = forms.CharField(max_length=100, help_text="What it is for: web-backend, nightly-eval.")
    owner = forms.CharField(max_length=200, required=False, help_text="Person or team to ask about it.")
    expires_at = forms.DateTimeField(
        required=False,
        label="Expires (UTC)",
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
        help_text="Empty: never.",
    )
    is_pinned = forms.BooleanField(
        required=False,
        label="Pinned: exactly the deployment asked for, no fallback",
        help_text="For evaluations and audits.",
    )
    allowed_models = forms.MultipleChoiceField(
        choices=lambda: _callable_names(),
        required=False,
        widget=forms.CheckboxSelectMultiple(attrs={"data-scroll": "1"}),
        help_text="None ticked: everything its tenant may use.",
    )


class RotateKeyForm(ConsoleForm):
    OVERLAPS = (
        ("0", "None: the old secret stops now"),
        ("1", "1 hour"),
        ("24", "1 day"),
        ("168", "7 days"),
        ("720", "30 days"),
    )
    overlap = forms.ChoiceField(
        choices=OVERLAPS, initial="24", label="The old secret goes on working for", widget=forms.RadioSelect
    )

    def overlap_time(self) -> dt.timedelta:
        return dt.timedelta(hours=int(self.cleaned_data["overlap"]))


class PersonForm(ConsoleForm):
    username = forms.RegexField(
        r"^[\w.@+-]+$", max_length=150, label="Name", help_text="Letters, digits and @ . + - _"
    )
    email = forms.EmailField(required=False, label="E-mail")
    role = forms.ChoiceField(
        choices=[(role.value, f"{role.value}: {ROLE_DESCRIPTIONS[role]}") for role in Role],
        widget=forms.RadioSelect,
        initial=Role.VIEWER.value,
    )


class RoleForm(ConsoleForm):
    role = forms.ChoiceField(choices=[(role.value, role.value) for role in Role])


def _callable_names() -> list[tuple[str, str]]:
    policies = Policy.objects.values_list("public_id", flat=True)
    models = Model.objects.values_list("name", flat=True)
    return [(name, f"{name} (policy)") for name in policies] + [(name, name) for name in models]
