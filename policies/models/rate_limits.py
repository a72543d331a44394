"""How much may a tenant, project, key or deployment take in a minute, and who holds what of it?

Tables: rate_limit, rate_window.
"""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from policies.models.access import ApiKey
from policies.models.catalog import Deployment
from policies.models.tenancy import Project, Tenant


class RateLimit(models.Model):
    """What one owner may take: requests and tokens in any 60 seconds, requests at once. Null: not limited.

    Exactly one owner. Written by `policies.rate_limits` alone.
    """

    tenant = models.OneToOneField(Tenant, null=True, on_delete=models.CASCADE, related_name="rate_limit")
    project = models.OneToOneField(Project, null=True, on_delete=models.CASCADE, related_name="rate_limit")
    api_key = models.OneToOneField(ApiKey, null=True, on_delete=models.CASCADE, related_name="rate_limit")
    deployment = models.OneToOneField(
        Deployment, null=True, on_delete=models.CASCADE, related_name="rate_limit"
    )
    requests_per_minute = models.PositiveBigIntegerField(null=True)
    tokens_per_minute = models.PositiveBigIntegerField(null=True)
    concurrent = models.PositiveBigIntegerField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=150, blank=True, default="")

    class Meta:
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(tenant__isnull=False, project=None, api_key=None, deployment=None)
                | Q(tenant=None, project__isnull=False, api_key=None, deployment=None)
                | Q(tenant=None, project=None, api_key__isnull=False, deployment=None)
                | Q(tenant=None, project=None, api_key=None, deployment__isnull=False),
                name="rate_limit_one_owner",
            ),
            models.CheckConstraint(
                condition=Q(requests_per_minute__isnull=False)
                | Q(tokens_per_minute__isnull=False)
                | Q(concurrent__isnull=False),
                name="rate_limit_limits_something",
            ),
            models.CheckConstraint(
                condition=~Q(requests_per_minute=0) & ~Q(tokens_per_minute=0) & ~Q(concurrent=0),
                name="rate_limit_positive",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind()} {self.owner()}"

    def kind(self) -> str:
        """What kind of owner it has."""
        if self.deployment_id is not None:
            return "deployment"
        if self.api_key_id is not None:
            return "key"
        return "project" if self.project_id is not None else "tenant"

    def owner(self) -> Tenant | Project | ApiKey | Deployment:
        """Whose limit it is."""
        found = self.deployment or self.api_key or self.project or self.tenant
        assert found is not None  # the constraint says so
        return found


class RateWindow(models.Model):
    """What of a limit was taken in the last minute and what workers hold of it, as `gateway.dataplane.rate_windows`.

    One row per limit from its beginning, rewritten by `gateway.rate_limit_shares` under its lock. No history.
    """

    rate_limit = models.OneToOneField(
        RateLimit, primary_key=True, on_delete=models.CASCADE, related_name="window"
    )
    state = models.JSONField(default=dict)

    def __str__(self) -> str:
        return f"window of {self.rate_limit_id}"
