"""Versions of the automatic router's tables, whose number and document are final, and ratings of models."""

import django.db.models.deletion
from django.db import migrations, models

CONTENT_IS_FINAL = """
CREATE TRIGGER content_is_final BEFORE UPDATE ON policies_routertable FOR EACH ROW
    WHEN (OLD.number <> NEW.number OR OLD.document <> NEW.document OR OLD.made_by <> NEW.made_by
        OR OLD.made_at <> NEW.made_at OR OLD.note <> NEW.note)
    EXECUTE FUNCTION policies_refuse_change();
CREATE TRIGGER append_only BEFORE DELETE ON policies_routertable
    FOR EACH ROW EXECUTE FUNCTION policies_refuse_change();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('policies', '0002_append_only_triggers'),
    ]

    operations = [
        migrations.CreateModel(
            name='RouterSetting',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('activates_itself', models.BooleanField(default=False, help_text='A version that passes its evaluation goes into force without an operator.')),
            ],
        ),
        migrations.CreateModel(
            name='RouterTable',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('number', models.PositiveIntegerField(unique=True)),
                ('document', models.JSONField()),
                ('state', models.CharField(choices=[('candidate', 'waits for an operator'), ('active', 'in force'), ('retired', 'was in force'), ('rejected', 'failed its evaluation')], default='candidate', max_length=10)),
                ('gate', models.JSONField(blank=True, null=True)),
                ('note', models.TextField(blank=True, default='')),
                ('made_by', models.CharField(blank=True, default='', max_length=150)),
                ('made_at', models.DateTimeField(auto_now_add=True)),
                ('activated_by', models.CharField(blank=True, default='', max_length=150)),
                ('activated_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'ordering': ['-number'],
            },
        ),
        migrations.AddField(
            model_name='model',
            name='rating',
            field=models.FloatField(blank=True, help_text='How good its answers are, 0 to 1. Empty: a public rating, or a guess.', null=True),
        ),
        migrations.AddField(
            model_name='model',
            name='rating_date',
            field=models.DateField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='model',
            name='rating_source',
            field=models.CharField(blank=True, default='', help_text='Where it comes from.', max_length=200),
        ),
        migrations.AddConstraint(
            model_name='model',
            constraint=models.CheckConstraint(condition=models.Q(('rating__isnull', True), models.Q(('rating__gte', 0), ('rating__lte', 1)), _connector='OR'), name='model_rating_0_to_1'),
        ),
        migrations.AddConstraint(
            model_name='routersetting',
            constraint=models.CheckConstraint(condition=models.Q(('id', 1)), name='router_setting_one_row'),
        ),
        migrations.AddField(
            model_name='routertable',
            name='based_on',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='policies.routertable'),
        ),
        migrations.AddConstraint(
            model_name='routertable',
            constraint=models.CheckConstraint(condition=models.Q(('number__gte', 1)), name='router_table_number_positive'),
        ),
        migrations.AddConstraint(
            model_name='routertable',
            constraint=models.UniqueConstraint(condition=models.Q(('state', 'active')), fields=('state',), name='router_table_one_active'),
        ),
        migrations.RunSQL(CONTENT_IS_FINAL, migrations.RunSQL.noop),
    ]
