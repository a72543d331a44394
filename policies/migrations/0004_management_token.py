"""Management tokens: secrets with which programs change the configuration over HTTP."""
import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('policies', '0003_router_tables_and_ratings'),
    ]

    operations = [
        migrations.CreateModel(
            name='ManagementToken',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.SlugField(max_length=100, unique=True)),
                ('scopes', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=20), size=None)),
                ('secret_hash', models.BinaryField(max_length=32, unique=True)),
                ('secret_hint', models.CharField(editable=False, help_text='First and last characters.', max_length=24)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('created_by', models.CharField(blank=True, default='', max_length=150)),
                ('expires_at', models.DateTimeField(blank=True, null=True)),
                ('revoked_at', models.DateTimeField(blank=True, null=True)),
                ('last_used_at', models.DateTimeField(blank=True, help_text='To the hour.', null=True)),
            ],
            options={
                'ordering': ['name'],
                'constraints': [models.CheckConstraint(condition=models.Q(('scopes__len__gte', 1), ('scopes__len__lte', 20)), name='management_token_has_scopes')],
            },
        ),
    ]
