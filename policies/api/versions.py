"""How are drafts published, versions read and rolled back to over HTTP?

Reads: policy_version. Writes: nothing itself, calls `policies.publishing`.
"""

from __future__ import annotations

from typing import Any

from django.db import transaction
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from policies import publishing
from policies.api.access import PUBLISH, READ, Operation
from policies.api.etags import has_read
from policies.api.policy import WITH_VERSION, DocumentField, draft_of, stale_draft
from policies.api.resources import CollectionView, ManagementView, StrictSerializer
from policies.models import Policy, PolicyVersion


class VersionSummarySerializer(StrictSerializer):
    """One published version of a policy, without its document."""

    number = serializers.IntegerField(read_only=True)
    note = serializers.CharField(read_only=True)
    published_at = serializers.DateTimeField(read_only=True)
    published_by = serializers.CharField(read_only=True)
    is_live = serializers.SerializerMethodField()

    def get_is_live(self, version: PolicyVersion) -> bool:
        return version.policy.live_version_id == version.pk


class VersionSerializer(VersionSummarySerializer):
    """One published version of a policy. It never changes."""

    document = DocumentField(read_only=True)


class VersionsView(CollectionView):
    tag = "versions"
    queryset = PolicyVersion.objects.select_related("policy").defer("document")
    serializer_class = VersionSummarySerializer
    is_newest_first = True
    operations = {"GET": Operation("list_versions", "List the versions of a policy", READ)}

    def get(self, request: Request, **kwargs: Any) -> Response:
        """Newest first. `after` takes the id that `next` holds."""
        policy = self.find_row(of=Policy.objects.all())
        return self.show_page(self.get_queryset().filter(policy=policy))


class VersionView(ManagementView):
    tag = "versions"
    queryset = PolicyVersion.objects.select_related("policy")
    serializer_class = VersionSerializer
    operations = {"GET": Operation("get_version", "Read a version of a policy", READ)}

    def get(self, request: Request, pk: int, number: int) -> Response:
        """Read a version with its document."""
        policy = self.find_row(of=Policy.objects.all())
        return self.show(_find_version(policy, number))


class PublishSerializer(StrictSerializer):
    """Why the draft goes live."""

    note = serializers.CharField(required=False, allow_blank=True, max_length=2000)


class PublishView(ManagementView):
    tag = "versions"
    queryset = WITH_VERSION
    serializer_class = PublishSerializer
    operations = {"POST": Operation("publish_draft", "Publish a policy's draft", PUBLISH)}
    adds_a_row = True
    answers = {"POST": VersionSerializer}

    @extend_schema(
        parameters=[
            OpenApiParameter(
                "If-Match",
                str,
                OpenApiParameter.HEADER,
                description="The ETag of the draft that was looked at: another one is not published (412).",
            )
        ]
    )
    @transaction.atomic
    def post(self, request: Request, pk: int) -> Response:
        """Make the draft the next version; in force in every worker within 2 s.

        Publishing what is live already changes nothing and answers with the live version. Errors in the draft block.
        """
        policy = self.find_row()
        note = self.read_body().get("note", "")
        if "If-Match" in request.headers:
            # As the verb does, policy first: what was compared is what gets published.
            Policy.objects.select_for_update().get(pk=policy.pk)
            draft = draft_of(WITH_VERSION.get(pk=policy.pk))
            if not has_read(request, draft.revision):
                raise stale_draft(draft)
        return _show_version(publishing.publish(policy=policy, actor=self.actor, note=note))


class RollBackSerializer(StrictSerializer):
    """Which version's document is published again."""

    version = serializers.IntegerField(min_value=1, max_value=2**31 - 1)


class RollBackView(ManagementView):
    tag = "versions"
    queryset = WITH_VERSION
    serializer_class = RollBackSerializer
    operations = {"POST": Operation("roll_back", "Roll a policy back", PUBLISH)}
    adds_a_row = True
    answers = {"POST": VersionSerializer}

    def post(self, request: Request, pk: int) -> Response:
        """Publish an older document again, as a new version; the draft follows it."""
        policy = self.find_row()
        number = self.read_body()["version"]
        return _show_version(publishing.roll_back(policy=policy, number=number, actor=self.actor))


def _find_version(policy: Policy, number: int) -> PolicyVersion:
    return PolicyVersion.objects.select_related("policy").get(policy=policy, number=number)


def _show_version(version: PolicyVersion) -> Response:
    document: dict[str, Any] = VersionSerializer(_find_version(version.policy, version.number)).data
    place = f"/api/v1/policies/{version.policy_id}/versions/{version.number}"
    return Response(document, status=status.HTTP_201_CREATED, headers={"Location": place})
