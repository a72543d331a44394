"""What shadow requests cost a tenant in a day, the running ones at the most they can cost."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0006_workload_cache_reads'),
        ('policies', '0007_shadow_sampling'),
    ]

    operations = [
        migrations.CreateModel(
            name='ShadowSpend',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('day', models.DateField()),
                ('spent_nanousd', models.BigIntegerField()),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='policies.tenant')),
            ],
            options={
                'verbose_name_plural': 'shadow spend',
                'ordering': ['-day'],
                'constraints': [models.UniqueConstraint(fields=('tenant', 'day'), name='shadow_spend_once_a_day')],
            },
        ),
    ]
