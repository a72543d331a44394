"""What can a client do to others with what HTTP allows it? Pipelines, trailers, trickled bodies, hang-ups."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from gateway.dataplane.client_connection import ClientConnection, ClientLimits, Phase
from gateway.dataplane.server import WorkerServer, bind_listener, build_config
from tests.gateway.dataplane.in_process import Client, Plane, chat

LIMITS = ClientLimits(head_s=60, keep_alive_s=60, body_gap_s=60, write_s=60, linger_s=60)
CHUNKED = b"POST /%b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"
HELD = b"GET /held HTTP/1.1\r\nhost: x\r\n\r\n"


class Server:
    """Answers with the body's length; `/held` when `released` is set, `/early` without reading the body."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.ended_count = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.messages: list[str] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        size = 0
        if scope["path"] != "/early":
            while True:
                message = await receive()
                self.messages.append(message["type"])
                if message["type"] == "http.disconnect":
                    return
                size += len(message["body"])
                if not message["more_body"]:
                    break
        if scope["path"] == "/held":
            await self.released.wait()
        self.headers = scope["headers"]
        body = b"%d" % size
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self.ended_count += 1

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, ClientConnection]:
        """A new connection and the server's side of it."""
        before = set(self.worker.server_state.connections)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        while not (found := set(self.worker.server_state.connections) - before):
            await asyncio.sleep(0.005)
        (connection,) = found
        assert isinstance(connection, ClientConnection)
        return reader, writer, connection


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    listener = bind_listener("127.0.0.1", 0)
    server.port = listener.getsockname()[1]
    server.worker = WorkerServer(build_config(server, limits=replace(LIMITS)), drain_s=0.1)
    task = asyncio.create_task(server.worker._serve([listener]))
    while not server.worker.started:
        await asyncio.sleep(0.005)
    async with asyncio.timeout(30):
        yield server
    server.worker.should_exit = True
    await task


async def test_a_client_that_leaves_before_its_pipelined_requests_are_answered_leaves_no_error(
    server, caplog
):
    _, writer, connection = await server.open()
    writer.write(HELD + HELD)
    while not connection.pipeline:
        await asyncio.sleep(0.005)
    writer.transport.abort()
    while not connection.is_lost:
        await asyncio.sleep(0.005)
    server.released.set()
    while not server.ended_count:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.01)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_what_ends_with_the_connection_of_a_bad_request_behind_it_was_not_refused_itself(server):
    _, writer, connection = await server.open()
    writer.write(HELD + CHUNKED.replace(b"5\r\n", b"zz\r\n") % b"ok")
    while not connection.is_lost:
        await asyncio.sleep(0.005)
    assert connection.refused_as is None
    assert connection.phase == Phase.REFUSED
    server.released.set()
    writer.close()


async def test_trailers_are_not_headers(server):
    reader, writer, _ = await server.open()
    writer.write(CHUNKED % b"ok" + b"0\r\nauthorization: Bearer other\r\nx-a: b\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n5")).startswith(b"HTTP/1.1 200")
    assert [name for name, _ in server.headers] == [b"host", b"transfer-encoding"]
    writer.close()


@pytest.mark.parametrize("endless", [b"0\r\nt: ", b"5;"])
async def test_a_trailer_or_extension_without_an_end_is_refused(server, endless):
    reader, writer, connection = await server.open()
    writer.write(CHUNKED % b"ok" + endless)
    with contextlib.suppress(ConnectionError):
        while connection.phase != Phase.REFUSED:
            writer.write(b"x" * 8192)
            await writer.drain()
            await asyncio.sleep(0.001)
    answer = await reader.read(-1)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b'"headers_too_large"' in answer
    assert server.messages == ["http.disconnect"]
    assert connection.refused_as == (431, "headers_too_large")
    writer.close()


async def test_what_follows_an_early_answer_is_bounded_and_not_answered_again(server):
    reader, writer, connection = await server.open()
    writer.write(CHUNKED % b"early" + b"0\r\nt: ")
    while not server.ended_count:
        await asyncio.sleep(0.005)
    with contextlib.suppress(ConnectionError):
        while connection.phase != Phase.REFUSED:
            writer.write(b"x" * 8192)
            await writer.drain()
            await asyncio.sleep(0.001)
    assert (await reader.read(-1)).count(b"HTTP/1.1 ") == 1
    writer.close()


async def test_a_body_must_come_at_a_pace_though_every_gap_is_short(server):
    _, writer, connection = await server.open()
    writer.write(b"POST /ok HTTP/1.1\r\nhost: x\r\ncontent-length: 30000\r\n\r\n" + b"x" * 2048)
    while connection.phase != Phase.BODY or not connection.body_bytes:
        await asyncio.sleep(0.005)
    begun_s = connection.body_since_s
    connection.since_s = begun_s + 61
    connection.check_patience(begun_s + 61)
    assert not connection.transport.is_closing()
    connection.check_patience(begun_s + 63)
    assert connection.transport.is_closing()
    writer.close()


async def test_a_client_that_leaves_while_its_request_waits_for_a_budget_costs_nothing():
    plane = Plane("a")
    plane.upstream.answers["a"] = [chat()]
    client = Client(plane, "a")
    client.connection.is_lost = True
    await client.run()
    assert plane.kinds() == ["intent", "outcome"]
    (outcome,) = plane.lines("outcome")
    assert (outcome["status"], outcome["error"]) == ("cancelled", "client_disconnected")
    assert plane.gateway.stats.in_flight == 0


async def test_a_body_that_the_server_refused_is_recorded_as_refused():
    plane = Plane("a")
    client = Client(plane, "a")
    client.connection.refused_as = (400, "invalid_http")

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    client.receive = receive  # type: ignore[method-assign]
    await client.run()
    (outcome,) = plane.lines("outcome")
    assert (outcome["status"], outcome["http"], outcome["error"]) == ("refused", 400, "invalid_http")
