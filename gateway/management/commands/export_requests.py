"""How do request records reach a file or a pipe? `manage.py export_requests` streams them to stdout.

Reads: through `billing.exporting`. Starts the embedded PostgreSQL for its own length when none runs.
"""

from __future__ import annotations

import datetime as dt
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from billing.exporting import export_requests
from gateway.database_access import with_database


class Command(BaseCommand):
    help = "Write request records with attempts, decision, usage and cost to stdout, oldest first."
    requires_system_checks: list[str] = []  # The pages are not needed here.

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--format", choices=["jsonl", "csv"], default="jsonl")
        parser.add_argument("--since", help="ISO time or date (UTC when it names no zone), inclusive.")
        parser.add_argument("--until", help="ISO time or date, exclusive.")

    @with_database
    def handle(self, *args: Any, **options: Any) -> None:
        pieces = export_requests(
            file_format=options["format"], since=_time(options["since"]), until=_time(options["until"])
        )
        for piece in pieces:
            self.stdout.write(piece, ending="")


def _time(text: str | None) -> dt.datetime | None:
    if text is None:
        return None
    try:
        found = parse_datetime(text)
        day = parse_date(text) if found is None else None
    except ValueError as error:
        raise CommandError(f"{text}: {error}") from None
    if found is None and day is not None:
        found = dt.datetime(day.year, day.month, day.day)  # noqa: DTZ001  (made aware below)
    if found is None:
        raise CommandError(f"{text}: not an ISO time, for example 2026-05-01 or 2026-05-01T12:00:00Z")
    return timezone.make_aware(found, dt.UTC) if timezone.is_naive(found) else found
