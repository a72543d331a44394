"""How does a month reach a cost tool? `manage.py export_focus --month 2026-10` writes it in FOCUS to a file.

Reads: through `billing.export_tables`. Starts the embedded PostgreSQL for its own length when none runs.
"""

from __future__ import annotations

import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from billing import focus
from billing.export_files import FORMATS, FormatMissing, check_format, open_row_file
from billing.export_tables import ExportRefused, open_table
from billing.models import ExportKind
from gateway.database_access import with_database


class Command(BaseCommand):
    help = "Write a month of usage as FOCUS Cost and Usage, to a file or (CSV, JSON Lines) to stdout."
    requires_system_checks: list[str] = []  # The pages are not needed here.

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--month", required=True, help="For example 2026-10 (UTC).")
        parser.add_argument("--focus-version", choices=focus.VERSIONS, default=focus.VERSIONS[0])
        parser.add_argument("--tenant", default="", help="The number of a tenant; all of them when missing.")
        parser.add_argument("--format", choices=sorted(FORMATS), default="csv")
        parser.add_argument("--output", type=Path, help="The file to write; stdout when missing.")

    @with_database
    def handle(self, *args: Any, **options: Any) -> None:
        file_format, output = options["format"], options["output"]
        if output is None and file_format not in ("csv", "jsonl"):
            raise CommandError(f"{file_format} needs --output FILE")
        asked = {"month": options["month"], "version": options["focus_version"], "tenant": options["tenant"]}
        try:
            check_format(file_format)
            table = open_table(ExportKind.FOCUS, urlencode(asked), file_format, now=timezone.now())
        except (ExportRefused, FormatMissing) as refusal:
            raise CommandError(str(refusal)) from None
        table.count()  # brings the days up to date
        folder = output.parent if output is not None else None
        with tempfile.TemporaryDirectory(dir=folder) as place:
            part = Path(place) / "focus"
            file = open_row_file(file_format, part, table.columns, name=table.name, about=table.about)
            row_count = 0
            for row in table.rows:
                file.write(row)
                row_count += 1
            file.close()
            if output is not None:
                part.replace(output)
            else:
                with part.open(encoding="utf-8", newline="") as text:
                    for line in text:
                        self.stdout.write(line, ending="")
        print(f"{row_count} rows", file=sys.stderr)
