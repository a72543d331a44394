"""How is a routed request decided? Tables: policy, policy_draft, policy_version (immutable), publication_request."""

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
    requires_approval = models.BooleanField(
        default=False, help_text="Another operator approves what one wants to publish."
    )
    canary_version = models.ForeignKey(
        "policies.PolicyVersion", null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    canary_percent = models.FloatField(default=0, help_text="Share of conversations, 0 to 100.")
    canary_started_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["public_id"]
        verbose_name_plural = "policies"
        constraints = [
            models.CheckConstraint(
                condition=Q(canary_percent__gte=0) & Q(canary_percent__lte=100),
                name="policy_canary_percent_is_a_share",
            ),
            models.CheckConstraint(
                condition=Q(canary_version__isnull=True, canary_started_at__isnull=True, canary_percent=0)
                | Q(canary_version__isnull=False, canary_started_at__isnull=False),
                name="policy_canary_is_whole",
            ),
        ]

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
    approved_by = models.CharField(max_length=150, blank=True, default="")

    class Meta:
        ordering = ["policy__public_id", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["policy", "number"], name="policy_version_number_unique"),
            models.CheckConstraint(condition=Q(number__gte=1), name="policy_version_number_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.policy} v{self.number}"


class PublicationRequest(models.Model):
    """A draft that one operator wants to publish and another decides on. Written by `policies.approvals` alone.

    `document` is what was asked for; `canary_percent` None: for all traffic. A draft that changes makes it stale.
    """

    class Status(models.TextChoices):
        """What became of it."""

        PENDING = "pending"
        APPROVED = "approved"
        REJECTED = "rejected"
        STALE = "stale"

    policy = models.ForeignKey(Policy, on_delete=models.CASCADE, related_name="publication_requests")
    document = models.JSONField()
    canary_percent = models.FloatField(null=True, blank=True)
    note = models.TextField(blank=True, default="")
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.PENDING)
    requested_at = models.DateTimeField(auto_now_add=True)
    requested_by = models.CharField(max_length=150)
    decided_at = models.DateTimeField(null=True, blank=True)
    decided_by = models.CharField(max_length=150, blank=True, default="")
    decision_note = models.TextField(blank=True, default="")
    version = models.ForeignKey(
        PolicyVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["policy"], condition=Q(status="pending"), name="publication_request_one_pending"
            ),
            models.CheckConstraint(
                condition=Q(canary_percent__isnull=True)
                | (Q(canary_percent__gt=0) & Q(canary_percent__lte=100)),
                name="publication_request_percent_is_a_share",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.policy} by {self.requested_by}"
