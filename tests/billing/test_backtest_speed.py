"""How long does a backtest over a million records take? Prints the figures; run it on an idle machine.

TESTS_WITH_FSYNC=1 python -m pytest tests/billing/test_backtest_speed.py -m nightly -s
BACKTEST_RECORDS=100000 makes it smaller.
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone

from billing import backtesting
from billing.models import Backtest
from gateway.snapshots import load_snapshot
from tests import make_traffic
from tests.make_traffic import RULES, Site

pytestmark = [pytest.mark.nightly, pytest.mark.django_db(transaction=True)]

RECORDS = int(os.environ.get("BACKTEST_RECORDS", "1000000"))
TEMPLATES = 2_000
MAX_S = 60.0

# Each template again and again, at other times of the week: an id holds its millisecond.
MULTIPLY = """
INSERT INTO billing_requestrecord (id, started_at, {columns})
SELECT (left(ms, 8) || '-' || right(ms, 4) || '-7' || right(md5(number::text), 3) || '-8' ||
        substr(md5(number::text), 4, 3) || '-' || substr(md5(number::text), 7, 12))::uuid, at, {columns}
FROM (
    SELECT number, templates.*, at, lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') AS ms
    FROM generate_series(1, %s) AS number
    JOIN (SELECT row_number() OVER (ORDER BY id) - 1 AS place, * FROM billing_requestrecord) AS templates
        ON templates.place = number %% %s
    CROSS JOIN LATERAL (SELECT date_trunc('milliseconds', %s - interval '7 days' * number / (%s + 1.0)) AS at) AS times
) AS many
"""


def multiply(site: Site) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT string_agg(column_name, ', ') FROM information_schema.columns"
            " WHERE table_name = 'billing_requestrecord' AND column_name NOT IN ('id', 'started_at')"
        )
        (columns,) = cursor.fetchone()
        extra = RECORDS - TEMPLATES
        cursor.execute(MULTIPLY.format(columns=columns), [extra, TEMPLATES, site.until, extra])
        cursor.execute("ANALYZE billing_requestrecord")


def cpu_seconds() -> float:
    """Of this process and of the children that it has waited for."""
    used = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def test_a_million_records_take_less_than_a_minute(tmp_path: Path) -> None:
    site = make_traffic.site(now=timezone.now())
    site.record(tmp_path, TEMPLATES)
    multiply(site)
    live = RULES
    draft = [*RULES[:2], {"name": "rest", "strategy": "least_cost", "deployments": ["large@a", "small@b"]}]
    auto = [
        *RULES[:2],
        {"name": "rest", "strategy": "auto", "deployments": ["large@a", "small@b", "small@a"]},
    ]
    for name, rules in (("live version", live), ("draft", draft), ("automatic router", auto)):
        made = backtesting.start_backtest(
            policy=site.policy, document={"rules": rules}, days=8, actor="ada", now=site.until
        )
        began_s, began_cpu_s = time.perf_counter(), cpu_seconds()
        backtesting.run_backtest(made.pk, load_snapshot=load_snapshot)
        took_s, cpu_s = time.perf_counter() - began_s, cpu_seconds() - began_cpu_s
        made = Backtest.objects.get(pk=made.pk)
        assert made.state == "done", made.error
        assert made.result["count"] == RECORDS
        if made.result["reproduction"]:
            assert made.result["reproduction"]["missed"] == 0
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"\n{name}: {RECORDS:,} records in {took_s:.1f} s, {cpu_s / RECORDS * 1e6:.1f} µs CPU a record in Python,"
            f" {peak_mb:.0f} MB, load {os.getloadavg()[0]:.1f}"
        )
        assert took_s < MAX_S
