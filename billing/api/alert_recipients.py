"""How are those who hear of budgets listed, added, changed and removed over HTTP?

Reads: alert_recipient. Writes: nothing itself, calls `billing.alert_recipients`. A webhook's secret is never read.
"""

from __future__ import annotations

from typing import Any

from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from billing import alert_recipients
from billing.models import AlertRecipient, Budget
from policies.api.access import CHANGE_CATALOG, READ, SET_BUDGETS, Operation, meets
from policies.api.resources import (
    CollectionView,
    Filters,
    RowView,
    StrictSerializer,
    find_named,
    invalid,
    row_id,
)
from policies.errors import InvalidValueError
from policies.models import Tenant

_SIGNED_WITH = "Of a webhook: whsec_ and 24 to 64 bytes in base64, with which its messages are signed."
_PRIVATE_HELP = "A webhook may be in a private network. To set this needs the scope catalog too."


class AlertRecipientSerializer(StrictSerializer):
    """An e-mail address or a webhook that hears of the budgets of a tenant, of deployments, or of one budget."""

    id = row_id(read_only=True)
    tenant_id = row_id(
        required=False,
        allow_null=True,
        help_text="Whose budgets; null: those of deployments. Leave it out where you name a budget.",
    )
    tenant = serializers.CharField(source="tenant.name", read_only=True, allow_null=True, default=None)
    budget_id = row_id(
        required=False, allow_null=True, help_text="null: all of the tenant, or of deployments."
    )
    channel = serializers.ChoiceField(choices=AlertRecipient.Channel.values)
    address = serializers.CharField(max_length=500)
    allow_private_network = serializers.BooleanField(required=False, help_text=_PRIVATE_HELP)
    secret = serializers.CharField(
        required=False, write_only=True, max_length=200, help_text=f"{_SIGNED_WITH} Left out: one is made."
    )
    created_at = serializers.DateTimeField(read_only=True)
    created_by = serializers.CharField(read_only=True)


class AddedRecipientSerializer(AlertRecipientSerializer):
    """A recipient with the secret that was made for it."""

    secret = serializers.CharField(
        read_only=True, allow_null=True, help_text="Shown this once. null: an e-mail address, or your own."
    )


class ChangedRecipientSerializer(StrictSerializer):
    """What of a recipient can change."""

    address = serializers.CharField(max_length=500, help_text="What waits to be sent goes there too.")
    allow_private_network = serializers.BooleanField(help_text=_PRIVATE_HELP)
    secret = serializers.CharField(write_only=True, max_length=200, help_text=_SIGNED_WITH)


class AlertRecipientFilters(Filters):
    tenant_id = row_id()
    budget_id = row_id()
    channel = serializers.ChoiceField(choices=AlertRecipient.Channel.values)


class AlertRecipientsView(CollectionView):
    tag = "budgets"
    location = "/api/v1/alert-recipients"
    queryset = AlertRecipient.objects.select_related("tenant")
    serializer_class = AlertRecipientSerializer
    filters = AlertRecipientFilters
    operations = {
        "GET": Operation("list_alert_recipients", "List who hears of budgets", READ),
        "POST": Operation("add_alert_recipient", "Add an e-mail address or a webhook", SET_BUDGETS),
    }
    answers = {"POST": AddedRecipientSerializer}

    def post(self, request: Request) -> Response:
        """Add a recipient of one budget, or of all of a tenant or of deployments. The answer holds the `secret` that
        was made for a webhook, this once; it cannot be read again."""
        fields = self.read_body()
        if not {"tenant_id", "budget_id"} & fields.keys():
            raise invalid("tenant_id", "Name a tenant or a budget, or null for the budgets of deployments.")
        _check_private(request, bool(fields.get("allow_private_network")))
        budget = _find(Budget, fields.pop("budget_id", None), "budget_id")
        is_named = "tenant_id" in fields
        tenant = _find(Tenant, fields.pop("tenant_id", None), "tenant_id")
        try:
            row, secret = alert_recipients.add_recipient(
                tenant=tenant if is_named or budget is None else budget.tenant,
                budget=budget,
                actor=self.actor,
                **fields,
            )
        except InvalidValueError as refusal:
            renamed = {"tenant_id" if name == "tenant" else name: n for name, n in refusal.problems.items()}
            raise InvalidValueError(renamed) from None
        answer = self.show_added(self.reread(row))
        answer.data["secret"] = secret or None
        return answer


class AlertRecipientView(RowView):
    tag = "budgets"
    queryset = AlertRecipient.objects.select_related("tenant")
    serializer_class = AlertRecipientSerializer
    unshown_columns = ("secret_ciphertext",)
    operations = {
        "GET": Operation("get_alert_recipient", "Read a recipient", READ),
        "PATCH": Operation("change_alert_recipient", "Change a recipient", SET_BUDGETS),
        "DELETE": Operation("remove_alert_recipient", "Remove a recipient", SET_BUDGETS),
    }
    sent = {"PATCH": ChangedRecipientSerializer}

    def patch(self, request: Request, pk: int) -> Response:
        """Change the members that are given. A new secret signs from the next message on."""
        row = self.find_row()
        fields = self.read_body(ChangedRecipientSerializer, is_partial=True)
        _check_private(
            request, bool(fields.get("allow_private_network", row.allow_private_network and fields))
        )
        alert_recipients.change_recipient(recipient=row, actor=self.actor, **fields)
        return self.show(self.reread(row))

    def delete(self, request: Request, pk: int) -> Response:
        """Remove a recipient with its messages; what waits is not sent any more."""
        alert_recipients.remove_recipient(recipient=self.find_row(), actor=self.actor)
        return Response(status=status.HTTP_204_NO_CONTENT)


def _check_private(request: Request, is_private: bool) -> None:
    """As in the console: who may reach into the network of the gateway is who sets up providers."""
    if is_private:
        meets(request, CHANGE_CATALOG)


def _find(table: Any, number: int | None, path: str) -> Any:
    return None if number is None else find_named(table.objects.all(), number, path=path)
