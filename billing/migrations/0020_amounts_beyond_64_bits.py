# A million dollars are more billionths of a dong or a rupiah than 64 bits hold. Statements and ledger are small.

from django.db import migrations

import billing.models.wide_integer


class Migration(migrations.Migration):
    dependencies = [
        ('billing', '0019_labels'),
    ]

    operations = [
        migrations.AlterField(
            model_name='invoice',
            name='amount_nano',
            field=billing.models.wide_integer.WideIntegerField(
                help_text='Sum of the lines in billionths of the currency.'
            ),
        ),
        migrations.AlterField(
            model_name='invoiceline',
            name='amount_nano',
            field=billing.models.wide_integer.WideIntegerField(help_text='In billionths of the currency.'),
        ),
        migrations.AlterField(
            model_name='ledgerentry',
            name='amount_nano',
            field=billing.models.wide_integer.WideIntegerField(),
        ),
    ]
