"""Has the client hung up? Cancels a request's task when its client is gone, so that the provider stops too.

Calls: the server's connection where it says so by itself, else the ASGI receive channel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from gateway.dataplane.errors import ClientGone
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.limits import Receive

# Where our server puts the connection into the scope. Not ASGI: a watch without a task costs a tenth of one with.
CONNECTION_KEY = "pointsman.connection"


class WatchedConnection(Protocol):
    """A connection that calls `on_hangup` when it is lost; `task` is the one that serves its request.

    `refused_as`: status and code, when the server itself has answered what came on it.
    """

    on_hangup: Callable[[], None] | None
    is_lost: bool
    refused_as: tuple[int, str] | None
    task: asyncio.Task[None] | None


class HangupWatch:
    """Watches one request's client from its decision to the end of the answer. Raises ClientGone when it left before:
    what waits for a budget or a limit waits for seconds.
    """

    __slots__ = ("_connection", "_exchange", "_owner", "_receive", "_task", "_timer", "has_fired")

    def __init__(self, exchange: Exchange, scope: Mapping[str, Any], receive: Receive) -> None:
        self._exchange = exchange
        self.has_fired = False
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._connection: WatchedConnection | None = scope.get(CONNECTION_KEY)
        if self._connection is not None:
            if self._connection.is_lost:
                raise ClientGone
            self._connection.on_hangup = self._fire
            self._owner = self._connection.task
        else:
            self._owner = asyncio.current_task()
            # Another server: wait on its channel, but only when the request has lasted a moment.
            self._receive = receive
            self._timer = asyncio.get_running_loop().call_later(
                exchange.gateway.timeouts.disconnect_watch_s, self._begin
            )

    def stop(self) -> None:
        """End the watch; the answer is complete."""
        # The connection's next request may be under way already, with a watch of its own.
        if self._connection is not None and self._connection.on_hangup == self._fire:
            self._connection.on_hangup = None
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _fire(self) -> None:
        self.has_fired = True
        self._exchange.is_client_gone = True
        if self._owner is not None:
            self._owner.cancel()

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._fire()
