"""Bills of providers beside what was recorded: three new tables."""

import django.db.models.deletion
from decimal import Decimal
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0016_ledger_credit_and_billing_profiles'),
        ('policies', '0009_rate_limits'),
    ]

    operations = [
        migrations.CreateModel(
            name='ProviderBill',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('file_format', models.CharField(max_length=30)),
                ('file_name', models.CharField(max_length=200)),
                ('sha256', models.CharField(max_length=64)),
                ('account', models.CharField(blank=True, default='', max_length=300)),
                ('accounts', models.JSONField(default=list)),
                ('groups', models.JSONField(default=list)),
                ('notes', models.JSONField(default=list)),
                ('line_count', models.PositiveIntegerField()),
                ('first_day', models.DateField()),
                ('last_day', models.DateField()),
                ('tolerance_ratio', models.DecimalField(decimal_places=6, default=Decimal('0.005'), max_digits=7)),
                ('tolerance_nanousd', models.BigIntegerField(default=10000000)),
                ('imported_at', models.DateTimeField()),
                ('imported_by', models.CharField(max_length=150)),
                ('compared_at', models.DateTimeField()),
                ('provider', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='policies.provider')),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='BilledDay',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('day', models.DateField()),
                ('upstream_model', models.CharField(blank=True, default='', max_length=300)),
                ('billed_as', models.TextField(blank=True, default='')),
                ('verdict', models.CharField(choices=[('matched', 'matched'), ('price_drift', 'price drift'), ('quantity_drift', 'quantity drift'), ('cost_drift', 'money differs'), ('missing_here', 'missing here'), ('missing_there', 'missing there')], max_length=20)),
                ('reason', models.TextField(blank=True, default='')),
                ('billed', models.JSONField(help_text='Counts of the bill.', null=True)),
                ('recorded', models.JSONField(help_text='Counts of the records.', null=True)),
                ('billed_nanousd', models.BigIntegerField(null=True)),
                ('recorded_nanousd', models.BigIntegerField(null=True)),
                ('bill', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='days', to='billing.providerbill')),
            ],
            options={
                'ordering': ['day', 'upstream_model', 'billed_as'],
            },
        ),
        migrations.CreateModel(
            name='BilledName',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=300)),
                ('upstream_model', models.CharField(blank=True, default='', max_length=300)),
                ('provider', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='policies.provider')),
            ],
            options={
                'ordering': ['name'],
                'constraints': [models.UniqueConstraint(fields=('provider', 'name'), name='billed_name_once')],
            },
        ),
        migrations.AddConstraint(
            model_name='providerbill',
            constraint=models.UniqueConstraint(fields=('provider', 'sha256', 'account'), name='provider_bill_once_a_file'),
        ),
        migrations.AddConstraint(
            model_name='providerbill',
            constraint=models.CheckConstraint(condition=models.Q(('tolerance_ratio__gte', 0), ('tolerance_ratio__lt', 1), ('tolerance_nanousd__gte', 0)), name='provider_bill_tolerance'),
        ),
        migrations.AddConstraint(
            model_name='billedday',
            constraint=models.UniqueConstraint(fields=('bill', 'day', 'upstream_model', 'billed_as'), name='billed_day_once_a_model'),
        ),
    ]
