"""How is a month closed without the console? `manage.py close_period 2025-10 [--preview]`.

Writes: through `billing.closing`. Starts the embedded PostgreSQL for its own length when none runs.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from billing import closing
from billing.minor_units import minor_for_people
from billing.models import ClosingState, Invoice
from billing.money import format_usd
from gateway.database_access import with_database
from gateway.management.commands.statements import read_month
from policies.errors import ConfigurationError
from policies.models import Tenant


class Command(BaseCommand):
    help = (
        "Close a month (UTC) and issue its statements. What comes in for it afterwards is on the next statements. "
        "A closed month is not opened again; closing it twice changes nothing."
    )
    requires_system_checks: list[str] = []  # The pages are not needed here.

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("month", type=read_month, help="like 2025-10")
        parser.add_argument("--preview", action="store_true", help="only say what it would meet and do")
        parser.add_argument(
            "--grace-days",
            type=int,
            default=closing.GRACE_DAYS,
            metavar="N",
            help="so long after its end late records are waited for",
        )

    @with_database
    def handle(self, *args: Any, **options: Any) -> None:
        month, now, grace_days = options["month"], timezone.now(), options["grace_days"]
        try:
            if options["preview"]:
                self._say_preview(closing.preview(month=month, now=now, grace_days=grace_days))
                return
            row = closing.close_period(
                month=month, actor="manage.py close_period", now=now, grace_days=grace_days
            )
        except ConfigurationError as refusal:
            raise CommandError(str(refusal)) from None
        if row.state != ClosingState.DONE:
            raise CommandError(row.error or f"{row} is being closed by another process")
        self._say_issued(month)
        names = dict(Tenant.objects.values_list("pk", "name"))
        for one in row.left:
            self.stdout.write(f"left     {names.get(one['tenant'])}: {one['reason']}")

    def _say_preview(self, seen: closing.Preview) -> None:
        state = "closed" if seen.is_closed else "open"
        self.stdout.write(
            f"{seen.month:%Y-%m} is {state}: {seen.tenant_count} tenants to bill, {format_usd(seen.charge_nanousd)}."
        )
        for one in seen.findings:
            self.stdout.write(f"{'obstacle' if one.is_obstacle else 'note    '} {one.text}")

    def _say_issued(self, month: dt.date) -> None:
        self.stdout.write(f"{month:%Y-%m} is closed.")
        for row in Invoice.objects.filter(month=month, number__isnull=False).order_by("kind", "number"):
            amount = minor_for_people(row.total_minor, row.currency, row.minor_digits)
            self.stdout.write(f"{row.number_text}  {row.tenant}  {amount}  {row.get_state_display()}")
