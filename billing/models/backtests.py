"""What would a policy document have done to past requests? Table: backtest (one row a run)."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from policies.models import Policy


class BacktestState(models.TextChoices):
    WAITING = "waiting", "waits for a worker"
    RUNNING = "running", "running"
    DONE = "done", "done"
    CANCELLED = "cancelled", "cancelled"
    FAILED = "failed", "failed"


ACTIVE_STATES = (BacktestState.WAITING, BacktestState.RUNNING)


class Backtest(models.Model):
    """One run. The row is the truth, a task only a hint: whoever claims the row works on it.

    `document` is a copy, so that a run says for ever what it ran. `result`: `billing.backtest_results`.
    `version` is set when the document is that of a published version: then the run also says which recorded decisions
    it did not reproduce. `traffic`: whose requests it runs over; null: the policy's own, in runs of older
    releases. `heartbeat_at` is renewed while a process works; when it is old, that process has died.
    """

    policy = models.ForeignKey("policies.Policy", on_delete=models.CASCADE, related_name="backtests")
    version = models.ForeignKey(
        "policies.PolicyVersion", null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    # A policy that has requests was published, and is never deleted.
    traffic = models.ForeignKey(
        "policies.Policy", null=True, blank=True, on_delete=models.CASCADE, related_name="+"
    )
    document = models.JSONField()
    label = models.CharField(max_length=100)
    days = models.PositiveSmallIntegerField()
    since = models.DateTimeField()
    until = models.DateTimeField()
    state = models.CharField(max_length=10, choices=BacktestState.choices, default=BacktestState.WAITING)
    is_cancel_wanted = models.BooleanField(default=False)
    claim_count = models.PositiveSmallIntegerField(default=0)
    total_count = models.BigIntegerField(null=True)
    done_count = models.BigIntegerField(default=0)
    result = models.JSONField(null=True)
    error = models.TextField(blank=True, default="")
    error_detail = models.TextField(blank=True, default="", db_default="")
    started_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(auto_now_add=True)
    heartbeat_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["policy"], condition=Q(state__in=ACTIVE_STATES), name="backtest_one_at_a_time"
            )
        ]

    @property
    def source(self) -> Policy:
        """The policy whose requests it runs over."""
        return self.policy if self.traffic is None else self.traffic

    @property
    def is_on_own_traffic(self) -> bool:
        """Whether these are requests that asked for this policy."""
        return self.traffic_id in (None, self.policy_id)

    def __str__(self) -> str:
        return f"backtest {self.pk} of {self.policy}"
