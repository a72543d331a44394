"""What was asked, who answered, what did it cost? Tables: request_record, attempt_record.

Partitioned by month of `started_at` (created by a migration, kept up by `billing.partitions`); append-only.
`started_at` is the millisecond inside the UUIDv7 `id`, so a look-up by id touches one partition.
"""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models


class UsageKind(models.TextChoices):
    REPORTED = "reported", "reported by the provider"
    ESTIMATED = "estimated", "estimated here"
    UNKNOWN = "unknown", "unknown"


class RequestStatus(models.TextChoices):
    OK = "ok", "answered"
    ERROR = "error", "failed"
    REFUSED = "refused", "refused before any attempt"
    CANCELLED = "cancelled", "client went away"
    INTERRUPTED = "interrupted", "gateway process died"


class RequestRecord(models.Model):
    """One request of one client. Never the prompt, never the answer."""

    id = models.UUIDField(primary_key=True)
    started_at = models.DateTimeField()
    tenant = models.ForeignKey(
        "policies.Tenant", on_delete=models.PROTECT, db_constraint=False, related_name="+"
    )
    project = models.ForeignKey(
        "policies.Project", on_delete=models.PROTECT, db_constraint=False, related_name="+"
    )
    api_key = models.ForeignKey(
        "policies.ApiKey", on_delete=models.PROTECT, db_constraint=False, related_name="+"
    )
    endpoint = models.CharField(max_length=20)
    requested_model = models.CharField(max_length=300)
    is_stream = models.BooleanField()
    is_pinned = models.BooleanField(default=False)
    status = models.CharField(max_length=12, choices=RequestStatus.choices)
    http_status = models.PositiveSmallIntegerField(null=True)
    error_code = models.CharField(max_length=80, blank=True, default="")
    policy = models.ForeignKey(
        "policies.Policy", null=True, on_delete=models.PROTECT, db_constraint=False, related_name="+"
    )
    policy_version = models.ForeignKey(
        "policies.PolicyVersion", null=True, on_delete=models.PROTECT, db_constraint=False, related_name="+"
    )
    rule = models.CharField(max_length=200, blank=True, default="")
    deployment = models.ForeignKey(
        "policies.Deployment", null=True, on_delete=models.PROTECT, db_constraint=False, related_name="+"
    )
    served_model = models.CharField(max_length=300, blank=True, default="")
    finish_reason = models.CharField(max_length=60, blank=True, default="")
    attempt_count = models.PositiveSmallIntegerField()
    duration_ms = models.FloatField(null=True)
    first_token_ms = models.FloatField(null=True)
    usage_kind = models.CharField(max_length=10, choices=UsageKind.choices)
    usage_convention = models.CharField(max_length=40, blank=True, default="")
    input_tokens = models.BigIntegerField(null=True)
    output_tokens = models.BigIntegerField(null=True)
    cache_read_tokens = models.BigIntegerField(null=True)
    cache_write_tokens = models.BigIntegerField(null=True)
    reasoning_tokens = models.BigIntegerField(null=True)
    usage_detail = models.JSONField(default=dict)
    service_tier = models.CharField(max_length=40, blank=True, default="")
    price = models.ForeignKey(
        "billing.Price", null=True, on_delete=models.PROTECT, db_constraint=False, related_name="+"
    )
    cost_nanousd = models.BigIntegerField(null=True, help_text="Null: unpriced, or usage unknown.")
    charge_nanousd = models.BigIntegerField(null=True, help_text="Null: the same as the cost.")
    is_unpriced = models.BooleanField(default=False)
    tags = models.JSONField(default=dict)
    features = models.JSONField(default=dict)
    decision = models.JSONField(default=dict)
    label_ids = ArrayField(
        models.IntegerField(),
        null=True,
        help_text="What it is summed by beside its columns. Null: by nothing.",
    )
    # Null, so that it came to a large table without any row being written.
    answer_id = models.CharField(
        max_length=200, null=True, help_text="The `id` in the answer's body, the provider's own."
    )
    ingested_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-started_at", "-id"]

    def __str__(self) -> str:
        return str(self.id)


class AttemptRecord(models.Model):
    """One call to one deployment within a request."""

    id = models.UUIDField(primary_key=True)
    request_id = models.UUIDField()
    started_at = models.DateTimeField(help_text="Of the request, so that both lie in the same month.")
    number = models.PositiveSmallIntegerField()
    deployment = models.ForeignKey(
        "policies.Deployment", on_delete=models.PROTECT, db_constraint=False, related_name="+"
    )
    outcome = models.CharField(max_length=30)
    http_status = models.PositiveSmallIntegerField(null=True)
    error_code = models.CharField(max_length=80, blank=True, default="")
    error_message = models.CharField(max_length=500, blank=True, default="")
    upstream_request_id = models.CharField(max_length=200, blank=True, default="")
    offset_ms = models.FloatField(help_text="From the request's start.")
    first_byte_ms = models.FloatField(null=True)
    duration_ms = models.FloatField()
    usage = models.JSONField(default=dict)
    price = models.ForeignKey(
        "billing.Price", null=True, on_delete=models.PROTECT, db_constraint=False, related_name="+"
    )
    cost_nanousd = models.BigIntegerField(null=True)

    class Meta:
        ordering = ["request_id", "number"]

    def __str__(self) -> str:
        return f"{self.request_id} #{self.number}"
