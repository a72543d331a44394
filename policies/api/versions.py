"""How are the published versions of a policy read over HTTP? How they come to be: publication.py.

Reads: policy_version.
"""

from __future__ import annotations

from typing import Any

from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from policies.api.access import READ, Operation
from policies.api.policy import DocumentField
from policies.api.resources import CollectionView, ManagementView, StrictSerializer
from policies.models import Policy, PolicyVersion


class VersionSummarySerializer(StrictSerializer):
    """One published version of a policy, without its document."""

    number = serializers.IntegerField(read_only=True)
    note = serializers.CharField(read_only=True)
    published_at = serializers.DateTimeField(read_only=True)
    published_by = serializers.CharField(read_only=True)
    approved_by = serializers.CharField(read_only=True, help_text="Empty: it needed no approval.")
    is_live = serializers.SerializerMethodField()
    is_canary = serializers.SerializerMethodField()

    def get_is_live(self, version: PolicyVersion) -> bool:
        return version.policy.live_version_id == version.pk

    def get_is_canary(self, version: PolicyVersion) -> bool:
        return version.policy.canary_version_id == version.pk


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
        return self.show(find_version(policy, number))


def find_version(policy: Policy, number: int) -> PolicyVersion:
    """The version of a policy with this number. Raises DoesNotExist, which is answered with 404."""
    return PolicyVersion.objects.select_related("policy").get(policy=policy, number=number)


def show_new_version(version: PolicyVersion) -> Response:
    """Answer with a version that was just made, or that was live already."""
    fresh = PolicyVersion.objects.select_related("policy").get(pk=version.pk)
    place = f"/api/v1/policies/{version.policy_id}/versions/{version.number}"
    return Response(
        VersionSerializer(fresh).data, status=status.HTTP_201_CREATED, headers={"Location": place}
    )
