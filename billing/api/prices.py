"""How are prices read and added over HTTP?

Reads: price with its deployment. Writes: nothing itself, calls `billing.pricing`. Prices are never changed or deleted.
"""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from billing import pricing
from billing.models import Price
from policies.api.access import ADD_PRICES, READ, Operation
from policies.api.resources import (
    CollectionView,
    Filters,
    RowView,
    StrictSerializer,
    ZonedDateTimeField,
    find_named,
    row_id,
)
from policies.models import Deployment, Tenant


class RateField(serializers.CharField):
    """A decimal number written as a text: a JSON number would be a float somewhere on its way."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise serializers.ValidationError('Write the number as a text, for example "0.05".')
        return super().to_internal_value(data)


class PriceSerializer(StrictSerializer):
    """What a deployment's units cost from `effective_from` until its next price of this book begins."""

    id = row_id(read_only=True)
    deployment_id = row_id()
    deployment = serializers.CharField(source="deployment.name", read_only=True)
    book = serializers.ChoiceField(
        choices=Price.Book.values, required=False, help_text="cost: providers charge us; sale: we charge."
    )
    tenant_id = row_id(
        required=False,
        allow_null=True,
        help_text="Of the book sale: whom alone it is charged; null: everybody.",
    )
    rates = serializers.DictField(
        child=RateField(max_length=40),
        help_text='USD as texts, for example {"input_usd_per_mtok": "0.05"};'
        " usd_per_request, usd_per_search, usd_per_image and usd_per_audio_hour besides tokens.",
    )
    effective_from = ZonedDateTimeField(required=False, help_text="Missing: now.")
    source = serializers.CharField(  # type: ignore[assignment]  # a member, not the field of a field
        max_length=200, required=False, allow_blank=True, help_text="Where these numbers come from."
    )
    created_at = serializers.DateTimeField(read_only=True)
    created_by = serializers.CharField(read_only=True)


class PriceFilters(Filters):
    deployment_id = row_id()
    book = serializers.ChoiceField(choices=Price.Book.values)


class PricesView(CollectionView):
    tag = "prices"
    location = "/api/v1/prices"
    queryset = Price.objects.select_related("deployment")
    serializer_class = PriceSerializer
    filters = PriceFilters
    is_newest_first = True
    operations = {
        "GET": Operation("list_prices", "List prices", READ),
        "POST": Operation("add_price", "Add a price", ADD_PRICES),
    }

    def get(self, request: Request, **kwargs: Any) -> Response:
        """Those added last come first."""
        return super().get(request, **kwargs)

    def post(self, request: Request) -> Response:
        """Add a price. Requests that are already recorded keep the price they were rated with."""
        fields = self.read_body()
        deployment = find_named(Deployment.objects.all(), fields.pop("deployment_id"), path="deployment_id")
        tenant_id = fields.pop("tenant_id", None)
        tenant = find_named(Tenant.objects.all(), tenant_id, path="tenant_id") if tenant_id else None
        added = pricing.add_price(deployment=deployment, tenant=tenant, actor=self.actor, **fields)
        return self.show_added(added)


class PriceView(RowView):
    tag = "prices"
    queryset = Price.objects.select_related("deployment")
    serializer_class = PriceSerializer
    operations = {"GET": Operation("get_price", "Read a price", READ)}
