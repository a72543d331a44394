# By which sale term or own price lines were charged. Columns that are null, so no row is written again.

import django.db.models.deletion
from django.db import migrations, models

# Days that may still come onto a statement, and were charged something else than the cost, are summed once more: what
# they were summed of is forgotten.
SUM_AGAIN = """
DELETE FROM billing_meterday
WHERE charge_nanousd <> cost_nanousd AND day >= (date_trunc('month', now(), 'UTC') - interval '1 month')::date
    AND NOT EXISTS (SELECT FROM billing_periodlock WHERE closed_until > day);
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0021_pdfs_as_issued"),
    ]

    operations = [
        migrations.AddField(
            model_name="invoiceline",
            name="sale_price",
            field=models.ForeignKey(
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.price",
            ),
        ),
        migrations.AddField(
            model_name="invoiceline",
            name="sale_term",
            field=models.ForeignKey(
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.saleterm",
            ),
        ),
        migrations.AddField(
            model_name="meterbyday",
            name="sale_price",
            field=models.ForeignKey(
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.price",
            ),
        ),
        migrations.AddField(
            model_name="meterbyday",
            name="sale_term",
            field=models.ForeignKey(
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="billing.saleterm",
            ),
        ),
        migrations.RunSQL(SUM_AGAIN, migrations.RunSQL.noop),
    ]
