"""Which secrets may call the endpoint, and for whom? Table: api_key."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q


class ApiKey(models.Model):
    """A secret a client presents. Only its HMAC is kept; `policies.issuing` is the only writer."""

    project = models.ForeignKey("policies.Project", on_delete=models.PROTECT, related_name="api_keys")
    name = models.CharField(max_length=100)
    owner = models.CharField(max_length=200, blank=True, default="", help_text="Person or team to ask.")
    secret_hash = models.BinaryField(max_length=32, unique=True, editable=False)
    secret_hint = models.CharField(max_length=24, editable=False, help_text="First and last characters.")
    is_pinned = models.BooleanField(
        default=False, help_text="Every request runs on exactly the deployment asked for: no fallback."
    )
    allowed_models = ArrayField(
        models.CharField(max_length=200),
        default=list,
        blank=True,
        help_text="Model names and policy ids; empty: all.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=150, blank=True, default="")
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    replaced_by = models.OneToOneField(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="replaces"
    )

    class Meta:
        ordering = ["project__tenant__name", "project__name", "name", "-id"]
        verbose_name = "API key"
        constraints = [
            models.UniqueConstraint(
                fields=["project", "name"],
                condition=Q(revoked_at__isnull=True, replaced_by__isnull=True),
                name="api_key_name_unique_while_current",
            )
        ]

    def __str__(self) -> str:
        return f"{self.project}/{self.name}"
