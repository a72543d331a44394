"""How are markups and discounts read, added and ended over HTTP?

Reads: sale_term. Writes: nothing itself, calls `billing.sale_terms`. Terms are never changed or deleted. Markups tell
the margin, so reading needs what adding needs.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from billing import sale_terms
from billing.models import SaleTerm
from billing.models.sale import MAX_FACTOR
from billing.rating import METERS
from policies.api.access import ADD_PRICES, Operation
from policies.api.resources import (
    CollectionView,
    Filters,
    RowView,
    StrictSerializer,
    ZonedDateTimeField,
    find_named,
    row_id,
)
from policies.models import Deployment, Model, Tenant


class FactorField(serializers.DecimalField):
    """A factor written as a text: a JSON number would be a float somewhere on its way, and no text is not null."""

    def validate_empty_values(self, data: Any) -> tuple[bool, Any]:
        if (
            data is not None
            and data is not serializers.empty
            and not (isinstance(data, str) and data.strip())
        ):
            raise serializers.ValidationError('Write the number as a text, for example "1.2".')
        return super().validate_empty_values(data)


class SaleTermSerializer(StrictSerializer):
    """What a tenant is charged, as a multiple of the cost, until the next term of the same scope begins."""

    id = row_id(read_only=True)
    tenant_id = row_id(required=False, allow_null=True, help_text="Missing: all tenants.")
    model_id = row_id(required=False, allow_null=True, help_text="Missing: all models.")
    deployment_id = row_id(required=False, allow_null=True, help_text="One deployment instead of a model.")
    meter = serializers.ChoiceField(choices=["", *METERS], required=False, help_text="Empty: all meters.")
    factor = FactorField(
        max_digits=9,
        decimal_places=6,
        min_value=Decimal(0),
        max_value=Decimal(MAX_FACTOR),
        normalize_output=True,
        allow_null=True,
        help_text='As a text: "1.2" is a markup of 20 %, "0.9" a discount of 10 %. Null ends what holds.',
    )
    effective_from = ZonedDateTimeField(required=False, help_text="Missing: now. Never before now.")
    note = serializers.CharField(max_length=200, required=False, allow_blank=True)
    created_at = serializers.DateTimeField(read_only=True)
    created_by = serializers.CharField(read_only=True)


class SaleTermFilters(Filters):
    tenant_id = row_id()
    model_id = row_id()
    deployment_id = row_id()


class SaleTermsView(CollectionView):
    tag = "sale terms"
    location = "/api/v1/sale-terms"
    queryset = SaleTerm.objects.all()
    serializer_class = SaleTermSerializer
    filters = SaleTermFilters
    is_newest_first = True
    operations = {
        "GET": Operation("list_sale_terms", "List sale terms", ADD_PRICES),
        "POST": Operation("add_sale_term", "Add or end a sale term", ADD_PRICES),
    }

    def get(self, request: Request, **kwargs: Any) -> Response:
        """Those added last come first. Own prices are `prices` of the book `sale`."""
        return super().get(request, **kwargs)

    def post(self, request: Request) -> Response:
        """Charge a factor of the cost from now or later on, or end that. What is recorded keeps its charge."""
        fields = self.read_body()
        scope: dict[str, Any] = {
            name: find_named(rows, number, path=f"{name}_id")
            if (number := fields.pop(f"{name}_id", None))
            else None
            for name, rows in (
                ("tenant", Tenant.objects.all()),
                ("model", Model.objects.all()),
                ("deployment", Deployment.objects.all()),
            )
        }
        factor = fields.pop("factor")
        if factor is None:
            return self.show_added(sale_terms.end_term(**scope, **fields, actor=self.actor))
        return self.show_added(sale_terms.add_term(**scope, **fields, factor=factor, actor=self.actor))


class SaleTermView(RowView):
    tag = "sale terms"
    queryset = SaleTerm.objects.all()
    serializer_class = SaleTermSerializer
    operations = {"GET": Operation("get_sale_term", "Read a sale term", ADD_PRICES)}
