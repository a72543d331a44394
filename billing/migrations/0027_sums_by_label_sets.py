"""Sums by all labels of a request together, with project, key, deployment and policy. New tables alone, still empty."""

import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models

SUMS = (
    "request_count", "error_count", "unpriced_count", "estimated_count", "unknown_count", "input_tokens",
    "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "cost_nanousd", "charge_nanousd",
)


def counted_in_days(to, *, null=False):
    return models.ForeignKey(
        db_constraint=False, db_index=False, null=null, on_delete=django.db.models.deletion.DO_NOTHING,
        related_name="+", to=to,
    )


def columns(*, has_key):
    return [
        ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
        *((name, models.BigIntegerField()) for name in SUMS),
        ("day", models.DateField()),
        ("tenant", counted_in_days("policies.tenant")),
        ("project", counted_in_days("policies.project")),
        *([("api_key", counted_in_days("policies.apikey"))] if has_key else []),
        ("deployment", counted_in_days("policies.deployment", null=True)),
        *([("price", counted_in_days("billing.price", null=True))] if has_key else []),
        ("policy", counted_in_days("policies.policy", null=True)),
        ("label_ids", django.contrib.postgres.fields.ArrayField(base_field=models.IntegerField(), size=None)),
    ]


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0026_images_and_seconds_as_meters"),
        ("policies", "0011_tenants_reported_labels"),
    ]

    operations = [
        migrations.CreateModel(
            name="UsageByLabelSetDay",
            fields=columns(has_key=False),
            options={
                "indexes": [models.Index(fields=["tenant", "day"], name="usage_by_label_set_day_tenant")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("day", "tenant", "project", "deployment", "policy", "label_ids"),
                        nulls_distinct=False,
                        name="usage_by_label_set_day_unique",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="UsageByKeyLabelSetDay",
            fields=columns(has_key=True),
            options={
                "indexes": [
                    models.Index(fields=["api_key", "day"], name="usage_by_key_label_set_key"),
                    models.Index(fields=["project", "day"], name="usage_by_key_label_set_project"),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("day", "tenant", "project", "api_key", "deployment", "price", "policy", "label_ids"),
                        nulls_distinct=False,
                        name="usage_by_key_label_set_unique",
                    )
                ],
            },
        ),
        # Room on each page for the next state of its rows: of thin traffic every batch adds to other ones, and a row
        # that moves to another page has to be put into all indexes again.
        migrations.RunSQL(
            "ALTER TABLE billing_usagebylabelsetday SET (fillfactor = 70);"
            "ALTER TABLE billing_usagebykeylabelsetday SET (fillfactor = 70);",
            migrations.RunSQL.noop,
        ),
    ]
