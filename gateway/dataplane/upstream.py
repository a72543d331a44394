"""How is a provider called? A pool of HTTP/1.1 connections that fills the `UpstreamClient` port.

Calls: providers. One client per worker, on one event loop. Connections wait in stacks by target, so that the one
used last is used next and the others can age and go.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass

from gateway.dataplane.addresses import AddressBook
from gateway.dataplane.limits import LARGE_BODY_BYTES, Room
from gateway.dataplane.upstream_connection import Connection
from gateway.dataplane.upstream_decoding import BodyDecoder, decoder_for
from gateway.dataplane.upstream_errors import UpstreamError
from gateway.dataplane.upstream_heads import RequestHeads, Target
from policies.provider_addresses import IPAddress

# Providers close idle connections after 60 s and more, load balancers in front of some of them earlier.
IDLE_LIMIT_S = 30.0
MAX_IDLE_PER_TARGET = 256
# A busy connection would never notice that its host has moved; DNS answers live minutes.
MAX_AGE_S = 300.0
SWEEP_INTERVAL_S = 5.0


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Connections of one worker: open now (idle ones included), idle now, and totals since the start."""

    open_count: int
    idle_count: int
    opened_total: int
    reused_total: int
    replayed_total: int


class PooledUpstreamClient:
    """Calls providers over pooled connections; see `ports.UpstreamClient` for the contract."""

    def __init__(
        self,
        *,
        idle_limit_s: float = IDLE_LIMIT_S,
        max_idle_per_target: int = MAX_IDLE_PER_TARGET,
        max_age_s: float = MAX_AGE_S,
        ssl_context: ssl.SSLContext | None = None,
        addresses: AddressBook | None = None,
    ) -> None:
        self._idle_limit_s = idle_limit_s
        self._max_idle = max_idle_per_target
        self._max_age_s = max_age_s
        # Made now: loading the certificate authorities takes longer than the loop may be held.
        self._ssl_context = ssl_context or _default_ssl_context()
        self._addresses = addresses or AddressBook()
        self._heads = RequestHeads()
        self._idle: dict[Target, list[Connection]] = {}
        self._open: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._opened_total = self._reused_total = self._replayed_total = 0

    async def send(
        self,
        *,
        method: str,
        url: str,
        headers: list[tuple[str, str]],
        body: bytes | tuple[bytes | memoryview, ...],
        connect_timeout_s: float,
        head_timeout_s: float,
        allow_private_network: bool,
    ) -> PooledResponse:
        """Send a request and return its answer once the head is here. See the port for what it raises."""
        head = self._heads.head_of(method, url, headers, allow_private_network)
        target = head.target
        connection = self._take_idle(target)
        if connection is not None:
            self._reused_total += 1
            try:
                await connection.request(head.prefix, body, head_timeout_s)
            except UpstreamError as error:
                if not connection.was_stale(error):
                    raise
                # The provider had closed it while it was idle and cannot have read the request.
                self._replayed_total += 1
                connection = None
        if connection is None:
            connection = await self._connect(target, connect_timeout_s)
            await connection.request(head.prefix, body, head_timeout_s)
        encoding = ""
        for name, value in connection.headers:
            if name == "content-encoding":
                encoding = value
                break
        if not encoding:
            return PooledResponse(self, target, connection, None)
        try:
            decoder = decoder_for(encoding)
        except UpstreamError:
            connection.abort()
            raise
        return PooledResponse(self, target, connection, decoder)

    async def aclose(self) -> None:
        """Drop all connections, those in use too."""
        self._is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in list(self._open):
            connection.abort()
        self._idle.clear()
        self._addresses.close()
        await asyncio.sleep(0)  # The transports close in the loop's next turn.

    def stats(self) -> PoolStats:
        """Counts for the metrics page."""
        return PoolStats(
            open_count=len(self._open),
            idle_count=sum(len(stack) for stack in self._idle.values()),
            opened_total=self._opened_total,
            reused_total=self._reused_total,
            replayed_total=self._replayed_total,
        )

    def give_back(self, target: Target, connection: Connection) -> None:
        """Keep a connection for the next request when it is in a state for one, else close it."""
        connection.rest()
        stack = self._idle.get(target)
        if stack is None:
            stack = self._idle[target] = []
        if (
            not connection.is_reusable()
            or self._is_closed
            or len(stack) >= self._max_idle
            or connection.idle_since_s - connection.opened_at_s > self._max_age_s
        ):
            connection.abort()
            return
        stack.append(connection)
        if self._sweeper is None:
            self._sweep_later()

    def _take_idle(self, target: Target) -> Connection | None:
        stack = self._idle.get(target)
        while stack:
            connection = stack.pop()
            if not connection.is_lost:
                return connection
        return None

    def _sweep_later(self) -> None:
        interval_s = min(SWEEP_INTERVAL_S, self._idle_limit_s / 4)
        self._sweeper = asyncio.get_running_loop().call_later(interval_s, self._sweep)

    def _sweep(self) -> None:
        """Close what has been idle too long; stop sweeping when nothing is idle."""
        self._sweeper = None
        oldest_s = asyncio.get_running_loop().time() - self._idle_limit_s
        for target, stack in list(self._idle.items()):
            expired = 0
            while expired < len(stack) and stack[expired].idle_since_s <= oldest_s:
                stack[expired].abort()
                expired += 1
            del stack[:expired]
            if not stack:
                del self._idle[target]
        if self._idle:
            self._sweep_later()

    def _forget(self, connection: Connection) -> None:
        """The connection is closed."""
        self._open.discard(connection)
        if connection.idle_since_s:
            for stack in self._idle.values():
                if connection in stack:
                    stack.remove(connection)
                    break

    async def _connect(self, target: Target, timeout_s: float) -> Connection:
        """Open a connection to the first allowed address that answers. Raises UpstreamError."""
        if self._is_closed:
            raise UpstreamError("connect", "The gateway is stopping.", is_safe_to_retry=True)
        try:
            async with asyncio.timeout(timeout_s):
                addresses = await self._addresses.addresses_of(
                    target.host, target.port, allow_private_network=target.allow_private_network
                )
                for address in addresses[:-1]:
                    try:
                        # A silent address must leave time for the others.
                        async with asyncio.timeout(timeout_s / len(addresses)):
                            return await self._connect_to(address, target)
                    except (TimeoutError, OSError):
                        continue
                return await self._connect_to(addresses[-1], target)
        except TimeoutError:
            self._addresses.forget(target.host)
            raise UpstreamError(
                "connect_timeout", "The provider did not accept a connection in time.", is_safe_to_retry=True
            ) from None
        except OSError as error:
            self._addresses.forget(target.host)
            raise UpstreamError(
                "connect", f"The provider cannot be connected to ({_reason(error)}).", is_safe_to_retry=True
            ) from None

    async def _connect_to(self, address: IPAddress, target: Target) -> Connection:
        """Open a connection to exactly this address. Raises OSError, or UpstreamError of kind `tls`."""
        loop = asyncio.get_running_loop()
        connection = Connection(loop, self._forget)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, (str(address), target.port))
            if target.is_tls:
                try:
                    await loop.create_connection(
                        lambda: connection, sock=sock, ssl=self._ssl_context, server_hostname=target.host
                    )
                except OSError as error:  # ssl.SSLError is one
                    raise UpstreamError("tls", _tls_reason(error), is_safe_to_retry=True) from None
            else:
                await loop.create_connection(lambda: connection, sock=sock)
                connection.plain_socket = sock
        except BaseException:
            connection.abort()
            sock.close()
            raise
        if self._is_closed:
            connection.abort()
            raise UpstreamError("connect", "The gateway is stopping.", is_safe_to_retry=True)
        self._open.add(connection)
        self._opened_total += 1
        return connection


class PooledResponse:
    """An answer whose head is here; see `ports.UpstreamResponse`. Usable until `close`."""

    __slots__ = ("_client", "_connection", "_decoder", "_target", "headers", "status")

    def __init__(
        self,
        client: PooledUpstreamClient,
        target: Target,
        connection: Connection,
        decoder: BodyDecoder | None,
    ) -> None:
        self._client = client
        self._target = target
        self._connection: Connection | None = connection
        self._decoder = decoder
        self.status = connection.status
        self.headers = connection.headers
        if decoder is not None:
            # They describe bytes that nobody will see.
            self.headers = [
                header for header in self.headers if header[0] not in ("content-encoding", "content-length")
            ]

    async def read_chunk(self, *, timeout_s: float) -> bytes:
        """All body bytes that have arrived since, else the next ones; b"" at the end. Raises UpstreamError."""
        connection = self._connection
        if connection is None:
            raise UpstreamError("broken", "The answer was closed before it was read.")
        if self._decoder is None:
            return await connection.next_chunk(timeout_s)
        return await self._read_decoded(connection, self._decoder, timeout_s)

    async def _read_decoded(self, connection: Connection, decoder: BodyDecoder, timeout_s: float) -> bytes:
        """The next decoded bytes, at most 1 MiB. `timeout_s` bounds the whole wait."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        try:
            while True:
                if decoder.has_pending:
                    decoded = decoder.decode(b"")
                else:
                    data = await connection.next_chunk(max(0.0, deadline_s - loop.time()))
                    if not data:
                        if not decoder.is_finished and decoder.is_begun:
                            raise UpstreamError("broken", "The provider's compressed answer was cut short.")
                        return b""
                    decoded = decoder.decode(data)
                if decoded:
                    return decoded
        except UpstreamError:
            connection.abort()
            raise

    async def read(self, *, limit_bytes: int, timeout_s: float, room: Room | None = None) -> bytes:
        """The rest of the body. Raises UpstreamError; `too_large` beyond `limit_bytes` decoded bytes.

        With `room`, see the port. What says its length takes all of it at once, so that it never waits half read.
        """
        connection = self._connection
        if (
            connection is not None
            and connection.is_complete  # the usual case: it came with the head
            and self._decoder is None
            and connection.buffered_bytes <= limit_bytes
        ):
            return await connection.next_chunk(timeout_s)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        parts: list[bytes] = []
        size = taken_bytes = 0
        while True:
            data = await self.read_chunk(timeout_s=max(0.0, deadline_s - loop.time()))
            if not data:
                return parts[0] if len(parts) == 1 else b"".join(parts)
            size += len(data)
            if size > limit_bytes:
                if connection is not None:
                    connection.abort()
                raise UpstreamError("too_large", f"The provider's answer is larger than {limit_bytes} bytes.")
            parts.append(data)
            if size >= LARGE_BODY_BYTES and size > taken_bytes and room is not None:
                most = max(size, min(limit_bytes, self._declared_bytes()))
                await room.take_for_answer(most - taken_bytes, wait_s=max(0.0, deadline_s - loop.time()))
                taken_bytes = most

    def _declared_bytes(self) -> int:
        for name, value in self.headers:
            if name == "content-length" and value.isdigit():
                return int(value)
        return 0

    def close(self) -> None:
        """Give the connection back when the answer came whole, else close it at once. Twice is harmless."""
        connection = self._connection
        if connection is None:
            return
        self._connection = None
        if connection.is_reusable():
            self._client.give_back(self._target, connection)
        else:
            connection.abort()


def _default_ssl_context() -> ssl.SSLContext:
    """The system's authorities (SSL_CERT_FILE and SSL_CERT_DIR are honoured), host names verified."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _tls_reason(error: OSError) -> str:
    """Why a handshake failed, in words that hold nothing but OpenSSL's own."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"The provider's certificate is not accepted: {error.verify_message}."
    if isinstance(error, ssl.SSLError) and error.reason:
        return f"No TLS connection to the provider: {error.reason}."
    return "The provider closed the connection during the TLS handshake."
