"""Do pages stay as fast when requests become five times, and fifty times, as many?

`python -m pytest tests/billing/test_growth.py -m nightly -s` prints what each page takes at 200,000 requests and at a
million, and at ten million (the second test: GROWTH_REQUESTS says how many): on the clock, and in CPU time of this
process and its database process, which says what it is on a machine that does nothing else. The ratio of CPU times is
what is asserted, with a floor for times too small to compare; and that no page reads a partition of request_record from
end to end.
"""

from __future__ import annotations

import os
import time

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from billing import budgets
from billing.seeding_traffic import Plan, seed_traffic
from gateway.bench.pages import PageTook, list_addresses, measure_pages
from policies.models import Tenant
from tests.console_people import operator

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.nightly]

ROUNDS = 5
FLAT_RATIO, FLOOR_MS = 1.7, 60.0


def measure() -> dict[str, PageTook]:
    """What each page takes; no query may read request_record or attempt_record from end to end."""
    client = operator()
    for address in list_addresses():
        with CaptureQueriesContext(connection) as queries:
            assert client.get(address).status_code == 200
        for query in queries.captured_queries:
            if "billing_requestrecord" in query["sql"] or "billing_attemptrecord" in query["sql"]:
                assert_no_sequential_scan(query["sql"], address)
    return {took.address: took for took in measure_pages(client, rounds=ROUNDS)}


def assert_no_sequential_scan(sql: str, address: str) -> None:
    if not sql.lstrip(" (\n").upper().startswith(("SELECT", "WITH")):
        return
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {sql}")
        plan = [row[0] for row in cursor.fetchall()]
    for line in plan:
        # What an existence check opens and stops at the first row of is no scan from end to end.
        is_scan = "Seq Scan on billing_requestrecord" in line or "Seq Scan on billing_attemptrecord" in line
        rows = float(line.rpartition("rows=")[2].split()[0]) if "rows=" in line else 0
        assert not is_scan or rows <= 1_000, f"{address}: {line.strip()}\n{sql[:400]}"


def seed(request_count: int) -> None:
    """More requests, of the same tenants, keys and days: what grows is their number alone."""
    begun = time.perf_counter()
    for _ in seed_traffic(Plan(request_count, 3, timezone.now()), actor="ada"):
        pass
    print(f"\n{request_count:,} requests seeded in {time.perf_counter() - begun:,.0f} s")
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")  # as autovacuum would in the time that so many requests really take


def compare(first_count: int, second_count: int) -> None:
    seed(first_count)
    for tenant in Tenant.objects.order_by("pk")[:10]:
        budgets.create_budget(tenant=tenant, window="month", limit_nanousd=10**15, actor="fiona")
    few = measure()
    seed(second_count - first_count)
    many = measure()
    print(f"{'':48} {first_count:>12,} {second_count:>12,}   load {os.getloadavg()}")
    for address, took in few.items():
        print(
            f"{address:48} {took.median_ms:6.0f} ({took.cpu_ms:4.0f}) {many[address].median_ms:6.0f}"
            f" ({many[address].cpu_ms:4.0f}) ms, in brackets CPU"
        )
    slower = {
        address: (round(took.cpu_ms), round(many[address].cpu_ms))
        for address, took in few.items()
        if many[address].cpu_ms > max(took.cpu_ms * FLAT_RATIO, FLOOR_MS)
    }
    assert not slower


def test_pages_take_as_long_with_a_million_requests_as_with_two_hundred_thousand() -> None:
    compare(200_000, 1_000_000)


def test_pages_take_as_long_with_ten_million_requests_as_with_a_million() -> None:
    count = int(os.environ.get("GROWTH_REQUESTS", "10000000"))
    compare(count // 10, count)
