# By which tags of their requests meters are held apart. A constant default, so that no row is written again.

import django.contrib.postgres.fields
from django.db import migrations, models

# Days that may still come onto a statement, of tenants whose requests have tags, are summed once more. What they were
# summed of is forgotten: marked as not matching, they would count as wrong, and nothing could be closed until then.
SUM_AGAIN = """
DELETE FROM billing_meterday
WHERE tenant_id IN (SELECT tenant_id FROM billing_labelname WHERE kind = 'tag')
    AND day >= (date_trunc('month', now(), 'UTC') - interval '1 month')::date
    AND NOT EXISTS (SELECT FROM billing_periodlock WHERE closed_until > day);
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0022_terms_on_statement_lines"),
    ]

    operations = [
        migrations.AddField(
            model_name="meterbyday",
            name="tag_label_ids",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.BigIntegerField(),
                default=list,
                help_text="Labels of the tags that the tenant reports, in order; empty: none, or beyond what is held apart.",
                size=None,
            ),
        ),
        migrations.RunSQL(SUM_AGAIN, migrations.RunSQL.noop),
    ]
