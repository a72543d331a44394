"""Can a stranger make the gateway keep large bodies in memory?"""

from __future__ import annotations

from typing import Any

import pytest

from gateway.asgi import Application
from gateway.console_bodies import MAX_FORM_BYTES


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", str(MAX_FORM_BYTES + 1).encode())],
        [(b"content-length", b"+1")],
        [(b"transfer-encoding", b"chunked")],
    ],
)
async def test_the_console_refuses_a_large_body_before_it_is_read(headers: list[tuple[bytes, bytes]]) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> None:
        raise AssertionError("the body is not waited for")

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/sign-in", "headers": headers}
    await Application()(scope, receive, send)
    assert sent[0]["status"] == 413
    assert b"request_too_large" in sent[1]["body"]
