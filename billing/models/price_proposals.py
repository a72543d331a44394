"""Which new prices wait for a person? Tables: price_proposal, proposed_price."""

from __future__ import annotations

from django.db import models


class PriceProposal(models.Model):
    """What one look at a source said. It changes nothing: a price begins when its row is approved.

    `findings`: deployments without a row, as {"deployment", "finding", "text"}.
    """

    kind = models.CharField(max_length=20)
    source = models.CharField(max_length=100)
    digest = models.CharField(max_length=64, blank=True, default="", help_text="SHA-256 of the file.")
    findings = models.JSONField(default=list)
    made_at = models.DateTimeField()
    made_by = models.CharField(max_length=150)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.source} of {self.made_at:%Y-%m-%d}"


class ProposedPrice(models.Model):
    """A cost price that would begin. `compared_price` is the one it was compared with: in force at its beginning."""

    class State(models.TextChoices):
        WAITING = "waiting", "waiting"
        APPROVED = "approved", "approved"
        REJECTED = "rejected", "rejected"
        SUPERSEDED = "superseded", "superseded"

    proposal = models.ForeignKey(PriceProposal, on_delete=models.CASCADE, related_name="rows")
    deployment = models.ForeignKey("policies.Deployment", on_delete=models.CASCADE, related_name="+")
    listed_as = models.CharField(max_length=300)
    rates = models.JSONField()
    effective_from = models.DateTimeField(null=True, help_text="Null: from its approval on.")
    notes = models.JSONField(default=list)
    compared_price = models.ForeignKey("billing.Price", null=True, on_delete=models.PROTECT, related_name="+")
    state = models.CharField(max_length=12, choices=State.choices, default=State.WAITING)
    price = models.ForeignKey("billing.Price", null=True, on_delete=models.PROTECT, related_name="+")
    decided_at = models.DateTimeField(null=True)
    decided_by = models.CharField(max_length=150, blank=True, default="")
    reason = models.CharField(max_length=300, blank=True, default="")

    class Meta:
        ordering = ["deployment__name", "effective_from", "id"]
        indexes = [
            models.Index(
                fields=["deployment"], condition=models.Q(state="waiting"), name="proposed_price_waiting"
            )
        ]

    def __str__(self) -> str:
        return f"{self.deployment} as {self.listed_as}"
