"""How does a worker process serve? One uvicorn server on a shared port, drained on SIGTERM.

Calls: the operating system (socket, signals). The application is handed in; this knows no Django.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Callable, Collection, Generator
from types import FrameType
from typing import Any

import uvicorn
import uvloop

from gateway.dataplane.client_connection import ClientConnection, ClientLimits
from gateway.dataplane.cross_origin import AllowedOrigins

logger = logging.getLogger(__name__)

BACKLOG = 2048
DRAIN_S = 120.0
# What cancelled requests get to write their outcome and a last error event.
LAST_WORDS_S = 2.0
SWEEP_INTERVAL_S = 1.0
TICK_S = 0.1  # uvicorn's
# The young generation fills with every request's own garbage, which reference counts free anyway. What is old here is
# little, the start's is frozen: whatever a cycle holds in spite of that must not wait for an hour.
GC_THRESHOLDS = (20_000, 20, 5)


def bind_listener(host: str, port: int) -> socket.socket:
    """A socket on which several workers may listen; the kernel spreads connections. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


class WorkerServer(uvicorn.Server):
    """uvicorn's server with patience sweeps, an ordered drain, and exit code 0 on SIGTERM."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        sweep_interval_s: float = SWEEP_INTERVAL_S,
        drain_s: float = DRAIN_S,
        on_stopping: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(config)
        self._sweep_ticks = max(1, round(sweep_interval_s / TICK_S))
        self._drain_s = drain_s
        self._on_stopping = on_stopping
        self._signal_count = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        # What is here now stays: keep the collector from walking Django and the snapshot again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)

    async def on_tick(self, counter: int) -> bool:
        if counter % self._sweep_ticks == 0:
            self.sweep()
        return await super().on_tick(counter)

    def sweep(self) -> None:
        """Look for clients that are too slow."""
        now_s = asyncio.get_running_loop().time()
        for connection in list(self.server_state.connections):
            if isinstance(connection, ClientConnection):
                connection.check_patience(now_s)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, let requests finish for `drain_s`, cancel the rest, end the application."""
        in_flight = len(self.server_state.tasks)
        logger.info("stopping; %d requests in flight", in_flight)
        if self._on_stopping is not None:
            self._on_stopping()
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._wait_for_requests(self._drain_s)
        if self.server_state.tasks:
            logger.warning("cancelling %d requests that did not end in time", len(self.server_state.tasks))
            for task in list(self.server_state.tasks):
                task.cancel()
            await asyncio.wait(list(self.server_state.tasks), timeout=LAST_WORDS_S)
        for connection in list(self.server_state.connections):
            connection.transport.close()
        await self.lifespan.shutdown()

    async def _wait_for_requests(self, limit_s: float) -> None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + limit_s
        ticks = 0
        while self.server_state.tasks or self.server_state.connections:
            if self.force_exit or loop.time() > deadline_s:
                return
            await asyncio.sleep(TICK_S / 2)
            ticks += 1
            if ticks % (self._sweep_ticks * 2) == 0:
                self.sweep()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # uvicorn raises the signal again at its end, which would turn an ordered stop into death by signal.
        before = {
            number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on the first signal; stop waiting for requests on the second."""
        self._signal_count += 1
        self.should_exit = True
        self.force_exit = self._signal_count > 1


def build_config(
    application: Any, *, limits: ClientLimits | None = None, origins: Collection[str] = ()
) -> uvicorn.Config:
    """uvicorn's configuration for a worker: no access log, no WebSocket, the date as its only own header.

    `origins`: whose pages may read what the server itself refuses.
    """
    protocol: type[ClientConnection] = ClientConnection
    settings: dict[str, Any] = {}
    if limits is not None:
        settings["limits"] = limits
    if origins:
        settings["cross_origins"] = AllowedOrigins(origins)
    if settings:
        protocol = type("ClientConnection", (ClientConnection,), settings)
    return uvicorn.Config(
        application,
        http=protocol,
        ws="none",
        loop="uvloop",
        interface="asgi3",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=True,
        backlog=BACKLOG,
    )


def run_worker(application: Any, listener: socket.socket, *, origins: Collection[str] = ()) -> None:
    """Serve until a signal asks to stop. Exits with status 3 when the application does not start.

    An application with a `begin_drain` is told when the stop begins.
    """
    server = WorkerServer(
        build_config(application, origins=origins), on_stopping=getattr(application, "begin_drain", None)
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve(sockets=[listener]))
