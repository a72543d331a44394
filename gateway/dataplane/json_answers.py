"""How does an answer that the gateway itself makes reach the client? As one JSON body; errors too.

Calls: the client's channel.
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.dataplane.errors import GatewayError
from gateway.dataplane.exchange import Send

Headers = list[tuple[bytes, bytes]]


async def send_json(
    payload: Any, send: Send, headers: Headers, *, status: int = 200, is_head: bool = False
) -> None:
    """Send an answer; for a HEAD request without its body."""
    await _send(orjson.dumps(payload), send, headers, status=status, is_head=is_head)


async def send_error(error: GatewayError, send: Send, headers: Headers) -> None:
    """Send an error answer; the one place where the error tree becomes HTTP."""
    await _send(error.body(), send, [*headers, *error.headers], status=error.status)


async def _send(body: bytes, send: Send, headers: Headers, *, status: int, is_head: bool = False) -> None:
    about_body = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": [*about_body, *headers]})
    await send({"type": "http.response.body", "body": b"" if is_head else body})
