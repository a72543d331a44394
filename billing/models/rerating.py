"""What was charged anew, by whom and why? Tables: rerating_run, adjustment (append-only)."""

from __future__ import annotations

from django.db import models


class ReratingRun(models.Model):
    """One decision to price requests that had no price. Its adjustments are written in batches; totals follow them."""

    first_day = models.DateField()
    last_day = models.DateField()
    takes_later_price = models.BooleanField()
    reason = models.CharField(max_length=300)
    made_at = models.DateTimeField()
    made_by = models.CharField(max_length=150)
    finished_at = models.DateTimeField(null=True)
    request_count = models.BigIntegerField(default=0)
    left_count = models.BigIntegerField(default=0, help_text="Requests that still have no price.")
    cost_nanousd = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"run {self.pk}"


class Adjustment(models.Model):
    """Half of a pair: the reversal takes a record out of the sums as it was counted, the replacement adds it as priced.

    Counts and tokens are signed, named as in the rollups, so that records and adjustments together are the rollups.
    """

    run = models.ForeignKey(ReratingRun, on_delete=models.PROTECT, related_name="adjustments")
    request_id = models.UUIDField()
    number = models.PositiveSmallIntegerField(help_text="1: reversal of the record, 2: its replacement.")
    started_at = models.DateTimeField(help_text="Of the request: the sums of its day and hour change.")
    tenant = models.ForeignKey(
        "policies.Tenant", on_delete=models.PROTECT, db_constraint=False, related_name="+"
    )
    project = models.ForeignKey(
        "policies.Project", on_delete=models.PROTECT, db_constraint=False, related_name="+"
    )
    api_key = models.ForeignKey(
        "policies.ApiKey", on_delete=models.PROTECT, db_constraint=False, related_name="+"
    )
    policy = models.ForeignKey(
        "policies.Policy", null=True, on_delete=models.PROTECT, db_constraint=False, related_name="+"
    )
    deployment = models.ForeignKey(
        "policies.Deployment", null=True, on_delete=models.PROTECT, db_constraint=False, related_name="+"
    )
    price = models.ForeignKey(
        "billing.Price", null=True, on_delete=models.PROTECT, db_constraint=False, related_name="+"
    )
    attempts = models.JSONField(
        default=list, help_text="Of a replacement: [number, price, cost] of each attempt."
    )
    request_count = models.SmallIntegerField()
    error_count = models.SmallIntegerField()
    unpriced_count = models.SmallIntegerField()
    estimated_count = models.SmallIntegerField()
    unknown_count = models.SmallIntegerField()
    input_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    cache_read_tokens = models.BigIntegerField()
    cache_write_tokens = models.BigIntegerField()
    reasoning_tokens = models.BigIntegerField()
    cost_nanousd = models.BigIntegerField()
    charge_nanousd = models.BigIntegerField()

    class Meta:
        ordering = ["request_id", "number"]
        constraints = [
            models.UniqueConstraint(fields=["request_id", "number"], name="adjustment_once_a_request")
        ]
        indexes = [models.Index(fields=["started_at"], name="adjustment_started_at")]

    def __str__(self) -> str:
        return f"{self.request_id} #{self.number}"
