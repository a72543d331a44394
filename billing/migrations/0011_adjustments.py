"""Requests priced afterwards: runs, and adjustments that only grow. Two new tables, nothing else is touched."""

import django.db.models.deletion
from django.db import migrations, models

APPEND_ONLY = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON billing_adjustment
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0010_price_proposals'),
        ('policies', '0008_sign_in_tries'),
    ]

    operations = [
        migrations.CreateModel(
            name='ReratingRun',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('first_day', models.DateField()),
                ('last_day', models.DateField()),
                ('takes_later_price', models.BooleanField()),
                ('reason', models.CharField(max_length=300)),
                ('made_at', models.DateTimeField()),
                ('made_by', models.CharField(max_length=150)),
                ('finished_at', models.DateTimeField(null=True)),
                ('request_count', models.BigIntegerField(default=0)),
                ('left_count', models.BigIntegerField(default=0, help_text='Requests that still have no price.')),
                ('cost_nanousd', models.BigIntegerField(default=0)),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='Adjustment',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('request_id', models.UUIDField()),
                ('number', models.PositiveSmallIntegerField(help_text='1: reversal of the record, 2: its replacement.')),
                ('started_at', models.DateTimeField(help_text='Of the request: the sums of its day and hour change.')),
                ('attempts', models.JSONField(default=list, help_text='Of a replacement: [number, price, cost] of each attempt.')),
                ('request_count', models.SmallIntegerField()),
                ('error_count', models.SmallIntegerField()),
                ('unpriced_count', models.SmallIntegerField()),
                ('estimated_count', models.SmallIntegerField()),
                ('unknown_count', models.SmallIntegerField()),
                ('input_tokens', models.BigIntegerField()),
                ('output_tokens', models.BigIntegerField()),
                ('cache_read_tokens', models.BigIntegerField()),
                ('cache_write_tokens', models.BigIntegerField()),
                ('reasoning_tokens', models.BigIntegerField()),
                ('cost_nanousd', models.BigIntegerField()),
                ('api_key', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='policies.apikey')),
                ('deployment', models.ForeignKey(db_constraint=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='policies.deployment')),
                ('policy', models.ForeignKey(db_constraint=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='policies.policy')),
                ('price', models.ForeignKey(db_constraint=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='billing.price')),
                ('project', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='policies.project')),
                ('tenant', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='policies.tenant')),
                ('run', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='adjustments', to='billing.reratingrun')),
            ],
            options={
                'ordering': ['request_id', 'number'],
                'indexes': [models.Index(fields=['started_at'], name='adjustment_started_at')],
                'constraints': [models.UniqueConstraint(fields=('request_id', 'number'), name='adjustment_once_a_request')],
            },
        ),
        migrations.RunSQL(APPEND_ONLY, migrations.RunSQL.noop),
    ]
