"""What a tenant, project, key or deployment may take in a minute, and what of it is taken."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('policies', '0008_sign_in_tries'),
    ]

    operations = [
        migrations.CreateModel(
            name='RateLimit',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('requests_per_minute', models.PositiveBigIntegerField(null=True)),
                ('tokens_per_minute', models.PositiveBigIntegerField(null=True)),
                ('concurrent', models.PositiveBigIntegerField(null=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('created_by', models.CharField(blank=True, default='', max_length=150)),
                ('api_key', models.OneToOneField(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='rate_limit', to='policies.apikey')),
                ('deployment', models.OneToOneField(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='rate_limit', to='policies.deployment')),
                ('project', models.OneToOneField(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='rate_limit', to='policies.project')),
                ('tenant', models.OneToOneField(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='rate_limit', to='policies.tenant')),
            ],
            options={
                'ordering': ['id'],
            },
        ),
        migrations.CreateModel(
            name='RateWindow',
            fields=[
                ('rate_limit', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='window', serialize=False, to='policies.ratelimit')),
                ('state', models.JSONField(default=dict)),
            ],
        ),
        migrations.AddConstraint(
            model_name='ratelimit',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('api_key', None), ('deployment', None), ('project', None), ('tenant__isnull', False)), models.Q(('api_key', None), ('deployment', None), ('project__isnull', False), ('tenant', None)), models.Q(('api_key__isnull', False), ('deployment', None), ('project', None), ('tenant', None)), models.Q(('api_key', None), ('deployment__isnull', False), ('project', None), ('tenant', None)), _connector='OR'), name='rate_limit_one_owner'),
        ),
        migrations.AddConstraint(
            model_name='ratelimit',
            constraint=models.CheckConstraint(condition=models.Q(('requests_per_minute__isnull', False), ('tokens_per_minute__isnull', False), ('concurrent__isnull', False), _connector='OR'), name='rate_limit_limits_something'),
        ),
        migrations.AddConstraint(
            model_name='ratelimit',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('requests_per_minute', 0), _negated=True), models.Q(('tokens_per_minute', 0), _negated=True), models.Q(('concurrent', 0), _negated=True)), name='rate_limit_positive'),
        ),
    ]
