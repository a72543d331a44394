"""How are rate limits read and changed over HTTP?

Reads: rate_limit. Writes: nothing itself, calls `policies.rate_limits`.
"""

from __future__ import annotations

from typing import Any, Final

from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from policies import rate_limits
from policies.api.access import CHANGE_TENANTS, READ, Operation
from policies.api.resources import (
    CollectionView,
    Filters,
    RowView,
    StrictSerializer,
    find_named,
    invalid,
    row_id,
)
from policies.models import ApiKey, Deployment, Project, RateLimit, Tenant
from policies.rate_limits import LIMIT_FIELDS, MAX_LIMITS, Owner, find_rate_limit, set_rate_limit

_OWNERS: Final = {
    "tenant_id": Tenant.objects.all(),
    "project_id": Project.objects.select_related("tenant"),
    "api_key_id": ApiKey.objects.select_related("project__tenant"),
    "deployment_id": Deployment.objects.all(),
}


def _limit(name: str, help_text: str) -> serializers.IntegerField:
    return serializers.IntegerField(
        min_value=1, max_value=MAX_LIMITS[name], required=False, allow_null=True, help_text=help_text
    )


class RateLimitSerializer(StrictSerializer):
    """What a tenant, project, key or deployment may take. Exactly one of the four ids; null: not limited."""

    id = row_id(read_only=True)
    tenant_id = row_id(required=False, allow_null=True)
    project_id = row_id(required=False, allow_null=True)
    api_key_id = row_id(required=False, allow_null=True)
    deployment_id = row_id(required=False, allow_null=True)
    owner = serializers.SerializerMethodField(help_text="The owner's name: acme, acme/web, acme/web/dev.")
    requests_per_minute = _limit("requests_per_minute", "In any 60 seconds.")
    tokens_per_minute = _limit("tokens_per_minute", "Input and output, estimated, then corrected.")
    concurrent = _limit("concurrent", "Requests at once.")
    created_at = serializers.DateTimeField(read_only=True)
    created_by = serializers.CharField(read_only=True)

    def get_owner(self, row: RateLimit) -> str:
        return str(row.owner())


class RateLimitChangeSerializer(StrictSerializer):
    """What of a limit can change. A member that is not given stays; null lifts it."""

    requests_per_minute = _limit("requests_per_minute", "In any 60 seconds.")
    tokens_per_minute = _limit("tokens_per_minute", "Input and output, estimated, then corrected.")
    concurrent = _limit("concurrent", "Requests at once.")


class RateLimitFilters(Filters):
    tenant_id = row_id()
    project_id = row_id()
    api_key_id = row_id()
    deployment_id = row_id()


_ROWS: Final = RateLimit.objects.select_related(
    "tenant", "project__tenant", "api_key__project__tenant", "deployment"
)


class RateLimitsView(CollectionView):
    tag = "rate limits"
    location = "/api/v1/rate-limits"
    queryset = _ROWS
    serializer_class = RateLimitSerializer
    filters = RateLimitFilters
    operations = {
        "GET": Operation("list_rate_limits", "List rate limits", READ),
        "POST": Operation("create_rate_limit", "Limit somebody", CHANGE_TENANTS),
    }

    def post(self, request: Request) -> Response:
        """Limit a tenant, a project, a key or a deployment; in force within 2 s."""
        fields = self.read_body()
        owner = _owner_of(fields)
        if find_rate_limit(owner) is not None:
            raise invalid("", f"{owner} has a limit already: change that one.")
        row = set_rate_limit(owner=owner, actor=self.actor, **_wanted(fields))
        if row is None:
            raise invalid("", "State at least one of requests_per_minute, tokens_per_minute and concurrent.")
        return self.show_added(row)


class RateLimitView(RowView):
    tag = "rate limits"
    queryset = _ROWS
    serializer_class = RateLimitSerializer
    sent = {"PATCH": RateLimitChangeSerializer}
    operations = {
        "GET": Operation("get_rate_limit", "Read a rate limit", READ),
        "PATCH": Operation("change_rate_limit", "Change a rate limit", CHANGE_TENANTS),
        "DELETE": Operation("delete_rate_limit", "Lift a rate limit", CHANGE_TENANTS),
    }

    def patch(self, request: Request, pk: int) -> Response:
        """Change the members that are given; null lifts that one. To lift all, delete the limit."""
        row = self.find_row()
        given = self.read_body(RateLimitChangeSerializer, is_partial=True)
        wanted = {**rate_limits.describe(row), **given}
        if not any(wanted.values()):
            raise invalid("", "Nothing would be limited any more: delete the limit instead.")
        set_rate_limit(owner=row.owner(), actor=self.actor, **wanted)
        return self.show(self.reread(row))

    def delete(self, request: Request, pk: int) -> Response:
        """Lift the limit; within 2 s nothing is refused for it."""
        set_rate_limit(owner=self.find_row().owner(), actor=self.actor)
        return Response(status=status.HTTP_204_NO_CONTENT)


def _owner_of(fields: dict[str, Any]) -> Owner:
    given = [name for name in _OWNERS if fields.get(name) is not None]
    if len(given) != 1:
        raise invalid(given[1] if given else "", f"Name exactly one of {', '.join(_OWNERS)}.")
    owner: Owner = find_named(_OWNERS[given[0]], fields[given[0]], path=given[0])
    return owner


def _wanted(fields: dict[str, Any]) -> dict[str, int | None]:
    return {name: fields.get(name) for name in LIMIT_FIELDS}
