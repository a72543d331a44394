"""How many requests a second does the ingester store? Prints the figure; run it on an idle machine.

TESTS_WITH_FSYNC=1 python -m pytest tests/billing/test_ingest_speed.py -m nightly -s
Without the variable PostgreSQL runs with the settings of tests, which skip every wait for the disk.
"""

from __future__ import annotations

import os
import random
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from billing import budgets
from billing.ingesting import Ingester
from billing.models import RequestRecord
from billing.sale_terms import add_term
from tests import make

pytestmark = [pytest.mark.nightly, pytest.mark.django_db(transaction=True)]

REQUESTS = 40_000
LINES_A_SEGMENT = 20_000
IN_FLIGHT = 50
# A sanity floor for a busy machine; the figure that counts is the printed one.
MIN_RECORDS_PER_S = 2_000


def server_cpu_s() -> float:
    """The CPU time of the database process that does the work."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("has_terms", [False, True])
def test_the_ingester_stores_thousands_of_requests_a_second(tmp_path: Path, has_terms: bool) -> None:
    """Every tenant has a budget; with terms, one in four is charged something else than the cost."""
    worlds, draw = [make.world() for _ in range(20)], random.Random(1)
    for world in worlds:
        budgets.create_budget(tenant=world.tenant, window="month", limit_nanousd=10**15, actor="fiona")
    for world in worlds[::4] if has_terms else ():
        add_term(tenant=world.tenant, factor=Decimal("1.2"), actor="fiona")
    time.sleep(0.01)  # ids are of milliseconds: what follows begins after the terms
    lines: list[Any] = []
    waiting: list[dict[str, Any]] = []
    for number in range(REQUESTS):
        intent, outcome = make.request_lines(worlds[number % len(worlds)])
        lines.append(intent)
        waiting.append(outcome)
        if len(waiting) > IN_FLIGHT:
            lines.append(waiting.pop(draw.randrange(IN_FLIGHT)))
    lines += waiting
    for start in range(0, len(lines), LINES_A_SEGMENT):
        number = start // LINES_A_SEGMENT + 1
        make.segment(tmp_path, lines[start : start + LINES_A_SEGMENT], number=number)
    ingester = Ingester(tmp_path)
    began_s, began_cpu_s, began_server_s = time.perf_counter(), time.process_time(), server_cpu_s()
    ingester.ingest_available()
    per_second = REQUESTS / (time.perf_counter() - began_s)
    cpu_us = (time.process_time() - began_cpu_s) / REQUESTS * 1e6
    server_us = (server_cpu_s() - began_server_s) / REQUESTS * 1e6
    print(
        f"\n{'with' if has_terms else 'without'} terms: {per_second:,.0f} records/s, {cpu_us:.0f} µs CPU a record in"
        f" Python, {server_us:.0f} in PostgreSQL, load {os.getloadavg()}"
    )
    assert RequestRecord.objects.count() == REQUESTS
    charged = RequestRecord.objects.filter(charge_nanousd__isnull=False).count()
    assert charged == (REQUESTS // 4 if has_terms else 0)
    assert per_second > MIN_RECORDS_PER_S
