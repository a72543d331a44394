"""Sum the records that have labels already by their label sets: a day at a time, each day whole or not at all.

No transaction holds all of it, and a run that was broken goes on with the days that have no sums yet. Nobody reads or
ingests meanwhile: both wait for all migrations. Days whose records were dropped cannot be summed and stay without.
"""

from django.db import migrations, transaction

KEYS = ("tenant_id", "project_id", "api_key_id", "deployment_id", "price_id", "policy_id", "label_ids")
SUMS = (
    "request_count", "error_count", "unpriced_count", "estimated_count", "unknown_count", "input_tokens",
    "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "cost_nanousd", "charge_nanousd",
)
TENANT_KEYS = [name for name in KEYS if name not in ("api_key_id", "price_id")]
# What keeps ingesters of another process from adding to a day while it is summed (`billing.periods`).
PERIOD_LOCK = 0x706572696F64
LIST_DAYS = """
SELECT day FROM billing_usagebylabelday EXCEPT SELECT day FROM billing_usagebykeylabelsetday ORDER BY 1
"""


def posted(table, request_id, number):
    """What counts on the day: what began on it, and what came late for a closed day and was posted on this one."""
    same = f"l.request_id = source.{request_id} AND l.number = {number}"
    return f"""(
        SELECT source.* FROM {table} source
        WHERE source.started_at >= %(begins_at)s::timestamptz
            AND source.started_at < %(begins_at)s::timestamptz + interval '1 day'
            AND NOT EXISTS (SELECT FROM billing_lateposting l WHERE {same})
        UNION ALL
        SELECT source.* FROM billing_lateposting l JOIN {table} source ON {same} AND source.started_at = l.started_at
        WHERE l.posted_on = %(day)s
    )"""


FILL_KEYS = f"""
INSERT INTO billing_usagebykeylabelsetday (day, {", ".join(KEYS)}, {", ".join(SUMS)})
SELECT %(day)s, {", ".join(KEYS)}, {", ".join(f"coalesce(sum({name}), 0)" for name in SUMS)} FROM (
    SELECT {", ".join(KEYS)}, 1 AS request_count, (status NOT IN ('ok', 'cancelled'))::int AS error_count,
        is_unpriced::int AS unpriced_count, (usage_kind = 'estimated')::int AS estimated_count,
        (usage_kind = 'unknown')::int AS unknown_count, input_tokens, output_tokens, cache_read_tokens,
        cache_write_tokens, reasoning_tokens, cost_nanousd, coalesce(charge_nanousd, cost_nanousd) AS charge_nanousd
    FROM {posted("billing_requestrecord", "id", "0")} r WHERE cardinality(label_ids) > 0
    UNION ALL
    SELECT {", ".join(f"a.{name}" for name in KEYS[:-1])}, r.label_ids, {", ".join(f"a.{name}" for name in SUMS)}
    FROM {posted("billing_adjustment", "request_id", "source.number")} a
    JOIN billing_requestrecord r ON r.id = a.request_id AND r.started_at = a.started_at
    WHERE cardinality(r.label_ids) > 0
) counted GROUP BY {", ".join(KEYS)}
"""
FILL = f"""
INSERT INTO billing_usagebylabelsetday (day, {", ".join(TENANT_KEYS)}, {", ".join(SUMS)})
SELECT day, {", ".join(TENANT_KEYS)}, {", ".join(f"sum({name})" for name in SUMS)}
FROM billing_usagebykeylabelsetday WHERE day = %(day)s GROUP BY day, {", ".join(TENANT_KEYS)}
"""


def fill(apps, schema_editor):
    """Sum the days that have sums by label and none by label set."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(LIST_DAYS)
        days = [day for (day,) in cursor.fetchall()]
    for day in days:
        with transaction.atomic(), schema_editor.connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [PERIOD_LOCK])
            asked = {"day": day, "begins_at": f"{day}T00:00:00Z"}
            cursor.execute(FILL_KEYS, asked)
            cursor.execute(FILL, asked)


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("billing", "0027_sums_by_label_sets")]
    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
