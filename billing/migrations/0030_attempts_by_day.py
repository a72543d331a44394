"""What attempts at a deployment cost by day: a budget of one starts from it, and not from all attempts."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("billing", "0029_what_answers_call_themselves"),
        ("policies", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="AttemptsByDay",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("day", models.DateField()),
                ("attempt_count", models.BigIntegerField()),
                ("cost_nanousd", models.BigIntegerField()),
                (
                    "deployment",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="policies.deployment"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("deployment", "day"), name="attempts_by_day_unique")
                ],
            },
        ),
    ]
