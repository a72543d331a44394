"""By which labels of its callers is spend summed?

Tables: label, label_name, label_use, usage_by_label_day, usage_by_label_set_day, usage_by_key_label_set_day,
usage_by_key_label_day, usage_by_key_set_day, label_set, label_day.

A label is a rule, an app, an end user or the value of a tag. `billing.labelling` says which requests have which.
"""

from __future__ import annotations

from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import BrinIndex, GinIndex
from django.db import models

from billing.models.usage import DaySums


class LabelKind(models.TextChoices):
    RULE = "rule", "rule"
    TAG = "tag", "tag"
    APP = "app", "app"
    USER = "user", "end user"


class Label(models.Model):
    """One value, whoever uses it. The empty value stands for all that found no room (`is_other`)."""

    kind = models.CharField(max_length=4, choices=LabelKind.choices)
    name = models.CharField(max_length=64, blank=True, help_text="Of a tag; of other kinds empty.")
    value = models.CharField(max_length=200, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["kind", "name", "value"], name="label_unique")]

    def __str__(self) -> str:
        return self.value or "all others"

    @property
    def is_other(self) -> bool:
        """Whether it stands for the values beyond what a tenant's reports hold apart."""
        return not self.value


class LabelName(models.Model):
    """How many values of one kind (of tags: of one name) a tenant's reports hold apart."""

    tenant = models.ForeignKey("policies.Tenant", on_delete=models.CASCADE, related_name="+")
    kind = models.CharField(max_length=4, choices=LabelKind.choices)
    name = models.CharField(max_length=64, blank=True)
    value_count = models.IntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "kind", "name"], name="label_name_unique_in_tenant")
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".strip()


class LabelUse(models.Model):
    """A tenant's reports hold this label apart, for good."""

    tenant = models.ForeignKey("policies.Tenant", on_delete=models.CASCADE, related_name="+")
    label = models.ForeignKey(Label, on_delete=models.CASCADE, related_name="+")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "label"], name="label_use_unique")]

    def __str__(self) -> str:
        return f"tenant {self.tenant_id} label {self.label_id}"


class UsageByLabelDay(DaySums):
    """Sums by UTC day, tenant and label. A request with three labels stands in three rows, one without in none."""

    day = models.DateField()
    tenant = models.ForeignKey("policies.Tenant", on_delete=models.PROTECT, related_name="+")
    label = models.ForeignKey(Label, on_delete=models.PROTECT, related_name="+")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["day", "tenant", "label"], name="usage_by_label_day_unique")
        ]
        indexes = [
            models.Index(fields=["tenant", "day"], name="usage_by_label_day_tenant"),
            models.Index(fields=["label", "day"], name="usage_by_label_day_label"),
        ]

    def __str__(self) -> str:
        return f"{self.day} label {self.label_id}"


def _counted_in_days(to: str, *, null: bool = False) -> models.ForeignKey[Any, Any]:
    """A column of sums whose rows usage_by_day counts too: its keys check and protect them, so no index looks here."""
    return models.ForeignKey(
        to, null=null, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )


class UsageByLabelSetDay(DaySums):
    """Sums by UTC day, tenant, project, deployment, policy and all labels of the request: each request in one row.

    Requests without a label are in none. `label_ids` are in order, as in the record.
    """

    day = models.DateField()
    tenant = _counted_in_days("policies.Tenant")
    project = _counted_in_days("policies.Project")
    deployment = _counted_in_days("policies.Deployment", null=True)
    policy = _counted_in_days("policies.Policy", null=True)
    label_ids = ArrayField(models.IntegerField())

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["day", "tenant", "project", "deployment", "policy", "label_ids"],
                nulls_distinct=False,
                name="usage_by_label_set_day_unique",
            )
        ]
        indexes = [models.Index(fields=["tenant", "day"], name="usage_by_label_set_day_tenant")]

    def __str__(self) -> str:
        return f"{self.day} labels {self.label_ids}"


class UsageByKeyLabelSetDay(DaySums):
    """The sums of `UsageByDay` by all labels of the request too: many rows, read where a key is asked for."""

    day = models.DateField()
    tenant = _counted_in_days("policies.Tenant")
    project = _counted_in_days("policies.Project")
    api_key = _counted_in_days("policies.ApiKey")
    deployment = _counted_in_days("policies.Deployment", null=True)
    price = _counted_in_days("billing.Price", null=True)
    policy = _counted_in_days("policies.Policy", null=True)
    label_ids = ArrayField(models.IntegerField())

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["day", "tenant", "project", "api_key", "deployment", "price", "policy", "label_ids"],
                nulls_distinct=False,
                name="usage_by_key_label_set_unique",
            )
        ]
        indexes = [
            models.Index(fields=["api_key", "day"], name="usage_by_key_label_set_key"),
            models.Index(fields=["project", "day"], name="usage_by_key_label_set_project"),
            # Rows come day by day: questions about all keys read the pages of their days, however long the history is.
            BrinIndex(
                fields=["day"], pages_per_range=32, autosummarize=True, name="usage_by_key_label_set_days"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.day} key {self.api_key_id} labels {self.label_ids}"


class UsageByKeyLabelDay(DaySums):
    """The sums of `UsageByKeyLabelSetDay` by one label each, without prices: few rows where a label is asked for.

    Made of those when a day is over (`billing.label_days`), never while ingesting. Only days that `LabelDay`
    calls whole may be read. A request with three labels stands in three rows.
    """

    day = models.DateField()
    label = models.ForeignKey(
        Label, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    tenant = _counted_in_days("policies.Tenant")
    project = _counted_in_days("policies.Project")
    api_key = _counted_in_days("policies.ApiKey")
    deployment = _counted_in_days("policies.Deployment", null=True)
    policy = _counted_in_days("policies.Policy", null=True)

    class Meta:
        indexes = [models.Index(fields=["day", "label"], name="usage_by_key_label_day_label")]

    def __str__(self) -> str:
        return f"{self.day} key {self.api_key_id} label {self.label_id}"


class LabelSet(models.Model):
    """All labels of a request, in order, where there are two or more."""

    label_ids = ArrayField(models.IntegerField(), unique=True)

    class Meta:
        indexes = [GinIndex(fields=["label_ids"], name="label_set_label")]

    def __str__(self) -> str:
        return f"labels {self.label_ids}"


class UsageByKeySetDay(DaySums):
    """The sums of `UsageByKeyLabelSetDay` by key and label set alone: few rows where two labels are asked for.

    Made and read as `UsageByKeyLabelDay` is.
    """

    day = models.DateField()
    label_set = models.ForeignKey(
        LabelSet, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    tenant = _counted_in_days("policies.Tenant")
    project = _counted_in_days("policies.Project")
    api_key = _counted_in_days("policies.ApiKey")

    class Meta:
        indexes = [models.Index(fields=["day", "label_set"], name="usage_by_key_set_day_set")]

    def __str__(self) -> str:
        return f"{self.day} key {self.api_key_id} set {self.label_set_id}"


class LabelDay(models.Model):
    """A day whose sums by label are made, or being made. Whoever counts anything more on it deletes this row."""

    day = models.DateField(primary_key=True)
    is_whole = models.BooleanField(
        default=False, help_text="Its rows are there, and are the sums of the day."
    )

    def __str__(self) -> str:
        return f"{self.day}"
