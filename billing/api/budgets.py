"""How are budgets listed, made, changed and watched over HTTP?

Reads: budget, its windows, their leases. Writes: nothing itself, calls `billing.budgets`.
"""

from __future__ import annotations

from typing import Any

from django.db import transaction
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from billing import budgets
from billing.budget_standing import OWNERS
from billing.models import Budget, BudgetLease, BudgetWindow
from billing.money import MoneyError, parse_usd, usd_text
from policies.api.access import READ, SET_BUDGETS, Operation
from policies.api.resources import (
    CollectionView,
    Filters,
    RowView,
    StrictSerializer,
    find_named,
    row_id,
)
from policies.errors import InvalidValueError
from policies.models import ApiKey, Deployment, Model, Project, Tenant

MAX_LEASES = 200
MAX_AMOUNT_CHARACTERS = 30


@extend_schema_field({"type": "string", "maxLength": 30, "example": "12.50"})
class UsdField(serializers.Field):  # type: ignore[type-arg]  # it reads a text and gives an integer
    """An amount of USD as a text; nano-USD inside. A JSON number would be a float somewhere on its way."""

    def to_internal_value(self, data: Any) -> int:
        if not isinstance(data, str) or len(data) > MAX_AMOUNT_CHARACTERS:
            raise serializers.ValidationError('Write the amount as a text, for example "12.50".')
        try:
            return parse_usd(data)
        except MoneyError as problem:
            raise serializers.ValidationError(str(problem)) from None

    def to_representation(self, value: int) -> str:
        return usd_text(value)


class BudgetSerializer(StrictSerializer):
    """A limit for a tenant, a project or a key, for one model or all; or for a deployment, over all who call it."""

    id = row_id(read_only=True)
    tenant_id = row_id(
        required=False,
        allow_null=True,
        help_text="Whose; or name a deployment. None of this member and the next six can be changed later.",
    )
    tenant = serializers.CharField(source="tenant.name", read_only=True, allow_null=True, default=None)
    deployment_id = row_id(
        required=False,
        allow_null=True,
        help_text="What we pay for its calls, of all tenants. Instead of a tenant, project, key and model.",
    )
    project_id = row_id(required=False, allow_null=True, help_text="null: the whole tenant.")
    api_key_id = row_id(required=False, allow_null=True, help_text="null: the whole project, or tenant.")
    model_id = row_id(required=False, allow_null=True, help_text="null: all models.")
    window = serializers.ChoiceField(choices=Budget.Window.values)
    is_hard = serializers.BooleanField(
        required=False, help_text="true: what does not fit is refused. Default: true."
    )
    limit_usd = UsdField(source="limit_nanousd", help_text='A text, for example "250".')
    may_lower_limit = serializers.BooleanField(
        required=False, help_text="Requests without an output limit get the one that fits. Default: true."
    )
    is_enabled = serializers.BooleanField(required=False)
    time_zone = serializers.CharField(
        read_only=True, help_text="Of its calendar: the tenant's when it was made, UTC for a deployment."
    )
    created_at = serializers.DateTimeField(read_only=True)
    created_by = serializers.CharField(read_only=True)


class ChangedBudgetSerializer(StrictSerializer):
    """What of a budget can change."""

    limit_usd = UsdField(source="limit_nanousd", help_text="From the window on that runs.")
    may_lower_limit = serializers.BooleanField()
    is_enabled = serializers.BooleanField(help_text="false: it goes on counting and refuses nothing.")


class BudgetFilters(Filters):
    tenant_id = row_id()
    project_id = row_id()
    api_key_id = row_id()
    model_id = row_id()
    deployment_id = row_id()
    window = serializers.ChoiceField(choices=Budget.Window.values)
    is_hard = serializers.BooleanField()


class WindowSerializer(StrictSerializer):
    """One window of a budget. What may still be held: limit - spent - uncertain - leased, at least 0."""

    id = row_id(read_only=True)
    starts_at = serializers.DateTimeField(read_only=True)
    ends_at = serializers.DateTimeField(read_only=True, allow_null=True, help_text="null: it has no end.")
    limit_usd = UsdField(source="limit_nanousd", read_only=True)
    spent_usd = UsdField(source="spent_nanousd", read_only=True)
    uncertain_usd = UsdField(
        source="uncertain_nanousd",
        read_only=True,
        help_text="The most that requests can have cost of which nobody knows. It counts against the limit.",
    )
    leased_usd = UsdField(source="leased_nanousd", read_only=True, help_text="What workers may still spend.")


class LeaseSerializer(StrictSerializer):
    """What one worker may spend of a window."""

    id = serializers.UUIDField(read_only=True)
    window_id = row_id(read_only=True)
    worker = serializers.CharField(read_only=True)
    amount_usd = UsdField(source="amount_nanousd", read_only=True)
    settled_usd = UsdField(source="settled_nanousd", read_only=True)
    expires_at = serializers.DateTimeField(read_only=True)


class BudgetsView(CollectionView):
    tag = "budgets"
    location = "/api/v1/budgets"
    queryset = Budget.objects.select_related(*OWNERS)
    serializer_class = BudgetSerializer
    filters = BudgetFilters
    operations = {
        "GET": Operation("list_budgets", "List budgets", READ),
        "POST": Operation("create_budget", "Make a budget", SET_BUDGETS),
    }

    @transaction.atomic
    def post(self, request: Request) -> Response:
        """Make a budget. What its window has cost so far counts; one in total counts from now on."""
        fields = self.read_body()
        scope = {
            "tenant": self._find(Tenant, fields, "tenant_id"),
            "project": self._find(Project, fields, "project_id"),
            "api_key": self._find(ApiKey, fields, "api_key_id"),
            "model": self._find(Model, fields, "model_id"),
            "deployment": self._find(Deployment, fields, "deployment_id"),
        }
        is_enabled = fields.pop("is_enabled", True)
        try:
            row = budgets.create_budget(**scope, actor=self.actor, **fields)
        except InvalidValueError as refusal:
            named = {f"{name}_id" if name in scope else name: said for name, said in refusal.problems.items()}
            raise InvalidValueError(named) from None
        if not is_enabled:
            budgets.change_budget(budget=row, is_enabled=False, actor=self.actor)
        return self.show_added(self.reread(row))

    def _find(self, table: Any, fields: dict[str, Any], name: str) -> Any:
        number = fields.pop(name, None)
        return None if number is None else find_named(table.objects.all(), number, path=name)


class BudgetView(RowView):
    tag = "budgets"
    queryset = Budget.objects.select_related(*OWNERS)
    serializer_class = BudgetSerializer
    operations = {
        "GET": Operation("get_budget", "Read a budget", READ),
        "PATCH": Operation("change_budget", "Change a budget", SET_BUDGETS),
        "DELETE": Operation("delete_budget", "Delete a budget", SET_BUDGETS),
    }
    sent = {"PATCH": ChangedBudgetSerializer}

    def patch(self, request: Request, pk: int) -> Response:
        """Change the members that are given. Workers keep to it within 2 seconds."""
        row = self.find_row()
        fields = self.read_body(ChangedBudgetSerializer, is_partial=True)
        budgets.change_budget(budget=row, actor=self.actor, **fields)
        return self.show(self.reread(row))

    def delete(self, request: Request, pk: int) -> Response:
        """Delete a budget with its windows. Records of requests stay."""
        budgets.delete_budget(budget=self.find_row(), actor=self.actor)
        return Response(status=status.HTTP_204_NO_CONTENT)


class BudgetWindowsView(CollectionView):
    tag = "budgets"
    queryset = BudgetWindow.objects.all()
    serializer_class = WindowSerializer
    is_newest_first = True
    operations = {"GET": Operation("list_budget_windows", "List the windows of a budget", READ)}

    def get(self, request: Request, **kwargs: Any) -> Response:
        """Those made last come first. A window is made when something is spent or held in it."""
        budget = self.find_row(of=Budget.objects.all())
        return self.show_page(self.get_queryset().filter(budget=budget))


class BudgetLeasesView(CollectionView):
    tag = "budgets"
    queryset = BudgetLease.objects.all()
    serializer_class = LeaseSerializer
    operations = {"GET": Operation("list_budget_leases", "List who holds what of a budget", READ)}

    def get(self, request: Request, **kwargs: Any) -> Response:
        """The leases of all its windows, at most 200, on one page."""
        budget = self.find_row(of=Budget.objects.all())
        rows = self.get_queryset().filter(window__budget=budget).order_by("worker", "created_at", "id")
        return Response({"items": self.get_serializer(rows[:MAX_LEASES], many=True).data, "next": None})
