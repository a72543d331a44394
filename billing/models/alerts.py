"""Who is told about budgets, what was noticed, and what became of telling it? Tables: recipient, alert, delivery."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q


class AlertRecipient(models.Model):
    """An e-mail address or a webhook that hears of a tenant's budgets, of deployments', or of one budget.

    A webhook's secret is encrypted as providers' credentials are, and shown once. By `billing.alert_recipients`.
    """

    class Channel(models.TextChoices):
        EMAIL = "email", "e-mail"
        WEBHOOK = "webhook", "webhook"

    # Null: of deployments.
    tenant = models.ForeignKey(
        "policies.Tenant",
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="alert_recipients",
    )
    # Null: all budgets of the tenant, or of deployments.
    budget = models.ForeignKey(
        "billing.Budget", null=True, blank=True, on_delete=models.CASCADE, related_name="recipients"
    )
    channel = models.CharField(max_length=7, choices=Channel.choices)
    address = models.CharField(max_length=500)
    secret_ciphertext = models.TextField(blank=True, default="")
    allow_private_network = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=150, blank=True, default="")

    class Meta:
        ordering = ["tenant__name", "budget_id", "channel", "address"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "budget", "address"], nulls_distinct=False, name="alert_recipient_unique"
            ),
        ]

    def __str__(self) -> str:
        return self.address


class BudgetAlert(models.Model):
    """What was noticed of a window: once for each kind and limit. Written by `billing.alerting` alone.

    `is_told` False: something graver was noticed at the same moment, and only that was told.
    """

    class Kind(models.TextChoices):
        HALF = "used_50", "50 % used"
        NEAR = "used_80", "80 % used"
        ALL = "used_100", "used up"
        FORECAST = "forecast", "will be exceeded"

    window = models.ForeignKey("billing.BudgetWindow", on_delete=models.CASCADE, related_name="alerts")
    kind = models.CharField(max_length=8, choices=Kind.choices)
    limit_nanousd = models.BigIntegerField()
    used_nanousd = models.BigIntegerField()
    forecast_nanousd = models.BigIntegerField(null=True)
    is_told = models.BooleanField(default=True)
    noticed_at = models.DateTimeField()

    class Meta:
        ordering = ["-noticed_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["window", "kind", "limit_nanousd"], name="budget_alert_once"),
        ]

    def __str__(self) -> str:
        return f"{self.window}: {self.get_kind_display()}"


class AlertDelivery(models.Model):
    """One message to one recipient, until it has arrived or was given up. The id stays the same at every try.

    Written by `billing.alert_deliveries`. `body` is what is sent, word for word; no message holds a secret.
    """

    class State(models.TextChoices):
        WAITING = "waiting", "waiting"
        SENT = "sent", "sent"
        FAILED = "failed", "given up"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    recipient = models.ForeignKey(AlertRecipient, on_delete=models.CASCADE, related_name="deliveries")
    # Null: a test.
    alert = models.ForeignKey(BudgetAlert, null=True, on_delete=models.CASCADE, related_name="deliveries")
    subject = models.CharField(max_length=300)
    body = models.TextField()
    state = models.CharField(max_length=7, choices=State.choices, default=State.WAITING)
    try_count = models.PositiveSmallIntegerField(default=0)
    created_at = models.DateTimeField()
    due_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    problem = models.CharField(max_length=300, blank=True, default="")

    class Meta:
        ordering = ["-created_at", "id"]
        constraints = [
            models.UniqueConstraint(fields=["recipient", "alert"], name="alert_delivery_once"),
        ]
        indexes = [
            models.Index(fields=["due_at"], condition=Q(state="waiting"), name="alert_delivery_due"),
            models.Index(fields=["-created_at"], name="alert_delivery_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.subject} to {self.recipient_id}"
