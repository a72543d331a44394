"""Which process turns the journal into records? `manage.py ingest`, until SIGTERM (or once).

Calls: `billing.ingesting`.
"""

from __future__ import annotations

import signal
import threading
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from billing.ingesting import Ingester


class Command(BaseCommand):
    help = "Ingest the journal into the database. One process per data directory; a second one waits."
    # Records must flow whatever is wrong with a page: no URL, template or admin check may stop this.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="Ingest what is there now, then end.")

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        ingester = Ingester(settings.POINTSMAN_DATA_DIR)
        with ingester.hold_lock(stop) as is_ours:
            if not is_ours:
                return
            if options["once"]:
                ingester.ingest_available(stop)
                ingester.write_status()
                counters = ingester.counters
                self.stdout.write(
                    f"{counters.line_count} lines, {counters.record_count} new records,"
                    f" {counters.rejected_count} rejected"
                )
            else:
                ingester.run(stop)
