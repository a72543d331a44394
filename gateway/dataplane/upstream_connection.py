"""What happens on one connection to a provider? HTTP/1.1 over an asyncio transport, parsed by llhttp.

Calls: the transport. One request at a time; the pool is in `upstream.py`. Written for few Python calls per chunk:
one future per wait, and one timer per connection that is moved on only when it fires.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

import httptools

from gateway.dataplane.upstream_errors import UpstreamError, UpstreamErrorKind

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 200
# Above this much unread body the transport stops reading, so the provider feels the client's pace.
HIGH_WATER_BYTES = 256 * 1024
# A request body goes out in pieces, so that encrypting it never holds the loop for long, and so that an early answer
# is read before the next write: that may end the connection.
PIECE_BYTES = 256 * 1024
JOIN_BELOW_BYTES = 256 * 1024
LEFTOVER_BYTES = 64 * 1024
# A timer may fire this much late instead of being set anew for a deadline that is hardly earlier.
TIMER_SLACK_S = 0.02
# An idle connection that the provider closed shows it within a round trip of the next request.
STALE_WITHIN_S = 1.0


class Connection(asyncio.Protocol):
    """One connection. `on_*` are the parser's callbacks; they never raise."""

    __slots__ = (
        "_deadline_s",
        "_head_bytes",
        "_is_busy",
        "_is_eof",
        "_is_informational",
        "_is_read_paused",
        "_is_write_paused",
        "_loop",
        "_on_lost",
        "_parser",
        "_timer",
        "_timer_at_s",
        "_transport",
        "_waiter",
        "begun_at_s",
        "buffered_bytes",
        "can_reuse",
        "chunks",
        "fault",
        "has_surplus",
        "headers",
        "idle_since_s",
        "is_complete",
        "is_lost",
        "is_sent",
        "opened_at_s",
        "plain_socket",
        "request_count",
        "status",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, on_lost: Callable[[Connection], None]) -> None:
        self._loop = loop
        self._on_lost = on_lost
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0
        self._deadline_s = 0.0
        self._waiter: asyncio.Future[None] | None = None
        self._is_busy = False
        self._is_eof = False
        self._is_read_paused = False
        self._is_write_paused = False
        self.is_lost = False
        # Without TLS, for `_read_leftovers`; its number is gone (-1) once the transport has closed it.
        self.plain_socket: socket.socket | None = None
        self.opened_at_s = self.idle_since_s = self.begun_at_s = 0.0
        self.request_count = 0
        self._begin()

    def _begin(self) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.chunks: list[bytes] = []
        self.buffered_bytes = 0
        self.is_complete = False
        self.can_reuse = False
        self.has_surplus = False
        self.is_sent = False
        self.fault: UpstreamError | None = None
        self._head_bytes = 0
        self._is_informational = False

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.opened_at_s = self._loop.time()

    def data_received(self, data: bytes) -> None:
        if self.is_lost or self.fault is not None:
            return
        if not self._is_busy:
            # Nobody asked: whatever this is, it must not become the answer to the next request.
            self.abort()
            return
        is_head_awaited = not self.status
        if is_head_awaited:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)  # type: ignore[union-attr]  # there until the connection is lost
        except httptools.HttpParserUpgrade:
            self._fail("bad_answer", "The provider switched protocols.")
            return
        except httptools.HttpParserError:
            if self.is_complete:
                # Bytes after `connection: close`: this answer is whole, the connection is used up.
                self.has_surplus = True
            elif self.status:
                self._fail("broken", "The provider's answer broke HTTP's rules midway.")
                return
            else:
                self._fail("bad_answer", "The provider's answer is not HTTP.")
                return
        if self.status:
            if self.buffered_bytes > HIGH_WATER_BYTES and not self._is_read_paused and not self.is_complete:
                assert self._transport is not None
                self._transport.pause_reading()
                self._is_read_paused = True
            if self._head_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
                self._check_head_size()
            waiter = self._waiter
            # Framing alone is no news: trickling it must not move anybody's deadline.
            if (
                waiter is not None
                and (self.chunks or is_head_awaited or self.is_complete)
                and not waiter.done()
            ):
                waiter.set_result(None)
        elif self._head_bytes > MAX_HEAD_BYTES:
            self._fail("bad_answer", "The head of the provider's answer is too large.")

    def eof_received(self) -> bool:
        self._is_eof = True
        self._end_of_input()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self._is_busy and not self.is_lost and self.plain_socket is not None:
            self._read_leftovers(self.plain_socket)
        self.plain_socket = None
        self.is_lost = True
        if exc is None:
            self._is_eof = True
        self._end_of_input()
        self._parser = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._on_lost(self)

    def _read_leftovers(self, plain_socket: socket.socket) -> None:
        """Read what came before the end. A provider that refuses a request early resets the connection, as it has not
        read all of it: then our next write fails, while its answer still waits in the socket."""
        try:
            while (
                not self.is_complete
                and self.fault is None
                and self.buffered_bytes < HIGH_WATER_BYTES - LEFTOVER_BYTES  # nothing is paused any more
                and plain_socket.fileno() >= 0
            ):
                data = plain_socket.recv(LEFTOVER_BYTES)
                if not data:
                    return
                self.data_received(data)
        except OSError:
            return  # nothing more

    def pause_writing(self) -> None:
        self._is_write_paused = True

    def resume_writing(self) -> None:
        self._is_write_paused = False
        self._wake()

    def _end_of_input(self) -> None:
        if self._is_busy and not self.is_complete and self.fault is None:
            if self._is_eof and self.status and self._is_close_delimited():
                self.is_complete = True
            else:
                self.fault = UpstreamError(
                    "broken",
                    "The provider closed the connection before its answer was complete."
                    if self.status or self._head_bytes
                    else "The provider closed the connection without an answer.",
                    is_safe_to_retry=not self.is_sent and not self._head_bytes,
                )
        self._wake()

    def _is_close_delimited(self) -> bool:
        """RFC 9112 6.3: neither a length nor chunks (as the last coding), so the end of input is the end."""
        for name, value in self.headers:
            if name == "content-length":
                return False
            if name == "transfer-encoding" and value.lower().rpartition(",")[2].strip() == "chunked":
                return False
        return True

    def _check_head_size(self) -> None:
        """The first read may hold much body too, so count what the headers themselves take."""
        size = sum(len(name) + len(value) + 4 for name, value in self.headers)
        self._head_bytes = min(self._head_bytes, size)
        if size > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._fail("bad_answer", "The head of the provider's answer is too large.")

    # The parser's side

    def on_message_begin(self) -> None:
        if self.is_complete:
            self.has_surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:  # else a trailer
            self.headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        if self.is_complete:
            return
        status: int = self._parser.get_status_code()  # type: ignore[union-attr]
        if status >= 200:
            self.status = status
        elif status == 101:
            self._fail("bad_answer", "The provider switched protocols.")
        elif status < 100:  # llhttp takes three zeros for a status
            self._fail("bad_answer", "The provider's answer is not HTTP.")
        else:
            self._is_informational = True
            self.headers.clear()

    def on_body(self, data: bytes) -> None:
        if not self.is_complete:
            self.chunks.append(data)
            self.buffered_bytes += len(data)

    def on_message_complete(self) -> None:
        if self._is_informational:
            self._is_informational = False
        elif not self.is_complete:
            self.is_complete = True
            self.can_reuse = self._parser.should_keep_alive()  # type: ignore[union-attr]

    # The caller's side

    async def request(
        self, prefix: bytes, body: bytes | tuple[bytes | memoryview, ...], head_timeout_s: float
    ) -> None:
        """Send a request and wait for the answer's head; it is in `status` and `headers` afterwards.

        Raises UpstreamError. However this ends but well, the connection is gone.
        """
        transport = self._transport
        assert transport is not None
        if self.request_count:
            self._begin()
        self.request_count += 1
        self._is_busy = True
        self.begun_at_s = self._loop.time()
        try:
            if self.is_lost:
                self._end_of_input()
            elif isinstance(body, bytes) and len(body) <= JOIN_BELOW_BYTES:
                transport.write(b"%b%d\r\n\r\n%b" % (prefix, len(body), body))
                self.is_sent = True
            else:
                pieces = (body,) if isinstance(body, bytes) else body
                size = sum([len(piece) for piece in pieces])
                await self._send_large(transport, b"%b%d\r\n\r\n" % (prefix, size), pieces, head_timeout_s)
                head_timeout_s = self._left_s(head_timeout_s)
            while not self.status and self.fault is None:
                await self._wait(head_timeout_s)
        except BaseException:
            self.abort()
            raise
        finally:
            self._waiter = None
        if self.fault is not None and not (self.status and self.fault.kind == "broken"):
            self.abort()
            raise self.fault
        # A head whose body broke off still says who is to blame: whoever reads the body is told.
        if self.status in (204, 304) and not self.is_complete:
            # No body whatever its headers say; what might follow belongs to nothing.
            self.is_complete = True

    async def _send_large(
        self,
        transport: asyncio.Transport,
        head: bytes,
        pieces: tuple[bytes | memoryview, ...],
        timeout_s: float,
    ) -> None:
        """Write at the provider's pace, until `timeout_s` after the request began at the latest."""
        transport.write(head)
        for piece in pieces:
            view = memoryview(piece)
            for start in range(0, len(view), PIECE_BYTES):
                while self._is_write_paused and not self.status and self.fault is None:
                    await self._wait(self._left_s(timeout_s))
                if self.status or self.fault is not None:
                    return  # An answer before the end of the request, mostly a refusal.
                part = view[start : start + PIECE_BYTES]
                transport.write(part)
                if len(part) == PIECE_BYTES:
                    await asyncio.sleep(0)
        self.is_sent = True

    def _left_s(self, timeout_s: float) -> float:
        return max(0.0, self.begun_at_s + timeout_s - self._loop.time())

    async def next_chunk(self, timeout_s: float) -> bytes:
        """All body bytes that are here, else the next that come; b"" at the end. Raises UpstreamError."""
        chunks = self.chunks
        if not chunks:
            try:
                while not chunks and not self.is_complete and self.fault is None:
                    await self._wait(timeout_s)
            except BaseException:
                self.abort()
                raise
            finally:
                self._waiter = None
            if not chunks:
                if self.fault is not None:
                    self.abort()
                    raise self.fault
                return b""
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self.buffered_bytes = 0
        if self._is_read_paused:
            self._resume_reading()
        return data

    def is_reusable(self) -> bool:
        """Whether another request may follow: both messages whole, nothing surplus, kept alive by both sides."""
        return (
            self.can_reuse
            and self.is_complete
            and self.is_sent
            and not self.has_surplus
            and not self._is_eof
            and not self.is_lost
            and self.fault is None
        )

    def was_stale(self, error: UpstreamError) -> bool:
        """Whether a failed request met a connection that the provider had closed while it was idle.

        It may then be sent once more: no byte came back, and the end came at once after a use before.
        """
        return (
            error.kind == "broken"
            and self.request_count > 1
            and not self._head_bytes
            and self._loop.time() - self.begun_at_s < STALE_WITHIN_S
        )

    def rest(self) -> None:
        """Mark the connection idle after a complete answer."""
        self._is_busy = False
        self.chunks.clear()
        self.idle_since_s = self._loop.time()
        if self._is_read_paused:
            self._resume_reading()

    def abort(self) -> None:
        """Close the socket at once. Harmless when it is closed already."""
        self.is_lost = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()

    def _resume_reading(self) -> None:
        self._is_read_paused = False
        if self._transport is not None and not self.is_lost:
            self._transport.resume_reading()

    def _fail(self, kind: UpstreamErrorKind, message: str) -> None:
        if self.fault is None:
            self.fault = UpstreamError(kind, message)
        self._wake()
        if self._transport is not None:
            self._transport.abort()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _wait(self, timeout_s: float) -> asyncio.Future[None]:
        """A future that ends with the next news. One timer serves all waits: it re-arms itself when it fires."""
        loop = self._loop
        deadline_s = self._deadline_s = loop.time() + timeout_s
        timer = self._timer
        if timer is None or deadline_s < self._timer_at_s - TIMER_SLACK_S:
            if timer is not None:
                timer.cancel()
            self._timer = loop.call_later(timeout_s, self._on_timer)
            self._timer_at_s = deadline_s
        waiter = self._waiter = loop.create_future()
        return waiter

    def _on_timer(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        remaining_s = self._deadline_s - self._loop.time()
        if remaining_s > 0.001:
            self._timer = self._loop.call_later(remaining_s, self._on_timer)
            self._timer_at_s = self._deadline_s
        else:
            self._fail("timeout", "The provider did not send in time.")
