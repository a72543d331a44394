"""How much may be spent, by whom or where, since when, and who holds what of it? Tables: budget, windows, leases."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q


class Budget(models.Model):
    """A limit by day, week, month or in total.

    Whose: a tenant's, a project's of it or a key's of that, for one model or all; or a deployment's, of what we pay for
    all that is asked of it, whoever asks.
    `counted_from` is the start of the first window; `time_zone` is the tenant's when the budget was made, so that
    windows never overlap; a deployment's is UTC. Written by `billing.budgets` alone.
    """

    class Window(models.TextChoices):
        DAY = "day", "each day"
        WEEK = "week", "each week"
        MONTH = "month", "each month"
        TOTAL = "total", "in total"

    # Null: a deployment's.
    tenant = models.ForeignKey(
        "policies.Tenant", null=True, blank=True, on_delete=models.CASCADE, related_name="budgets"
    )
    deployment = models.ForeignKey(
        "policies.Deployment", null=True, blank=True, on_delete=models.CASCADE, related_name="budgets"
    )
    project = models.ForeignKey(
        "policies.Project", null=True, blank=True, on_delete=models.CASCADE, related_name="budgets"
    )
    api_key = models.ForeignKey(
        "policies.ApiKey", null=True, blank=True, on_delete=models.CASCADE, related_name="budgets"
    )
    # Null: all models.
    model = models.ForeignKey(
        "policies.Model", null=True, blank=True, on_delete=models.CASCADE, related_name="budgets"
    )
    window = models.CharField(max_length=5, choices=Window.choices)
    limit_nanousd = models.BigIntegerField()
    is_hard = models.BooleanField(default=True)
    may_lower_limit = models.BooleanField(default=True)
    is_enabled = models.BooleanField(default=True)
    time_zone = models.CharField(max_length=64)
    counted_from = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=150, blank=True, default="")

    class Meta:
        ordering = [
            "tenant__name",
            "project__name",
            "api_key__name",
            "model__name",
            "deployment__name",
            "window",
            "-is_hard",
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "project", "api_key", "model", "deployment", "window", "is_hard"],
                nulls_distinct=False,
                name="budget_unique",
            ),
            models.CheckConstraint(
                condition=Q(tenant__isnull=False, deployment=None)
                | Q(tenant=None, project=None, api_key=None, model=None, deployment__isnull=False),
                name="budget_one_owner",
            ),
            models.CheckConstraint(condition=Q(limit_nanousd__gt=0), name="budget_limit_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.scope()} {self.get_window_display()}"

    def scope(self) -> str:
        """Whose budget it is, and for what: acme, acme/web, acme/web/dev, acme (gpt-5) or deployment gpt-5."""
        if self.deployment is not None:
            return f"deployment {self.deployment}"
        owner = str(self.api_key or self.project or self.tenant)
        return owner if self.model is None else f"{owner} ({self.model})"


class BudgetWindow(models.Model):
    """One window of a budget. spent + uncertain + leased <= limit, kept by conditional updates (`billing.leasing`).

    `spent_nanousd` is what the records of the window cost; `uncertain_nanousd` the most that requests without known
    usage can have cost; `leased_nanousd` what leases may still spend. `wanted_at`: a worker found too little.
    """

    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="windows")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(null=True)
    limit_nanousd = models.BigIntegerField()
    spent_nanousd = models.BigIntegerField(default=0)
    uncertain_nanousd = models.BigIntegerField(default=0)
    leased_nanousd = models.BigIntegerField(default=0)
    wanted_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["budget", "starts_at"], name="budget_window_unique"),
            models.CheckConstraint(
                condition=Q(leased_nanousd__gte=0, spent_nanousd__gte=0, uncertain_nanousd__gte=0),
                name="budget_window_amounts",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.budget} from {self.starts_at:%Y-%m-%d}"


class BudgetLease(models.Model):
    """A part of a window that one worker may spend. Deleted when all of it is settled or given back.

    What it may still spend is `amount` - `settled`, at least 0. `home` is the data directory whose ingester settles it.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    window = models.ForeignKey(BudgetWindow, on_delete=models.CASCADE, related_name="leases")
    home = models.CharField(max_length=40)
    worker = models.CharField(max_length=80, db_index=True)
    amount_nanousd = models.BigIntegerField()
    settled_nanousd = models.BigIntegerField(default=0)
    expires_at = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.worker} of {self.window}"
