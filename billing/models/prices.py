"""What does a unit cost, since when? Table: price (immutable, effective-dated)."""

from __future__ import annotations

from django.db import models


class Price(models.Model):
    """Rates of one deployment in one book from `effective_from` until the next price of that book.

    `rates` maps a rate name to a decimal string in USD, for example
    {"input_usd_per_mtok": "0.05"}; `billing.pricebook` names the rates and reads them.
    """

    class Book(models.TextChoices):
        COST = "cost", "cost (providers charge us)"
        SALE = "sale", "sale (we charge)"

    deployment = models.ForeignKey("policies.Deployment", on_delete=models.PROTECT, related_name="prices")
    book = models.CharField(max_length=10, choices=Book.choices, default=Book.COST)
    tenant = models.ForeignKey(
        "policies.Tenant", null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    rates = models.JSONField()
    effective_from = models.DateTimeField()
    source = models.CharField(max_length=200, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=150, blank=True, default="")

    class Meta:
        ordering = ["deployment__name", "book", "-effective_from"]
        constraints = [
            models.UniqueConstraint(
                fields=["deployment", "book", "tenant", "effective_from"],
                nulls_distinct=False,
                name="price_unique_at_a_time",
            )
        ]

    def __str__(self) -> str:
        return f"{self.deployment} {self.book} from {self.effective_from:%Y-%m-%d}"
