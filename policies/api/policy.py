"""How are policies and their drafts read and changed over HTTP?

Reads: policy, policy_draft, policy_version. Writes: nothing itself, calls `policies.publishing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from policies import publishing
from policies.api.access import EDIT_POLICIES, PUBLISH, READ, Operation, meets
from policies.api.etags import etag_of, has_read, is_known_to_caller
from policies.api.problems import ApiRefusal, problem_as_json
from policies.api.resources import CollectionView, Filters, ManagementView, RowView, StrictSerializer, row_id
from policies.api.schema import ProblemErrorSerializer
from policies.differences import list_differences
from policies.models import Policy, PolicyDraft

WITH_VERSION = Policy.objects.select_related("live_version", "canary_version", "draft")
ETAG = OpenApiParameter(
    "ETag", str, OpenApiParameter.HEADER, response=[200], description='The revision: "7".'
)


class PolicySerializer(StrictSerializer):
    """A named way to choose a deployment; clients ask for its public id as the model."""

    id = row_id(read_only=True)
    public_id = serializers.CharField(
        max_length=200, help_text="What clients ask for. Cannot be changed later."
    )
    description = serializers.CharField(required=False, allow_blank=True, max_length=10_000)
    is_enabled = serializers.BooleanField(required=False)
    live_version = serializers.IntegerField(
        source="live_version.number",
        read_only=True,
        allow_null=True,
        default=None,
        help_text="null: none yet.",
    )
    requires_approval = serializers.BooleanField(
        required=False, help_text="Another person approves what is published. Only people take this back."
    )
    canary_version = serializers.IntegerField(
        source="canary_version.number", read_only=True, allow_null=True, default=None, help_text="null: none."
    )
    canary_percent = serializers.FloatField(read_only=True, help_text="Its share of the conversations.")
    canary_started_at = serializers.DateTimeField(read_only=True, allow_null=True)
    created_at = serializers.DateTimeField(read_only=True)


class PolicyFilters(Filters):
    public_id = serializers.CharField(max_length=200)
    is_enabled = serializers.BooleanField()


class PoliciesView(CollectionView):
    tag = "policies"
    location = "/api/v1/policies"
    queryset = WITH_VERSION
    serializer_class = PolicySerializer
    filters = PolicyFilters
    operations = {
        "GET": Operation("list_policies", "List policies", READ),
        "POST": Operation("create_policy", "Add a policy", EDIT_POLICIES),
    }

    @transaction.atomic
    def post(self, request: Request) -> Response:
        """Add a policy with an empty draft; it takes requests once a version is published."""
        fields = self.read_body()
        later = {name: fields.pop(name) for name in ("is_enabled", "requires_approval") if name in fields}
        row = publishing.create_policy(actor=self.actor, **fields)
        return self.show_added(publishing.change_policy(policy=row, actor=self.actor, **later))


class PolicyView(RowView):
    tag = "policies"
    queryset = WITH_VERSION
    serializer_class = PolicySerializer
    operations = {
        "GET": Operation("get_policy", "Read a policy", READ),
        "PATCH": Operation("change_policy", "Change a policy", EDIT_POLICIES),
        "DELETE": Operation("delete_policy", "Delete a policy", EDIT_POLICIES),
    }

    def patch(self, request: Request, pk: int) -> Response:
        """Change the members that are given. A disabled policy takes no requests. Rules: see its draft.

        `is_enabled` and `requires_approval` are in force at once, and need the scope `publish` too.
        """
        row = self.find_row()
        fields = self.read_body(is_partial=True)
        if "is_enabled" in fields or "requires_approval" in fields:
            meets(request, PUBLISH)
        if row.requires_approval and fields.get("requires_approval") is False and request.auth is not None:
            # Else a token that publishes would be its own second person.
            raise ApiRefusal("forbidden", "A person has to take the need for approval back, in the console.")
        publishing.change_policy(policy=row, actor=self.actor, **fields)
        return self.show(self.reread(row))

    def delete(self, request: Request, pk: int) -> Response:
        """Delete a policy that was never published and that no tenant uses; disable others instead."""
        publishing.delete_policy(policy=self.find_row(), actor=self.actor)
        return Response(status=status.HTTP_204_NO_CONTENT)


class DocumentField(serializers.JSONField):
    """A policy document: an object. Its form is in policies/README.md; `problems` say what is wrong with it."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict):
            raise serializers.ValidationError("A policy document is an object.")
        return super().to_internal_value(data)


class DraftSerializer(StrictSerializer):
    """What is being edited. `problems` is what publishing would say of it, warnings included."""

    revision = serializers.IntegerField(read_only=True, help_text="Also the ETag.")
    document = DocumentField()
    problems = serializers.SerializerMethodField()
    edited_at = serializers.DateTimeField(read_only=True, allow_null=True)
    edited_by = serializers.CharField(read_only=True)

    @extend_schema_field(ProblemErrorSerializer(many=True))
    def get_problems(self, draft: PolicyDraft) -> list[dict[str, Any]]:
        found = publishing.list_problems(draft.document, policy=draft.policy)
        return [problem_as_json(problem) for problem in found]


class DraftView(ManagementView):
    tag = "drafts"
    queryset = WITH_VERSION
    serializer_class = DraftSerializer
    operations = {
        "GET": Operation("get_draft", "Read a policy's draft", READ),
        "PUT": Operation("save_draft", "Save a policy's draft", EDIT_POLICIES),
    }

    @extend_schema(parameters=[ETAG])
    def get(self, request: Request, pk: int) -> Response:
        """Read the draft. Its revision is the ETag; `If-None-Match` with it answers 304."""
        draft = draft_of(self.find_row())
        if is_known_to_caller(request, draft.revision):
            return Response(status=status.HTTP_304_NOT_MODIFIED, headers={"ETag": etag_of(draft.revision)})
        return self._show_draft(draft)

    @extend_schema(
        parameters=[
            ETAG,
            OpenApiParameter(
                "If-Match", str, OpenApiParameter.HEADER, required=True, description="The ETag that was read."
            ),
        ]
    )
    def put(self, request: Request, pk: int) -> Response:
        """Store a draft; nothing is live before it is published. It may be unfinished, but its conditions compile.

        Needs `If-Match` with the ETag that was read. Was the draft changed since, the answer is 412 with the draft as
        it is now and its ETag, and nothing is stored: put your change into it and send it again.
        """
        policy = self.find_row()
        document = self.read_body()["document"]
        draft = draft_of(policy)
        if not has_read(request, draft.revision):
            raise stale_draft(draft, sent=document)
        try:
            saved = publishing.save_draft(
                policy=policy, document=document, expected_revision=draft.revision, actor=self.actor
            )
        except publishing.StaleDraftError:
            # Somebody saved between the two lines above.
            raise stale_draft(draft_of(WITH_VERSION.get(pk=policy.pk)), sent=document) from None
        return self._show_draft(saved)

    def _show_draft(self, draft: PolicyDraft) -> Response:
        return self.show(draft, headers={"ETag": etag_of(draft.revision)})


class DifferenceSerializer(StrictSerializer):
    """One thing that a document changes in another, in sentences."""

    kind = serializers.ChoiceField(choices=["added", "removed", "moved", "changed", "setting"])
    rule = serializers.CharField(help_text="Empty: a setting of the policy.")
    sentences = serializers.ListField(child=serializers.CharField())


class DifferencesSerializer(StrictSerializer):
    """What publishing the draft would change in what is live."""

    revision = serializers.IntegerField(help_text="Of the draft.")
    live_version = serializers.IntegerField(allow_null=True)
    differences = DifferenceSerializer(many=True)


class DraftDifferencesView(ManagementView):
    tag = "drafts"
    queryset = WITH_VERSION
    serializer_class = DifferencesSerializer
    operations = {"GET": Operation("list_draft_differences", "Compare a draft with what is live", READ)}

    def get(self, request: Request, pk: int) -> Response:
        """Say what publishing the draft would change, rule by rule. Empty: nothing."""
        policy = self.find_row()
        draft, live = draft_of(policy), policy.live_version
        before = publishing.EMPTY_DOCUMENT if live is None else live.document
        answer = {
            "revision": draft.revision,
            "live_version": None if live is None else live.number,
            "differences": differences_as_json(before, draft.document),
        }
        return self.show(answer)


def draft_of(policy: Policy) -> PolicyDraft:
    """The draft of a policy; the empty one that `publishing` begins with where there is no row yet."""
    try:
        return policy.draft
    except PolicyDraft.DoesNotExist:
        return PolicyDraft(policy=policy, document=publishing.EMPTY_DOCUMENT, revision=1)


def stale_draft(draft: PolicyDraft, *, sent: Mapping[str, Any] | None = None) -> ApiRefusal:
    """The refusal for a caller who has read another revision: who changed it when, and what stands there now.

    `sent` is the document that was not stored: `differences` say what it would have changed in what stands there.
    """
    who = f" by {draft.edited_by}" if draft.edited_by else ""
    members = {
        "revision": draft.revision,
        "edited_by": draft.edited_by,
        "edited_at": draft.edited_at,
        "document": draft.document,
    }
    if sent is not None:
        members["differences"] = differences_as_json(draft.document, sent)
    return ApiRefusal(
        "stale-draft",
        f"The draft was changed{who}; it is at revision {draft.revision} now.",
        members=members,
        headers={"ETag": etag_of(draft.revision)},
    )


def differences_as_json(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What changes between two documents, in sentences."""
    return [
        {"kind": found.kind, "rule": found.rule, "sentences": list(found.sentences)}
        for found in list_differences(before, after)
    ]
