"""What may be typed into the console's forms over configuration? The verbs check everything again.

Reads: models, policies, projects for choices. Refusals of a verb are shown at the field they are about (`run`).
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, TypeVar
from zoneinfo import available_timezones

from django import forms

from policies.cataloguing import CAPABILITIES, ENDPOINTS, WIRE_FORMATS
from policies.errors import ConfigurationError, InvalidValueError, NameTakenError
from policies.models import Deployment, Model, Policy, Project, Provider, Tenant
from policies.permissions import ROLE_DESCRIPTIONS, Role
from policies.retention import RETENTION_CLASSES, RETENTION_LIMITS
from policies.seen_values import list_changed, marks_of

T = TypeVar("T")
SHOWN_LENGTH = 80


class ConsoleForm(forms.Form):
    """A form in Tabler's clothes.

    `stored` are the values of the row that it changes: they stand in the fields when it is opened, and when somebody
    else has changed them by the time it is sent, it says so once instead of putting the old ones back.
    """

    def __init__(self, *args: Any, stored: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        self._stored = stored
        if stored is not None:
            kwargs["initial"] = dict(stored)
        super().__init__(*args, **kwargs)
        if stored is not None:
            self.fields["seen"] = forms.CharField(
                required=False, widget=forms.HiddenInput, initial=marks_of(stored)
            )
        for name, field in self.fields.items():
            widget = field.widget
            if isinstance(field, forms.SlugField):
                field.error_messages["invalid"] = "Letters, digits, hyphens and underscores alone: no spaces."
            if isinstance(widget, (forms.CheckboxInput, forms.CheckboxSelectMultiple, forms.RadioSelect)):
                css = "form-check-input"
            elif isinstance(widget, forms.Select):
                css = "form-select"
            else:
                css = "form-control"
            widget.attrs["class"] = f"{widget.attrs.get('class', '')} {css}".strip()
            if self.is_bound and name in self.errors:
                widget.attrs["class"] += " is-invalid"
            if not isinstance(widget, (forms.CheckboxInput, forms.Select)):
                widget.attrs.setdefault("autocomplete", "off")

    def full_clean(self) -> None:
        """Check the fields as ever, then whether the row is still as it was when the form was opened."""
        super().full_clean()
        if self._stored is None or not self.is_bound:
            return
        changed = list_changed(self.cleaned_data.pop("seen", ""), self._stored)
        changed = [name for name in changed if name in self.fields]
        if not changed:
            return
        # Sent again, it has seen what is said here.
        data: Any = self.data
        self.data = data = data.copy()
        data[self.add_prefix("seen")] = marks_of(self._stored)
        now = "; ".join(f"{self[name].label}: {self._shown(name)}" for name in changed)
        self.add_error(
            None,
            f"Somebody changed this since you opened it. It is now {now}. Below stands what you typed:"
            " save again to put it in place of that, or cancel.",
        )

    def _shown(self, name: str) -> str:
        value = (self._stored or {})[name]
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, (list, tuple)):
            return ", ".join(map(str, value)) or "none"
        if isinstance(value, Mapping):
            value = json.dumps(value) if value else ""
        choices = dict(getattr(self.fields[name], "choices", ()))
        text = "empty" if value in (None, "") else str(choices.get(value, value))
        return text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}…"

    def run(self, verb: Callable[[], T]) -> T | None:
        """Call a verb; when it refuses, put its sentences at the fields and return None."""
        try:
            return verb()
        except InvalidValueError as refusal:
            for name, texts in refusal.problems.items():
                self.add_error(name if name in self.fields else None, [_sentence(text) for text in texts])
        except NameTakenError as refusal:
            self.add_error("name" if "name" in self.fields else None, _sentence(str(refusal)))
        except ConfigurationError as refusal:
            self.add_error(None, _sentence(str(refusal)))
        return None


class ListField(forms.CharField):
    """Names separated by commas or white space."""

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, (list, tuple)) else value

    def clean(self, value: Any) -> list[str]:
        return str(super().clean(value)).replace(",", " ").split()


class ProviderForm(ConsoleForm):
    name = forms.SlugField(max_length=100, help_text="Short, stands in headers and lists: openai, local.")
    base_url = forms.CharField(
        max_length=500, label="Base URL", help_text="Usually ends in /v1: https://api.openai.com/v1"
    )
    wire_format = forms.ChoiceField(choices=[(name, name) for name in WIRE_FORMATS])
    addressing = forms.ChoiceField(choices=Provider.Addressing.choices)
    api_version = forms.CharField(max_length=40, required=False, help_text="Azure only.", label="API version")
    auth_style = forms.ChoiceField(choices=Provider.AuthStyle.choices, label="Credential is sent as")
    credential = forms.CharField(
        max_length=10_000,
        required=False,
        strip=True,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="Encrypted at once and never shown again.",
    )
    credential_reference = forms.CharField(
        max_length=500,
        required=False,
        label="…or a reference to it",
        help_text="env:NAME or file:PATH, read by every worker when it starts and when the provider changes.",
    )
    extra_headers = forms.JSONField(
        required=False,
        initial=dict,
        widget=forms.Textarea(attrs={"rows": 2, "class": "mono"}),
        help_text='Sent with every call, for example {"OpenAI-Organization": "org-1"}. Never a secret.',
    )
    allow_private_network = forms.BooleanField(
        required=False,
        label="Allow loopback and private addresses",
        help_text="For a server of your own in this network.",
    )
    takes_stream_options = forms.BooleanField(
        required=False,
        initial=True,
        label="Takes stream_options",
        help_text="Untick it where the server refuses that member. Usage of streams is then estimated, unless the"
        " server reports it unasked.",
    )

    def clean_extra_headers(self) -> Any:
        return self.cleaned_data["extra_headers"] or {}


class ProviderEditForm(ProviderForm):
    """A credential is asked for only where the base URL leads to another host; else it has a form of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields[
            "credential"
        ].help_text = "Empty: as it is. Needed when the base URL leads to another host."

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        for name in ("credential", "credential_reference"):
            if not data.get(name):
                data.pop(name, None)
        return data


class CredentialForm(ConsoleForm):
    kind = forms.ChoiceField(
        choices=[
            ("replace", "Replace it with a new credential"),
            ("reference", "Read it from a reference"),
            ("remove", "Remove it"),
        ],
        widget=forms.RadioSelect,
        initial="replace",
        label="What should happen",
    )
    credential = forms.CharField(
        max_length=10_000,
        required=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="Encrypted at once and never shown again.",
    )
    credential_reference = forms.CharField(
        max_length=500, required=False, label="Reference", help_text="env:NAME or file:PATH"
    )

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if data.get("kind") == "replace" and not data.get("credential"):
            self.add_error("credential", "Type the new credential.")
        if data.get("kind") == "reference" and not data.get("credential_reference"):
            self.add_error("credential_reference", "Type a reference, for example env:OPENAI_API_KEY.")
        return data


class ModelForm(ConsoleForm):
    name = forms.CharField(max_length=200, help_text="What clients write into “model”.")
    description = forms.CharField(required=False, widget=forms.Textarea(attrs={"rows": 2}))
    context_tokens = forms.IntegerField(
        min_value=1,
        required=False,
        label="Context window (tokens)",
        help_text="Empty: not known, not checked.",
    )
    max_output_tokens = forms.IntegerField(min_value=1, required=False, label="Longest answer (tokens)")
    capabilities = forms.MultipleChoiceField(
        choices=[(name, name.replace("_", " ")) for name in CAPABILITIES],
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="What is not ticked is not offered: requests that need it go elsewhere.",
    )
    endpoints = forms.MultipleChoiceField(
        choices=[(name, name) for name in ENDPOINTS],
        required=False,
        label="Calls",
        widget=forms.CheckboxSelectMultiple,
        help_text="None ticked: chat and completions.",
    )
    output_limit_parameter = forms.ChoiceField(
        choices=Model.OutputLimitParameter.choices, required=False, label="Output limit is sent as"
    )
    rating = forms.FloatField(
        min_value=0,
        max_value=1,
        required=False,
        label="Rating (0 to 1)",
        widget=forms.NumberInput(attrs={"step": "any"}),
        help_text="The share of your tasks it solves. Where the automatic router begins, before evidence of your own"
        " traffic. Empty: a public table's rating, or a guess from the price.",
    )
    rating_source = forms.CharField(
        max_length=200,
        required=False,
        label="Where the rating comes from",
        help_text="For example: own evaluation set.",
    )
    rating_date = forms.DateField(
        required=False,
        label="Rated on",
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
    )


class DeploymentForm(ConsoleForm):
    name = forms.CharField(max_length=200, help_text="Usually model@provider: gpt-5-mini@openai")
    model = forms.ModelChoiceField(queryset=Model.objects.all(), help_text="The name clients ask for.")
    provider = forms.ModelChoiceField(queryset=Provider.objects.all())
    upstream_model = forms.CharField(max_length=300, help_text="The provider's own name for it.")
    region = forms.CharField(
        max_length=40, required=False, help_text="A tag such as eu; tenants may be limited to regions."
    )
    retention = forms.ChoiceField(
        choices=list(RETENTION_CLASSES.items()),
        initial="",
        required=False,
        label="Retention",
        help_text="As your contract with the provider says. Tenants and callers may ask for a strict one.",
    )


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


def initial_of(row: Model | Provider | Deployment | Tenant, form: type[ConsoleForm]) -> dict[str, Any]:
    """The row's values for the fields of a form, to begin an edit with."""
    # A credential is never shown, and its reference is typed again when it shall go to another host.
    left_out = ("policies", "credential", "credential_reference")
    values = {name: getattr(row, name) for name in form.base_fields if name not in left_out}
    if isinstance(row, Tenant):
        values["policies"] = list(row.policies.values_list("public_id", flat=True))
    return values


def _callable_names() -> list[tuple[str, str]]:
    policies = Policy.objects.values_list("public_id", flat=True)
    models = Model.objects.values_list("name", flat=True)
    return [(name, f"{name} (policy)") for name in policies] + [(name, name) for name in models]


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."
