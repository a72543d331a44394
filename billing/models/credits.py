"""Which credit was granted, and what is a dollar in other currencies? Tables: credit_grant, exchange_rate."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q


class CreditGrant(models.Model):
    """Credit that pays statements. Never changes; what is left of it is the sum of its ledger entries.

    Written by `billing.credits` alone. Drawn by priority (lower first), then what expires first, then the oldest.
    """

    class Kind(models.TextChoices):
        PAID = "paid", "paid in advance"
        PROMOTIONAL = "promotional", "promotional"

    tenant = models.ForeignKey("policies.Tenant", on_delete=models.PROTECT, related_name="credit_grants")
    kind = models.CharField(max_length=11, choices=Kind.choices)
    currency = models.CharField(max_length=3)
    amount_nano = models.BigIntegerField()
    priority = models.PositiveSmallIntegerField(default=100)
    model_names = ArrayField(
        models.CharField(max_length=100), default=list, blank=True, help_text="Empty: of any model."
    )
    granted_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, blank=True)
    reference = models.CharField(max_length=100, blank=True, default="", help_text="Of the payment.")
    note = models.CharField(max_length=300, blank=True, default="")
    created_by = models.CharField(max_length=150)

    class Meta:
        ordering = ["priority", models.F("expires_at").asc(nulls_last=True), "granted_at", "id"]
        constraints = [
            models.CheckConstraint(condition=Q(amount_nano__gt=0), name="credit_grant_amount"),
            models.CheckConstraint(
                condition=Q(expires_at__isnull=True) | Q(expires_at__gt=models.F("granted_at")),
                name="credit_grant_expires_later",
            ),
            models.UniqueConstraint(
                fields=["tenant", "reference"], condition=~Q(reference=""), name="credit_grant_reference"
            ),
        ]

    def __str__(self) -> str:
        return f"credit {self.pk}"


class ExchangeRate(models.Model):
    """What one USD is in another currency from a day on. Never changes; a later row of the same day corrects it.

    Written by `billing.exchange_rates` alone. Holds until the next one begins, or to `last_day` if that is given.
    """

    currency = models.CharField(max_length=3)
    rate = models.DecimalField(max_digits=24, decimal_places=12, help_text="Units of the currency for 1 USD.")
    first_day = models.DateField()
    last_day = models.DateField(null=True, blank=True)
    source = models.CharField(max_length=200, help_text="Where the number comes from.")
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=150)

    class Meta:
        ordering = ["currency", "-first_day", "-id"]
        constraints = [
            models.CheckConstraint(condition=Q(rate__gt=0, rate__lt=10**9), name="exchange_rate_sane"),
            models.CheckConstraint(
                condition=Q(currency__regex=r"^[A-Z]{3}$") & ~Q(currency="USD"), name="exchange_rate_currency"
            ),
            models.CheckConstraint(
                condition=Q(last_day__isnull=True) | Q(last_day__gte=models.F("first_day")),
                name="exchange_rate_days",
            ),
        ]
        indexes = [models.Index(fields=["currency", "-first_day", "-id"], name="exchange_rate_newest")]

    def __str__(self) -> str:
        return f"{self.currency} from {self.first_day}"
