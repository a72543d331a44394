"""How many units of which meter, at which rates, by day? Tables: meter_by_day, meter_day.

Derived from the records (`billing.summing_meters`), for statements and exports; never written while ingesting.
"""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models


class MeterByDay(models.Model):
    """Sums by posting day (UTC), tenant, project, key, record's deployment, attempt's price, meter, rates and tags.

    Rates are decimal texts in USD per million units (of those in `rating.PIECES`: a piece, an hour of audio). Where the
    sale cuts units otherwise than the cost, there is a row for each: without `sale_rate` its quantity is charged in
    another row, without `cost_rate` it is paid for in another one.
    """

    day = models.DateField(
        help_text="On which it is counted: its own, or the first open one after a closing."
    )
    tenant = models.ForeignKey("policies.Tenant", on_delete=models.PROTECT, related_name="+")
    project = models.ForeignKey("policies.Project", on_delete=models.PROTECT, related_name="+")
    api_key = models.ForeignKey("policies.ApiKey", on_delete=models.PROTECT, related_name="+")
    deployment = models.ForeignKey(
        "policies.Deployment", null=True, on_delete=models.PROTECT, related_name="+"
    )
    price = models.ForeignKey("billing.Price", on_delete=models.PROTECT, related_name="+")
    meter = models.CharField(max_length=40)
    service_tier = models.CharField(max_length=40, blank=True, default="")
    cost_rate = models.CharField(max_length=60, blank=True, default="")
    sale_rate = models.CharField(max_length=60, blank=True, default="")
    late_of = models.DateField(
        null=True, help_text="First day of the closed month of its usage; null: of this one."
    )
    is_correction = models.BooleanField(default=False, help_text="What re-rating changed in a closed month.")
    # By what the tenant was charged where that is not the cost; null too in sums that were made before it was kept.
    # Neither is ever deleted, so no index is needed to look for rows that name it.
    sale_term = models.ForeignKey(
        "billing.SaleTerm", null=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    sale_price = models.ForeignKey(
        "billing.Price", null=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    tag_label_ids = ArrayField(
        models.BigIntegerField(),
        default=list,
        help_text="Labels of the tags that the tenant reports, in order; empty: none, or beyond what is held apart.",
    )
    quantity = models.BigIntegerField()
    cost_nanousd = models.BigIntegerField()
    charge_nanousd = models.BigIntegerField()

    class Meta:
        indexes = [
            models.Index(fields=["day", "tenant"], name="meter_by_day_day_tenant"),
            models.Index(fields=["tenant", "day"], name="meter_by_day_tenant_day"),
        ]

    def __str__(self) -> str:
        return f"{self.day} key {self.api_key_id} {self.meter}"


class MeterDay(models.Model):
    """Of which sums of usage_by_day a tenant's meters of a day were made, and whether they came out as those."""

    day = models.DateField()
    tenant = models.ForeignKey("policies.Tenant", on_delete=models.PROTECT, related_name="+")
    request_count = models.BigIntegerField()
    unpriced_count = models.BigIntegerField()
    cost_nanousd = models.BigIntegerField()
    charge_nanousd = models.BigIntegerField()
    matches = models.BooleanField(
        help_text="By key and deployment, cost and charge are those of usage_by_day."
    )
    summed_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["day", "tenant"], name="meter_day_once")]

    def __str__(self) -> str:
        return f"{self.day} tenant {self.tenant_id}"
