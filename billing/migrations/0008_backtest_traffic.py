import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0007_shadow_spend'),
        ('policies', '0002_append_only_triggers'),
    ]

    operations = [
        migrations.AddField(
            model_name='backtest',
            name='traffic',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='policies.policy'),
        ),
    ]
