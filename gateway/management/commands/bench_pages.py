"""How long do the console's pages take here? `manage.py bench_pages [--rounds N]` prints each one's times.

Calls: `gateway.bench.pages`. Starts the embedded PostgreSQL for its own length when none runs.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from django.test import Client

from billing.models import RequestRecord
from gateway.bench.pages import measure_pages
from gateway.database_access import with_database

# A list answers within this, a report within that (p95).
LIST_BAR_MS, REPORT_BAR_MS = 100, 300


class Command(BaseCommand):
    help = (
        "Measure lists and reports of the console on the records of this database, as an operator sees them."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--rounds", type=int, default=40, help="how often each page is asked for (default 40)"
        )

    @with_database
    def handle(self, *args: Any, **options: Any) -> None:
        if not 1 <= options["rounds"] <= 1000:
            raise CommandError("--rounds may be from 1 to 1000")
        operator = User.objects.filter(is_superuser=True, is_active=True).order_by("pk").first()
        if operator is None:
            raise CommandError("nobody can sign in yet: start manage.py up once, it makes an operator")
        client = Client(SERVER_NAME="127.0.0.1")
        client.force_login(operator)
        self.stdout.write(
            f"{RequestRecord.objects.count():,} requests; milliseconds, {options['rounds']} rounds,"
            f" load {os.getloadavg()[0]:.2f}\n{'page':52} {'median':>7} {'p95':>7} {'wanted':>7} {'CPU':>7}"
        )
        try:
            for took in measure_pages(client, rounds=options["rounds"]):
                bar_ms = LIST_BAR_MS if took.address.startswith("/requests") else REPORT_BAR_MS
                self.stdout.write(
                    f"{took.address:52} {took.median_ms:7.0f} {took.p95_ms:7.0f} {bar_ms:7} {took.cpu_ms:7.0f}"
                    + ("  over" if took.p95_ms > bar_ms else "")
                )
        finally:
            client.logout()
