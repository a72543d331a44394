"""Searches that a provider did are a meter: terms of sale may name it. The table is small."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0017_provider_bills'),
        ('policies', '0009_rate_limits'),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name='saleterm',
            name='sale_term_meter_is_known',
        ),
        migrations.AddConstraint(
            model_name='saleterm',
            constraint=models.CheckConstraint(condition=models.Q(('meter__in', ['', 'input', 'cache_read', 'cache_write', 'cache_write_1h', 'audio_input', 'output', 'reasoning', 'audio_output', 'request', 'search'])), name='sale_term_meter_is_known'),
        ),
    ]
