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

CACHE_S = 30.0
MAX_CACHED_HOSTS = 1024

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# Addresses at which clouds hand out credentials or control the machine: never a provider, whatever a row says.
# AWS, GCP, Azure and most others are link-local (169.254.169.254); these are the ones elsewhere.
METADATA_ADDRESSES = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure's wire server
        "192.0.0.192",  # Oracle, former
        "fd00:ec2::254",  # AWS over IPv6
        "fd20:ce::254",  # GCP over IPv6
    )
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_IPV4_COMPATIBLE = ipaddress.ip_network("::/96")


@dataclass(frozen=True, slots=True)
class Resolved:
    """The addresses of one host as the resolver ordered them, and until when they may be used (loop time)."""

    addresses: tuple[IPAddress, ...]
    expires_at_s: float


def embedded_ipv4(address: IPAddress) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address leads to: mapped, 6to4, Teredo, NAT64, IPv4-compatible. Pure."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64 or (address in _IPV4_COMPATIBLE and int(address) > 0xFFFF):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def is_allowed(address: IPAddress, *, allow_private_network: bool) -> bool:
    """Return whether a provider may live there. Pure.

    Link-local and metadata addresses are refused always; loopback, private, shared (100.64.0.0/10), multicast,
    reserved and unspecified ones unless the provider allows private networks.
    """
    inner = embedded_ipv4(address)
    if inner is not None:
        # NAT64 and mapped addresses lie in reserved ranges and mean exactly the inner address.
        if not is_allowed(inner, allow_private_network=allow_private_network):
            return False
        if address in _NAT64 or getattr(address, "ipv4_mapped", None) is not None:
            return True
    if address.is_link_local or address in METADATA_ADDRESSES:
        return False
    if allow_private_network:
        return True
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified or address.is_loopback
    )


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
