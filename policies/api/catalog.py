"""How are providers, models and deployments read and changed over HTTP?

Reads: provider, model, deployment. Writes: nothing itself, calls `policies.cataloguing`. A credential goes in and
never comes out.
"""

from __future__ import annotations

from typing import Any

from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from policies import cataloguing
from policies.api.access import CHANGE_CATALOG, READ, Operation
from policies.api.resources import (
    CollectionView,
    Filters,
    ManagementView,
    RowView,
    StrictSerializer,
    find_named,
    row_id,
)
from policies.credentials import MAX_CREDENTIAL_CHARACTERS, credential_state
from policies.models import Deployment, Model, Provider
from policies.retention import RETENTION_CLASSES


class ProviderSerializer(StrictSerializer):
    """An upstream account with a base URL and a wire format."""

    id = row_id(read_only=True)
    name = serializers.SlugField(max_length=100)
    base_url = serializers.CharField(max_length=500)
    wire_format = serializers.ChoiceField(choices=cataloguing.WIRE_FORMATS, required=False)
    addressing = serializers.ChoiceField(choices=Provider.Addressing.choices, required=False)
    auth_style = serializers.ChoiceField(choices=Provider.AuthStyle.choices, required=False)
    api_version = serializers.CharField(
        max_length=40, required=False, allow_blank=True, help_text="Azure only."
    )
    extra_headers = serializers.DictField(
        child=serializers.CharField(max_length=2000, allow_blank=True),
        required=False,
        help_text="Never a secret.",
    )
    credential = serializers.CharField(
        max_length=MAX_CREDENTIAL_CHARACTERS,
        write_only=True,
        required=False,
        allow_blank=True,
        help_text="Encrypted at once and never shown; empty removes it. A base URL at another host needs it again.",
    )
    credential_reference = serializers.CharField(
        max_length=500,
        required=False,
        allow_blank=True,
        help_text="env:NAME or file:/PATH, instead of a credential.",
    )
    credential_state = serializers.SerializerMethodField()
    allow_private_network = serializers.BooleanField(
        required=False, help_text="Allow loopback and private addresses."
    )
    takes_stream_options = serializers.BooleanField(
        required=False,
        help_text="False where the server refuses `stream_options`: usage of its streams is then estimated.",
    )
    is_enabled = serializers.BooleanField(required=False)
    created_at = serializers.DateTimeField(read_only=True)

    def get_credential_state(self, provider: Provider) -> str:
        return credential_state(provider)[0].replace(" ", "_")


class ProviderFilters(Filters):
    name = serializers.CharField(max_length=100)
    is_enabled = serializers.BooleanField()


class ProvidersView(CollectionView):
    tag = "providers"
    location = "/api/v1/providers"
    queryset = Provider.objects.all()
    serializer_class = ProviderSerializer
    filters = ProviderFilters
    operations = {
        "GET": Operation("list_providers", "List providers", READ),
        "POST": Operation("create_provider", "Add a provider", CHANGE_CATALOG),
    }

    def post(self, request: Request) -> Response:
        """Add a provider. Give `credential` or `credential_reference`, not both."""
        return self.show_added(cataloguing.create_provider(actor=self.actor, **self.read_body()))


class ProviderView(RowView):
    tag = "providers"
    unshown_columns = ("credential_revision",)
    queryset = Provider.objects.all()
    serializer_class = ProviderSerializer
    operations = {
        "GET": Operation("get_provider", "Read a provider", READ),
        "PATCH": Operation("change_provider", "Change a provider", CHANGE_CATALOG),
        "DELETE": Operation("delete_provider", "Delete a provider", CHANGE_CATALOG),
    }

    def patch(self, request: Request, pk: int) -> Response:
        """Change the members that are given; live within 2 s. Without `credential` it stays as it is."""
        row = self.find_row()
        fields = self.read_body(is_partial=True)
        return self.show(cataloguing.change_provider(provider=row, actor=self.actor, **fields))

    def delete(self, request: Request, pk: int) -> Response:
        """Delete a provider that no deployment uses."""
        cataloguing.delete_provider(provider=self.find_row(), actor=self.actor)
        return Response(status=status.HTTP_204_NO_CONTENT)


class CredentialRetryView(ManagementView):
    tag = "providers"
    queryset = Provider.objects.all()
    serializer_class = ProviderSerializer
    operations = {"POST": Operation("retry_credential", "Try a refused credential again", CHANGE_CATALOG)}
    takes_no_body = True

    def post(self, request: Request, pk: int) -> Response:
        """Put a credential that the provider refused back into use, in every worker within 2 s."""
        return self.show(cataloguing.retry_credential(provider=self.find_row(), actor=self.actor))


class ModelSerializer(StrictSerializer):
    """The name a client asks for, and what stands behind it can do."""

    id = row_id(read_only=True)
    name = serializers.CharField(max_length=200)
    description = serializers.CharField(required=False, allow_blank=True, max_length=10_000)
    context_tokens = serializers.IntegerField(
        min_value=1, max_value=2**31 - 1, required=False, allow_null=True
    )
    max_output_tokens = serializers.IntegerField(
        min_value=1, max_value=2**31 - 1, required=False, allow_null=True
    )
    capabilities = serializers.ListField(
        child=serializers.ChoiceField(choices=cataloguing.CAPABILITIES),
        required=False,
        help_text="What is not listed is not offered.",
    )
    endpoints = serializers.ListField(
        child=serializers.ChoiceField(choices=cataloguing.ENDPOINTS),
        required=False,
        help_text="Empty: chat and completions.",
    )
    output_limit_parameter = serializers.ChoiceField(
        choices=["max_tokens", "max_completion_tokens"],
        required=False,
        allow_blank=True,
        help_text="Under which name the output limit is sent; empty: as the client sent it.",
    )
    rating = serializers.FloatField(
        min_value=0,
        max_value=1,
        required=False,
        allow_null=True,
        help_text="How good its answers are. null: a public rating, or a guess.",
    )
    rating_source = serializers.CharField(max_length=200, required=False, allow_blank=True)
    rating_date = serializers.DateField(required=False, allow_null=True)
    is_enabled = serializers.BooleanField(required=False)
    created_at = serializers.DateTimeField(read_only=True)


class ModelFilters(Filters):
    name = serializers.CharField(max_length=200)
    is_enabled = serializers.BooleanField()


class ModelsView(CollectionView):
    tag = "models"
    location = "/api/v1/models"
    queryset = Model.objects.all()
    serializer_class = ModelSerializer
    filters = ModelFilters
    operations = {
        "GET": Operation("list_models", "List models", READ),
        "POST": Operation("create_model", "Add a model", CHANGE_CATALOG),
    }

    def post(self, request: Request) -> Response:
        """Add a model: a name that clients can ask for once a deployment serves it."""
        return self.show_added(cataloguing.create_model(actor=self.actor, **self.read_body()))


class ModelView(RowView):
    tag = "models"
    queryset = Model.objects.all()
    serializer_class = ModelSerializer
    operations = {
        "GET": Operation("get_model", "Read a model", READ),
        "PATCH": Operation("change_model", "Change a model", CHANGE_CATALOG),
        "DELETE": Operation("delete_model", "Delete a model", CHANGE_CATALOG),
    }

    def patch(self, request: Request, pk: int) -> Response:
        """Change the members that are given; live within 2 s."""
        row = self.find_row()
        fields = self.read_body(is_partial=True)
        return self.show(cataloguing.change_model(model=row, actor=self.actor, **fields))

    def delete(self, request: Request, pk: int) -> Response:
        """Delete a model that no deployment serves and no policy has as its baseline."""
        cataloguing.delete_model(model=self.find_row(), actor=self.actor)
        return Response(status=status.HTTP_204_NO_CONTENT)


class DeploymentSerializer(StrictSerializer):
    """One upstream model at one provider that can be called."""

    id = row_id(read_only=True)
    name = serializers.CharField(max_length=200, help_text="Usually model@provider.")
    model_id = row_id()
    model = serializers.CharField(source="model.name", read_only=True, help_text="The model's name.")
    provider_id = row_id()
    provider = serializers.CharField(source="provider.name", read_only=True, help_text="The provider's name.")
    upstream_model = serializers.CharField(max_length=300, help_text="The provider's own name for it.")
    region = serializers.CharField(max_length=40, required=False, allow_blank=True)
    retention = serializers.ChoiceField(
        choices=list(RETENTION_CLASSES),
        required=False,
        allow_blank=True,
        help_text="How long what it is sent is kept: none, temporary (never trained on), training; empty: not said.",
    )
    is_enabled = serializers.BooleanField(required=False)
    created_at = serializers.DateTimeField(read_only=True)


class DeploymentFilters(Filters):
    name = serializers.CharField(max_length=200)
    model_id = row_id()
    provider_id = row_id()
    is_enabled = serializers.BooleanField()


class DeploymentsView(CollectionView):
    tag = "deployments"
    location = "/api/v1/deployments"
    queryset = Deployment.objects.select_related("model", "provider")
    serializer_class = DeploymentSerializer
    filters = DeploymentFilters
    operations = {
        "GET": Operation("list_deployments", "List deployments", READ),
        "POST": Operation("create_deployment", "Add a deployment", CHANGE_CATALOG),
    }

    def post(self, request: Request) -> Response:
        """Add a deployment. It is served once a price or a policy lets it: see its page in the console."""
        fields = _with_rows(self.read_body())
        return self.show_added(cataloguing.create_deployment(actor=self.actor, **fields))


class DeploymentView(RowView):
    tag = "deployments"
    queryset = Deployment.objects.select_related("model", "provider")
    serializer_class = DeploymentSerializer
    operations = {
        "GET": Operation("get_deployment", "Read a deployment", READ),
        "PATCH": Operation("change_deployment", "Change a deployment", CHANGE_CATALOG),
        "DELETE": Operation("delete_deployment", "Delete a deployment", CHANGE_CATALOG),
    }

    def patch(self, request: Request, pk: int) -> Response:
        """Change the members that are given; live within 2 s. One that a policy names keeps its name."""
        row = self.find_row()
        fields = _with_rows(self.read_body(is_partial=True))
        return self.show(cataloguing.change_deployment(deployment=row, actor=self.actor, **fields))

    def delete(self, request: Request, pk: int) -> Response:
        """Delete a deployment without price, record or policy that names it; disable others instead."""
        cataloguing.delete_deployment(deployment=self.find_row(), actor=self.actor)
        return Response(status=status.HTTP_204_NO_CONTENT)


def _with_rows(fields: dict[str, Any]) -> dict[str, Any]:
    """Put the rows in the place of their ids."""
    if "model_id" in fields:
        fields["model"] = find_named(Model.objects.all(), fields.pop("model_id"), path="model_id")
    if "provider_id" in fields:
        fields["provider"] = find_named(Provider.objects.all(), fields.pop("provider_id"), path="provider_id")
    return fields
