"""What do all totals come from? Rollups, written with the records.

Tables: usage_by_day, usage_by_key_day, usage_by_hour, attempts_by_day; the form of those by label (`labels`).
"""

from __future__ import annotations

from django.db import models


class DaySums(models.Model):
    """What the rollups by day sum up."""

    request_count = models.BigIntegerField()
    error_count = models.BigIntegerField()
    unpriced_count = models.BigIntegerField()
    estimated_count = models.BigIntegerField()
    unknown_count = models.BigIntegerField()
    input_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    cache_read_tokens = models.BigIntegerField()
    cache_write_tokens = models.BigIntegerField()
    reasoning_tokens = models.BigIntegerField()
    cost_nanousd = models.BigIntegerField()
    charge_nanousd = models.BigIntegerField()

    class Meta:
        abstract = True


class UsageByDay(DaySums):
    """Sums by UTC day, tenant, project, key, deployment, price, policy. Null parts: refused, unpriced, unrouted."""

    day = models.DateField()
    tenant = models.ForeignKey("policies.Tenant", on_delete=models.PROTECT, related_name="+")
    project = models.ForeignKey("policies.Project", on_delete=models.PROTECT, related_name="+")
    api_key = models.ForeignKey("policies.ApiKey", on_delete=models.PROTECT, related_name="+")
    deployment = models.ForeignKey(
        "policies.Deployment", null=True, on_delete=models.PROTECT, related_name="+"
    )
    price = models.ForeignKey("billing.Price", null=True, on_delete=models.PROTECT, related_name="+")
    policy = models.ForeignKey("policies.Policy", null=True, on_delete=models.PROTECT, related_name="+")
    charge_nanousd = models.BigIntegerField(help_text="What the tenant is charged; the cost without terms.")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["day", "tenant", "project", "api_key", "deployment", "price", "policy"],
                nulls_distinct=False,
                name="usage_by_day_unique",
            )
        ]
        indexes = [
            models.Index(fields=["tenant", "day"], name="usage_by_day_tenant"),
            # Few rows have requests without a price; how many there are stands in the menu of every page.
            models.Index(fields=["day"], name="usage_by_day_unpriced", condition=~models.Q(unpriced_count=0)),
        ]

    def __str__(self) -> str:
        return f"{self.day} key {self.api_key_id}"


class UsageByKeyDay(DaySums):
    """The sums of `UsageByDay` by UTC day and key alone: reports over all keys read far fewer rows."""

    day = models.DateField()
    tenant = models.ForeignKey("policies.Tenant", on_delete=models.PROTECT, related_name="+")
    project = models.ForeignKey("policies.Project", on_delete=models.PROTECT, related_name="+")
    api_key = models.ForeignKey("policies.ApiKey", on_delete=models.PROTECT, related_name="+")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["day", "tenant", "project", "api_key"], name="usage_by_key_day_unique"
            )
        ]
        indexes = [models.Index(fields=["tenant", "day"], name="usage_by_key_day_tenant")]

    def __str__(self) -> str:
        return f"{self.day} key {self.api_key_id}"


class AttemptsByDay(models.Model):
    """Sums by UTC day of all attempts at a deployment, over all callers: what its budgets start from.

    The other sums count a request where it was answered; its attempts elsewhere may have cost something, too. Days are
    those of the requests, also of what came late, and what is priced afterwards counts on them.
    """

    day = models.DateField()
    deployment = models.ForeignKey("policies.Deployment", on_delete=models.PROTECT, related_name="+")
    attempt_count = models.BigIntegerField()
    cost_nanousd = models.BigIntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["deployment", "day"], name="attempts_by_day_unique")]

    def __str__(self) -> str:
        return f"{self.day} deployment {self.deployment_id}"


class UsageByHour(models.Model):
    """Sums by UTC hour, tenant, deployment, with what is needed for mean latency."""

    hour = models.DateTimeField()
    tenant = models.ForeignKey("policies.Tenant", on_delete=models.PROTECT, related_name="+")
    deployment = models.ForeignKey(
        "policies.Deployment", null=True, on_delete=models.PROTECT, related_name="+"
    )
    request_count = models.BigIntegerField()
    error_count = models.BigIntegerField()
    unpriced_count = models.BigIntegerField()
    estimated_count = models.BigIntegerField()
    unknown_count = models.BigIntegerField()
    input_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    cost_nanousd = models.BigIntegerField()
    duration_ms_sum = models.FloatField()
    first_token_ms_sum = models.FloatField()
    first_token_count = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["hour", "tenant", "deployment"], nulls_distinct=False, name="usage_by_hour_unique"
            )
        ]

    def __str__(self) -> str:
        return f"{self.hour} tenant {self.tenant_id}"
