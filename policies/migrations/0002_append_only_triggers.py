"""Published versions and the audit log cannot be changed or deleted, whoever asks."""

from django.db import migrations

TRIGGERS = """
CREATE FUNCTION policies_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON policies_policyversion
    FOR EACH ROW EXECUTE FUNCTION policies_refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON policies_changeevent
    FOR EACH ROW EXECUTE FUNCTION policies_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [("policies", "0001_initial")]

    operations = [migrations.RunSQL(TRIGGERS, migrations.RunSQL.noop)]
