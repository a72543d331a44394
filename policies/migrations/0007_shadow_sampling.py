"""Tenants may let a share of their requests be asked of a second model, within a daily budget. Off by default."""

from decimal import Decimal

import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('policies', '0006_provider_takes_stream_options'),
    ]

    operations = [
        migrations.AddField(
            model_name='tenant',
            name='shadow_percent',
            field=models.FloatField(db_default=0.0, default=0.0, help_text='Share of the requests to automatic rules, 0 to 100.', validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(100)]),
        ),
        migrations.AddField(
            model_name='tenant',
            name='shadow_daily_budget_usd',
            field=models.DecimalField(db_default=Decimal('0'), decimal_places=2, default=Decimal('0'), help_text='What shadow requests may cost in one day (UTC).', max_digits=11, validators=[django.core.validators.MinValueValidator(0)]),
        ),
    ]
