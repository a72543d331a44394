"""How many requests a second does the ingester store? Prints the figure; run it on an idle machine.

TESTS_WITH_FSYNC=1 python -m pytest tests/billing/test_ingest_speed.py -m nightly -s
Without the variable PostgreSQL runs with the settings of tests, which skip every wait for the disk.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from billing.ingesting import Ingester
from billing.models import RequestRecord
from tests import make

pytestmark = [pytest.mark.nightly, pytest.mark.django_db(transaction=True)]

REQUESTS = 40_000
LINES_A_SEGMENT = 20_000
IN_FLIGHT = 50
# A sanity floor for a busy machine; the figure that counts is the printed one.
MIN_RECORDS_PER_S = 2_000


def test_the_ingester_stores_thousands_of_requests_a_second(tmp_path: Path) -> None:
    worlds, draw = [make.world() for _ in range(20)], random.Random(1)
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
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    ingester.ingest_available()
    per_second = REQUESTS / (time.perf_counter() - began_s)
    cpu_us = (time.process_time() - began_cpu_s) / REQUESTS * 1e6
    print(f"\n{per_second:,.0f} records/s, {cpu_us:.0f} µs CPU a record in Python, load {os.getloadavg()}")
    assert RequestRecord.objects.count() == REQUESTS
    assert per_second > MIN_RECORDS_PER_S
