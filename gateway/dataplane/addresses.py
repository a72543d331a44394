"""Which addresses may we connect to for a host name? Resolves, checks every address, remembers for a while.

Calls: the system's resolver. The caller connects to the very address that was checked here, so that a name which
resolves differently a moment later (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from typing import Any

from gateway.dataplane.upstream_errors import UpstreamError
from policies.provider_addresses import IPAddress, is_allowed

CACHE_S = 30.0
MAX_CACHED_HOSTS = 1024


@dataclass(frozen=True, slots=True)
class Resolved:
    """The addresses of one host as the resolver ordered them, and until when they may be used (loop time)."""

    addresses: tuple[IPAddress, ...]
    expires_at_s: float


class AddressBook:
    """Look-ups of one worker: cached for 30 s, and one at a time per host."""

    def __init__(self, *, cache_s: float = CACHE_S) -> None:
        self._cache_s = cache_s
        self._resolved: dict[str, Resolved] = {}
        self._running: dict[str, asyncio.Task[Resolved]] = {}

    async def addresses_of(
        self, host: str, port: int, *, allow_private_network: bool
    ) -> tuple[IPAddress, ...]:
        """The addresses of `host` that may be connected to, at least one. The caller bounds the time.

        Raises UpstreamError: `resolve` when there is no such name, `refused_address` when none may be used.
        """
        try:
            found: tuple[IPAddress, ...] = (ipaddress.ip_address(host),)
        except ValueError:
            found = (await self._resolve(host, port)).addresses
        allowed = tuple(
            address for address in found if is_allowed(address, allow_private_network=allow_private_network)
        )
        if not allowed:
            raise UpstreamError(
                "refused_address",
                "The provider's host is on a network that this gateway does not call.",
                is_safe_to_retry=True,
            )
        return allowed

    def forget(self, host: str) -> None:
        """Ask the resolver again next time, because no address answered."""
        self._resolved.pop(host, None)

    def close(self) -> None:
        """Give up look-ups that still run."""
        for task in self._running.values():
            task.cancel()
        self._running.clear()
        self._resolved.clear()

    async def _resolve(self, host: str, port: int) -> Resolved:
        loop = asyncio.get_running_loop()
        known = self._resolved.get(host)
        if known is not None and known.expires_at_s > loop.time():
            return known
        task = self._running.get(host)
        if task is None:
            task = loop.create_task(self._look_up(host, port))
            self._running[host] = task
            task.add_done_callback(lambda done: self._note_end(host, done))
        # Shielded: the one who asked first may be cancelled while others wait for the same answer.
        return await asyncio.shield(task)

    def _note_end(self, host: str, task: asyncio.Task[Resolved]) -> None:
        if self._running.get(host) is task:
            del self._running[host]
        if not task.cancelled():
            task.exception()  # Seen, also when everybody who asked has been cancelled.

    async def _ask(self, host: str, port: int) -> list[Any]:
        """The system's answer, as getaddrinfo gives it."""
        loop = asyncio.get_running_loop()
        return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)

    async def _look_up(self, host: str, port: int) -> Resolved:
        loop = asyncio.get_running_loop()
        try:
            answers = await self._ask(host, port)
        except (OSError, UnicodeError):
            raise UpstreamError(
                "resolve", "The provider's host name cannot be resolved.", is_safe_to_retry=True
            ) from None
        addresses = tuple(dict.fromkeys(ipaddress.ip_address(answer[4][0]) for answer in answers))
        resolved = Resolved(addresses, loop.time() + self._cache_s)
        if len(self._resolved) >= MAX_CACHED_HOSTS:
            self._resolved.clear()
        self._resolved[host] = resolved
        return resolved
