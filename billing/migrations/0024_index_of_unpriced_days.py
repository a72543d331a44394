from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0023_tags_in_meters")]

    operations = [
        migrations.AddIndex(
            model_name="usagebyday",
            index=models.Index(
                condition=models.Q(("unpriced_count", 0), _negated=True),
                fields=["day"],
                name="usage_by_day_unpriced",
            ),
        ),
    ]
