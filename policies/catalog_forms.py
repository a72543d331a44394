"""What may be typed into the forms over providers, models and deployments? The verbs check everything again.

Reads: models and providers for choices.
"""

from __future__ import annotations

from typing import Any

from django import forms

from policies.cataloguing import CAPABILITIES, ENDPOINTS, WIRE_FORMATS
from policies.forms import ConsoleForm
from policies.models import Model, Provider
from policies.retention import RETENTION_CLASSES


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
