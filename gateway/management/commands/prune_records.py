"""Which old request records can go? `manage.py prune_records --keep-months N [--dry-run]` drops them by the month.

Writes: through `billing.retention`. Starts the embedded PostgreSQL for its own length when none runs.
"""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from billing.retention import Month, MonthBusyError, drop_old_months, list_old_months
from gateway.database_access import with_database
from policies.errors import ConfigurationError


class Command(BaseCommand):
    help = (
        "Drop the request and attempt records of months that lie further back than the current one and the N months "
        "before it. Sums by day and hour stay. What is dropped cannot be brought back, nor be verified any more."
    )
    requires_system_checks: list[str] = []  # The pages are not needed here.

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--keep-months", type=int, required=True, metavar="N", help="1 or more")
        parser.add_argument("--dry-run", action="store_true", help="only say what would go")

    @with_database
    def handle(self, *args: Any, **options: Any) -> None:
        keep_months, now = options["keep_months"], timezone.now()
        try:
            if options["dry_run"]:
                months = list_old_months(keep_months=keep_months, now=now)
            else:
                months = drop_old_months(keep_months=keep_months, now=now, actor="manage.py prune_records")
        except (ConfigurationError, MonthBusyError) as refusal:
            raise CommandError(str(refusal)) from None
        if not months:
            self.stdout.write("No month is old enough: nothing to drop.")
        verb = "would go" if options["dry_run"] else "dropped"
        for month in months:
            self.stdout.write(f"{verb}: {_described(month)}")


def _described(month: Month) -> str:
    count = "" if month.request_count is None else f", about {month.request_count:,} requests"
    return f"{month.first_day:%Y-%m}{count}, {month.size_bytes / 1e6:,.1f} MB"
