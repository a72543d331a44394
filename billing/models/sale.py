"""What do we charge tenants, where that is not what it cost? Table: sale_term (immutable, effective-dated)."""

from __future__ import annotations

from django.db import models

from billing.rating import METERS

MAX_FACTOR = 100


class SaleTerm(models.Model):
    """A markup or discount of one scope, from `effective_from` until the next term of that scope.

    The scope is tenant, model or deployment, and meter; each of them null or empty means all. `factor` multiplies the
    cost: 1.2 is a markup of 20 %, 0.9 a discount of 10 %. Without a factor the scope's term ends, and the next less
    specific one holds. Own prices are `Price` rows of the book `sale`. `billing.sale_book` says which one wins.
    """

    tenant = models.ForeignKey(
        "policies.Tenant", null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    model = models.ForeignKey(
        "policies.Model", null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    deployment = models.ForeignKey(
        "policies.Deployment", null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    meter = models.CharField(max_length=20, blank=True, default="")
    factor = models.DecimalField(max_digits=9, decimal_places=6, null=True, help_text="Null: the term ends.")
    effective_from = models.DateTimeField()
    note = models.CharField(max_length=200, blank=True, default="")
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=150)

    class Meta:
        ordering = ["-effective_from", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "model", "deployment", "meter", "effective_from"],
                nulls_distinct=False,
                name="sale_term_unique_at_a_time",
            ),
            # NaN is greater than every number to PostgreSQL, so it is refused here too.
            models.CheckConstraint(
                condition=models.Q(factor__isnull=True) | models.Q(factor__gte=0, factor__lte=MAX_FACTOR),
                name="sale_term_factor_in_range",
            ),
            models.CheckConstraint(
                condition=models.Q(model__isnull=True) | models.Q(deployment__isnull=True),
                name="sale_term_model_or_deployment",
            ),
            models.CheckConstraint(
                condition=models.Q(meter__in=["", *METERS]), name="sale_term_meter_is_known"
            ),
            models.CheckConstraint(
                condition=models.Q(effective_from__gte=models.F("created_at")),
                name="sale_term_never_backwards",
            ),
        ]

    def __str__(self) -> str:
        return f"term {self.pk} from {self.effective_from:%Y-%m-%d}"
