"""How large and how slow may a request be, and how large all answers together? Reads a body within bounds.

Calls: the ASGI receive channel. Header size, count and time are the connection's (`client_connection.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from gateway.dataplane.errors import (
    BadRequest,
    ClientGone,
    ClientTooSlow,
    GatewayUnready,
    RequestTooLarge,
)

Receive = Callable[[], Awaitable[Any]]

MAX_BODY_BYTES = 32 * 1024 * 1024
BODY_TIMEOUT_S = 60.0
LARGE_BODY_BYTES = 1024 * 1024
MAX_HELD_BYTES = 256 * 1024 * 1024
# Of answers that are not streams, besides: from their provider until their client has read them.
MAX_ANSWERS_BYTES = 256 * 1024 * 1024
ANSWER_ROOM_WAIT_S = 60.0
ANSWER_ROOM_POLL_S = 0.05


def check_declared_size(headers: Mapping[bytes, bytes], *, max_bytes: int = MAX_BODY_BYTES) -> int:
    """Refuse a body that says it is too large, before any other work. Returns the size it says, 0 for none."""
    declared = headers.get(b"content-length")
    if declared is None or not declared.isdigit():
        return 0
    size = int(declared)
    if size > max_bytes:
        raise _too_large(max_bytes)
    return size


class HeldBytes(Protocol):
    """What a worker holds of large bodies, and of large answers."""

    held_bytes: int
    answer_bytes: int


class Room:
    """How much one request's body takes of what a worker may hold of large ones, and its answer. `leave` gives it back.

    A request's body lives as long as its answer takes: a few hundred of 32 MiB would take the machine's memory from
    everybody. Ordinary requests are never turned away for it. Bodies that come in chunks say no size: they are counted
    while they grow.
    """

    __slots__ = ("_stats", "answer_bytes", "taken_bytes")

    def __init__(self, stats: HeldBytes) -> None:
        self._stats = stats
        self.taken_bytes = 0
        self.answer_bytes = 0

    def take(self, size: int) -> None:
        """Make room for a body of so many bytes in all. Raises GatewayUnready while too many are held."""
        more = size - self.taken_bytes
        if size < LARGE_BODY_BYTES or more <= 0:
            return
        if self._stats.held_bytes + more > MAX_HELD_BYTES:
            raise GatewayUnready(
                "Too many large requests are being served; try again in a moment.",
                code="too_many_large_requests",
                headers=[(b"retry-after", b"2")],
            )
        self._stats.held_bytes += more
        self.taken_bytes = size

    async def take_for_answer(self, more_bytes: int, *, wait_s: float) -> None:
        """Make room for so much more of large answers. Waits while others hold too much, as the provider does
        meanwhile; raises GatewayUnready when that takes too long.

        It looks again and again: who waits here waits for slow clients, and nobody is to be told when one has read.
        """
        stats = self._stats
        if stats.answer_bytes + more_bytes > MAX_ANSWERS_BYTES:
            loop = asyncio.get_running_loop()
            give_up_s = loop.time() + min(wait_s, ANSWER_ROOM_WAIT_S)
            while stats.answer_bytes + more_bytes > MAX_ANSWERS_BYTES:
                if loop.time() >= give_up_s:
                    raise GatewayUnready(
                        "Too many large answers wait for their clients to read them; try again in a moment, "
                        "or ask for a stream.",
                        code="too_many_large_answers",
                        headers=[(b"retry-after", b"10")],
                    )
                await asyncio.sleep(ANSWER_ROOM_POLL_S)
        stats.answer_bytes += more_bytes
        self.answer_bytes += more_bytes

    def leave_answer(self, kept_bytes: int) -> None:
        """Of the answers only so much is kept."""
        self._stats.answer_bytes -= self.answer_bytes - kept_bytes
        self.answer_bytes = kept_bytes

    def leave(self) -> None:
        """Neither body nor answer are needed any more."""
        self._stats.held_bytes -= self.taken_bytes
        self.taken_bytes = 0
        if self.answer_bytes:
            self.leave_answer(0)


def check_content_type(headers: Mapping[bytes, bytes]) -> None:
    """Refuse what says it is not JSON, or compressed. A missing content type is taken as JSON, as OpenAI does."""
    content_type = headers.get(b"content-type")
    if content_type is not None and b"json" not in content_type.lower():
        raise BadRequest(
            "Send the request as JSON with 'Content-Type: application/json'.",
            code="unsupported_content_type",
            status=415,
        )
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
        raise BadRequest(
            "Send the request's body uncompressed, without 'Content-Encoding'.",
            code="unsupported_content_encoding",
            status=415,
        )


async def read_body(
    receive: Receive,
    *,
    max_bytes: int = MAX_BODY_BYTES,
    timeout_s: float = BODY_TIMEOUT_S,
    room: Room | None = None,
) -> bytes:
    """Return the whole body. Raises RequestTooLarge, ClientTooSlow, or ClientGone when the client hung up.

    With `room`, GatewayUnready when the body grows into a large one and too many of those are held.
    """
    # No timer here: nearly every body is whole by now, and a connection that brings nothing is the server's to close.
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message["body"]
    if len(body) > max_bytes:
        raise _too_large(max_bytes)
    if not message.get("more_body"):
        return body
    try:
        async with asyncio.timeout(timeout_s):
            return await _read_rest(receive, body, max_bytes, room)
    except TimeoutError:
        raise ClientTooSlow(
            f"The request body did not arrive within {timeout_s:g} seconds.", code="request_timeout"
        ) from None


async def _read_rest(receive: Receive, body: bytes, max_bytes: int, room: Room | None) -> bytes:
    parts = [body]
    size = len(body)
    has_more = True
    while has_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message["body"])
        size += len(message["body"])
        if size > max_bytes:
            raise _too_large(max_bytes)
        if room is not None:
            room.take(size)
        has_more = message.get("more_body", False)
    return b"".join(parts)


def _too_large(max_bytes: int) -> RequestTooLarge:
    return RequestTooLarge(
        f"The request body is larger than {max_bytes // (1024 * 1024)} MiB.", code="request_too_large"
    )
