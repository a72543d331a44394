"""Of the tokens that a workload sends, how many did a provider read from its cache?"""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0005_evaluation_sets'),
    ]

    operations = [
        migrations.AddField(
            model_name='workloadusage',
            name='cache_read_tokens',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
    ]
