"""What may be typed into the console's forms over credit, exchange rates and billing profiles?

Reads: tenants, by name. The verbs check everything again.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from billing.currencies import CURRENCIES, format_amount, parse_amount
from billing.models import CreditGrant
from billing.money import MoneyError
from policies.forms import ConsoleForm, ListField
from policies.models import Tenant
from policies.name_suggestions import SuggestingInput, list_tenant_names

CURRENCY_CHOICES = [(code, f"{code}, {name}") for code, name in CURRENCIES.items()]
DAY_INPUT = forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d")
PER_CENT = Decimal(100)


def amount_input() -> forms.TextInput:
    """A field for an amount: right-aligned digits, a number pad on phones."""
    return forms.TextInput(attrs={"inputmode": "decimal", "class": "num"})


def read_amount(text: str, currency: str) -> int:
    """The amount in nano. Raises ValidationError with an example."""
    try:
        return parse_amount(text, currency)
    except MoneyError as refusal:
        reason = (
            f" {currency} has" + str(refusal).partition(" has")[2] + "." if " has " in str(refusal) else ""
        )
        raise ValidationError(f"An amount of {currency}, for example 250.{reason}") from None


class GrantForm(ConsoleForm):
    """New credit."""

    tenant = forms.CharField(max_length=100, widget=SuggestingInput(list_tenant_names))
    kind = forms.ChoiceField(
        choices=CreditGrant.Kind.choices,
        help_text="Paid in advance: booked as cash received, can be paid back. Promotional: a gift, booked as a cost.",
    )
    amount = forms.CharField(max_length=30, widget=amount_input())
    currency = forms.ChoiceField(
        choices=CURRENCY_CHOICES, help_text="It pays only statements in this currency."
    )
    expires_on = forms.DateField(
        required=False,
        widget=DAY_INPUT,
        label="Last day (UTC)",
        help_text="It pays statements that are issued up to this day. Empty: it does not expire.",
    )
    priority = forms.IntegerField(
        min_value=0, max_value=1000, initial=100, help_text="Lower is used first; then what expires first."
    )
    model_names = ListField(
        required=False, label="Models", help_text="Only for these models, separated by commas. Empty: any."
    )
    reference = forms.CharField(
        max_length=100,
        required=False,
        label="Payment reference",
        help_text="Taken once a tenant, so that a payment is not granted twice.",
    )
    note = forms.CharField(max_length=300, required=False)

    def clean_tenant(self) -> Tenant:
        tenant = Tenant.objects.filter(name=self.cleaned_data["tenant"].strip()).first()
        if tenant is None:
            raise ValidationError(f"There is no tenant {self.cleaned_data['tenant'].strip()}.")
        return tenant

    def clean_expires_on(self) -> dt.date | None:
        day: dt.date | None = self.cleaned_data["expires_on"]
        if day is not None and day.year > 9000:
            raise ValidationError("That is too far away. Leave it empty if it does not expire.")
        return day

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if "amount" in data and "currency" in data:
            try:
                data["amount_nano"] = read_amount(data["amount"], data["currency"])
            except ValidationError as refusal:
                self.add_error("amount", refusal)
        day = data.get("expires_on")
        # The whole of the last day counts.
        data["expires_at"] = (
            dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), dt.UTC) if day is not None else None
        )
        return data


class EndCreditForm(ConsoleForm):
    """Refund or expire: why, and the tenant's name, typed."""

    note = forms.CharField(max_length=300, label="Reason", help_text="Stays in the ledger.")
    confirm_name = forms.CharField(max_length=100)

    def __init__(self, *args: Any, tenant_name: str, **kwargs: Any) -> None:
        # Before: a form that was sent is checked while it is made.
        self.tenant_name = tenant_name
        super().__init__(*args, **kwargs)
        self.fields["confirm_name"].label = f"Type {tenant_name} to confirm"

    def clean_confirm_name(self) -> str:
        if self.cleaned_data["confirm_name"].strip() != self.tenant_name:
            raise ValidationError(f"Nothing changed: type {self.tenant_name}.")
        return self.tenant_name


class RefundForm(EndCreditForm):
    """How much of paid credit goes back."""

    field_order = ["amount", "note", "confirm_name"]
    amount = forms.CharField(max_length=30, widget=amount_input())

    def __init__(self, *args: Any, left_nano: int, currency: str, **kwargs: Any) -> None:
        self.currency = currency
        super().__init__(*args, **kwargs)
        self.fields["amount"].label = f"Amount, {currency}"
        self.fields["amount"].help_text = f"{format_amount(left_nano, currency)} is left."

    def clean_amount(self) -> int:
        return read_amount(self.cleaned_data["amount"], self.currency)


class RateForm(ConsoleForm):
    """A new exchange rate."""

    currency = forms.ChoiceField(choices=[choice for choice in CURRENCY_CHOICES if choice[0] != "USD"])
    rate = forms.CharField(
        max_length=40, label="One USD is", widget=amount_input(), help_text="In that currency: 0.92 for EUR."
    )
    first_day = forms.DateField(widget=DAY_INPUT, label="From (UTC)")
    last_day = forms.DateField(
        required=False,
        widget=DAY_INPUT,
        label="Last day",
        help_text="Empty: until the next rate. After it there is no rate, and statements are refused.",
    )
    source = forms.CharField(max_length=200, help_text="Where the number comes from: ECB reference rate.")
    is_sure = forms.BooleanField(
        required=False, label="I am sure", help_text="Needed for more than twice or less than half of before."
    )


class IssuerForm(ConsoleForm):
    """Who issues statements."""

    legal_name = forms.CharField(max_length=200, required=False)
    address = forms.CharField(
        max_length=500,
        required=False,
        widget=forms.Textarea(attrs={"rows": 4}),
        help_text="As it is printed.",
    )
    email = forms.EmailField(max_length=254, required=False, label="E-mail")
    tax_id = forms.CharField(max_length=50, required=False, label="Tax number")


class ProfileForm(IssuerForm):
    """Who is billed, in which currency, with which tax."""

    currency = forms.ChoiceField(choices=CURRENCY_CHOICES, help_text="Of statements from now on.")
    tax_name = forms.CharField(max_length=30, required=False, label="Name of the tax")
    tax_percent = forms.DecimalField(
        min_value=0, max_value=100, max_digits=7, decimal_places=4, label="Tax rate, %", widget=amount_input()
    )
    payment_days = forms.IntegerField(
        min_value=0, max_value=365, label="Days to pay", help_text="Counted from the day of issue."
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["legal_name"].help_text = "Empty: the tenant's name."

    def values(self) -> dict[str, Any]:
        """The fields of the profile: a rate is kept as a ratio."""
        data = dict(self.cleaned_data)
        data["tax_ratio"] = data.pop("tax_percent") / PER_CENT
        return data
