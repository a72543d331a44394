"""Who is billed, and for which piece of work? Tables: tenant, project."""

from __future__ import annotations

from decimal import Decimal

from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Value

from policies.retention import RETENTION_LIMITS


class Tenant(models.Model):
    """Who is billed. Deleting one that has keys or history is refused (PROTECT)."""

    name = models.SlugField(max_length=100, unique=True)
    time_zone = models.CharField(
        max_length=64, default="UTC", help_text="IANA name, for example Europe/Berlin."
    )
    is_enabled = models.BooleanField(default=True)
    policies = models.ManyToManyField("policies.Policy", blank=True, related_name="tenants")
    allowed_regions = ArrayField(
        models.CharField(max_length=40), default=list, blank=True, help_text="Empty: any region."
    )
    retention_limit = models.CharField(
        max_length=10,
        blank=True,
        default="",
        db_default="",
        choices=list(RETENTION_LIMITS.items()),
        help_text="How long providers may keep this tenant's prompts and answers.",
    )
    # Shadow sampling, off unless both are above 0 (gateway/dataplane/shadowing.py).
    shadow_percent = models.FloatField(
        default=0.0,
        db_default=0.0,
        validators=[MinValueValidator(0), MaxValueValidator(100)],
        help_text="Share of the requests to automatic rules, 0 to 100.",
    )
    shadow_daily_budget_usd = models.DecimalField(
        max_digits=11,
        decimal_places=2,
        default=Decimal(0),
        db_default=Decimal(0),
        validators=[MinValueValidator(0)],
        help_text="What shadow requests may cost in one day (UTC).",
    )
    # What spend is summed by beside tenant, key, model and policy (billing/labelling.py).
    reported_tags = ArrayField(
        models.CharField(max_length=64),
        default=list,
        db_default=Value([], output_field=ArrayField(models.CharField(max_length=64))),
        blank=True,
        help_text="Tags that spend is summed by; empty: the first five that requests name.",
    )
    reports_end_users = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Keep what requests name as their end user, as they name it, and sum spend by it.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Project(models.Model):
    """A piece of a tenant's work that keys belong to."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="projects")
    name = models.SlugField(max_length=100)
    is_enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["tenant__name", "name"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], name="project_name_unique_in_tenant")
        ]

    def __str__(self) -> str:
        return f"{self.tenant.name}/{self.name}"
