"""Request and attempt records as tables partitioned by month; append-only triggers; the first partitions.

Django cannot write partitioned tables, so their state is in 0001 and their rows' home is here.
"""

from django.db import migrations

CREATE_TABLES = """
CREATE TABLE "billing_requestrecord" (
    "id" uuid NOT NULL,
    "started_at" timestamp with time zone NOT NULL,
    "endpoint" varchar(20) NOT NULL,
    "requested_model" varchar(300) NOT NULL,
    "is_stream" boolean NOT NULL,
    "is_pinned" boolean NOT NULL,
    "status" varchar(12) NOT NULL,
    "http_status" smallint NULL CHECK ("http_status" >= 0),
    "error_code" varchar(80) NOT NULL,
    "rule" varchar(200) NOT NULL,
    "served_model" varchar(300) NOT NULL,
    "finish_reason" varchar(60) NOT NULL,
    "attempt_count" smallint NOT NULL CHECK ("attempt_count" >= 0),
    "duration_ms" double precision NULL,
    "first_token_ms" double precision NULL,
    "usage_kind" varchar(10) NOT NULL,
    "usage_convention" varchar(40) NOT NULL,
    "input_tokens" bigint NULL,
    "output_tokens" bigint NULL,
    "cache_read_tokens" bigint NULL,
    "cache_write_tokens" bigint NULL,
    "reasoning_tokens" bigint NULL,
    "usage_detail" jsonb NOT NULL,
    "service_tier" varchar(40) NOT NULL,
    "cost_nanousd" bigint NULL,
    "is_unpriced" boolean NOT NULL,
    "tags" jsonb NOT NULL,
    "features" jsonb NOT NULL,
    "decision" jsonb NOT NULL,
    "ingested_at" timestamp with time zone NOT NULL,
    "api_key_id" bigint NOT NULL,
    "deployment_id" bigint NULL,
    "policy_id" bigint NULL,
    "policy_version_id" bigint NULL,
    "price_id" bigint NULL,
    "project_id" bigint NOT NULL,
    "tenant_id" bigint NOT NULL,
    PRIMARY KEY ("id", "started_at")
) PARTITION BY RANGE ("started_at");

CREATE TABLE "billing_attemptrecord" (
    "id" uuid NOT NULL,
    "request_id" uuid NOT NULL,
    "started_at" timestamp with time zone NOT NULL,
    "number" smallint NOT NULL CHECK ("number" >= 0),
    "outcome" varchar(30) NOT NULL,
    "http_status" smallint NULL CHECK ("http_status" >= 0),
    "error_code" varchar(80) NOT NULL,
    "error_message" varchar(500) NOT NULL,
    "upstream_request_id" varchar(200) NOT NULL,
    "offset_ms" double precision NOT NULL,
    "first_byte_ms" double precision NULL,
    "duration_ms" double precision NOT NULL,
    "usage" jsonb NOT NULL,
    "cost_nanousd" bigint NULL,
    "deployment_id" bigint NOT NULL,
    "price_id" bigint NULL,
    PRIMARY KEY ("id", "started_at")
) PARTITION BY RANGE ("started_at");

CREATE INDEX request_newest_of_tenant ON billing_requestrecord (tenant_id, started_at DESC, id DESC);
CREATE INDEX request_newest_of_key ON billing_requestrecord (api_key_id, started_at DESC, id DESC);
CREATE INDEX request_newest ON billing_requestrecord (started_at DESC, id DESC);
CREATE INDEX attempt_of_request ON billing_attemptrecord (request_id, number);

-- One month of both tables. Called by billing.partitions before rows of that month are written.
CREATE FUNCTION billing_create_month(month date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    first date := date_trunc('month', month)::date;
    next date := (date_trunc('month', month) + interval '1 month')::date;
    suffix text := to_char(date_trunc('month', month), 'YYYY_MM');
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('billing_create_month'));
    EXECUTE format('CREATE TABLE IF NOT EXISTS %I PARTITION OF billing_requestrecord FOR VALUES FROM (%L) TO (%L)',
        'billing_requestrecord_' || suffix, first::text || ' 00:00:00+00', next::text || ' 00:00:00+00');
    EXECUTE format('CREATE TABLE IF NOT EXISTS %I PARTITION OF billing_attemptrecord FOR VALUES FROM (%L) TO (%L)',
        'billing_attemptrecord_' || suffix, first::text || ' 00:00:00+00', next::text || ' 00:00:00+00');
END $$;

SELECT billing_create_month(now()::date), billing_create_month((now() + interval '1 month')::date);

CREATE FUNCTION billing_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: add a correcting row instead', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON billing_requestrecord
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON billing_attemptrecord
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON billing_price
    FOR EACH ROW EXECUTE FUNCTION billing_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_initial")]

    operations = [migrations.RunSQL(CREATE_TABLES, migrations.RunSQL.noop)]
