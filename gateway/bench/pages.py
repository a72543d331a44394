"""How long do the console's pages take with the records that this database holds?

Reads: what the pages read, as an operator who is signed in for that long (a session, ended again).
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from django.db import connection
from django.test import Client
from django.utils import timezone

from billing.models import Label
from policies.models import ApiKey, Tenant

P95 = 0.95


class PageTook(NamedTuple):
    """Milliseconds for one page: on the clock, and of the processor: this process and its database process."""

    address: str
    median_ms: float
    p95_ms: float
    cpu_ms: float


def list_addresses() -> list[str]:
    """Lists and reports over everything, and over the first tenant, key and tag that there are."""
    found = [
        "/", "/requests", "/requests?status=error", "/spend?period=30d&by=tenant", "/spend?period=30d&by=key",
        "/spend?period=30d&by=model", "/spend?period=30d&by=rule", "/spend/keys?period=30d",
        "/spend/savings?period=30d", "/budgets", "/statements", f"/statements?month={timezone.now():%Y-%m}",
    ]  # fmt: skip
    if tenant := Tenant.objects.order_by("pk").first():
        found += [f"/requests?tenant={tenant.pk}", f"/spend?period=30d&by=key&tenant={tenant.pk}"]
    if key := ApiKey.objects.order_by("pk").first():
        found += [f"/requests?key={key.pk}", f"/spend?period=30d&by=model&key={key.pk}"]
    if label := Label.objects.filter(kind="tag").order_by("pk").first():
        found += [
            f"/requests?label={label.pk}", f"/spend?period=30d&by=tag:{label.name}",
            f"/spend?period=30d&by=day&label={label.pk}", f"/spend?period=30d&by=key&label={label.pk}",
            f"/spend?period=30d&by=rule&label={label.pk}",
        ]  # fmt: skip
    return found


def measure_pages(client: Client, *, rounds: int) -> Iterator[PageTook]:
    """Ask for each page so many times, after one time that does not count. Raises AssertionError for a page that fails.

    In one database process, so that its time is all there is: as the pages of many people at a time.
    """
    with connection.cursor() as cursor:
        cursor.execute("SET max_parallel_workers_per_gather = 0")
    for address in list_addresses():
        status = client.get(address).status_code
        if status != 200:
            raise AssertionError(f"{address} answered {status}")
        times, began_cpu_s = [], _cpu_seconds()
        for _ in range(rounds):
            begun = time.perf_counter()
            client.get(address)
            times.append((time.perf_counter() - begun) * 1000)
        cpu_ms = (_cpu_seconds() - began_cpu_s) * 1000 / rounds
        yield PageTook(
            address, statistics.median(times), sorted(times)[int(P95 * (rounds - 1) + 0.5)], cpu_ms
        )


def _cpu_seconds() -> float:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    try:
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        server_s = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    except FileNotFoundError:  # another machine's database
        server_s = 0.0
    return time.process_time() + server_s
