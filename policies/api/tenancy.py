"""How are tenants and projects read and changed over HTTP?

Reads: tenant with its policies, project. Writes: nothing itself, calls `policies.tenancy_changes`.
"""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal
from typing import Any

from django.db import transaction
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from policies import tenancy_changes
from policies.api.access import CHANGE_TENANTS, READ, Operation
from policies.api.resources import (
    CollectionView,
    Filters,
    RowView,
    StrictSerializer,
    find_named,
    row_id,
)
from policies.models import Project, Tenant
from policies.retention import RETENTION_LIMITS


class PublicIdsField(serializers.ListField):
    """Policies by their public ids."""

    child = serializers.CharField(max_length=200)

    def to_representation(self, value: Any) -> list[str]:
        return sorted(policy.public_id for policy in value.all())


class TenantSerializer(StrictSerializer):
    """Who is billed."""

    id = row_id(read_only=True)
    name = serializers.SlugField(max_length=100)
    time_zone = serializers.CharField(max_length=64, required=False, help_text="IANA name: Europe/Berlin.")
    is_enabled = serializers.BooleanField(required=False)
    allowed_regions = serializers.ListField(
        child=serializers.CharField(max_length=40), required=False, help_text="Empty: any region."
    )
    retention_limit = serializers.ChoiceField(
        choices=list(RETENTION_LIMITS),
        required=False,
        allow_blank=True,
        help_text="The longest that providers may keep what they are sent: none, temporary, or empty for any.",
    )
    shadow_percent = serializers.FloatField(
        min_value=0,
        max_value=100,
        required=False,
        help_text="Share of its requests to automatic rules that a second model answers in the background; 0: off.",
    )
    shadow_daily_budget_usd = serializers.DecimalField(
        max_digits=11,
        decimal_places=2,
        min_value=Decimal(0),
        required=False,
        help_text="What shadow requests may cost in one day (UTC), worst case counted before each call.",
    )
    reported_tags = serializers.ListField(
        child=serializers.CharField(max_length=64),
        max_length=10,
        required=False,
        help_text="Tags (members of `metadata`) that spend is summed by; empty: the first five that requests name.",
    )
    reports_end_users = serializers.BooleanField(
        required=False,
        help_text="Keep what requests name as `safety_identifier` or `user`, as it is, and sum spend by it.",
    )
    policies = PublicIdsField(required=False, help_text="Public ids of the policies it may use.")
    created_at = serializers.DateTimeField(read_only=True)


class TenantFilters(Filters):
    name = serializers.CharField(max_length=100)
    is_enabled = serializers.BooleanField()


class TenantsView(CollectionView):
    tag = "tenants"
    location = "/api/v1/tenants"
    queryset = Tenant.objects.prefetch_related("policies")
    serializer_class = TenantSerializer
    filters = TenantFilters
    operations = {
        "GET": Operation("list_tenants", "List tenants", READ),
        "POST": Operation("create_tenant", "Add a tenant", CHANGE_TENANTS),
    }

    @transaction.atomic
    def post(self, request: Request) -> Response:
        """Add a tenant with the policies it may use."""
        fields = self.read_body()
        public_ids = fields.pop("policies", [])
        is_enabled = fields.pop("is_enabled", True)
        row = tenancy_changes.create_tenant(actor=self.actor, **fields)
        if not is_enabled:
            tenancy_changes.change_tenant(tenant=row, actor=self.actor, is_enabled=False)
        _set_policies(row, public_ids, actor=self.actor)
        return self.show_added(self.reread(row))


class TenantView(RowView):
    tag = "tenants"
    queryset = Tenant.objects.prefetch_related("policies")
    serializer_class = TenantSerializer
    operations = {
        "GET": Operation("get_tenant", "Read a tenant", READ),
        "PATCH": Operation("change_tenant", "Change a tenant", CHANGE_TENANTS),
        "DELETE": Operation("delete_tenant", "Delete a tenant", CHANGE_TENANTS),
    }

    @transaction.atomic
    def patch(self, request: Request, pk: int) -> Response:
        """Change the members that are given; `policies` is the whole list of what the tenant may use from now on."""
        row = self.find_row()
        fields = self.read_body(is_partial=True)
        public_ids = fields.pop("policies", None)
        tenancy_changes.change_tenant(tenant=row, actor=self.actor, **fields)
        if public_ids is not None:
            _set_policies(row, public_ids, actor=self.actor)
        return self.show(self.reread(row))

    def delete(self, request: Request, pk: int) -> Response:
        """Delete a tenant without projects or history; disable others instead."""
        tenancy_changes.delete_tenant(tenant=self.find_row(), actor=self.actor)
        return Response(status=status.HTTP_204_NO_CONTENT)


class ProjectSerializer(StrictSerializer):
    """A piece of a tenant's work that keys belong to."""

    id = row_id(read_only=True)
    tenant_id = row_id(help_text="Cannot be changed later.")
    tenant = serializers.CharField(source="tenant.name", read_only=True, help_text="The tenant's name.")
    name = serializers.SlugField(max_length=100)
    is_enabled = serializers.BooleanField(required=False)
    created_at = serializers.DateTimeField(read_only=True)


class ProjectFilters(Filters):
    tenant_id = row_id()
    name = serializers.CharField(max_length=100)


class ProjectsView(CollectionView):
    tag = "projects"
    location = "/api/v1/projects"
    queryset = Project.objects.select_related("tenant")
    serializer_class = ProjectSerializer
    filters = ProjectFilters
    operations = {
        "GET": Operation("list_projects", "List projects", READ),
        "POST": Operation("create_project", "Add a project", CHANGE_TENANTS),
    }

    @transaction.atomic
    def post(self, request: Request) -> Response:
        """Add a project to a tenant."""
        fields = self.read_body()
        tenant = find_named(Tenant.objects.all(), fields["tenant_id"], path="tenant_id")
        row = tenancy_changes.create_project(tenant=tenant, name=fields["name"], actor=self.actor)
        if not fields.get("is_enabled", True):
            row = tenancy_changes.change_project(project=row, actor=self.actor, is_enabled=False)
        return self.show_added(row)


class ProjectView(RowView):
    tag = "projects"
    queryset = Project.objects.select_related("tenant")
    serializer_class = ProjectSerializer
    operations = {
        "GET": Operation("get_project", "Read a project", READ),
        "PATCH": Operation("change_project", "Change a project", CHANGE_TENANTS),
        "DELETE": Operation("delete_project", "Delete a project", CHANGE_TENANTS),
    }

    def patch(self, request: Request, pk: int) -> Response:
        """Change the members that are given. A project stays with its tenant."""
        row = self.find_row()
        fields = self.read_body(is_partial=True)
        return self.show(tenancy_changes.change_project(project=row, actor=self.actor, **fields))

    def delete(self, request: Request, pk: int) -> Response:
        """Delete a project without keys or history; disable others instead."""
        tenancy_changes.delete_project(project=self.find_row(), actor=self.actor)
        return Response(status=status.HTTP_204_NO_CONTENT)


def _set_policies(row: Tenant, public_ids: Collection[str], *, actor: str) -> None:
    tenancy_changes.set_tenant_policies(tenant=row, public_ids=public_ids, actor=actor)
