"""Evidence about answers, feedback of callers, and sums by workload."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0002_partitioned_records_and_append_only'),
        ('policies', '0003_router_tables_and_ratings'),
    ]

    operations = [
        migrations.CreateModel(
            name='WorkloadDay',
            fields=[
                ('day', models.DateField(primary_key=True, serialize=False)),
                ('record_count', models.BigIntegerField()),
                ('collected_at', models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name='Feedback',
            fields=[
                ('id', models.UUIDField(primary_key=True, serialize=False)),
                ('at', models.DateTimeField()),
                ('request_id', models.UUIDField()),
                ('api_key_id', models.BigIntegerField()),
                ('quality', models.FloatField(null=True)),
                ('state', models.CharField(choices=[('waiting', "waits for its request's record"), ('counted', 'is evidence'), ('ignored', 'no such request of this key, or nobody served it')], db_default='waiting', default='waiting', max_length=8)),
            ],
            options={
                'verbose_name_plural': 'feedback',
                'ordering': ['-at', '-id'],
                'indexes': [models.Index(condition=models.Q(('state', 'waiting')), fields=['at'], name='feedback_waiting')],
                'constraints': [models.CheckConstraint(condition=models.Q(('quality__isnull', True), models.Q(('quality__gte', 0), ('quality__lte', 1)), _connector='OR'), name='feedback_quality_0_to_1')],
            },
        ),
        migrations.CreateModel(
            name='Evidence',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('source', models.CharField(choices=[('feedback', 'rated by the caller'), ('check', 'failed a free check'), ('evaluation', 'evaluation set'), ('shadow', 'shadow sample')], max_length=12)),
                ('at', models.DateTimeField()),
                ('request_id', models.UUIDField(blank=True, null=True)),
                ('pair_id', models.CharField(blank=True, default='', max_length=64)),
                ('workload', models.CharField(blank=True, default='', max_length=16)),
                ('task_type', models.CharField(blank=True, default='', max_length=40)),
                ('quality', models.FloatField()),
                ('detail', models.CharField(blank=True, default='', help_text='The check that failed.', max_length=40)),
                ('output_tokens', models.BigIntegerField(blank=True, null=True)),
                ('latency_ms', models.FloatField(blank=True, null=True)),
                ('cost_nanousd', models.BigIntegerField(db_default=0, default=0)),
                ('model', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='policies.model')),
            ],
            options={
                'verbose_name_plural': 'evidence',
                'ordering': ['-at', '-id'],
                'indexes': [models.Index(fields=['at'], name='evidence_by_time'), models.Index(fields=['workload', 'at'], name='evidence_of_workload')],
                'constraints': [models.UniqueConstraint(condition=models.Q(('request_id__isnull', False)), fields=('request_id', 'source', 'model'), name='evidence_once_a_request'), models.CheckConstraint(condition=models.Q(('quality__gte', 0), ('quality__lte', 1)), name='evidence_quality_0_to_1')],
            },
        ),
        migrations.CreateModel(
            name='WorkloadUsage',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('day', models.DateField()),
                ('workload', models.CharField(max_length=16)),
                ('task_type', models.CharField(blank=True, default='', max_length=40)),
                ('app', models.CharField(blank=True, default='', max_length=200)),
                ('request_count', models.BigIntegerField()),
                ('checkable_count', models.BigIntegerField()),
                ('input_tokens', models.BigIntegerField()),
                ('output_tokens', models.BigIntegerField()),
                ('output_count', models.BigIntegerField()),
                ('cost_nanousd', models.BigIntegerField()),
                ('priced_count', models.BigIntegerField()),
                ('latency_count', models.BigIntegerField()),
                ('p50_ms', models.FloatField(null=True)),
                ('p95_ms', models.FloatField(null=True)),
                ('api_key', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='policies.apikey')),
                ('deployment', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='policies.deployment')),
                ('policy', models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='policies.policy')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='policies.tenant')),
            ],
            options={
                'ordering': ['-day', 'workload'],
                'indexes': [models.Index(fields=['day', 'workload'], name='workload_usage_by_day')],
            },
        ),
    ]
