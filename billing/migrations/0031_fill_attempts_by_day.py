"""Sum the attempts of before by day and deployment, with what was priced afterwards: one statement, whole or not.

Nobody reads or ingests meanwhile: both wait for all migrations. Ingesters of another process are kept away.
"""

from django.db import migrations

# What keeps ingesters away while a budget is made (`billing.budget_settling`).
BUDGET_LOCK = 0x627564676574
FILL = """
INSERT INTO billing_attemptsbyday (day, deployment_id, attempt_count, cost_nanousd)
SELECT day, deployment_id, sum(count), sum(cost) FROM (
    SELECT (started_at AT TIME ZONE 'UTC')::date AS day, deployment_id, count(*) AS count,
        coalesce(sum(cost_nanousd), 0) AS cost
    FROM billing_attemptrecord GROUP BY 1, 2
    UNION ALL
    SELECT (j.started_at AT TIME ZONE 'UTC')::date, a.deployment_id, 0,
        sum((e.attempt->>2)::bigint - coalesce(a.cost_nanousd, 0))
    FROM billing_adjustment j CROSS JOIN LATERAL jsonb_array_elements(j.attempts) e (attempt)
    JOIN billing_attemptrecord a ON a.request_id = j.request_id AND a.started_at = j.started_at
        AND a.number = (e.attempt->>0)::int
    GROUP BY 1, 2
) counted
WHERE deployment_id IN (SELECT id FROM policies_deployment)
GROUP BY 1, 2
"""


class Migration(migrations.Migration):

    dependencies = [("billing", "0030_attempts_by_day")]

    operations = [
        migrations.RunSQL(f"SELECT pg_advisory_xact_lock({BUDGET_LOCK})", migrations.RunSQL.noop),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
    ]
