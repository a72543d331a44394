"""No header of an answer may hold what would end it: a provider's text must not write lines of its own."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.dataplane.answer_cycle import AnswerCycle


async def answer(headers: list[tuple[bytes, bytes]]) -> bytes:
    written: list[bytes] = []
    transport: Any = SimpleNamespace(write=written.append)
    flow: Any = SimpleNamespace(write_paused=False)
    connection: Any = SimpleNamespace(
        scope={"type": "http", "method": "POST"},
        transport=transport,
        flow=flow,
        logger=logging.getLogger(__name__),
        server_state=SimpleNamespace(default_headers=[(b"date", b"today")]),
        on_response_complete=lambda: None,
        expect_100_continue=False,
    )
    cycle = AnswerCycle(connection, keep_alive=True)
    await cycle.send({"type": "http.response.start", "status": 200, "headers": headers})
    await cycle.send({"type": "http.response.body", "body": b"ok"})
    return b"".join(written)


async def test_headers_leave_as_they_were_given_together_with_the_body() -> None:
    sent = await answer([(b"x-name", b"a value, \t with anything \xff"), (b"content-length", b"2")])
    assert sent == (
        b"HTTP/1.1 200 OK\r\ndate: today\r\nx-name: a value, \t with anything \xff\r\ncontent-length: 2\r\n\r\nok"
    )


@pytest.mark.parametrize("evil", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb", b"a\0b", b"a\r\n", b"\n"])
@pytest.mark.parametrize("is_name", [True, False])
async def test_a_line_break_or_nul_in_a_header_ends_the_answer_before_it_begins(
    evil: bytes, is_name: bool
) -> None:
    header = (b"x-" + evil, b"value") if is_name else (b"x-name", evil)
    with pytest.raises(RuntimeError, match="line break"):
        await answer([header, (b"content-length", b"2")])
