"""What can be called, where, and what can it do? Tables: provider, model, deployment."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from policies.retention import RETENTION_CLASSES


class Provider(models.Model):
    """An upstream account with a base URL and a wire format. The credential is encrypted or a reference."""

    class Addressing(models.TextChoices):
        OPENAI = "openai", "OpenAI (/chat/completions under the base URL)"
        AZURE = "azure", "Azure OpenAI (/openai/deployments/NAME/… with api-version)"

    class AuthStyle(models.TextChoices):
        BEARER = "bearer", "Authorization: Bearer"
        API_KEY = "api-key", "api-key header (Azure)"
        X_API_KEY = "x-api-key", "x-api-key header"
        NONE = "none", "no credential"

    name = models.SlugField(max_length=100, unique=True)
    wire_format = models.CharField(max_length=40, default="openai_chat")
    base_url = models.CharField(max_length=500)
    addressing = models.CharField(max_length=20, choices=Addressing.choices, default=Addressing.OPENAI)
    auth_style = models.CharField(max_length=20, choices=AuthStyle.choices, default=AuthStyle.BEARER)
    api_version = models.CharField(max_length=40, blank=True, default="", help_text="Azure only.")
    extra_headers = models.JSONField(default=dict, blank=True)
    credential_reference = models.CharField(
        max_length=500, blank=True, default="", help_text="env:NAME or file:PATH, read when a worker starts."
    )
    credential_ciphertext = models.TextField(blank=True, default="", editable=False)
    credential_revision = models.PositiveIntegerField(default=0, editable=False)
    allow_private_network = models.BooleanField(
        default=False, help_text="Allow loopback and private addresses (a server of your own)."
    )
    takes_stream_options = models.BooleanField(
        default=True,
        help_text="Off for servers that refuse stream_options. Usage of their streams is then estimated.",
    )
    is_enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Model(models.Model):
    """The name a client asks for."""

    class OutputLimitParameter(models.TextChoices):
        AS_SENT = "", "as the client sent it"
        MAX_TOKENS = "max_tokens", "max_tokens"
        MAX_COMPLETION_TOKENS = "max_completion_tokens", "max_completion_tokens"

    name = models.CharField(max_length=200, unique=True)
    description = models.TextField(blank=True, default="")
    context_tokens = models.PositiveIntegerField(null=True, blank=True)
    max_output_tokens = models.PositiveIntegerField(null=True, blank=True)
    capabilities = ArrayField(
        models.CharField(max_length=40),
        default=list,
        blank=True,
        help_text="tools, json_schema, vision, audio, files, logprobs. What is not listed is not offered.",
    )
    endpoints = ArrayField(
        models.CharField(max_length=40),
        default=list,
        blank=True,
        help_text="chat, completions, embeddings. Empty: chat and completions.",
    )
    output_limit_parameter = models.CharField(
        max_length=40, blank=True, choices=OutputLimitParameter.choices, default=OutputLimitParameter.AS_SENT
    )
    rating = models.FloatField(
        null=True,
        blank=True,
        help_text="How good its answers are, 0 to 1. Empty: a public rating, or a guess.",
    )
    rating_source = models.CharField(max_length=200, blank=True, default="", help_text="Where it comes from.")
    rating_date = models.DateField(null=True, blank=True)
    is_enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(context_tokens__isnull=True) | Q(context_tokens__gt=0),
                name="model_context_positive",
            ),
            models.CheckConstraint(
                condition=Q(rating__isnull=True) | (Q(rating__gte=0) & Q(rating__lte=1)),
                name="model_rating_0_to_1",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Deployment(models.Model):
    """One upstream model at one provider that can be called. Its prices are in billing."""

    name = models.CharField(max_length=200, unique=True)
    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="deployments")
    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="deployments")
    upstream_model = models.CharField(max_length=300)
    region = models.CharField(max_length=40, blank=True, default="")
    retention = models.CharField(
        max_length=10,
        blank=True,
        default="",
        db_default="",
        choices=list(RETENTION_CLASSES.items()),
        help_text="How long what it is sent is kept there.",
    )
    is_enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name
