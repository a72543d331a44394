"""How large and how slow may a request be? Reads a body within bounds.

Calls: the ASGI receive channel. Header size, count and time are the connection's (`client_connection.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

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


def check_declared_size(headers: Mapping[bytes, bytes], *, max_bytes: int = MAX_BODY_BYTES) -> int:
    """Refuse a body that says it is too large, before any other work. Returns the size it says, 0 for none."""
    declared = headers.get(b"content-length")
    if declared is None or not declared.isdigit():
        return 0
    size = int(declared)
    if size > max_bytes:
        raise _too_large(max_bytes)
    return size


def check_room(declared_bytes: int, held_bytes: int) -> int:
    """Refuse a large body while many are held; returns how many bytes to count for it, 0 for an ordinary one.

    A request's body lives as long as its answer takes: a few hundred of 32 MiB would take the machine's memory from
    everybody. Ordinary requests are never turned away for it.
    """
    if declared_bytes < LARGE_BODY_BYTES:
        return 0
    if held_bytes + declared_bytes > MAX_HELD_BYTES:
        raise GatewayUnready(
            "Too many large requests are being served; try again in a moment.",
            code="too_many_large_requests",
            headers=[(b"retry-after", b"2")],
        )
    return declared_bytes


def check_content_type(headers: Mapping[bytes, bytes]) -> None:
    """Refuse what says it is not JSON. A missing content type is taken as JSON, as OpenAI does."""
    content_type = headers.get(b"content-type")
    if content_type is not None and b"json" not in content_type.lower():
        raise BadRequest(
            "Send the request as JSON with 'Content-Type: application/json'.",
            code="unsupported_content_type",
            status=415,
        )


async def read_body(
    receive: Receive, *, max_bytes: int = MAX_BODY_BYTES, timeout_s: float = BODY_TIMEOUT_S
) -> bytes:
    """Return the whole body. Raises RequestTooLarge, ClientTooSlow, or ClientGone when the client hung up."""
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
            return await _read_rest(receive, body, max_bytes)
    except TimeoutError:
        raise ClientTooSlow(
            f"The request body did not arrive within {timeout_s:g} seconds.", code="request_timeout"
        ) from None


async def _read_rest(receive: Receive, body: bytes, max_bytes: int) -> bytes:
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
        has_more = message.get("more_body", False)
    return b"".join(parts)


def _too_large(max_bytes: int) -> RequestTooLarge:
    return RequestTooLarge(
        f"The request body is larger than {max_bytes // (1024 * 1024)} MiB.", code="request_too_large"
    )
