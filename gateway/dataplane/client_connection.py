"""What may a client do on its connection? uvicorn's HTTP/1.1 protocol with limits on size and patience.

Calls: the transport. uvicorn (0.54) leaves silent and slow clients open for ever, does not bound heads, and answers
garbage in plain text. There is no timer per connection: the server sweeps over all of them once a second, which
costs a tenth of a microsecond each and nothing per request.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any
from urllib.parse import unquote

import httptools
import orjson
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.dataplane.answer_cycle import AnswerCycle
from gateway.dataplane.cross_origin import AllowedOrigins
from gateway.dataplane.errors import Headers
from gateway.dataplane.hangups import CONNECTION_KEY
from gateway.dataplane.limits import MAX_BODY_BYTES
from gateway.dataplane.request_ids import make_request_id


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Numbers: gateway/README.md. `write_progress_bytes` must leave within `write_s` while the client lags behind.

    A body has `body_gap_s` between two pieces, and as long in all with a second more for each `body_bytes_per_s`.
    """

    head_s: float = 10.0
    keep_alive_s: float = 75.0
    body_gap_s: float = 60.0
    body_bytes_per_s: float = 1024.0
    body_bytes: int = MAX_BODY_BYTES
    write_s: float = 60.0
    linger_s: float = 5.0
    write_progress_bytes: int = 64 * 1024
    head_bytes: int = 32 * 1024
    header_count: int = 100


class Phase(IntEnum):
    """What the connection waits for."""

    IDLE = 0  # the next request's first byte, after an answer
    HEAD = 1  # the end of a request's head; also the first byte of a new connection
    BODY = 2  # more of a request's body
    ANSWER = 3  # our own answer
    LINGER = 4  # the rest of a body that was answered early and that nobody reads
    REFUSED = 5  # an error was written; everything further is ignored


_UPGRADE = re.compile(rb"\r\nupgrade(?=[ \t]*:)", re.IGNORECASE)

_TOO_LARGE = "The request's headers are too large: {} bytes and {} headers are accepted."
_REASONS = {
    400: ("invalid_http", "This is not a valid HTTP/1.1 request."),
    408: ("request_timeout", "The request's headers did not arrive in time."),
    431: ("headers_too_large", _TOO_LARGE),
}


def refusal(status: int, limits: ClientLimits, marks: Headers) -> bytes:
    """A whole HTTP answer with an error as OpenAI's SDKs read it, after which the connection closes.

    `marks`: further headers, that say which pages may read it.
    """
    code, message = _REASONS[status]
    error = {
        "message": message.format(limits.head_bytes, limits.header_count),
        "type": "invalid_request_error",
        "param": None,
        "code": code,
    }
    body = orjson.dumps({"error": error})
    lines = b"".join([b"%b: %b\r\n" % mark for mark in marks])
    return STATUS_LINE[status] + (
        b"content-type: application/json\r\nconnection: close\r\nx-request-id: %b\r\n%b"
        b"content-length: %d\r\n\r\n%b" % (make_request_id().encode(), lines, len(body), body)
    )


class ClientConnection(HttpToolsProtocol):
    """One client's connection. Overrides of uvicorn's callbacks stay small: they run for every request."""

    limits = ClientLimits()
    # Whose pages may read refusals; None: nobody's.
    cross_origins: AllowedOrigins | None = None

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.phase = Phase.HEAD
        self.since_s = 0.0
        self.head_bytes = 0
        self.blocked_since_s: float | None = None
        self.blocked_bytes = 0
        self.body_parts: list[bytes] = []
        self.body_bytes = 0
        self.body_since_s = 0.0
        self.framing_bytes = 0  # of a body's chunks and trailers, since its last byte
        # What is served; `cycle` is the newest request, which may wait behind it in the pipeline.
        self.running: RequestResponseCycle | None = None
        self.on_hangup: Callable[[], None] | None = None
        self.is_lost = False
        self.refused_as: tuple[int, str] | None = None
        self.task: asyncio.Task[None] | None = None

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # as uvicorn narrows it
        self.since_s = self.loop.time()

    def data_received(self, data: bytes) -> None:
        phase = self.phase
        if phase <= Phase.HEAD:
            if phase == Phase.IDLE:
                self.phase = Phase.HEAD
                self.since_s = self.loop.time()
                self.head_bytes = 0
            self.head_bytes += len(data)
            # Searching a large body would cost a nanosecond a byte.
            head_end = data.find(b"\r\n\r\n", 0, self.limits.head_bytes)
            if data.find(b"pgrade", 0, head_end) >= 0 or data.find(b"PGRADE", 0, head_end) >= 0:
                data = without_upgrade(data)
            body_bytes = -1
        elif phase == Phase.REFUSED:
            return
        else:
            body_bytes = self.body_bytes
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # CONNECT, or an upgrade whose header came in pieces; see without_upgrade.
            self._refuse(400)
        except httptools.HttpParserError:
            # Also raised when on_headers_complete has refused the request.
            self._refuse(400)
        else:
            if self.phase == Phase.HEAD and self.head_bytes > self.limits.head_bytes:
                self._refuse(431)
            elif body_bytes >= 0 and self.phase in (Phase.BODY, Phase.LINGER):
                self._count_framing(len(data), is_body=self.body_bytes != body_bytes)

    def connection_lost(self, exc: Exception | None) -> None:
        self.blocked_since_s = None
        self.is_lost = True
        self._drop_running()
        super().connection_lost(exc)
        if self.on_hangup is not None:
            self.on_hangup()
        # Each of these holds this connection: all of it would stay until the collector comes.
        self.on_hangup = None
        self.cycle = self.running = self.scope = self.task = None  # type: ignore[assignment]
        self.pipeline.clear()

    def pause_writing(self) -> None:
        self.flow.pause_writing()
        self.blocked_since_s = self.loop.time()
        self.blocked_bytes = self.transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        self.blocked_since_s = None
        self.flow.resume_writing()

    # The parser's side

    def on_message_begin(self) -> None:
        if self.phase != Phase.HEAD:  # a pipelined request in the same read as the one before
            self.phase = Phase.HEAD
            self.since_s = self.loop.time()
            self.head_bytes = 0
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        limits = self.limits
        if len(self.headers) > limits.header_count or (
            self.head_bytes > limits.head_bytes and self._measured_head_bytes() > limits.head_bytes
        ):
            self._refuse(431)
            raise _Refused  # stops the parser
        # From here as uvicorn does it, without what no answer here needs: a copy of each state, limits, an access log.
        parser = self.parser
        version = parser.get_http_version()
        url = self.url
        if url[:1] == b"/" and b"%" not in url and b"#" not in url:
            raw_path, _, query = url.partition(b"?")
            path = raw_path.decode("ascii")
        else:
            parsed = httptools.parse_url(url)  # raises for a URL that cannot be read
            raw_path, query = parsed.path, parsed.query or b""
            path = unquote(raw_path.decode("ascii"))
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "method": parser.get_method().decode("ascii"),
            "root_path": "",
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self.headers,
            "state": self.app_state,
            # Not ASGI: lets the data plane hear of a hang-up without a task that waits for it.
            CONNECTION_KEY: self,  # type: ignore[misc]
        }
        self.headers = []  # trailers are nobody's: among the headers they could say whose request it is
        before = self.cycle
        self.cycle = AnswerCycle(self, keep_alive=version != "1.0" and parser.should_keep_alive())
        self.phase = Phase.BODY
        self.since_s = self.body_since_s = self.loop.time()
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        # As uvicorn does it, and the task is kept: asking asyncio for it later costs a system call.
        self.running = cycle
        self.task = task = self.loop.create_task(cycle.run_asgi(app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def on_body(self, body: bytes) -> None:
        self.body_bytes += len(body)
        if self.cycle.response_complete:
            return
        # uvicorn hands a body over in pieces of 64 KiB and stops reading in between. Every handler here wants it
        # whole, so it is kept until it is, or until it is more than anybody accepts.
        self.body_parts.append(body)
        if self.body_bytes > self.limits.body_bytes:
            self._hand_over_body()
            self.flow.pause_reading()
        self.since_s = self.loop.time()

    def on_message_complete(self) -> None:
        cycle = self.cycle
        if cycle.response_complete:
            self.body_parts.clear()
            self.body_bytes = 0
            self._rest()
            return
        self.phase = Phase.ANSWER
        cycle.more_body = False
        self._hand_over_body()

    def _hand_over_body(self) -> None:
        parts = self.body_parts
        cycle = self.cycle
        if parts:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            # Bytes where uvicorn keeps a bytearray: its `bytes(body)` then copies nothing.
            cycle.body = cycle.body + body if cycle.body else body  # type: ignore[assignment]
            parts.clear()
            self.body_bytes = 0
        cycle.message_event.set()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self.phase == Phase.ANSWER:
            self._rest()
        elif self.phase == Phase.BODY:
            self.phase = Phase.LINGER
            self.since_s = self.loop.time()
        elif self.phase == Phase.HEAD:
            self.since_s = self.loop.time()

    # Patience

    def check_patience(self, now_s: float) -> None:
        """Close the connection when its client has used up the time for what it is doing."""
        if self.blocked_since_s is not None:
            self._check_writing(now_s, self.blocked_since_s)
        waited_s = now_s - self.since_s
        phase = self.phase
        limits = self.limits
        if phase == Phase.ANSWER:
            return
        if phase == Phase.IDLE:
            if waited_s > limits.keep_alive_s:
                self.transport.close()
        elif phase == Phase.HEAD:
            if waited_s > limits.head_s and not self._is_answering():
                if self.head_bytes:
                    self._refuse(408)
                else:
                    self.transport.close()
        elif phase == Phase.BODY:
            if self.flow.read_paused:
                self.since_s = now_s  # it is we who do not read
            elif waited_s > limits.body_gap_s or (
                now_s - self.body_since_s > limits.body_gap_s + self.body_bytes / limits.body_bytes_per_s
            ):
                self.transport.abort()
        elif waited_s > limits.linger_s and not (phase == Phase.REFUSED and self._is_answering()):
            self.transport.abort()

    def _check_writing(self, now_s: float, blocked_since_s: float) -> None:
        waiting_bytes = self.transport.get_write_buffer_size()
        if waiting_bytes <= self.blocked_bytes - self.limits.write_progress_bytes:
            self.blocked_bytes = waiting_bytes
            self.blocked_since_s = now_s
        elif now_s - blocked_since_s > self.limits.write_s:
            self.transport.abort()

    def _rest(self) -> None:
        self.phase = Phase.IDLE
        self.since_s = self.loop.time()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _measured_head_bytes(self) -> int:
        """The first read may hold a body too, so count what the head itself takes."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _count_framing(self, size: int, *, is_body: bool) -> None:
        """Chunks' extensions and trailers have no other bound, and the parser keeps a trailer until its end."""
        self.framing_bytes = 0 if is_body else self.framing_bytes + size
        if self.framing_bytes > self.limits.head_bytes:
            self._refuse(431)

    def _drop_running(self) -> None:
        """Let a request that is served before the newest one know that nobody hears its answer."""
        running = self.running
        if running is not None and running is not self.cycle and not running.response_complete:
            running.disconnected = True
            running.message_event.set()

    def _refuse(self, status: int) -> None:
        """Answer with an error and close. Answers that are on their way are finished first, or broken off."""
        phase = self.phase
        if phase == Phase.REFUSED:
            return
        self.phase = Phase.REFUSED
        self.since_s = self.loop.time()
        if phase != Phase.BODY and self._is_answering():
            self.cycle.keep_alive = False
            return
        if phase == Phase.BODY and (self.pipeline or self.cycle.response_started):
            self._drop_running()
            self.transport.close()
            return
        if not self.transport.is_closing():
            if phase != Phase.LINGER:  # its request has been answered
                headers = self.scope["headers"] if phase == Phase.BODY else self.headers
                self.transport.write(refusal(status, self.limits, self._marks_for(headers)))
                self.refused_as = status, _REASONS[status][0]
            # Closing with unread input would reset the connection and could take the answer back.
            self.transport.write_eof()
        if phase == Phase.BODY:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _marks_for(self, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
        """What lets a browser's page read a refusal, as far as the head has come that says whose page it is."""
        if self.cross_origins is None:
            return []
        origin = next((value for name, value in headers if name == b"origin"), b"")
        return self.cross_origins.marks(self.cross_origins.allowed(origin))


class _Refused(Exception):
    """Ends the parsing of a request that has been refused."""


def without_upgrade(data: bytes) -> bytes:
    """Rename the Upgrade header of the request head that `data` begins with. Pure.

    Java's HttpClient offers `Upgrade: h2c` with every plain-text request. A server may ignore the offer, but llhttp
    would take the rest of the connection for the other protocol and lose the body.
    """
    end = data.find(b"\r\n\r\n")
    head = data if end < 0 else data[:end]
    return _UPGRADE.sub(b"\r\nx-pgrade", head) + data[len(head) :]
