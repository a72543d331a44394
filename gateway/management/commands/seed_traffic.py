"""How long do pages take with millions of requests? `manage.py seed_traffic --requests N --months M` makes them.

Writes: through `billing.seeding_traffic`, and the tables where there are none. Starts the embedded PostgreSQL for its
own length when none runs.
"""

from __future__ import annotations

import time
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection
from django.utils import timezone

from billing.seeding_traffic import Plan, has_traffic, seed_traffic
from gateway.database_access import with_database
from policies.errors import ConfigurationError


class Command(BaseCommand):
    help = (
        "Make request records, attempts and all sums for measuring: tenants, keys and requests that never were. Only "
        "in a database without traffic, unless --force is given."
    )
    requires_system_checks: list[str] = []  # The pages are not needed here.

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--requests", type=int, required=True, metavar="N")
        parser.add_argument("--months", type=int, default=3, metavar="M", help="of 30 days, until now")
        parser.add_argument("--tenants", type=int, default=50)
        parser.add_argument("--keys", type=int, default=500)
        parser.add_argument(
            "--seed", type=int, default=1, help="another seed makes other requests and tenants"
        )
        parser.add_argument(
            "--force",
            action="store_true",
            help="also beside real traffic, whose sums then hold what never was",
        )

    @with_database
    def handle(self, *args: Any, **options: Any) -> None:
        if not connection.introspection.table_names():
            self.stdout.write("making the tables …")
            call_command("migrate", verbosity=0, interactive=False)
        if has_traffic() and not options["force"]:
            raise CommandError("this database holds recorded requests: use an empty one, or --force")
        plan = Plan(
            request_count=options["requests"],
            month_count=options["months"],
            ends_at=timezone.now(),
            tenant_count=options["tenants"],
            key_count=options["keys"],
            seed=options["seed"],
        )
        began_s = time.monotonic()
        try:
            for done in seed_traffic(plan, actor="manage.py seed_traffic"):
                self.stdout.write(f"{done:,} of {plan.request_count:,}, {time.monotonic() - began_s:,.0f} s")
        except ConfigurationError as refusal:
            raise CommandError(str(refusal)) from None
