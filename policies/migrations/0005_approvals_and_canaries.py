"""Four eyes: requests for publication. Canaries: a version that serves a share of the conversations."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('policies', '0004_management_token'),
    ]

    operations = [
        migrations.CreateModel(
            name='PublicationRequest',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('document', models.JSONField()),
                ('canary_percent', models.FloatField(blank=True, null=True)),
                ('note', models.TextField(blank=True, default='')),
                ('status', models.CharField(choices=[('pending', 'Pending'), ('approved', 'Approved'), ('rejected', 'Rejected'), ('stale', 'Stale')], default='pending', max_length=10)),
                ('requested_at', models.DateTimeField(auto_now_add=True)),
                ('requested_by', models.CharField(max_length=150)),
                ('decided_at', models.DateTimeField(blank=True, null=True)),
                ('decided_by', models.CharField(blank=True, default='', max_length=150)),
                ('decision_note', models.TextField(blank=True, default='')),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.AddField(
            model_name='policy',
            name='canary_percent',
            field=models.FloatField(default=0, help_text='Share of conversations, 0 to 100.'),
        ),
        migrations.AddField(
            model_name='policy',
            name='canary_started_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='policy',
            name='canary_version',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='policies.policyversion'),
        ),
        migrations.AddField(
            model_name='policy',
            name='requires_approval',
            field=models.BooleanField(default=False, help_text='Another operator approves what one wants to publish.'),
        ),
        migrations.AddField(
            model_name='policyversion',
            name='approved_by',
            field=models.CharField(blank=True, default='', max_length=150),
        ),
        migrations.AddConstraint(
            model_name='policy',
            constraint=models.CheckConstraint(condition=models.Q(('canary_percent__gte', 0), ('canary_percent__lte', 100)), name='policy_canary_percent_is_a_share'),
        ),
        migrations.AddConstraint(
            model_name='policy',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('canary_percent', 0), ('canary_started_at__isnull', True), ('canary_version__isnull', True)), models.Q(('canary_started_at__isnull', False), ('canary_version__isnull', False)), _connector='OR'), name='policy_canary_is_whole'),
        ),
        migrations.AddField(
            model_name='publicationrequest',
            name='policy',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='publication_requests', to='policies.policy'),
        ),
        migrations.AddField(
            model_name='publicationrequest',
            name='version',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='policies.policyversion'),
        ),
        migrations.AddConstraint(
            model_name='publicationrequest',
            constraint=models.UniqueConstraint(condition=models.Q(('status', 'pending')), fields=('policy',), name='publication_request_one_pending'),
        ),
        migrations.AddConstraint(
            model_name='publicationrequest',
            constraint=models.CheckConstraint(condition=models.Q(('canary_percent__isnull', True), models.Q(('canary_percent__gt', 0), ('canary_percent__lte', 100)), _connector='OR'), name='publication_request_percent_is_a_share'),
        ),
    ]
