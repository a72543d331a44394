"""What did shadow sampling cost? Table: shadow_spend."""

from __future__ import annotations

from django.db import models


class ShadowSpend(models.Model):
    """One tenant's shadow requests of one UTC day: what they cost, the running ones at the most they can cost.

    Written by `billing.shadow_budget` alone. A call whose cost nobody knows stays at the most it could cost.
    """

    tenant = models.ForeignKey("policies.Tenant", on_delete=models.CASCADE, related_name="+")
    day = models.DateField()
    spent_nanousd = models.BigIntegerField()

    class Meta:
        ordering = ["-day"]
        verbose_name_plural = "shadow spend"
        constraints = [models.UniqueConstraint(fields=["tenant", "day"], name="shadow_spend_once_a_day")]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.day}: {self.spent_nanousd}"
