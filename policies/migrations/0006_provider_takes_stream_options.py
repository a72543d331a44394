"""Servers that refuse `stream_options` can be told apart. Adding a column with a constant default rewrites nothing."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('policies', '0005_approvals_and_canaries'),
    ]

    operations = [
        migrations.AddField(
            model_name='provider',
            name='takes_stream_options',
            field=models.BooleanField(default=True, help_text='Off for servers that refuse stream_options. Usage of their streams is then estimated.'),
        ),
    ]
