"""Do costs follow from usage and prices, and rollups from records? `manage.py verify_usage` proves it.

Reads: through `billing.verifying`. Writes: DATA_DIR/run/verify.json. Starts the embedded
PostgreSQL for its own length when none runs.
"""

from __future__ import annotations

import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.utils import timezone

from billing.verifying import verify, write_result
from gateway.database_access import with_database


class Command(BaseCommand):
    help = "Recompute every cost and every rollup. Exit code 1 and a table when anything differs."
    requires_system_checks: list[str] = []  # The pages are not needed here.

    @with_database
    def handle(self, *args: Any, **options: Any) -> None:
        found = verify(now=timezone.now())
        write_result(found, settings.POINTSMAN_DATA_DIR)
        checked = f"{found.attempt_count} attempts in {found.month_count} months checked"
        if gone := [f"{month:%Y-%m}" for month in found.unchecked_months]:
            named = gone[0] if len(gone) == 1 else f"{gone[0]} to {gone[-1]} ({len(gone)} months)"
            self.stdout.write(f"Not checked, because their records were dropped: the rollups of {named}.")
        if found.is_ok:
            self.stdout.write(f"{checked}: every cost and every rollup is right.")
            return
        self.stdout.write(f"{checked}: {found.difference_count} differences.\n")
        rows = [("what differs", "of", "stored", "expected")]
        rows += [(one.kind, one.what, one.stored, one.expected) for one in found.differences]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        for row in rows:
            line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
            self.stdout.write(line.rstrip())
        if found.difference_count > len(found.differences):
            self.stdout.write(f"... and {found.difference_count - len(found.differences)} more")
        sys.exit(1)
