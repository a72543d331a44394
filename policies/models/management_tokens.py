"""Which programs may change the configuration over HTTP, and how much of it? Table: management_token."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q


class ManagementToken(models.Model):
    """A secret for /api/v1. Only its HMAC is kept; `policies.management_tokens` is the only writer.

    A name is never given twice, also not after a revocation: `token:NAME` in the audit log is one token for ever.
    """

    name = models.SlugField(max_length=100, unique=True)
    scopes = ArrayField(models.CharField(max_length=20))
    secret_hash = models.BinaryField(max_length=32, unique=True, editable=False)
    secret_hint = models.CharField(max_length=24, editable=False, help_text="First and last characters.")
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=150, blank=True, default="")
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, help_text="To the hour.")

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(scopes__len__gte=1) & Q(scopes__len__lte=20), name="management_token_has_scopes"
            )
        ]

    def __str__(self) -> str:
        return self.name
