"""Meters by day, the period lock, statements. New tables alone; what is issued is protected by triggers."""

import django.db.models.deletion
import django.db.models.expressions
from django.db import migrations, models

PROTECT = """
CREATE FUNCTION billing_protect_invoice() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    steps text[] := ARRAY['state', 'paid_at', 'paid_by', 'payment_reference', 'voided_at', 'voided_by', 'void_reason'];
BEGIN
    IF OLD.number IS NULL THEN
        RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
    END IF;
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'a statement with a number is never deleted' USING ERRCODE = 'restrict_violation';
    END IF;
    IF OLD.pdf_sha256 = '' THEN
        steps := steps || 'pdf_sha256'::text;
    END IF;
    IF to_jsonb(OLD) - steps IS DISTINCT FROM to_jsonb(NEW) - steps THEN
        RAISE EXCEPTION 'an issued statement never changes: correct it by a credit note'
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF OLD.state = NEW.state AND to_jsonb(OLD) - 'pdf_sha256' IS DISTINCT FROM to_jsonb(NEW) - 'pdf_sha256'
        OR OLD.state <> NEW.state AND NOT (OLD.state = 'issued' AND NEW.state IN ('paid', 'void'))
    THEN
        RAISE EXCEPTION 'a statement that is % does not become %', OLD.state, NEW.state
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER protect_issued BEFORE UPDATE OR DELETE ON billing_invoice
    FOR EACH ROW EXECUTE FUNCTION billing_protect_invoice();

CREATE FUNCTION billing_protect_invoice_line() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM billing_invoice WHERE number IS NOT NULL AND (
            TG_OP <> 'DELETE' AND id = NEW.invoice_id OR TG_OP <> 'INSERT' AND id = OLD.invoice_id)
    ) THEN
        RAISE EXCEPTION 'the lines of an issued statement never change' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE TRIGGER protect_issued BEFORE INSERT OR UPDATE OR DELETE ON billing_invoiceline
    FOR EACH ROW EXECUTE FUNCTION billing_protect_invoice_line();

CREATE FUNCTION billing_protect_invoice_counter() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR NEW.kind <> OLD.kind OR NEW.last_number <> OLD.last_number + 1 THEN
        RAISE EXCEPTION 'numbers of statements go up by one' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER up_by_one BEFORE UPDATE OR DELETE ON billing_invoicecounter
    FOR EACH ROW EXECUTE FUNCTION billing_protect_invoice_counter();

CREATE FUNCTION billing_protect_period_lock() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.closed_until IS NOT NULL
        AND (NEW.closed_until IS NULL OR NEW.closed_until < OLD.closed_until)
    THEN
        RAISE EXCEPTION 'a closed period is not opened again' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER stays_closed BEFORE UPDATE OR DELETE ON billing_periodlock
    FOR EACH ROW EXECUTE FUNCTION billing_protect_period_lock();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON billing_lateposting
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();

INSERT INTO billing_periodlock (id, closed_until) VALUES (1, NULL);
INSERT INTO billing_invoicecounter (kind, last_number) VALUES ('invoice', 0), ('credit_note', 0);
"""


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0013_charges'),
        ('policies', '0008_sign_in_tries'),
    ]

    operations = [
        migrations.CreateModel(
            name='InvoiceCounter',
            fields=[
                ('kind', models.CharField(choices=[('invoice', 'invoice'), ('credit_note', 'credit note')], max_length=12, primary_key=True, serialize=False)),
                ('last_number', models.PositiveBigIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name='PeriodClosing',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('month', models.DateField(unique=True)),
                ('state', models.CharField(choices=[('waiting', 'waiting'), ('running', 'running'), ('done', 'done'), ('failed', 'failed')], default='waiting', max_length=10)),
                ('grace_days', models.PositiveSmallIntegerField()),
                ('asked_at', models.DateTimeField()),
                ('asked_by', models.CharField(max_length=150)),
                ('locked_at', models.DateTimeField(null=True)),
                ('finished_at', models.DateTimeField(null=True)),
                ('heartbeat_at', models.DateTimeField(null=True)),
                ('tenant_count', models.PositiveIntegerField(default=0)),
                ('done_count', models.PositiveIntegerField(default=0)),
                ('left', models.JSONField(default=list, help_text='What was not issued: [{"tenant": id, "reason": text}].')),
                ('error', models.TextField(blank=True, default='')),
            ],
            options={
                'ordering': ['-month'],
            },
        ),
        migrations.CreateModel(
            name='Invoice',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(choices=[('invoice', 'invoice'), ('credit_note', 'credit note')], default='invoice', max_length=12)),
                ('month', models.DateField(help_text='First day of the UTC month.')),
                ('state', models.CharField(choices=[('draft', 'draft'), ('reviewed', 'reviewed'), ('issued', 'issued'), ('paid', 'paid'), ('void', 'void')], default='draft', max_length=10)),
                ('number', models.PositiveBigIntegerField(help_text='Given at issue, without gaps in its kind.', null=True)),
                ('currency', models.CharField(max_length=3)),
                ('minor_digits', models.PositiveSmallIntegerField()),
                ('exchange_rate', models.DecimalField(decimal_places=12, help_text='Of the currency, for 1 USD.', max_digits=24)),
                ('tax_ratio', models.DecimalField(decimal_places=6, default=0, max_digits=9)),
                ('amount_nanousd', models.BigIntegerField(help_text='Exact sum of the lines.')),
                ('amount_nano', models.BigIntegerField(help_text='Sum of the lines in billionths of the currency.')),
                ('subtotal_minor', models.BigIntegerField()),
                ('tax_minor', models.BigIntegerField()),
                ('total_minor', models.BigIntegerField()),
                ('credits_minor', models.BigIntegerField(default=0, help_text='Prepaid credit drawn (given back: negative).')),
                ('due_minor', models.BigIntegerField()),
                ('document', models.JSONField(default=dict)),
                ('pdf_sha256', models.CharField(blank=True, default='', max_length=64)),
                ('reason', models.CharField(blank=True, default='', help_text='Of a credit note.', max_length=300)),
                ('payment_reference', models.CharField(blank=True, default='', max_length=200)),
                ('due_on', models.DateField(null=True)),
                ('drafted_at', models.DateTimeField()),
                ('drafted_by', models.CharField(max_length=150)),
                ('reviewed_at', models.DateTimeField(null=True)),
                ('reviewed_by', models.CharField(blank=True, default='', max_length=150)),
                ('issued_at', models.DateTimeField(null=True)),
                ('issued_by', models.CharField(blank=True, default='', max_length=150)),
                ('paid_at', models.DateTimeField(null=True)),
                ('paid_by', models.CharField(blank=True, default='', max_length=150)),
                ('voided_at', models.DateTimeField(null=True)),
                ('voided_by', models.CharField(blank=True, default='', max_length=150)),
                ('void_reason', models.CharField(blank=True, default='', max_length=300)),
                ('corrects', models.ForeignKey(help_text='Of a credit note.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='credit_notes', to='billing.invoice')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='invoices', to='policies.tenant')),
            ],
            options={
                'ordering': ['-month', '-id'],
            },
        ),
        migrations.CreateModel(
            name='InvoiceLine',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('position', models.PositiveIntegerField()),
                ('kind', models.CharField(choices=[('usage', 'usage of the month'), ('late', 'late usage of a closed month'), ('correction', 're-rating of a closed month'), ('credit', 'line of a credit note')], default='usage', max_length=10)),
                ('text', models.CharField(max_length=300)),
                ('model', models.CharField(blank=True, default='', max_length=300)),
                ('provider', models.CharField(blank=True, default='', max_length=300)),
                ('meter', models.CharField(blank=True, default='', max_length=40)),
                ('service_tier', models.CharField(blank=True, default='', max_length=40)),
                ('unit_usd', models.CharField(blank=True, default='', help_text='Decimal text, of `unit_size` units.', max_length=60)),
                ('unit_size', models.PositiveIntegerField(default=1000000)),
                ('late_of', models.DateField(help_text='Of late usage: first day of its month.', null=True)),
                ('quantity', models.BigIntegerField()),
                ('amount_nanousd', models.BigIntegerField(help_text='Exact.')),
                ('amount_nano', models.BigIntegerField(help_text='In billionths of the currency.')),
                ('amount_minor', models.BigIntegerField(help_text="Rounded half up to the currency's smallest unit.")),
                ('rounding_nano', models.BigIntegerField(help_text='amount_minor less amount_nano, in billionths.')),
                ('corrects', models.ForeignKey(help_text="Of a credit note's line.", null=True, on_delete=django.db.models.deletion.PROTECT, related_name='credited', to='billing.invoiceline')),
                ('deployment', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='policies.deployment')),
                ('invoice', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='lines', to='billing.invoice')),
                ('price', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='billing.price')),
            ],
            options={
                'ordering': ['invoice', 'position'],
            },
        ),
        migrations.CreateModel(
            name='LatePosting',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('request_id', models.UUIDField()),
                ('number', models.PositiveSmallIntegerField(default=0, help_text="0: the record, else the adjustment's number.")),
                ('started_at', models.DateTimeField()),
                ('posted_on', models.DateField()),
                ('posted_at', models.DateTimeField()),
                ('tenant', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='policies.tenant')),
            ],
        ),
        migrations.CreateModel(
            name='MeterByDay',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('day', models.DateField(help_text='On which it is counted: its own, or the first open one after a closing.')),
                ('meter', models.CharField(max_length=40)),
                ('service_tier', models.CharField(blank=True, default='', max_length=40)),
                ('cost_rate', models.CharField(blank=True, default='', max_length=60)),
                ('sale_rate', models.CharField(blank=True, default='', max_length=60)),
                ('late_of', models.DateField(help_text='First day of the closed month of its usage; null: of this one.', null=True)),
                ('is_correction', models.BooleanField(default=False, help_text='What re-rating changed in a closed month.')),
                ('quantity', models.BigIntegerField()),
                ('cost_nanousd', models.BigIntegerField()),
                ('charge_nanousd', models.BigIntegerField()),
                ('api_key', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='policies.apikey')),
                ('deployment', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='policies.deployment')),
                ('price', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='billing.price')),
                ('project', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='policies.project')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='policies.tenant')),
            ],
        ),
        migrations.CreateModel(
            name='MeterDay',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('day', models.DateField()),
                ('request_count', models.BigIntegerField()),
                ('unpriced_count', models.BigIntegerField()),
                ('cost_nanousd', models.BigIntegerField()),
                ('charge_nanousd', models.BigIntegerField()),
                ('matches', models.BooleanField(help_text='By key and deployment, cost and charge are those of usage_by_day.')),
                ('summed_at', models.DateTimeField()),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='policies.tenant')),
            ],
        ),
        migrations.CreateModel(
            name='PeriodLock',
            fields=[
                ('id', models.PositiveSmallIntegerField(default=1, primary_key=True, serialize=False)),
                ('closed_until', models.DateField(help_text='First day of the open period; null: nothing is closed.', null=True)),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('id', 1)), name='period_lock_is_one_row')],
            },
        ),
        migrations.AddConstraint(
            model_name='invoice',
            constraint=models.UniqueConstraint(fields=('kind', 'number'), name='invoice_number_once'),
        ),
        migrations.AddConstraint(
            model_name='invoice',
            constraint=models.UniqueConstraint(condition=models.Q(('kind', 'invoice'), models.Q(('state', 'void'), _negated=True)), fields=('tenant', 'month'), name='invoice_one_a_month'),
        ),
        migrations.AddConstraint(
            model_name='invoice',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('number__isnull', True), ('state__in', ('draft', 'reviewed'))), models.Q(('number__isnull', False), models.Q(('state__in', ('draft', 'reviewed')), _negated=True)), _connector='OR'), name='invoice_numbered_when_issued'),
        ),
        migrations.AddConstraint(
            model_name='invoice',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('corrects__isnull', True), ('kind', 'invoice')), models.Q(('corrects__isnull', False), ('kind', 'credit_note')), _connector='OR'), name='invoice_credit_note_corrects'),
        ),
        migrations.AddConstraint(
            model_name='invoice',
            constraint=models.CheckConstraint(condition=models.Q(('total_minor', django.db.models.expressions.CombinedExpression(models.F('subtotal_minor'), '+', models.F('tax_minor'))), ('due_minor', django.db.models.expressions.CombinedExpression(models.F('total_minor'), '-', models.F('credits_minor')))), name='invoice_totals_tie'),
        ),
        migrations.AddConstraint(
            model_name='invoiceline',
            constraint=models.UniqueConstraint(fields=('invoice', 'position'), name='invoice_line_position_once'),
        ),
        migrations.AddIndex(
            model_name='lateposting',
            index=models.Index(fields=['posted_on', 'tenant'], name='late_posting_posted'),
        ),
        migrations.AddIndex(
            model_name='lateposting',
            index=models.Index(fields=['started_at'], name='late_posting_started'),
        ),
        migrations.AddConstraint(
            model_name='lateposting',
            constraint=models.UniqueConstraint(fields=('request_id', 'number'), name='late_posting_once'),
        ),
        migrations.AddIndex(
            model_name='meterbyday',
            index=models.Index(fields=['day', 'tenant'], name='meter_by_day_day_tenant'),
        ),
        migrations.AddIndex(
            model_name='meterbyday',
            index=models.Index(fields=['tenant', 'day'], name='meter_by_day_tenant_day'),
        ),
        migrations.AddConstraint(
            model_name='meterday',
            constraint=models.UniqueConstraint(fields=('day', 'tenant'), name='meter_day_once'),
        ),
        migrations.RunSQL(PROTECT, migrations.RunSQL.noop),
    ]
