"""How is one gateway worker run? Endpoint and console on the shared port, until SIGTERM.

Calls: `gateway.dataplane.server` with the application of `gateway.asgi`.
"""

from __future__ import annotations

import logging
import os
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from gateway.compiled import is_in_use
from gateway.dataplane.server import bind_listener, run_worker

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = "Run one gateway worker: the endpoint and the console. Several may share the port."
    # `up` has run them; a worker that restarts must be back soon.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--worker-index", type=int, default=0, help="which of the workers this is, from 0"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        os.environ["POINTSMAN_WORKER_INDEX"] = str(options["worker_index"])
        try:
            listener = bind_listener(settings.POINTSMAN_HOST, settings.POINTSMAN_PORT)
        except OSError as error:
            raise CommandError(
                f"Cannot listen on {settings.POINTSMAN_HOST}:{settings.POINTSMAN_PORT}: {error.strerror or error}"
            ) from None
        logger.info("the hot path runs as %s", "machine code" if is_in_use() else "Python (make compiled)")
        # After the environment: the application reads the worker's index.
        from gateway.asgi import application

        run_worker(application, listener, origins=settings.POINTSMAN_CORS_ORIGINS)
