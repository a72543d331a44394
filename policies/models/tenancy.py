"""Who is billed, and for which piece of work? Tables: tenant, project."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models


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
