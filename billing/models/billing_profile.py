"""Whose name, address and tax stand on a statement, in which currency? Table: billing_profile."""

from __future__ import annotations

from decimal import Decimal

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models


class BillingProfile(models.Model):
    """What statements to a tenant say of it. The one without a tenant is of who issues them.

    Issued statements keep what it was then. Written by `billing.billing_profiles` alone.
    """

    tenant = models.ForeignKey(
        "policies.Tenant", null=True, blank=True, on_delete=models.CASCADE, related_name="billing_profiles"
    )
    legal_name = models.CharField(
        max_length=200, blank=True, default="", help_text="Empty: the tenant's name."
    )
    address = models.TextField(max_length=500, blank=True, default="", help_text="As it is printed.")
    email = models.EmailField(max_length=254, blank=True, default="")
    tax_id = models.CharField(max_length=50, blank=True, default="")
    tax_name = models.CharField(max_length=30, blank=True, default="VAT")
    tax_ratio = models.DecimalField(
        max_digits=7,
        decimal_places=6,
        default=Decimal(0),
        validators=[MinValueValidator(0), MaxValueValidator(1)],
        help_text="0.19 is 19 %.",
    )
    currency = models.CharField(max_length=3, default="USD")
    payment_days = models.PositiveSmallIntegerField(default=30, validators=[MaxValueValidator(365)])

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant"], nulls_distinct=False, name="billing_profile_of_tenant")
        ]

    def __str__(self) -> str:
        return f"billing profile of {self.tenant or 'the issuer'}"
