"""What may be typed into the console's forms over sale prices? The verbs check everything again.

Reads: tenants, models and deployments for choices.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any, Final

from django import forms

from billing.forms import PriceForm
from billing.models.sale import MAX_FACTOR
from billing.rating import METERS
from billing.sale_book import SaleScope
from policies.forms import ConsoleForm
from policies.models import Deployment, Model, Tenant

METER_NAMES: Final = {
    "input": "Input",
    "cache_read": "Cached input",
    "cache_write": "Cache writes",
    "cache_write_1h": "Cache writes for an hour",
    "audio_input": "Audio input",
    "output": "Output",
    "reasoning": "Reasoning",
    "audio_output": "Audio output",
    "request": "Requests",
    "search": "Searches",
    "image_input": "Image input",
    "image_output": "Image output",
    "image": "Images",
    "audio_second": "Seconds of audio",
}
assert set(METER_NAMES) == set(METERS)
HUNDRED: Final = Decimal(100)


def _begins() -> forms.DateTimeField:
    return forms.DateTimeField(
        required=False,
        label="In force from (UTC)",
        widget=forms.DateTimeInput(
            attrs={"type": "datetime-local", "max": "9999-12-31T23:59"}, format="%Y-%m-%dT%H:%M"
        ),
        help_text="Empty: now. Never before: what is recorded keeps what it was charged. Give back what was too much"
        " by a credit note over the month’s statement.",
    )


class TermForm(ConsoleForm):
    """A markup or discount."""

    tenant = forms.ModelChoiceField(
        Tenant.objects.order_by("name"), required=False, empty_label="All tenants"
    )
    model = forms.ModelChoiceField(Model.objects.order_by("name"), required=False, empty_label="All models")
    deployment = forms.ModelChoiceField(
        Deployment.objects.order_by("name"),
        required=False,
        empty_label="All deployments of the model",
        help_text="One deployment instead of a model.",
    )
    meter = forms.ChoiceField(choices=[("", "All meters"), *METER_NAMES.items()], required=False)
    kind = forms.ChoiceField(
        choices=[("markup", "Markup on the cost"), ("discount", "Discount on the cost")], label="Charge"
    )
    percent = forms.DecimalField(
        min_value=Decimal(0),
        max_value=HUNDRED * (MAX_FACTOR - 1),
        decimal_places=4,
        label="Per cent",
        widget=forms.TextInput(attrs={"inputmode": "decimal", "class": "num"}),
        help_text="0: the same as the cost, also where less specific terms say something else.",
    )
    effective_from = _begins()
    note = forms.CharField(max_length=200, required=False, help_text="Why: a contract, an agreement.")

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if data.get("kind") == "discount" and (data.get("percent") or 0) > HUNDRED:
            self.add_error("percent", "A discount is 100 % at most.")
        if data.get("model") and data.get("deployment"):
            self.add_error("deployment", "Choose a model or one deployment, not both.")
        return data

    def factor(self) -> Decimal:
        part: Decimal = self.cleaned_data["percent"] / HUNDRED
        return 1 + part if self.cleaned_data["kind"] == "markup" else 1 - part

    def scope(self) -> SaleScope:
        data = self.cleaned_data
        tenant, model, deployment = (
            data[name] and data[name].pk for name in ("tenant", "model", "deployment")
        )
        return SaleScope(tenant, model, deployment, data["meter"])

    def since(self) -> dt.datetime | None:
        at: dt.datetime | None = self.cleaned_data["effective_from"]
        return at


class EndForm(ConsoleForm):
    """The end of what holds for one scope, which stands in hidden fields."""

    tenant = forms.ModelChoiceField(Tenant.objects.all(), required=False, widget=forms.HiddenInput)
    model = forms.ModelChoiceField(Model.objects.all(), required=False, widget=forms.HiddenInput)
    deployment = forms.ModelChoiceField(Deployment.objects.all(), required=False, widget=forms.HiddenInput)
    meter = forms.CharField(max_length=20, required=False, widget=forms.HiddenInput)
    effective_from = _begins()
    note = forms.CharField(max_length=200, required=False, help_text="Why it ends.")


class OwnPriceForm(PriceForm):
    """Rates of the sale book."""


OwnPriceForm.base_fields = {
    "tenant": forms.ModelChoiceField(
        Tenant.objects.order_by("name"), required=False, empty_label="All tenants"
    ),
    "deployment": forms.ModelChoiceField(Deployment.objects.order_by("name")),
    **PriceForm.base_fields,
    "effective_from": _begins(),
}
