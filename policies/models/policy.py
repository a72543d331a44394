"""How is a routed request decided? Tables: policy, policy_draft, policy_version (immutable)."""

from __future__ import annotations

from django.db import models
from django.db.models import Q


class Policy(models.Model):
    """A named way to choose a deployment; clients ask for its public id as the model."""

    public_id = models.CharField(max_length=200, unique=True)
    description = models.TextField(blank=True, default="")
    is_enabled = models.BooleanField(default=True)
    live_version = models.ForeignKey(
        "policies.PolicyVersion", null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["public_id"]
        verbose_name_plural = "policies"

    def __str__(self) -> str:
        return self.public_id


class PolicyDraft(models.Model):
    """What is being edited. `revision` is the optimistic lock. The document's form: policies/README.md."""

    policy = models.OneToOneField(Policy, on_delete=models.CASCADE, related_name="draft")
    document = models.JSONField(default=dict)
    revision = models.PositiveIntegerField(default=1)
    edited_at = models.DateTimeField(auto_now=True)
    edited_by = models.CharField(max_length=150, blank=True, default="")

    def __str__(self) -> str:
        return f"{self.policy} draft r{self.revision}"


class PolicyVersion(models.Model):
    """What was published: append-only, a trigger says so too. Written by `policies.publishing` alone."""

    policy = models.ForeignKey(Policy, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    document = models.JSONField()
    note = models.TextField(blank=True, default="")
    published_at = models.DateTimeField(auto_now_add=True)
    published_by = models.CharField(max_length=150, blank=True, default="")

    class Meta:
        ordering = ["policy__public_id", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["policy", "number"], name="policy_version_number_unique"),
            models.CheckConstraint(condition=Q(number__gte=1), name="policy_version_number_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.policy} v{self.number}"
