"""Sums by key and label set of the days that are over. New tables alone: a task fills them, as those of 0034.

Days that it summed before this are summed again, with these.
"""

import django.contrib.postgres.fields
import django.contrib.postgres.indexes
import django.db.models.deletion
from django.db import migrations, models

SUMS = (
    "request_count", "error_count", "unpriced_count", "estimated_count", "unknown_count", "input_tokens",
    "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "cost_nanousd", "charge_nanousd",
)


def counted_in_days(to):
    return models.ForeignKey(
        db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name="+", to=to
    )


class Migration(migrations.Migration):
    dependencies = [("billing", "0034_sums_by_key_and_label")]

    operations = [
        migrations.CreateModel(
            name="LabelSet",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "label_ids",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.IntegerField(), size=None, unique=True
                    ),
                ),
            ],
            options={
                "indexes": [
                    django.contrib.postgres.indexes.GinIndex(fields=["label_ids"], name="label_set_label")
                ]
            },
        ),
        migrations.CreateModel(
            name="UsageByKeySetDay",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                *((name, models.BigIntegerField()) for name in SUMS),
                ("day", models.DateField()),
                ("label_set", counted_in_days("billing.labelset")),
                ("tenant", counted_in_days("policies.tenant")),
                ("project", counted_in_days("policies.project")),
                ("api_key", counted_in_days("policies.apikey")),
            ],
            options={"indexes": [models.Index(fields=["day", "label_set"], name="usage_by_key_set_day_set")]},
        ),
        migrations.RunSQL("DELETE FROM billing_labelday", migrations.RunSQL.noop),
    ]
