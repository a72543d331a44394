"""Who is told about budgets, and budgets of one model. New tables; of old ones only billing_budget, a small one."""

import django.db.models.deletion
import uuid
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0011_adjustments'),
        ('policies', '0008_sign_in_tries'),
    ]

    operations = [
        migrations.CreateModel(
            name='AlertDelivery',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ('subject', models.CharField(max_length=300)),
                ('body', models.TextField()),
                ('state', models.CharField(choices=[('waiting', 'waiting'), ('sent', 'sent'), ('failed', 'given up')], default='waiting', max_length=7)),
                ('try_count', models.PositiveSmallIntegerField(default=0)),
                ('created_at', models.DateTimeField()),
                ('due_at', models.DateTimeField()),
                ('ended_at', models.DateTimeField(null=True)),
                ('problem', models.CharField(blank=True, default='', max_length=300)),
            ],
            options={
                'ordering': ['-created_at', 'id'],
            },
        ),
        migrations.CreateModel(
            name='AlertRecipient',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('channel', models.CharField(choices=[('email', 'e-mail'), ('webhook', 'webhook')], max_length=7)),
                ('address', models.CharField(max_length=500)),
                ('secret_ciphertext', models.TextField(blank=True, default='')),
                ('allow_private_network', models.BooleanField(default=False)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('created_by', models.CharField(blank=True, default='', max_length=150)),
            ],
            options={
                'ordering': ['tenant__name', 'budget_id', 'channel', 'address'],
            },
        ),
        migrations.CreateModel(
            name='BudgetAlert',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(choices=[('used_50', '50 % used'), ('used_80', '80 % used'), ('used_100', 'used up'), ('forecast', 'will be exceeded')], max_length=8)),
                ('limit_nanousd', models.BigIntegerField()),
                ('used_nanousd', models.BigIntegerField()),
                ('forecast_nanousd', models.BigIntegerField(null=True)),
                ('is_told', models.BooleanField(default=True)),
                ('noticed_at', models.DateTimeField()),
            ],
            options={
                'ordering': ['-noticed_at', '-id'],
            },
        ),
        migrations.AlterModelOptions(
            name='budget',
            options={'ordering': ['tenant__name', 'project__name', 'api_key__name', 'model__name', 'window', '-is_hard']},
        ),
        migrations.RemoveConstraint(
            model_name='budget',
            name='budget_unique',
        ),
        migrations.AddField(
            model_name='budget',
            name='model',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='budgets', to='policies.model'),
        ),
        migrations.AddConstraint(
            model_name='budget',
            constraint=models.UniqueConstraint(fields=('tenant', 'project', 'api_key', 'model', 'window', 'is_hard'), name='budget_unique', nulls_distinct=False),
        ),
        migrations.AddField(
            model_name='alertrecipient',
            name='budget',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='recipients', to='billing.budget'),
        ),
        migrations.AddField(
            model_name='alertrecipient',
            name='tenant',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='alert_recipients', to='policies.tenant'),
        ),
        migrations.AddField(
            model_name='alertdelivery',
            name='recipient',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='deliveries', to='billing.alertrecipient'),
        ),
        migrations.AddField(
            model_name='budgetalert',
            name='window',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='alerts', to='billing.budgetwindow'),
        ),
        migrations.AddField(
            model_name='alertdelivery',
            name='alert',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='deliveries', to='billing.budgetalert'),
        ),
        migrations.AddConstraint(
            model_name='alertrecipient',
            constraint=models.UniqueConstraint(fields=('tenant', 'budget', 'address'), name='alert_recipient_unique', nulls_distinct=False),
        ),
        migrations.AddConstraint(
            model_name='budgetalert',
            constraint=models.UniqueConstraint(fields=('window', 'kind', 'limit_nanousd'), name='budget_alert_once'),
        ),
        migrations.AddIndex(
            model_name='alertdelivery',
            index=models.Index(condition=models.Q(('state', 'waiting')), fields=['due_at'], name='alert_delivery_due'),
        ),
        migrations.AddIndex(
            model_name='alertdelivery',
            index=models.Index(fields=['-created_at'], name='alert_delivery_newest'),
        ),
        migrations.AddConstraint(
            model_name='alertdelivery',
            constraint=models.UniqueConstraint(fields=('recipient', 'alert'), name='alert_delivery_once'),
        ),
    ]
