"""What tenants are charged: terms, a charge beside each cost, and sums by day and key alone.

Records keep an empty charge, which means the same as the cost: no row of theirs is written. The rollups and adjustments
are small; theirs is filled in.
"""

import django.db.models.deletion
from django.db import migrations, models

METERS = [
    "", "input", "cache_read", "cache_write", "cache_write_1h", "audio_input", "output", "reasoning", "audio_output",
    "request",
]
FILL_CHARGES = """
UPDATE billing_usagebyday SET charge_nanousd = cost_nanousd;
ALTER TABLE billing_adjustment DISABLE TRIGGER append_only;
UPDATE billing_adjustment SET charge_nanousd = cost_nanousd;
ALTER TABLE billing_adjustment ENABLE TRIGGER append_only;
"""
SUMS = (
    "request_count", "error_count", "unpriced_count", "estimated_count", "unknown_count", "input_tokens",
    "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "cost_nanousd", "charge_nanousd",
)
FILL_KEY_DAYS = f"""
INSERT INTO billing_usagebykeyday (day, tenant_id, project_id, api_key_id, {", ".join(SUMS)})
SELECT day, tenant_id, project_id, api_key_id, {", ".join(f"sum({name})" for name in SUMS)}
FROM billing_usagebyday GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4;
"""
APPEND_ONLY = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON billing_saleterm
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
"""


def a_row(to):
    return models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="+", to=to)


def maybe_a_row(to):
    return models.ForeignKey(
        blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to=to
    )


class Migration(migrations.Migration):

    dependencies = [
        ("billing", "0012_alerts_and_budgets_of_models"),
        ("policies", "0008_sign_in_tries"),
    ]

    operations = [
        migrations.AddField(
            "requestrecord",
            "charge_nanousd",
            models.BigIntegerField(help_text="Null: the same as the cost.", null=True),
        ),
        migrations.AddField(
            "usagebyday",
            "charge_nanousd",
            models.BigIntegerField(help_text="What the tenant is charged; the cost without terms.", default=0),
            preserve_default=False,
        ),
        migrations.AddField(
            "adjustment", "charge_nanousd", models.BigIntegerField(default=0), preserve_default=False
        ),
        migrations.RunSQL(FILL_CHARGES, migrations.RunSQL.noop),
        migrations.CreateModel(
            name="UsageByKeyDay",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("day", models.DateField()),
                *((name, models.BigIntegerField()) for name in SUMS),
                ("api_key", a_row("policies.apikey")),
                ("project", a_row("policies.project")),
                ("tenant", a_row("policies.tenant")),
            ],
            options={
                "indexes": [models.Index(fields=["tenant", "day"], name="usage_by_key_day_tenant")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("day", "tenant", "project", "api_key"), name="usage_by_key_day_unique"
                    )
                ],
            },
        ),
        migrations.RunSQL(FILL_KEY_DAYS, migrations.RunSQL.noop),
        migrations.CreateModel(
            name="SaleTerm",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("meter", models.CharField(blank=True, default="", max_length=20)),
                (
                    "factor",
                    models.DecimalField(
                        decimal_places=6, help_text="Null: the term ends.", max_digits=9, null=True
                    ),
                ),
                ("effective_from", models.DateTimeField()),
                ("note", models.CharField(blank=True, default="", max_length=200)),
                ("created_at", models.DateTimeField()),
                ("created_by", models.CharField(max_length=150)),
                ("deployment", maybe_a_row("policies.deployment")),
                ("model", maybe_a_row("policies.model")),
                ("tenant", maybe_a_row("policies.tenant")),
            ],
            options={
                "ordering": ["-effective_from", "-id"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("tenant", "model", "deployment", "meter", "effective_from"),
                        name="sale_term_unique_at_a_time",
                        nulls_distinct=False,
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("factor__isnull", True))
                        | models.Q(("factor__gte", 0), ("factor__lte", 100)),
                        name="sale_term_factor_in_range",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("model__isnull", True)) | models.Q(("deployment__isnull", True)),
                        name="sale_term_model_or_deployment",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("meter__in", METERS)),
                        name="sale_term_meter_is_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("effective_from__gte", models.F("created_at"))),
                        name="sale_term_never_backwards",
                    ),
                ],
            },
        ),
        migrations.RunSQL(APPEND_ONLY, migrations.RunSQL.noop),
    ]
