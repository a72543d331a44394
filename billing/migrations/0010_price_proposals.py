"""Prices that a source proposes and a person approves: two new tables."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0009_budgets'),
        ('policies', '0007_shadow_sampling'),
    ]

    operations = [
        migrations.CreateModel(
            name='PriceProposal',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(max_length=20)),
                ('source', models.CharField(max_length=100)),
                ('digest', models.CharField(blank=True, default='', help_text='SHA-256 of the file.', max_length=64)),
                ('findings', models.JSONField(default=list)),
                ('made_at', models.DateTimeField()),
                ('made_by', models.CharField(max_length=150)),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='ProposedPrice',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('listed_as', models.CharField(max_length=300)),
                ('rates', models.JSONField()),
                ('effective_from', models.DateTimeField(help_text='Null: from its approval on.', null=True)),
                ('notes', models.JSONField(default=list)),
                ('state', models.CharField(choices=[('waiting', 'waiting'), ('approved', 'approved'), ('rejected', 'rejected'), ('superseded', 'superseded')], default='waiting', max_length=12)),
                ('decided_at', models.DateTimeField(null=True)),
                ('decided_by', models.CharField(blank=True, default='', max_length=150)),
                ('reason', models.CharField(blank=True, default='', max_length=300)),
                ('compared_price', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='billing.price')),
                ('deployment', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='policies.deployment')),
                ('price', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='billing.price')),
                ('proposal', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='rows', to='billing.priceproposal')),
            ],
            options={
                'ordering': ['deployment__name', 'effective_from', 'id'],
                'indexes': [models.Index(condition=models.Q(('state', 'waiting')), fields=['deployment'], name='proposed_price_waiting')],
            },
        ),
    ]
