"""Sums by key and one label of the days that are over. New tables alone: a task fills them, from the sums that are there.

Until it has, pages read what they read before.
"""

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


class Migration(migrations.Migration):
    dependencies = [("billing", "0033_technical_lines_of_failed_jobs")]

    operations = [
        migrations.CreateModel(
            name="UsageByKeyLabelDay",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                *((name, models.BigIntegerField()) for name in SUMS),
                ("day", models.DateField()),
                ("label", counted_in_days("billing.label")),
                ("tenant", counted_in_days("policies.tenant")),
                ("project", counted_in_days("policies.project")),
                ("api_key", counted_in_days("policies.apikey")),
                ("deployment", counted_in_days("policies.deployment", null=True)),
                ("policy", counted_in_days("policies.policy", null=True)),
            ],
            options={"indexes": [models.Index(fields=["day", "label"], name="usage_by_key_label_day_label")]},
        ),
        migrations.CreateModel(
            name="LabelDay",
            fields=[
                ("day", models.DateField(primary_key=True, serialize=False)),
                (
                    "is_whole",
                    models.BooleanField(default=False, help_text="Its rows are there, and are the sums of the day."),
                ),
            ],
        ),
    ]
