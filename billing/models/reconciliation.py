"""What did providers bill, and does it agree with us? Tables: provider_bill, billed_day, billed_name."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.db import models
from django.db.models import Q


class ProviderBill(models.Model):
    """A usage or cost file of a provider, read once and compared as often as wanted; never the file itself.

    `groups` are its sums by day and model (`provider_bills.bill.BilledGroup`). `account` is the project, workspace or
    key that was compared alone, empty for all; `accounts` are those that the file names.
    """

    provider = models.ForeignKey("policies.Provider", on_delete=models.PROTECT, related_name="+")
    file_format = models.CharField(max_length=30)
    file_name = models.CharField(max_length=200)
    sha256 = models.CharField(max_length=64)
    account = models.CharField(max_length=300, blank=True, default="")
    accounts = models.JSONField(default=list)
    groups = models.JSONField(default=list)
    notes = models.JSONField(default=list)
    line_count = models.PositiveIntegerField()
    first_day = models.DateField()
    last_day = models.DateField()
    tolerance_ratio = models.DecimalField(max_digits=7, decimal_places=6, default=Decimal("0.005"))
    tolerance_nanousd = models.BigIntegerField(default=10_000_000)
    imported_at = models.DateTimeField()
    imported_by = models.CharField(max_length=150)
    compared_at = models.DateTimeField()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["provider", "sha256", "account"], name="provider_bill_once_a_file"
            ),
            models.CheckConstraint(
                condition=Q(tolerance_ratio__gte=0) & Q(tolerance_ratio__lt=1) & Q(tolerance_nanousd__gte=0),
                name="provider_bill_tolerance",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.provider}: {self.file_name}"


class BilledDay(models.Model):
    """One model's day of a bill beside what was recorded. Null: that side has nothing, or does not say."""

    class Verdict(models.TextChoices):
        MATCHED = "matched", "matched"
        PRICE_DRIFT = "price_drift", "price drift"
        QUANTITY_DRIFT = "quantity_drift", "quantity drift"
        COST_DRIFT = "cost_drift", "money differs"
        MISSING_HERE = "missing_here", "missing here"
        MISSING_THERE = "missing_there", "missing there"

    bill = models.ForeignKey(ProviderBill, on_delete=models.CASCADE, related_name="days")
    day = models.DateField()
    upstream_model = models.CharField(max_length=300, blank=True, default="")
    billed_as = models.TextField(blank=True, default="")
    verdict = models.CharField(max_length=20, choices=Verdict.choices)
    reason = models.TextField(blank=True, default="")
    billed = models.JSONField(null=True, help_text="Counts of the bill.")
    recorded = models.JSONField(null=True, help_text="Counts of the records.")
    billed_nanousd = models.BigIntegerField(null=True)
    recorded_nanousd = models.BigIntegerField(null=True)

    class Meta:
        ordering = ["day", "upstream_model", "billed_as"]
        constraints = [
            models.UniqueConstraint(
                fields=["bill", "day", "upstream_model", "billed_as"], name="billed_day_once_a_model"
            )
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.upstream_model or self.billed_as}"

    @property
    def gap_nanousd(self) -> int | None:
        """By how much the bill is dearer; None where one side states no money."""
        if self.verdict == self.Verdict.MISSING_HERE:
            return self.billed_nanousd
        if self.verdict == self.Verdict.MISSING_THERE:
            return None if self.recorded_nanousd is None else -self.recorded_nanousd
        if self.billed_nanousd is None or self.recorded_nanousd is None:
            return None
        return self.billed_nanousd - self.recorded_nanousd

    def counts(self) -> list[tuple[str, Any, Any]]:
        """(what, there, here) of what either side states."""
        names = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "requests")
        there, here = self.billed or {}, self.recorded or {}
        return [
            (name, there.get(name), here.get(name)) for name in names if there.get(name) or here.get(name)
        ]


class BilledName(models.Model):
    """Which upstream model a person says a provider's bills mean by a name. Empty: none of ours."""

    provider = models.ForeignKey("policies.Provider", on_delete=models.CASCADE, related_name="+")
    name = models.CharField(max_length=300)
    upstream_model = models.CharField(max_length=300, blank=True, default="")

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["provider", "name"], name="billed_name_once")]

    def __str__(self) -> str:
        return f"{self.name} = {self.upstream_model or 'none'}"
