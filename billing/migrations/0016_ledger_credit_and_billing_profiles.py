"""A ledger with credit, exchange rates and billing profiles: new tables, nothing else is touched."""

import django.contrib.postgres.fields
import django.core.validators
import django.db.models.deletion
from decimal import Decimal
from django.db import migrations, models

TRIGGERS = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON billing_ledgerposting
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON billing_ledgerentry
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON billing_creditgrant
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON billing_exchangerate
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();

CREATE FUNCTION billing_sign_posting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.transaction_number := txid_current();
    RETURN NEW;
END $$;
CREATE TRIGGER sign_posting BEFORE INSERT ON billing_ledgerposting
    FOR EACH ROW EXECUTE FUNCTION billing_sign_posting();

CREATE FUNCTION billing_check_entry() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    posting record;
    owner record;
BEGIN
    SELECT tenant_id, currency, transaction_number INTO posting
        FROM billing_ledgerposting WHERE id = NEW.posting_id;
    IF posting.transaction_number <> txid_current() THEN
        RAISE EXCEPTION 'posting % is closed: make another one', NEW.posting_id
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF posting.tenant_id <> NEW.tenant_id OR posting.currency <> NEW.currency THEN
        RAISE EXCEPTION 'an entry of posting % is of another tenant or currency', NEW.posting_id
            USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.grant_id IS NOT NULL THEN
        SELECT tenant_id, currency, 'credit_' || kind AS account INTO owner
            FROM billing_creditgrant WHERE id = NEW.grant_id;
        IF owner.tenant_id <> NEW.tenant_id OR owner.currency <> NEW.currency OR owner.account <> NEW.account THEN
            RAISE EXCEPTION 'credit % is of another tenant, currency or kind', NEW.grant_id
                USING ERRCODE = 'check_violation';
        END IF;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER check_entry BEFORE INSERT ON billing_ledgerentry
    FOR EACH ROW EXECUTE FUNCTION billing_check_entry();

CREATE FUNCTION billing_check_balance() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    posting bigint;
    total numeric;
BEGIN
    IF TG_TABLE_NAME = 'billing_ledgerposting' THEN posting := NEW.id; ELSE posting := NEW.posting_id; END IF;
    SELECT sum(amount_nano) INTO total FROM billing_ledgerentry WHERE posting_id = posting;
    IF total IS DISTINCT FROM 0 THEN
        RAISE EXCEPTION 'posting % has no entries, or they do not sum to zero', posting
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER posting_balances AFTER INSERT ON billing_ledgerposting
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_check_balance();
CREATE CONSTRAINT TRIGGER posting_balances AFTER INSERT ON billing_ledgerentry
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_check_balance();

-- The row lock makes others wait who draw the same credit, so that the sum is that of all of them.
CREATE FUNCTION billing_check_grant() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    granted bigint;
    remaining numeric;
BEGIN
    SELECT amount_nano INTO granted FROM billing_creditgrant WHERE id = NEW.grant_id FOR NO KEY UPDATE;
    SELECT -sum(amount_nano) INTO remaining FROM billing_ledgerentry WHERE grant_id = NEW.grant_id;
    IF remaining < 0 OR remaining > granted THEN
        RAISE EXCEPTION 'credit % would have % left of %', NEW.grant_id, remaining, granted
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER grant_holds AFTER INSERT ON billing_ledgerentry
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.grant_id IS NOT NULL)
    EXECUTE FUNCTION billing_check_grant();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0015_exports_and_saved_views'),
        ('policies', '0009_rate_limits'),
    ]

    operations = [
        migrations.CreateModel(
            name='CreditGrant',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(choices=[('paid', 'paid in advance'), ('promotional', 'promotional')], max_length=11)),
                ('currency', models.CharField(max_length=3)),
                ('amount_nano', models.BigIntegerField()),
                ('priority', models.PositiveSmallIntegerField(default=100)),
                ('model_names', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=100), blank=True, default=list, help_text='Empty: of any model.', size=None)),
                ('granted_at', models.DateTimeField()),
                ('expires_at', models.DateTimeField(blank=True, null=True)),
                ('reference', models.CharField(blank=True, default='', help_text='Of the payment.', max_length=100)),
                ('note', models.CharField(blank=True, default='', max_length=300)),
                ('created_by', models.CharField(max_length=150)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='credit_grants', to='policies.tenant')),
            ],
            options={
                'ordering': ['priority', models.OrderBy(models.F('expires_at'), nulls_last=True), 'granted_at', 'id'],
            },
        ),
        migrations.CreateModel(
            name='ExchangeRate',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('currency', models.CharField(max_length=3)),
                ('rate', models.DecimalField(decimal_places=12, help_text='Units of the currency for 1 USD.', max_digits=24)),
                ('first_day', models.DateField()),
                ('last_day', models.DateField(blank=True, null=True)),
                ('source', models.CharField(help_text='Where the number comes from.', max_length=200)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('created_by', models.CharField(max_length=150)),
            ],
            options={
                'ordering': ['currency', '-first_day', '-id'],
                'indexes': [models.Index(fields=['currency', '-first_day', '-id'], name='exchange_rate_newest')],
                'constraints': [models.CheckConstraint(condition=models.Q(('rate__gt', 0), ('rate__lt', 1000000000)), name='exchange_rate_sane'), models.CheckConstraint(condition=models.Q(('currency__regex', '^[A-Z]{3}$'), models.Q(('currency', 'USD'), _negated=True)), name='exchange_rate_currency'), models.CheckConstraint(condition=models.Q(('last_day__isnull', True), ('last_day__gte', models.F('first_day')), _connector='OR'), name='exchange_rate_days')],
            },
        ),
        migrations.CreateModel(
            name='LedgerPosting',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(choices=[('grant', 'credit granted'), ('draw', 'credit drawn'), ('give_back', 'credit given back'), ('expire', 'credit expired'), ('refund', 'credit refunded'), ('issue', 'statement issued'), ('pay', 'statement paid'), ('void', 'statement voided'), ('credit_note', 'credit note issued'), ('write_off', 'written off')], max_length=12)),
                ('reference', models.CharField(max_length=200)),
                ('currency', models.CharField(max_length=3)),
                ('at', models.DateTimeField(help_text='When it counts.')),
                ('note', models.CharField(blank=True, default='', max_length=300)),
                ('made_at', models.DateTimeField(auto_now_add=True)),
                ('made_by', models.CharField(max_length=150)),
                ('transaction_number', models.BigIntegerField(editable=False)),
                ('corrects', models.ForeignKey(help_text='Draw given back.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='corrections', to='billing.ledgerposting')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='policies.tenant')),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='LedgerEntry',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('currency', models.CharField(max_length=3)),
                ('account', models.CharField(choices=[('receivable', 'accounts receivable'), ('revenue', 'revenue'), ('tax', 'tax collected'), ('rounding', 'rounding'), ('credit_paid', 'prepaid credit'), ('credit_promotional', 'promotional credit'), ('cash', 'cash'), ('promotion', 'cost of promotions'), ('breakage', 'prepaid credit expired'), ('write_off', 'written off')], max_length=20)),
                ('amount_nano', models.BigIntegerField()),
                ('grant', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='entries', to='billing.creditgrant')),
                ('tenant', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='policies.tenant')),
                ('posting', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='entries', to='billing.ledgerposting')),
            ],
            options={
                'ordering': ['id'],
            },
        ),
        migrations.CreateModel(
            name='BillingProfile',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('legal_name', models.CharField(blank=True, default='', help_text="Empty: the tenant's name.", max_length=200)),
                ('address', models.TextField(blank=True, default='', help_text='As it is printed.', max_length=500)),
                ('email', models.EmailField(blank=True, default='', max_length=254)),
                ('tax_id', models.CharField(blank=True, default='', max_length=50)),
                ('tax_name', models.CharField(blank=True, default='VAT', max_length=30)),
                ('tax_ratio', models.DecimalField(decimal_places=6, default=Decimal('0'), help_text='0.19 is 19 %.', max_digits=7, validators=[django.core.validators.MinValueValidator(0), django.core.validators.MaxValueValidator(1)])),
                ('currency', models.CharField(default='USD', max_length=3)),
                ('payment_days', models.PositiveSmallIntegerField(default=30, validators=[django.core.validators.MaxValueValidator(365)])),
                ('tenant', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='billing_profiles', to='policies.tenant')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('tenant',), name='billing_profile_of_tenant', nulls_distinct=False)],
            },
        ),
        migrations.AddConstraint(
            model_name='creditgrant',
            constraint=models.CheckConstraint(condition=models.Q(('amount_nano__gt', 0)), name='credit_grant_amount'),
        ),
        migrations.AddConstraint(
            model_name='creditgrant',
            constraint=models.CheckConstraint(condition=models.Q(('expires_at__isnull', True), ('expires_at__gt', models.F('granted_at')), _connector='OR'), name='credit_grant_expires_later'),
        ),
        migrations.AddConstraint(
            model_name='creditgrant',
            constraint=models.UniqueConstraint(condition=models.Q(('reference', ''), _negated=True), fields=('tenant', 'reference'), name='credit_grant_reference'),
        ),
        migrations.AddIndex(
            model_name='ledgerposting',
            index=models.Index(fields=['tenant', '-id'], name='ledger_posting_tenant'),
        ),
        migrations.AddConstraint(
            model_name='ledgerposting',
            constraint=models.UniqueConstraint(fields=('kind', 'reference'), name='ledger_posting_once'),
        ),
        migrations.AddConstraint(
            model_name='ledgerposting',
            constraint=models.CheckConstraint(condition=models.Q(('currency__regex', '^[A-Z]{3}$')), name='ledger_posting_currency'),
        ),
        migrations.AddIndex(
            model_name='ledgerentry',
            index=models.Index(fields=['tenant', 'account', 'currency'], name='ledger_entry_balance'),
        ),
        migrations.AddConstraint(
            model_name='ledgerentry',
            constraint=models.CheckConstraint(condition=models.Q(('amount_nano', 0), _negated=True), name='ledger_entry_not_zero'),
        ),
        migrations.AddConstraint(
            model_name='ledgerentry',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('account__in', ['credit_paid', 'credit_promotional']), ('grant__isnull', False)), models.Q(models.Q(('account__in', ['credit_paid', 'credit_promotional']), _negated=True), ('grant__isnull', True)), _connector='OR'), name='ledger_entry_credit_has_grant'),
        ),
        migrations.RunSQL(TRIGGERS, migrations.RunSQL.noop),
    ]
