"""Wrong passwords are counted for all workers together."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('policies', '0007_shadow_sampling'),
    ]

    operations = [
        migrations.CreateModel(
            name='SignInTries',
            fields=[
                ('who_hash', models.CharField(max_length=64, primary_key=True, serialize=False)),
                ('count', models.PositiveSmallIntegerField()),
                ('ends_at', models.DateTimeField(db_index=True)),
            ],
            options={
                'verbose_name_plural': 'sign-in tries',
            },
        ),
    ]
