"""Budgets of deployments, and who hears of those. Of old tables only billing_budget and billing_alertrecipient, small ones."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0024_index_of_unpriced_days'),
        ('policies', '0011_tenants_reported_labels'),
    ]

    operations = [
        migrations.AlterModelOptions(
            name='budget',
            options={'ordering': ['tenant__name', 'project__name', 'api_key__name', 'model__name', 'deployment__name', 'window', '-is_hard']},
        ),
        migrations.RemoveConstraint(
            model_name='budget',
            name='budget_unique',
        ),
        migrations.AddField(
            model_name='budget',
            name='deployment',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='budgets', to='policies.deployment'),
        ),
        migrations.AlterField(
            model_name='alertrecipient',
            name='tenant',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='alert_recipients', to='policies.tenant'),
        ),
        migrations.AlterField(
            model_name='budget',
            name='tenant',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='budgets', to='policies.tenant'),
        ),
        migrations.AddConstraint(
            model_name='budget',
            constraint=models.UniqueConstraint(fields=('tenant', 'project', 'api_key', 'model', 'deployment', 'window', 'is_hard'), name='budget_unique', nulls_distinct=False),
        ),
        migrations.AddConstraint(
            model_name='budget',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('deployment', None), ('tenant__isnull', False)), models.Q(('api_key', None), ('deployment__isnull', False), ('model', None), ('project', None), ('tenant', None)), _connector='OR'), name='budget_one_owner'),
        ),
    ]
