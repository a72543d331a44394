"""Which files were asked for, and how far are they? Table: export_job (one row a file)."""

from __future__ import annotations

from django.db import models


class ExportState(models.TextChoices):
    WAITING = "waiting", "waits for a worker"
    RUNNING = "running", "running"
    DONE = "done", "done"
    CANCELLED = "cancelled", "cancelled"
    FAILED = "failed", "failed"
    EXPIRED = "expired", "deleted after its time"


ACTIVE_STATES = (ExportState.WAITING, ExportState.RUNNING)


class ExportKind(models.TextChoices):
    REQUESTS = "requests", "Requests"
    SPEND = "spend", "Spend"
    SPEND_KEYS = "spend-keys", "Spend of API keys"
    FOCUS = "focus", "FOCUS"


class ExportJob(models.Model):
    """One export that is too large to be made while somebody waits. The row is the truth, a task only a hint.

    `query` is the address of the page whose table it is (of FOCUS: month and version). `abilities` are what a person
    needs to see the data, by name: whoever downloads the file has to have them then. `heartbeat_at` is renewed while a
    process writes; when it is old, that process has died. The file lies under DATA_DIR/exports as `file_name`.
    `error` is for whoever asked, `error_detail` the technical line for operators.
    """

    kind = models.CharField(max_length=12, choices=ExportKind.choices)
    file_format = models.CharField(max_length=8)
    query = models.TextField(blank=True, default="")
    title = models.CharField(max_length=200)
    abilities = models.JSONField(default=list)
    state = models.CharField(max_length=10, choices=ExportState.choices, default=ExportState.WAITING)
    is_cancel_wanted = models.BooleanField(default=False)
    claim_count = models.PositiveSmallIntegerField(default=0)
    total_count = models.BigIntegerField(null=True)
    done_count = models.BigIntegerField(default=0)
    byte_count = models.BigIntegerField(null=True)
    sha256 = models.CharField(max_length=64, blank=True, default="")
    file_name = models.CharField(max_length=200, blank=True, default="")
    error = models.TextField(blank=True, default="")
    error_detail = models.TextField(blank=True, default="", db_default="")
    started_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(auto_now_add=True)
    heartbeat_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["state"], name="export_job_state")]

    def __str__(self) -> str:
        return f"export {self.pk}: {self.title}"
