"""How are API keys issued, rotated and revoked over HTTP?

Reads: api_key with project and tenant. Writes: nothing itself, calls `policies.issuing`.
"""

from __future__ import annotations

import datetime as dt

from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from policies import issuing
from policies.api.access import ISSUE_KEYS, READ, Operation
from policies.api.resources import (
    CollectionView,
    Filters,
    ManagementView,
    RowView,
    StrictSerializer,
    ZonedDateTimeField,
    find_named,
    row_id,
)
from policies.models import ApiKey, Project

MAX_OVERLAP_S = 366 * 86_400


class KeySerializer(StrictSerializer):
    """A secret that a client presents at /v1. The secret itself is shown once, when it is issued."""

    id = row_id(read_only=True)
    project_id = row_id(help_text="Its tenant pays. Cannot be changed later.")
    project = serializers.CharField(source="project.name", read_only=True, help_text="The project's name.")
    tenant_id = row_id(source="project.tenant_id", read_only=True)
    tenant = serializers.CharField(source="project.tenant.name", read_only=True)
    name = serializers.CharField(max_length=100, help_text="Cannot be changed later.")
    owner = serializers.CharField(max_length=200, required=False, allow_blank=True)
    is_pinned = serializers.BooleanField(
        required=False, help_text="Every request runs on exactly the deployment asked for: no fallback."
    )
    allowed_models = serializers.ListField(
        child=serializers.CharField(max_length=200),
        required=False,
        help_text="Model names and policy ids; empty: all that the tenant may use.",
    )
    expires_at = ZonedDateTimeField(required=False, allow_null=True, help_text="null: never.")
    secret_hint = serializers.CharField(read_only=True)
    created_at = serializers.DateTimeField(read_only=True)
    created_by = serializers.CharField(read_only=True)
    revoked_at = serializers.DateTimeField(read_only=True, allow_null=True)
    replaced_by_id = row_id(read_only=True, allow_null=True)


class IssuedKeySerializer(KeySerializer):
    """A key with its secret, shown this once."""

    secret = serializers.CharField(read_only=True)


class KeyFilters(Filters):
    project_id = row_id()
    tenant_id = row_id(source="project__tenant_id")
    name = serializers.CharField(max_length=100)
    is_revoked = serializers.BooleanField(
        source="revoked_at__isnull", help_text="Taken back for good, or not."
    )

    def validate_is_revoked(self, value: bool) -> bool:
        return not value


class KeysView(CollectionView):
    tag = "keys"
    location = "/api/v1/keys"
    queryset = ApiKey.objects.select_related("project__tenant")
    serializer_class = KeySerializer
    filters = KeyFilters
    operations = {
        "GET": Operation("list_keys", "List API keys", READ),
        "POST": Operation("issue_key", "Issue an API key", ISSUE_KEYS),
    }
    answers = {"POST": IssuedKeySerializer}

    def post(self, request: Request) -> Response:
        """Issue a key. The answer holds its `secret`, this once; it cannot be read again."""
        fields = self.read_body()
        project = find_named(
            Project.objects.select_related("tenant"), fields.pop("project_id"), path="project_id"
        )
        row, secret = issuing.issue_key(project=project, actor=self.actor, **fields)
        return _show_issued(row, secret)


class KeyView(RowView):
    tag = "keys"
    queryset = ApiKey.objects.select_related("project__tenant")
    serializer_class = KeySerializer
    operations = {
        "GET": Operation("get_key", "Read an API key", READ),
        "PATCH": Operation("change_key", "Change an API key", ISSUE_KEYS),
    }

    def patch(self, request: Request, pk: int) -> Response:
        """Change owner, is_pinned, allowed_models or expires_at of a key that is not revoked."""
        row = self.find_row()
        fields = self.read_body(is_partial=True)
        return self.show(issuing.change_key(key=row, actor=self.actor, **fields))


class RotateSerializer(StrictSerializer):
    """For how long the old secret goes on working beside the new one."""

    overlap_s = serializers.IntegerField(
        min_value=0, max_value=MAX_OVERLAP_S, help_text="Seconds; 0 revokes the old secret at once."
    )


class KeyRotationView(ManagementView):
    tag = "keys"
    queryset = ApiKey.objects.select_related("project__tenant")
    serializer_class = RotateSerializer
    operations = {"POST": Operation("rotate_key", "Rotate an API key", ISSUE_KEYS)}
    adds_a_row = True
    answers = {"POST": IssuedKeySerializer}

    def post(self, request: Request, pk: int) -> Response:
        """Issue the successor of a key: the same name, project and rights with a new secret, shown this once."""
        key = self.find_row()
        overlap = dt.timedelta(seconds=self.read_body()["overlap_s"])
        return _show_issued(*issuing.rotate_key(key=key, overlap=overlap, actor=self.actor))


class KeyRevocationView(ManagementView):
    tag = "keys"
    queryset = ApiKey.objects.select_related("project__tenant")
    serializer_class = KeySerializer
    operations = {"POST": Operation("revoke_key", "Revoke an API key", ISSUE_KEYS)}
    takes_no_body = True

    def post(self, request: Request, pk: int) -> Response:
        """Take a key back for good; every worker refuses it within 2 s. Revoking twice changes nothing."""
        return self.show(issuing.revoke_key(key=self.find_row(), actor=self.actor))


def _show_issued(row: ApiKey, secret: str) -> Response:
    document = {**KeySerializer(row).data, "secret": secret}
    return Response(document, status=status.HTTP_201_CREATED, headers={"Location": f"/api/v1/keys/{row.pk}"})
