from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0035_sums_by_key_and_label_set")]

    # With a default in the database: no row is rewritten, and processes of before go on inserting.
    operations = [
        migrations.AddField(
            "maildelivery", "error_detail", models.TextField(blank=True, db_default="", default="")
        )
    ]
