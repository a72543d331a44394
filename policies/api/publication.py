"""How does a draft go live over HTTP, at once, for a share of the traffic, or with another person's approval?

Reads: policy, publication_request. Writes: nothing itself, calls `policies.publishing`, `canaries` and `approvals`.
"""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from policies import approvals, canaries, publishing
from policies.api.access import APPROVE, PUBLISH, READ, Operation
from policies.api.etags import has_read
from policies.api.policy import WITH_VERSION, DocumentField, PolicySerializer, stale_draft
from policies.api.resources import CollectionView, ManagementView, RowView, StrictSerializer, row_id
from policies.api.versions import VersionSerializer, show_new_version
from policies.models import Policy, PublicationRequest

IF_MATCH = OpenApiParameter(
    "If-Match",
    str,
    OpenApiParameter.HEADER,
    description="The ETag of the draft that was looked at: another one does not go live (412).",
)


class NoteSerializer(StrictSerializer):
    """Why, for those who look later."""

    note = serializers.CharField(required=False, allow_blank=True, max_length=2000)


class PublicationView(ManagementView):
    """What lets a draft go live."""

    tag = "publication"
    queryset: QuerySet[Any] = WITH_VERSION
    serializer_class: type[StrictSerializer] = NoteSerializer
    adds_a_row = True
    answers = {"POST": VersionSerializer}

    def refuse_another_draft(self, policy: Policy) -> None:
        """Raise ApiRefusal when the caller names a draft that is not the one there. Call inside a transaction."""
        if "If-Match" in self.request.headers:
            _, draft = publishing.lock_policy(policy)
            if not has_read(self.request, draft.revision):
                raise stale_draft(draft)


class PublishView(PublicationView):
    operations = {"POST": Operation("publish_draft", "Publish a policy's draft", PUBLISH)}

    @extend_schema(parameters=[IF_MATCH])
    @transaction.atomic
    def post(self, request: Request, pk: int) -> Response:
        """Make the draft the next version; in force in every worker within 2 s.

        Errors in the draft block; a draft that is what is live answers 409 `nothing-to-publish`.
        A policy that requires approval answers 409 `approval-needed`: ask for it with a publication request.
        """
        policy = self.find_row()
        note = self.read_body().get("note", "")
        self.refuse_another_draft(policy)
        return show_new_version(publishing.publish(policy=policy, actor=self.actor, note=note))


class RollBackSerializer(StrictSerializer):
    """Which version's document is published again."""

    version = serializers.IntegerField(min_value=1, max_value=2**31 - 1)


class RollBackView(PublicationView):
    serializer_class = RollBackSerializer
    operations = {"POST": Operation("roll_back", "Roll a policy back", PUBLISH)}

    def post(self, request: Request, pk: int) -> Response:
        """Publish an older document again, as a new version; the draft follows it, a canary stops.

        Needs no approval: it is the way out of trouble. Rolling back to what is live answers 409
        `nothing-to-publish`, to a canary that was never promoted 409 `never-live`.
        """
        policy = self.find_row()
        number = self.read_body()["version"]
        return show_new_version(publishing.roll_back(policy=policy, number=number, actor=self.actor))


class ShareSerializer(StrictSerializer):
    """The canary's share of the conversations."""

    percent = serializers.FloatField(help_text="Above 0, at most 100.")


class CanarySerializer(ShareSerializer, NoteSerializer):
    """A share for the draft, and why."""


class CanaryView(PublicationView):
    serializer_class = CanarySerializer
    operations = {
        "POST": Operation("start_canary", "Let the draft serve a share of the traffic", PUBLISH),
        "PATCH": Operation("change_canary", "Give the canary another share", PUBLISH),
        "DELETE": Operation("stop_canary", "Stop the canary", PUBLISH),
    }
    sent = {"PATCH": ShareSerializer}
    answers = {"POST": VersionSerializer, "PATCH": PolicySerializer}

    @extend_schema(parameters=[IF_MATCH])
    @transaction.atomic
    def post(self, request: Request, pk: int) -> Response:
        """Publish the draft as a version that serves `percent` of the conversations, beside the live one."""
        policy = self.find_row()
        fields = self.read_body()
        self.refuse_another_draft(policy)
        return show_new_version(canaries.start_canary(policy=policy, actor=self.actor, **fields))

    def patch(self, request: Request, pk: int) -> Response:
        """Conversations that the canary has stay with it when the share grows."""
        policy = self.find_row()
        percent = self.read_body(ShareSerializer)["percent"]
        canaries.set_canary_percent(policy=policy, percent=percent, actor=self.actor)
        return Response(PolicySerializer(self.reread(policy)).data)

    def delete(self, request: Request, pk: int) -> Response:
        """Give its share back to the live version; it stays among the versions."""
        canaries.stop_canary(policy=self.find_row(), actor=self.actor)
        return Response(status=status.HTTP_204_NO_CONTENT)


class PromotionView(PublicationView):
    operations = {"POST": Operation("promote_canary", "Promote the canary", PUBLISH)}
    takes_no_body = True

    def post(self, request: Request, pk: int) -> Response:
        """Let the canary serve all requests: it becomes the live version."""
        return show_new_version(canaries.promote_canary(policy=self.find_row(), actor=self.actor))


class PublicationRequestSerializer(StrictSerializer):
    """A draft that one operator wants to publish, and another decides on."""

    id = row_id(read_only=True)
    policy_id = row_id(read_only=True)
    policy = serializers.CharField(source="policy.public_id", read_only=True)
    note = serializers.CharField(required=False, allow_blank=True, max_length=2000)
    canary_percent = serializers.FloatField(
        required=False, allow_null=True, help_text="null: for all traffic; else the share of a canary."
    )
    status = serializers.ChoiceField(
        choices=PublicationRequest.Status.values,
        read_only=True,
        help_text="stale: the draft has changed since.",
    )
    requested_at = serializers.DateTimeField(read_only=True)
    requested_by = serializers.CharField(read_only=True)
    decided_at = serializers.DateTimeField(read_only=True, allow_null=True)
    decided_by = serializers.CharField(read_only=True)
    decision_note = serializers.CharField(read_only=True)
    version = serializers.IntegerField(
        source="version.number", read_only=True, allow_null=True, default=None, help_text="What it became."
    )
    document = DocumentField(read_only=True)


class PublicationRequestsView(CollectionView):
    tag = "publication"
    location = "/api/v1/publication-requests"
    queryset = PublicationRequest.objects.select_related("policy", "version")
    serializer_class = PublicationRequestSerializer
    is_newest_first = True
    operations = {
        "GET": Operation("list_publication_requests", "List what waits, or waited, for approval", READ),
        "POST": Operation("request_publication", "Ask for the draft to be published", PUBLISH),
    }

    def get(self, request: Request, **kwargs: Any) -> Response:
        """Newest first."""
        policy = self.find_row(of=Policy.objects.all())
        return self.show_page(self.get_queryset().filter(policy=policy))

    def post(self, request: Request, pk: int) -> Response:
        """Ask another person to approve. A change of the draft makes the request stale."""
        policy = self.find_row(of=Policy.objects.all())
        return self.show_added(
            approvals.request_publication(policy=policy, actor=self.actor, **self.read_body())
        )


class PublicationRequestView(RowView):
    tag = "publication"
    queryset = PublicationRequest.objects.select_related("policy", "version")
    serializer_class = PublicationRequestSerializer
    operations = {"GET": Operation("get_publication_request", "Read a publication request", READ)}


class ApprovalView(PublicationView):
    queryset = PublicationRequest.objects.select_related("policy")
    operations = {"POST": Operation("approve_publication", "Approve a publication request", APPROVE)}

    def post(self, request: Request, pk: int) -> Response:
        """Publish what was asked for. A person does this, and not the one who asked or issued the asking token."""
        asked = self.find_row()
        note = self.read_body().get("note", "")
        return show_new_version(approvals.approve(request=asked, actor=self.actor, note=note))


class RejectionView(PublicationView):
    queryset = PublicationRequest.objects.select_related("policy")
    operations = {"POST": Operation("reject_publication", "Reject a publication request", PUBLISH)}
    adds_a_row = False
    answers = {"POST": PublicationRequestSerializer}

    def post(self, request: Request, pk: int) -> Response:
        """Refuse what was asked for; who asked may do it too, to take the request back."""
        asked = self.find_row()
        note = self.read_body().get("note", "")
        closed = approvals.reject(request=asked, actor=self.actor, note=note)
        return Response(PublicationRequestSerializer(closed).data)
