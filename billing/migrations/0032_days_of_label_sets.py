from django.contrib.postgres.indexes import BrinIndex
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("billing", "0031_fill_attempts_by_day")]

    operations = [
        migrations.AddIndex(
            model_name="usagebykeylabelsetday",
            index=BrinIndex(
                autosummarize=True, fields=["day"], name="usage_by_key_label_set_days", pages_per_range=32
            ),
        ),
    ]
