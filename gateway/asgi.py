"""Which plane answers a request? The endpoint's paths go to the data plane, everything else to Django.

Reads: settings. Owns the worker: builds the data plane when the server starts, ends it when the server stops.
"""

from __future__ import annotations

import asyncio
import logging
import os
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway.settings")
django_application = get_asgi_application()

from django.conf import settings  # noqa: E402  (Django must be set up first)

from billing.journal_files import home_of  # noqa: E402
from billing.leasing import WorkerName  # noqa: E402
from billing.request_view import DatabaseRecordLookup  # noqa: E402
from billing.shadow_budget import DatabaseShadowBudget  # noqa: E402
from gateway import health_board  # noqa: E402
from gateway.budget_leases import LeaseKeeper  # noqa: E402
from gateway.console_bodies import refuses_body  # noqa: E402
from gateway.conversation_board import ConversationBoard  # noqa: E402
from gateway.dataplane.app import DataPlane, endpoint_path  # noqa: E402
from gateway.dataplane.budgets import LeaseBook  # noqa: E402
from gateway.dataplane.cross_origin import Plane, open_to  # noqa: E402
from gateway.dataplane.errors import RequestTooLarge  # noqa: E402
from gateway.dataplane.gateway import Gateway  # noqa: E402
from gateway.dataplane.health import Health  # noqa: E402
from gateway.dataplane.json_answers import send_error  # noqa: E402
from gateway.dataplane.shadowing import ShadowSampler  # noqa: E402
from gateway.dataplane.simulated import SimulatedClient  # noqa: E402
from gateway.dataplane.upstream import PooledUpstreamClient  # noqa: E402
from gateway.journal import SegmentJournal  # noqa: E402
from gateway.kept_configuration import KeptConfiguration  # noqa: E402
from gateway.rate_limit_shares import ShareKeeper  # noqa: E402
from gateway.worker_configuration import WorkerConfiguration  # noqa: E402

logger = logging.getLogger(__name__)

# WhiteNoise's answers are files of the console, a few hundred kilobytes at most: that Django reads each of them whole
# before it is sent is no news for whoever watches the log.
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")

REPORT_INTERVAL_S = 1.0
TOO_LARGE = "The body is larger than 2.5 MiB, or its head does not say how large it is (Content-Length)."

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Application:
    """One worker process: the ASGI application that the server runs."""

    def __init__(self) -> None:
        self.plane: Plane | None = None
        self._worker: Worker | None = None

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = endpoint_path(scope)
            if path is not None and self.plane is not None:
                await self.plane(scope, receive, send, path)
                return
            if refuses_body(scope["headers"]):
                await send_error(RequestTooLarge(TOO_LARGE, code="request_too_large"), send, [])
                return
            await django_application(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)

    def begin_drain(self) -> None:
        """The server takes no new requests from now on and waits for those that run."""
        if self._worker is not None:
            self._worker.gateway.is_draining = True

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._worker = Worker(Path(settings.POINTSMAN_DATA_DIR))
                self.plane = open_to(DataPlane(self._worker.gateway), settings.POINTSMAN_CORS_ORIGINS)
                await send({"type": "lifespan.startup.complete"})
            else:
                if self._worker is not None:
                    await self._worker.close()
                await send({"type": "lifespan.shutdown.complete"})
                return


class Worker:
    """What lives as long as the worker: configuration follower, journal, clients, the report for the console."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self.configuration = WorkerConfiguration(
            kept=KeptConfiguration(
                data_dir,
                credential_keys=settings.POINTSMAN_CREDENTIAL_KEYS,
                is_writer=os.environ.get("POINTSMAN_WORKER_INDEX", "0") == "0",
            )
        )
        self.journal = SegmentJournal(data_dir)
        self._conversations = ConversationBoard(data_dir)
        client = PooledUpstreamClient()
        leases = LeaseBook()
        home = home_of(data_dir / "journal")
        self._lease_keeper = LeaseKeeper(leases, WorkerName(home, self.journal.worker))
        self._lease_keeper.start()
        self._share_keeper = ShareKeeper(worker=self.journal.worker, worker_count=settings.POINTSMAN_WORKERS)
        self._share_keeper.start()
        self.gateway = Gateway(
            configuration=self.configuration,
            journal=self.journal,
            records=DatabaseRecordLookup(),
            clients={"http": client, "https": client, "simulated": SimulatedClient()},
            health=Health(),
            conversations=self._conversations,
            budgets=leases,
            rate_limits=self._share_keeper.book,
        )
        self.gateway.health.room_in_s = self._share_keeper.book.room_in_s
        self._shadow_budget = DatabaseShadowBudget()
        self._shadows = ShadowSampler(self.gateway, self._shadow_budget)
        self.gateway.shadows = self._shadows
        self._reporter = asyncio.get_running_loop().create_task(self._report_regularly())

    async def close(self) -> None:
        """Stop in the order in which nothing is lost: no new work, connections, journal, configuration."""
        self.gateway.is_draining = True
        self._reporter.cancel()
        await self._shadows.close()
        self._shadow_budget.close()
        for client in set(self.gateway.clients.values()):
            await client.aclose()
        self.gateway.write_unwritten()
        self._lease_keeper.close()
        self._share_keeper.close()
        self.journal.close()
        self.configuration.close()
        self._conversations.close()
        health_board.remove_report(self._data_dir, self.journal.worker)

    async def _report_regularly(self) -> None:
        while True:
            self.gateway.write_unwritten()
            try:
                health_board.write_report(
                    self._data_dir,
                    self.journal.worker,
                    {
                        "pid": os.getpid(),
                        "index": int(os.environ.get("POINTSMAN_WORKER_INDEX", "0")),
                        "revision": self.configuration.snapshot.revision,
                        "journal_lines": self.journal.line_count,
                        "health": self.gateway.health.as_report(
                            self.configuration.snapshot.deployments.values()
                        ),
                        "stats": self.gateway.stats.as_report(),
                    },
                )
            except OSError as error:
                logger.warning("the run file cannot be written: %s", error)
            await asyncio.sleep(REPORT_INTERVAL_S)


application = Application()
