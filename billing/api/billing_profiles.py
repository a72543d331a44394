"""How are billing details and exchange rates read and set over HTTP?

Reads: billing_profile, exchange_rate. Writes: nothing itself, calls `billing_profiles` and `exchange_rates`.
"""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from billing.billing_profiles import change_profile, hold_profile, profile_of
from billing.currencies import CURRENCIES
from billing.exchange_rates import add_rate
from billing.models import BillingProfile, ExchangeRate
from policies.api.access import READ, SET_BILLING, Operation
from policies.api.resources import CollectionView, Filters, GuardedView, RowView, StrictSerializer, row_id
from policies.models import Tenant


class DecimalTextField(serializers.CharField):
    """A decimal number written as a text: a JSON number would be a float somewhere on its way."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=40, **options)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise serializers.ValidationError('Write the number as a text, for example "0.19".')
        return super().to_internal_value(data)

    def to_representation(self, value: Any) -> str:
        return f"{value.normalize():f}"


class IssuerSerializer(StrictSerializer):
    """Who issues statements."""

    legal_name = serializers.CharField(max_length=200, required=False, allow_blank=True)
    address = serializers.CharField(
        max_length=500, required=False, allow_blank=True, help_text="Lines, as they are printed."
    )
    email = serializers.CharField(max_length=254, required=False, allow_blank=True)
    tax_id = serializers.CharField(max_length=50, required=False, allow_blank=True)


class BillingProfileSerializer(IssuerSerializer):
    """What statements to a tenant say of it, from now on. Issued ones stay as they are."""

    currency = serializers.ChoiceField(choices=list(CURRENCIES), required=False, help_text="ISO 4217.")
    tax_name = serializers.CharField(max_length=30, required=False, allow_blank=True)
    tax_ratio = DecimalTextField(required=False, help_text='"0.19" is 19 %.')
    payment_days = serializers.IntegerField(min_value=0, max_value=365, required=False)


class BillingProfileView(GuardedView):
    tag = "billing"
    queryset = Tenant.objects.all()
    serializer_class = BillingProfileSerializer
    operations = {
        "GET": Operation("get_billing_profile", "Read a tenant's billing details", READ),
        "PATCH": Operation("change_billing_profile", "Change a tenant's billing details", SET_BILLING),
    }

    def find_shown(self, *, is_locked: bool = False) -> BillingProfile:
        tenant = self.find_row()
        return hold_profile(tenant) if is_locked else profile_of(tenant)

    def get(self, request: Request, pk: int) -> Response:
        """The defaults where nobody wrote any."""
        return self.show(self.find_shown())

    def patch(self, request: Request, pk: int) -> Response:
        """Change the members that are sent."""
        tenant = self.find_row()
        fields = self.read_body(is_partial=True)
        return self.show(change_profile(tenant=tenant, actor=self.actor, **fields))


class IssuerView(GuardedView):
    tag = "billing"
    queryset = BillingProfile.objects.filter(tenant=None)
    serializer_class = IssuerSerializer
    operations = {
        "GET": Operation("get_issuer", "Read the issuer of statements", READ),
        "PATCH": Operation("change_issuer", "Change the issuer of statements", SET_BILLING),
    }

    def find_shown(self, *, is_locked: bool = False) -> BillingProfile:
        return hold_profile(None) if is_locked else profile_of(None)

    def get(self, request: Request) -> Response:
        return self.show(self.find_shown())

    def patch(self, request: Request) -> Response:
        """Change the members that are sent."""
        fields = self.read_body(is_partial=True)
        return self.show(change_profile(tenant=None, actor=self.actor, **fields))


class ExchangeRateSerializer(StrictSerializer):
    """What one USD is in a currency from a day (UTC) on, until the next rate or to its last day."""

    id = row_id(read_only=True)
    currency = serializers.ChoiceField(choices=list(CURRENCIES), help_text="ISO 4217.")
    rate = DecimalTextField(help_text='A text: "0.92" for EUR.')
    first_day = serializers.DateField()
    last_day = serializers.DateField(required=False, allow_null=True)
    source = serializers.CharField(  # type: ignore[assignment]  # a member, not the field of a field
        max_length=200, help_text="Where the number comes from."
    )
    is_sure = serializers.BooleanField(
        required=False, write_only=True, help_text="Needed for more than twice or less than half of before."
    )
    created_at = serializers.DateTimeField(read_only=True)
    created_by = serializers.CharField(read_only=True)


class ExchangeRateFilters(Filters):
    currency = serializers.ChoiceField(choices=list(CURRENCIES))


class ExchangeRatesView(CollectionView):
    tag = "billing"
    location = "/api/v1/exchange-rates"
    queryset = ExchangeRate.objects.all()
    serializer_class = ExchangeRateSerializer
    filters = ExchangeRateFilters
    is_newest_first = True
    operations = {
        "GET": Operation("list_exchange_rates", "List exchange rates", READ),
        "POST": Operation("add_exchange_rate", "Add an exchange rate", SET_BILLING),
    }

    def get(self, request: Request, **kwargs: Any) -> Response:
        """Those added last come first."""
        return super().get(request, **kwargs)

    def post(self, request: Request) -> Response:
        """Add a rate. A later one of the same first day corrects an earlier one; statements keep theirs."""
        return self.show_added(add_rate(actor=self.actor, **self.read_body()))


class ExchangeRateView(RowView):
    tag = "billing"
    queryset = ExchangeRate.objects.all()
    serializer_class = ExchangeRateSerializer
    operations = {"GET": Operation("get_exchange_rate", "Read an exchange rate", READ)}
