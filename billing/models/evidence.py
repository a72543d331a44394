"""How good were answers, as far as anybody could tell? Tables: evidence, feedback, workload_usage, workload_day.

No text of a request or an answer is in any of them.
"""

from __future__ import annotations

from django.db import models
from django.db.models import Q


class Evidence(models.Model):
    """One judgement of one model's answer: `quality` from 0 (useless) to 1 (as good as it gets).

    Written by `billing.evidence` and, for failed free checks, by the ingester. `pair_id` is the same for answers of
    several models to one question. `cost_nanousd` is what gaining the judgement cost (evaluation calls; else 0).
    """

    class Source(models.TextChoices):
        FEEDBACK = "feedback", "rated by the caller"
        CHECK = "check", "failed a free check"
        EVALUATION = "evaluation", "evaluation set"
        SHADOW = "shadow", "shadow sample"

    source = models.CharField(max_length=12, choices=Source.choices)
    at = models.DateTimeField()
    request_id = models.UUIDField(null=True, blank=True)
    pair_id = models.CharField(max_length=64, blank=True, default="")
    workload = models.CharField(max_length=16, blank=True, default="")
    task_type = models.CharField(max_length=40, blank=True, default="")
    model = models.ForeignKey("policies.Model", on_delete=models.CASCADE, related_name="+")
    quality = models.FloatField()
    detail = models.CharField(max_length=40, blank=True, default="", help_text="The check that failed.")
    output_tokens = models.BigIntegerField(null=True, blank=True)
    latency_ms = models.FloatField(null=True, blank=True)
    cost_nanousd = models.BigIntegerField(default=0, db_default=0)

    class Meta:
        ordering = ["-at", "-id"]
        verbose_name_plural = "evidence"
        indexes = [
            models.Index(fields=["at"], name="evidence_by_time"),
            models.Index(fields=["workload", "at"], name="evidence_of_workload"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["request_id", "source", "model"],
                condition=Q(request_id__isnull=False),
                name="evidence_once_a_request",
            ),
            models.CheckConstraint(
                condition=Q(quality__gte=0) & Q(quality__lte=1), name="evidence_quality_0_to_1"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.source} {self.model_id}: {self.quality}"


class Feedback(models.Model):
    """What a caller said about an answer, as the journal brought it. `quality` null: neither good nor bad.

    `billing.evidence_collecting` looks for the request and makes evidence of it.
    """

    class State(models.TextChoices):
        WAITING = "waiting", "waits for its request's record"
        COUNTED = "counted", "is evidence"
        IGNORED = "ignored", "no such request of this key, or nobody served it"

    id = models.UUIDField(primary_key=True)
    at = models.DateTimeField()
    request_id = models.UUIDField()
    api_key_id = models.BigIntegerField()
    quality = models.FloatField(null=True)
    state = models.CharField(
        max_length=8, choices=State.choices, default=State.WAITING, db_default=State.WAITING
    )

    class Meta:
        ordering = ["-at", "-id"]
        verbose_name_plural = "feedback"
        indexes = [models.Index(fields=["at"], condition=Q(state="waiting"), name="feedback_waiting")]
        constraints = [
            models.CheckConstraint(
                condition=Q(quality__isnull=True) | (Q(quality__gte=0) & Q(quality__lte=1)),
                name="feedback_quality_0_to_1",
            )
        ]

    def __str__(self) -> str:
        return f"{self.request_id}: {self.quality}"


class WorkloadUsage(models.Model):
    """Sums over the answered requests of one workload by UTC day; `billing.workload_usage` makes them from records.

    `checkable_count`: answers that the free checks looked at. Output tokens are summed where they are known
    (`output_count`), costs where they are (`priced_count`); latencies are of requests with one attempt.
    """

    day = models.DateField()
    workload = models.CharField(max_length=16)
    task_type = models.CharField(max_length=40, blank=True, default="")
    app = models.CharField(max_length=200, blank=True, default="")
    tenant = models.ForeignKey("policies.Tenant", on_delete=models.CASCADE, related_name="+")
    api_key = models.ForeignKey("policies.ApiKey", on_delete=models.CASCADE, related_name="+")
    policy = models.ForeignKey("policies.Policy", null=True, on_delete=models.CASCADE, related_name="+")
    deployment = models.ForeignKey("policies.Deployment", on_delete=models.CASCADE, related_name="+")
    request_count = models.BigIntegerField()
    checkable_count = models.BigIntegerField()
    input_tokens = models.BigIntegerField()
    cache_read_tokens = models.BigIntegerField(default=0, db_default=0)
    output_tokens = models.BigIntegerField()
    output_count = models.BigIntegerField()
    cost_nanousd = models.BigIntegerField()
    priced_count = models.BigIntegerField()
    latency_count = models.BigIntegerField()
    p50_ms = models.FloatField(null=True)
    p95_ms = models.FloatField(null=True)

    class Meta:
        ordering = ["-day", "workload"]
        indexes = [models.Index(fields=["day", "workload"], name="workload_usage_by_day")]

    def __str__(self) -> str:
        return f"{self.day} {self.workload}"


class WorkloadDay(models.Model):
    """Of how many records were a day's workload sums made? Another number now means: make them again."""

    day = models.DateField(primary_key=True)
    record_count = models.BigIntegerField()
    collected_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.day}: {self.record_count}"
