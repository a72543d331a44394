"""Is what a worker holds of large answers bounded, however slowly their clients read?"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from gateway.dataplane.app import DataPlane
from gateway.dataplane.limits import LARGE_BODY_BYTES, MAX_ANSWERS_BYTES, Room
from gateway.dataplane.server import WorkerServer, bind_listener, build_config
from gateway.dataplane.stats import Stats
from gateway.dataplane.upstream import PooledUpstreamClient
from tests.gateway.dataplane.in_process import SECRET, Answer, Client, Plane, chat
from tests.gateway.dataplane.scripted_provider import Call, ScriptedProvider, call_provider
from tests.gateway.dataplane.test_inference import fallback_plane


async def test_a_large_answer_goes_out_in_pieces_and_takes_room_until_its_client_has_read_it():
    plane = Plane("a")
    text = "long " * (LARGE_BODY_BYTES // 2)
    plane.upstream.answers["a"] = [chat(text)]
    stats = plane.gateway.stats
    client = Client(plane, "a")
    is_reading = asyncio.Event()
    give = client.send

    async def send(message: dict[str, Any]) -> None:
        await give(message)
        await is_reading.wait()

    client.send = send  # type: ignore[method-assign]
    task = asyncio.create_task(client.run())
    while not client.status:
        await asyncio.sleep(0.001)
    assert stats.answer_bytes == int(client.headers["content-length"]) > 2 * LARGE_BODY_BYTES
    is_reading.set()
    await task
    assert orjson.loads(client.body)["choices"][0]["message"]["content"] == text
    assert len([event for event in plane.happened if event[0] == "sent"]) > 8
    assert stats.answer_bytes == 0
    gone = Client(plane, "a")
    is_reading.clear()
    give = gone.send
    gone.send = send  # type: ignore[method-assign]
    task = asyncio.create_task(gone.run())
    while not gone.status:
        await asyncio.sleep(0.001)
    assert stats.answer_bytes > 0
    gone.connection.on_hangup()
    await task
    assert (stats.answer_bytes, stats.in_flight) == (0, 0)
    assert [line["status"] for line in plane.lines("outcome")] == ["ok", "ok"]


async def test_a_large_answer_waits_for_room_and_is_refused_at_last_and_a_small_one_never():
    plane = Plane("a", total_s=0.3)
    large = chat("long " * LARGE_BODY_BYTES)
    plane.upstream.answers["a"] = [large, large, chat()]
    stats = plane.gateway.stats
    stats.answer_bytes = MAX_ANSWERS_BYTES
    task = asyncio.create_task(plane.ask("a"))
    await asyncio.sleep(0.06)
    assert not task.done()
    stats.answer_bytes = 0
    assert (await task).status == 200
    stats.answer_bytes = MAX_ANSWERS_BYTES
    refused = await plane.ask("a")
    assert (refused.status, refused.error()["code"]) == (503, "too_many_large_answers")
    assert refused.headers["retry-after"] == "10"
    line = plane.lines("outcome")[-1]
    (attempt,) = line["attempts"]
    assert (line["status"], line["http"], line["usage"]["kind"]) == ("error", 503, "unknown")
    assert (attempt["error"], attempt["usage"]["kind"]) == ("too_many_large_answers", "unknown")
    assert (await plane.ask("a")).status == 200
    assert stats.answer_bytes == MAX_ANSWERS_BYTES


async def test_an_answer_that_broke_off_gives_its_room_back_before_the_next_attempt():
    plane = fallback_plane("a", "b")
    large = b"[" + b"1," * LARGE_BODY_BYTES  # no JSON object
    plane.upstream.answers = {"a": [Answer(large)], "b": [Answer(large)]}
    seen: list[int] = []
    send = plane.upstream.send

    async def watched(**fields: Any) -> Any:
        seen.append(plane.gateway.stats.answer_bytes)
        return await send(**fields)

    plane.upstream.send = watched  # type: ignore[method-assign]
    assert (await plane.ask("acme/auto")).status == 502
    assert len(seen) >= 2 and set(seen) == {0}
    assert plane.gateway.stats.answer_bytes == 0


async def test_a_client_that_does_not_read_keeps_its_answers_room_on_a_real_connection():
    plane = Plane("a")
    plane.upstream.answers["a"] = [chat("long " * (2 * LARGE_BODY_BYTES))]
    stats = plane.gateway.stats
    listener = bind_listener("127.0.0.1", 0)
    worker = WorkerServer(build_config(DataPlaneApp(plane)), drain_s=0.1)
    serving = asyncio.create_task(worker._serve([listener]))
    async with asyncio.timeout(30):
        while not worker.started:
            await asyncio.sleep(0.005)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1], limit=4096)
        body = b'{"model":"a","messages":[{"role":"user","content":"hi"}]}'
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {SECRET}\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        while not stats.answer_bytes:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.1)
        (connection,) = worker.server_state.connections
        assert stats.answer_bytes > 10 * LARGE_BODY_BYTES
        assert connection.transport.get_write_buffer_size() < LARGE_BODY_BYTES
        answer_head = await reader.readuntil(b"\r\n\r\n")
        size = int(answer_head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        assert orjson.loads(await reader.readexactly(size))["model"] == "served"
        while stats.answer_bytes:
            await asyncio.sleep(0.005)
    writer.close()
    worker.should_exit = True
    await serving


class DataPlaneApp:
    """The data plane as a server's application."""

    def __init__(self, plane: Plane) -> None:
        self.data_plane = DataPlane(plane.gateway)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": message["type"] + ".complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        await self.data_plane(scope, receive, send, scope["path"].removeprefix("/v1/"))


async def test_an_answer_without_room_stays_at_its_provider_and_one_that_says_its_length_takes_it_at_once():
    size = 20 * LARGE_BODY_BYTES
    sent = 0

    async def script(call: Call) -> None:
        nonlocal sent
        await call.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(80):
            await call.send(b"x" * (size // 80))
            sent += size // 80

    stats = Stats()
    stats.answer_bytes = full = MAX_ANSWERS_BYTES - size + 1
    client = PooledUpstreamClient()
    async with ScriptedProvider(script) as provider:
        response = await call_provider(client, provider.url)
        room = Room(stats)
        task = asyncio.create_task(response.read(limit_bytes=size, timeout_s=10, room=room))
        await asyncio.sleep(0.2)
        assert (stats.answer_bytes, task.done()) == (full, False)
        assert sent < size * 3 // 4
        stats.answer_bytes = 0
        while not stats.answer_bytes:
            await asyncio.sleep(0.001)
        assert (stats.answer_bytes, task.done()) == (size, False)
        assert len(await task) == size == stats.answer_bytes
        response.close()
    room.leave()
    assert stats.answer_bytes == 0
    await client.aclose()
