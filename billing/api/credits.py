"""How is credit granted, read, paid back and ended over HTTP?

Reads: credit_grant with what is left of it. Writes: nothing itself, calls `billing.credits`. Amounts are exact texts in
the grant's currency.
"""

from __future__ import annotations

from typing import Any

from django.db.models import Sum
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from billing import credits
from billing.credits import MAX_PRIORITY, find_left
from billing.currencies import CURRENCIES, parse_amount
from billing.models import CreditGrant
from billing.money import MoneyError, usd_text
from policies.api.access import READ, SET_BILLING, Operation
from policies.api.resources import (
    CollectionView,
    Filters,
    ManagementView,
    RowView,
    StrictSerializer,
    ZonedDateTimeField,
    find_named,
    invalid,
    row_id,
)
from policies.models import Tenant


class AmountField(serializers.CharField):
    """A decimal number written as a text: a JSON number would be a float somewhere on its way."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=30, **options)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise serializers.ValidationError('Write the amount as a text, for example "250.00".')
        return super().to_internal_value(data)

    def to_representation(self, value: Any) -> str:
        return usd_text(int(value))


class CreditSerializer(StrictSerializer):
    """Credit that pays a tenant's statements. It never changes; what is left of it is the sum of its ledger entries."""

    id = row_id(read_only=True)
    tenant_id = row_id()
    tenant = serializers.CharField(source="tenant.name", read_only=True)
    kind = serializers.ChoiceField(choices=CreditGrant.Kind.values)
    currency = serializers.ChoiceField(choices=list(CURRENCIES), help_text="ISO 4217.")
    amount = AmountField(source="amount_nano", help_text='An exact text, for example "250.00".')
    left = serializers.SerializerMethodField(help_text="What is left of it.")
    priority = serializers.IntegerField(
        min_value=0, max_value=MAX_PRIORITY, required=False, help_text="Lower is used first; missing: 100."
    )
    model_names = serializers.ListField(
        child=serializers.CharField(max_length=100), required=False, help_text="Empty: any model."
    )
    expires_at = ZonedDateTimeField(required=False, allow_null=True, help_text="null: never.")
    reference = serializers.CharField(
        max_length=100, required=False, allow_blank=True, help_text="Of the payment; taken once a tenant."
    )
    note = serializers.CharField(max_length=300, required=False, allow_blank=True)
    granted_at = serializers.DateTimeField(read_only=True)
    created_by = serializers.CharField(read_only=True)

    def get_left(self, row: CreditGrant) -> str:
        signed = getattr(row, "signed", None)
        return usd_text(find_left(row) if signed is None else -int(signed))


class CreditFilters(Filters):
    tenant_id = row_id()
    kind = serializers.ChoiceField(choices=CreditGrant.Kind.values)
    currency = serializers.ChoiceField(choices=list(CURRENCIES))


class RefundSerializer(StrictSerializer):
    """How much of paid credit is paid back, and why."""

    amount = AmountField(required=False, help_text="Missing: all that is left.")
    note = serializers.CharField(max_length=300)


class EndSerializer(StrictSerializer):
    """Why credit ends."""

    note = serializers.CharField(max_length=300)


# The list's order is by id, not the order of use.
ROWS = CreditGrant.objects.select_related("tenant").annotate(signed=Sum("entries__amount_nano"))


class CreditsView(CollectionView):
    tag = "credit"
    location = "/api/v1/credits"
    queryset = ROWS
    serializer_class = CreditSerializer
    filters = CreditFilters
    is_newest_first = True
    operations = {
        "GET": Operation("list_credits", "List credit", READ),
        "POST": Operation("grant_credit", "Grant credit", SET_BILLING),
    }

    def get(self, request: Request, **kwargs: Any) -> Response:
        """What was granted last comes first."""
        return super().get(request, **kwargs)

    def post(self, request: Request) -> Response:
        """Grant credit. With a `reference`, the same payment is never granted twice."""
        fields = self.read_body()
        tenant = find_named(Tenant.objects.all(), fields.pop("tenant_id"), path="tenant_id")
        amount = read_amount(fields.pop("amount_nano"), fields["currency"])
        row = credits.grant_credit(tenant=tenant, amount_nano=amount, actor=self.actor, **fields)
        return self.show_added(self.reread(row))


class CreditView(RowView):
    tag = "credit"
    queryset = ROWS
    serializer_class = CreditSerializer
    operations = {"GET": Operation("get_credit", "Read credit", READ)}


class CreditRefundView(ManagementView):
    tag = "credit"
    queryset = ROWS
    serializer_class = CreditSerializer
    operations = {"POST": Operation("refund_credit", "Pay back credit", SET_BILLING)}
    sent = {"POST": RefundSerializer}

    def post(self, request: Request, pk: int) -> Response:
        """Book that paid credit is paid back, all that is left of it or a part. The money itself is not moved here."""
        row = self.find_row()
        fields = self.read_body(RefundSerializer)
        amount = read_amount(fields["amount"], row.currency) if "amount" in fields else None
        credits.refund(grant=row, amount_nano=amount, note=fields["note"], actor=self.actor)
        return self.show(self.reread(row))


class CreditEndView(ManagementView):
    tag = "credit"
    queryset = ROWS
    serializer_class = CreditSerializer
    operations = {"POST": Operation("end_credit", "End credit", SET_BILLING)}
    sent = {"POST": EndSerializer}

    def post(self, request: Request, pk: int) -> Response:
        """Book off what is left of a grant, before its time. Nothing left changes nothing."""
        row = self.find_row()
        fields = self.read_body(EndSerializer)
        credits.expire(grant=row, note=fields["note"], actor=self.actor)
        return self.show(self.reread(row))


def read_amount(text: str, currency: str) -> int:
    """The amount in nano. Raises ApiRefusal naming the member."""
    try:
        return parse_amount(text, currency)
    except MoneyError:
        raise invalid("amount", f"This is not an amount of {currency}, for example 250.") from None
