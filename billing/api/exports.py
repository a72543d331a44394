"""How does a program have a large table written, and get the file?

Reads: export_job. Writes: through `billing.export_jobs`.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from billing import focus
from billing.export_files import FORMATS
from billing.export_jobs import (
    cancel_export,
    is_for_readers,
    may_download,
    path_of,
    record_download,
    start_export,
    title_of,
    try_again,
)
from billing.models import ExportJob, ExportKind, ExportState
from billing.views.streaming import pieces_of, stream_download
from policies.api.access import READ, Operation
from policies.api.problems import ApiRefusal
from policies.api.resources import CollectionView, Filters, ManagementView, StrictSerializer, row_id
from policies.models import ManagementToken


class ExportSerializer(StrictSerializer):
    """One file: what it holds, how far it is, and, once it is done, its size and SHA-256."""

    id = row_id(read_only=True)
    kind = serializers.ChoiceField(choices=ExportKind.values)
    format = serializers.ChoiceField(choices=list(FORMATS), source="file_format", default="csv")
    query = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=1000,
        help_text="Of all but FOCUS: the parameters of the console page whose table it is, such as by=key&period=7d.",
    )
    month = serializers.RegexField(
        r"^\d{4}-\d{2}$", required=False, write_only=True, help_text="Of FOCUS: such as 2026-10 (UTC)."
    )
    version = serializers.ChoiceField(
        choices=focus.VERSIONS, required=False, write_only=True, help_text="Of FOCUS; missing: 1.4."
    )
    tenant_id = row_id(required=False, write_only=True, help_text="Of FOCUS; missing: all tenants.")
    title = serializers.CharField(read_only=True)
    state = serializers.CharField(
        read_only=True,
        help_text="waiting, running, done, cancelled, failed or expired (deleted after its time)",
    )
    done_count = serializers.IntegerField(read_only=True, help_text="Rows written.")
    total_count = serializers.IntegerField(
        read_only=True, allow_null=True, help_text="null: not counted yet."
    )
    byte_count = serializers.IntegerField(read_only=True, allow_null=True)
    sha256 = serializers.CharField(read_only=True)
    error = serializers.CharField(
        read_only=True, help_text="Why it failed and what to do, or who cancelled it."
    )
    started_by = serializers.CharField(read_only=True)
    created_at = serializers.DateTimeField(read_only=True)
    finished_at = serializers.DateTimeField(read_only=True, allow_null=True)
    expires_at = serializers.DateTimeField(
        read_only=True, allow_null=True, help_text="When the file is deleted."
    )


class ExportFilters(Filters):
    kind = serializers.ChoiceField(choices=ExportKind.values)
    state = serializers.ChoiceField(choices=ExportState.values)


class ExportsView(CollectionView):
    tag = "exports"
    location = "/api/v1/exports"
    queryset = ExportJob.objects.all()
    serializer_class = ExportSerializer
    filters = ExportFilters
    is_newest_first = True
    operations = {
        "GET": Operation("list_exports", "List exports", READ),
        "POST": Operation("start_export", "Start an export", READ),
    }

    def get(self, request: Request, **kwargs: Any) -> Response:
        """Newest first."""
        return super().get(request, **kwargs)

    def post(self, request: Request) -> Response:
        """Have requests, spend or a month in FOCUS written to a file; watch its address until it is done."""
        fields = self.read_body()
        kind, query = fields["kind"], fields.get("query", "")
        if kind == ExportKind.FOCUS:
            asked = {
                "month": fields.get("month", ""),
                "version": fields.get("version", ""),
                "tenant": fields.get("tenant_id", ""),
            }
            query = urlencode(asked)
        job = start_export(
            kind=kind,
            file_format=fields["file_format"],
            query=query,
            title=title_of(kind, query),
            actor=self.actor,
        )
        return self.show_added(self.reread(job))


class ExportView(ManagementView):
    tag = "exports"
    queryset = ExportJob.objects.all()
    serializer_class = ExportSerializer
    operations = {"GET": Operation("get_export", "Read an export", READ)}

    def get(self, request: Request, pk: int) -> Response:
        """How far it is, and, once it is done, its size and SHA-256."""
        return self.show(self.find_row())


class ExportCancellationView(ManagementView):
    tag = "exports"
    queryset = ExportJob.objects.all()
    serializer_class = ExportSerializer
    operations = {"POST": Operation("cancel_export", "Cancel an export", READ)}
    takes_no_body = True

    def post(self, request: Request, pk: int) -> Response:
        """End an export that this caller started. One that is over stays as it is."""
        job = self.find_row()
        if job.started_by != self.actor:
            raise ApiRefusal("forbidden", f"{job.started_by} started this export.")
        cancel_export(job=job, actor=self.actor)
        return self.show(self.reread(job))


class ExportAgainView(ManagementView):
    tag = "exports"
    adds_a_row = True
    queryset = ExportJob.objects.all()
    serializer_class = ExportSerializer
    operations = {"POST": Operation("try_export_again", "Start an export again", READ)}
    takes_no_body = True

    def post(self, request: Request, pk: int) -> Response:
        """Ask the question of an export that failed, was cancelled or whose file is deleted again, as a new export."""
        job = try_again(job=self.find_row(), actor=self.actor)
        headers = {"Location": f"{ExportsView.location}/{job.pk}"}
        return self.show(self.reread(job), code=status.HTTP_201_CREATED, headers=headers)


class ExportFileView(ManagementView):
    tag = "exports"
    queryset = ExportJob.objects.all()
    serializer_class = ExportSerializer
    operations = {"GET": Operation("get_export_file", "Download the file of an export", READ)}
    answers = {"GET": {(200, "application/octet-stream"): OpenApiTypes.BINARY}}  # type: ignore[dict-item]  # its form too

    def get(self, request: Request, pk: int) -> StreamingHttpResponse:
        """The file, while it is there. One with columns of margins is for people who may see them."""
        job = self.find_row()
        is_token = isinstance(request.auth, ManagementToken)
        if not (is_for_readers(job) if is_token else may_download(request.user, job)):
            raise ApiRefusal("forbidden", "This file holds what only some people may see.")
        path = path_of(job)
        if job.state != ExportState.DONE or not path.is_file():
            raise ApiRefusal("refused", f"The export is {job.state}: there is no file to download.")
        record_download(job=job, actor=self.actor)
        return stream_download(
            request._request, pieces_of(path), content_type=FORMATS[job.file_format], file_name=job.file_name
        )
