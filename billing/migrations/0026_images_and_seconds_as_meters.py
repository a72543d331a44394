"""Images, their tokens and seconds of audio are meters: terms of sale may name them. The table is small."""

from django.db import migrations, models

METERS = [
    "", "input", "cache_read", "cache_write", "cache_write_1h", "audio_input", "output", "reasoning", "audio_output",
    "request", "search", "image_input", "image_output", "image", "audio_second",
]


class Migration(migrations.Migration):

    dependencies = [
        ("billing", "0025_budgets_of_deployments"),
    ]

    operations = [
        migrations.RemoveConstraint(model_name="saleterm", name="sale_term_meter_is_known"),
        migrations.AddConstraint(
            model_name="saleterm",
            constraint=models.CheckConstraint(
                condition=models.Q(("meter__in", METERS)), name="sale_term_meter_is_known"
            ),
        ),
    ]
