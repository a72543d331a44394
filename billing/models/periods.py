"""Which months are closed, and what came in after that? Tables: period_lock, period_closing, late_posting."""

from __future__ import annotations

from django.db import models


class PeriodLock(models.Model):
    """One row. Days before `closed_until` (UTC) are closed: what comes in for them is posted to that day or later."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    closed_until = models.DateField(
        null=True, help_text="First day of the open period; null: nothing is closed."
    )

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="period_lock_is_one_row")]

    def __str__(self) -> str:
        return f"closed until {self.closed_until}"


class ClosingState(models.TextChoices):
    WAITING = "waiting", "waiting"
    RUNNING = "running", "running"
    DONE = "done", "done"
    FAILED = "failed", "failed"


class PeriodClosing(models.Model):
    """The closing of one month: who wanted it, when it was locked, how many statements are written."""

    month = models.DateField(unique=True)
    state = models.CharField(max_length=10, choices=ClosingState.choices, default=ClosingState.WAITING)
    grace_days = models.PositiveSmallIntegerField()
    asked_at = models.DateTimeField()
    asked_by = models.CharField(max_length=150)
    locked_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    heartbeat_at = models.DateTimeField(null=True)
    tenant_count = models.PositiveIntegerField(default=0)
    done_count = models.PositiveIntegerField(default=0)
    left = models.JSONField(default=list, help_text='What was not issued: [{"tenant": id, "reason": text}].')
    error = models.TextField(blank=True, default="")
    error_detail = models.TextField(blank=True, default="", db_default="")

    class Meta:
        ordering = ["-month"]

    def __str__(self) -> str:
        return f"{self.month:%Y-%m}"


class LatePosting(models.Model):
    """A record (number 0) or an adjustment (its number) of a closed day, and the day on which it is counted instead."""

    request_id = models.UUIDField()
    number = models.PositiveSmallIntegerField(
        default=0, help_text="0: the record, else the adjustment's number."
    )
    started_at = models.DateTimeField()
    posted_on = models.DateField()
    tenant = models.ForeignKey(
        "policies.Tenant", on_delete=models.PROTECT, db_constraint=False, related_name="+"
    )
    posted_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["request_id", "number"], name="late_posting_once")]
        indexes = [
            models.Index(fields=["posted_on", "tenant"], name="late_posting_posted"),
            models.Index(fields=["started_at"], name="late_posting_started"),
        ]

    def __str__(self) -> str:
        return f"{self.request_id} #{self.number} on {self.posted_on}"
