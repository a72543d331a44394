"""How does a resource describe itself in openapi.yaml? drf-spectacular's inspector, told about our conventions.

Pure.
"""

from __future__ import annotations

import inspect
from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework import serializers

from policies.api.problems import CONTENT_TYPE, PROBLEM_TYPES, TYPE_PREFIX


class ProblemErrorSerializer(serializers.Serializer[Any]):
    """One thing that is wrong, and where."""

    path = serializers.CharField(
        allow_blank=True, help_text="Place in the body, such as rules[2].when; empty: the whole."
    )
    message = serializers.CharField(help_text="A sentence for people.")
    severity = serializers.ChoiceField(choices=["error", "warning"])
    column = serializers.IntegerField(allow_null=True, help_text="In a condition, counted from 1.")


class ProblemSerializer(serializers.Serializer[Any]):
    """A refusal (RFC 9457). Some types have further members, which their page names."""

    type = serializers.ChoiceField(choices=[TYPE_PREFIX + slug for slug in PROBLEM_TYPES])
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField(help_text="What happened this time, a sentence for people.")
    errors = ProblemErrorSerializer(many=True, required=False)  # type: ignore[assignment]  # a field


ETAG = OpenApiParameter(
    "ETag",
    str,
    OpenApiParameter.HEADER,
    response=[200],
    description="Names what can be set as it is now; for `If-Match`.",
)
IF_MATCH = OpenApiParameter(
    "If-Match",
    str,
    OpenApiParameter.HEADER,
    description="An ETag that was read: what somebody has changed since is not changed (412 `stale-row`).",
)


class ManagementTokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # registers itself
    target_class = "policies.api.authentication.ManagementTokenAuthentication"
    name = "managementToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {
            "type": "http",
            "scheme": "bearer",
            "description": "A management token (`pmt_…`), issued in the console under Management tokens.",
        }


class ManagementSchema(AutoSchema):
    """Adds what is true of every operation: its group, its scope, its refusals."""

    @property
    def resource(self) -> Any:
        """The view, a `policies.api.resources.ManagementView`: that module needs this one."""
        return self.view

    def get_tags(self) -> list[str]:
        return [self.resource.tag]

    def get_operation_id(self) -> str:
        return str(self.resource.operations[self.method].name)

    def get_summary(self) -> str:
        return str(self.resource.operations[self.method].summary)

    def get_description(self) -> str:  # type: ignore[override]  # drf-spectacular's form, not DRF's
        need = self.resource.operations[self.method].need
        if need is None:
            who = "For every token."
        else:
            who = "For people only." if need.is_for_people_only else f"Scope of tokens: `{need.scope}`."
        # The docstring of the method; that of the class is about the code.
        text = inspect.getdoc(getattr(self.view, self.method.lower())) or ""
        return f"{text}\n\n{who}".strip()

    def get_request_serializer(self) -> Any:
        if self.resource.takes_no_body:
            return None
        return self.resource.sent.get(self.method) or super().get_request_serializer()

    def get_response_serializers(self) -> Any:
        chosen = self.resource.answers.get(self.method)
        return chosen if chosen is not None else super().get_response_serializers()

    def _is_list_view(self, serializer: Any = None) -> bool:
        return self.method == "GET" and bool(self.resource.is_list)

    def _is_create_operation(self) -> bool:
        return self.method == "POST" and bool(self.resource.adds_a_row)

    def get_filter_backends(self) -> list[Any]:
        return []

    def get_override_parameters(self) -> list[Any]:
        if self._is_list_view():
            return [] if self.resource.filters is None else [self.resource.filters]
        if not self.resource.is_guarded:
            return []
        is_changing = self.method in ("PUT", "PATCH", "DELETE")
        shows_it = [] if self.method == "DELETE" else [ETAG]
        return [*shows_it, IF_MATCH] if is_changing else shows_it

    def _get_response_bodies(self, direction: Any = "response") -> Any:
        bodies = super()._get_response_bodies(direction)
        if "default" not in bodies:
            bodies["default"] = self._get_response_for_code(  # type: ignore[no-untyped-call]
                OpenApiResponse(ProblemSerializer, description="Refused: a problem document."),
                "default",
                media_types=[CONTENT_TYPE],
                direction=direction,
            )
        return bodies
