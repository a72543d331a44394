# PDFs of statements that are issued from now on. Earlier ones are written anew and compared with their hash, as before.

import django.db.models.deletion
from django.db import migrations, models

PROTECT = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON billing_issuedpdf
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0020_amounts_beyond_64_bits"),
    ]

    operations = [
        migrations.CreateModel(
            name="IssuedPdf",
            fields=[
                (
                    "invoice",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        primary_key=True,
                        related_name="issued_pdf",
                        serialize=False,
                        to="billing.invoice",
                    ),
                ),
                ("content", models.BinaryField()),
            ],
        ),
        migrations.RunSQL(PROTECT, migrations.RunSQL.noop),
    ]
