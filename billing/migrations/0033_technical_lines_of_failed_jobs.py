from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0032_days_of_label_sets")]

    # Each with a default in the database: no row is rewritten, and processes of before go on inserting.
    operations = [
        migrations.AddField(model, "error_detail", models.TextField(blank=True, db_default="", default=""))
        for model in ("exportjob", "backtest", "evaluationrun", "periodclosing")
    ]
