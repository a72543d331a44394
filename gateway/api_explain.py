"""How is a request tried under a draft over HTTP? The test panel of the editor, for programs.

Reads: through `gateway.trying_requests`. Writes nothing, calls no provider; the request is read and forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from gateway.trying_requests import Untestable, explain_body, explain_logged, grant_of_key, grant_of_tenant
from policies.api.access import EDIT_POLICIES, Operation
from policies.api.policy import WITH_VERSION, DocumentField, draft_of
from policies.api.resources import ManagementView, StrictSerializer, find_named, invalid, row_id
from policies.cataloguing import ENDPOINTS
from policies.models import ApiKey, Policy, PolicyVersion, Tenant
from policies.publishing import PolicyError
from policies.snapshot import KeyGrant
from policies.trying import Explanation, UnsoundDraftError


class ExplainSerializer(StrictSerializer):
    """A request, whose it is, and the rules to try it under."""

    request = serializers.JSONField(required=False, help_text="The body that a client would send to /v1.")
    endpoint = serializers.ChoiceField(choices=ENDPOINTS, default="chat")
    logged_request_id = serializers.UUIDField(
        required=False, help_text="Instead of `request`: one of this policy on record, with its key and draw."
    )
    key_id = row_id(required=False, help_text="Whose `request` it is: a key …")
    tenant_id = row_id(required=False, help_text="… or a tenant.")
    version = serializers.IntegerField(
        min_value=1, max_value=2**31 - 1, required=False, allow_null=True, help_text="null: the draft."
    )
    document = DocumentField(required=False, help_text="Instead of `version`: rules that are stored nowhere.")
    draw = serializers.FloatField(
        min_value=0,
        default=0.5,
        help_text="The number drawn for weights, below 1; that of a logged request is its own.",
    )

    def validate_draw(self, value: float) -> float:
        if value >= 1:
            raise serializers.ValidationError("A number from 0 to less than 1.")
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("request" in attrs) == ("logged_request_id" in attrs):
            raise serializers.ValidationError({"request": "Give a request or a logged_request_id."})
        if "request" in attrs and ("key_id" in attrs) == ("tenant_id" in attrs):
            raise serializers.ValidationError({"key_id": "Say whose request it is: a key_id or a tenant_id."})
        if "document" in attrs and attrs.get("version") is not None:
            raise serializers.ValidationError({"document": "Give a document or a version, not both."})
        return attrs


class ExplainedRuleSerializer(StrictSerializer):
    place = serializers.IntegerField()
    name = serializers.CharField()
    when = serializers.CharField()
    outcome = serializers.ChoiceField(choices=["matched", "skipped", "failed", "disabled"])
    is_reached = serializers.BooleanField(help_text="false: an earlier rule matched.")
    detail = serializers.CharField()
    reasons = serializers.ListField(child=serializers.CharField())


class ExplainedCandidateSerializer(StrictSerializer):
    place = serializers.IntegerField(
        allow_null=True, help_text="In the order of trying; null: it is not tried."
    )
    deployment = serializers.CharField()
    model = serializers.CharField()
    provider = serializers.CharField()
    region = serializers.CharField()
    role = serializers.ChoiceField(choices=["choice", "fallback", "missing", "named"])
    reason = serializers.CharField(allow_null=True, help_text="The code why it is not tried.")
    why = serializers.CharField()
    score = serializers.FloatField(allow_null=True)
    expected_cost_nanousd = serializers.IntegerField(allow_null=True)
    quality = serializers.FloatField(allow_null=True)
    quality_error = serializers.FloatField(allow_null=True)
    latency_ms = serializers.FloatField(allow_null=True)


class ExplanationSerializer(StrictSerializer):
    """What would become of the request, and why: the answer of POST /v1/route/explain too (policies/trying.py)."""

    object = serializers.CharField()
    path = serializers.CharField(allow_null=True)
    requested_model = serializers.CharField()
    policy = serializers.DictField(allow_null=True)
    rule = serializers.CharField(allow_null=True)
    strategy = serializers.CharField(allow_null=True)
    rules = ExplainedRuleSerializer(many=True)
    candidates = ExplainedCandidateSerializer(many=True)
    order = serializers.ListField(child=serializers.CharField())
    draw = serializers.FloatField(allow_null=True)
    max_attempts = serializers.IntegerField(allow_null=True)
    timeout_s = serializers.FloatField(allow_null=True)
    never_possible = serializers.BooleanField()
    features = serializers.DictField()
    sentences = serializers.ListField(child=serializers.CharField())
    notes = serializers.ListField(child=serializers.CharField())
    error = serializers.DictField(allow_null=True)


class ExplainView(ManagementView):
    tag = "drafts"
    queryset = WITH_VERSION
    serializer_class = ExplainSerializer
    operations = {"POST": Operation("explain_request", "Try a request under a draft", EDIT_POLICIES)}
    answers = {"POST": ExplanationSerializer}

    def post(self, request: Request, pk: int) -> Response:
        """Say for every rule whether it matches and why, for every candidate why it is dropped or what it scores, and
        what would be tried in which order. No provider is called, nothing is stored.
        """
        policy: Policy = self.find_row()
        fields = self.read_body()
        document = _document(policy, fields)
        try:
            return Response(_explain(policy, document, fields).as_json())
        except UnsoundDraftError as unsound:
            raise PolicyError(unsound.problems) from None
        except Untestable as reason:
            path = "request" if "request" in fields else "logged_request_id"
            raise invalid(path, str(reason)) from None


def _document(policy: Policy, fields: Mapping[str, Any]) -> dict[str, Any]:
    if "document" in fields:
        return dict(fields["document"])
    number = fields.get("version")
    if number is None:
        return dict(draft_of(policy).document)
    version = PolicyVersion.objects.filter(policy=policy, number=number).first()
    if version is None:
        raise invalid("version", f"{policy} has no version {number}.")
    return dict(version.document)


def _explain(policy: Policy, document: Mapping[str, Any], fields: Mapping[str, Any]) -> Explanation:
    if "logged_request_id" in fields:
        return explain_logged(fields["logged_request_id"], policy=policy, document=document)
    return explain_body(
        orjson.dumps(fields["request"]),
        policy=policy,
        document=document,
        grant=_grant(fields),
        draw=fields["draw"],
        endpoint=fields["endpoint"],
    )


def _grant(fields: Mapping[str, Any]) -> KeyGrant:
    if "key_id" in fields:
        keys = ApiKey.objects.select_related("project__tenant")
        return grant_of_key(find_named(keys, fields["key_id"], path="key_id"))
    return grant_of_tenant(find_named(Tenant.objects.all(), fields["tenant_id"], path="tenant_id"))
