"""Is what served a request gone when it has ended? A cycle would keep it, body and all, until the collector comes."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator

import pytest

from gateway.dataplane.client_connection import ClientConnection
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.upstream_errors import UpstreamError
from gateway.wire.openai_request import ParsedRequest
from tests.gateway.dataplane.in_process import CHUNK, Answer, Client, Plane, chat, refusal, stream
from tests.gateway.dataplane.test_server import BEGUN, GET, Served, serving, until

ROUNDS = 5


@pytest.fixture
def left() -> Iterator[Callable[..., int]]:
    """How many objects of these classes the test has left behind, with the collector switched off."""

    def count(*classes: type) -> int:
        return sum(isinstance(found, classes) for found in gc.get_objects())

    gc.collect()
    before = {kind: count(kind) for kind in (Exchange, ParsedRequest, ClientConnection)}
    gc.disable()
    yield lambda *classes: count(*classes) - sum(before[kind] for kind in classes)
    gc.enable()


@pytest.mark.parametrize(
    ("answer", "is_stream", "status"),
    [
        (chat(), False, 200),
        (stream(), True, 200),
        (stream(CHUNK, b"data: garbage\n\n"), True, 200),
        (stream(b"data: garbage\n\n"), True, 502),
        (refusal(400), False, 400),
        (refusal(500), True, 500),
        (Answer(b"no JSON"), False, 502),
    ],
)
async def test_nothing_of_an_ended_request_is_left(
    left: Callable[..., int], answer: Answer, is_stream: bool, status: int
) -> None:
    plane = Plane("first")
    plane.upstream.answers["first"] = [answer]
    for _ in range(ROUNDS):
        options = {"stream_options": {"include_usage": True}} if is_stream else {}
        client = await plane.ask("first", is_stream=is_stream, **options)
        assert client.status == status
        del client
    assert left(Exchange, ParsedRequest) == 0


@pytest.mark.parametrize("is_begun", [True, False])
async def test_nothing_of_a_request_is_left_whose_provider_broke_off(
    left: Callable[..., int], is_begun: bool
) -> None:
    plane = Plane("first")
    for _ in range(ROUNDS):
        # A new one each time: an exception keeps the frames that it went through.
        error = UpstreamError("reset", "gone")
        plane.upstream.answers["first"] = [stream(CHUNK, error) if is_begun else error]
        client = await plane.ask("first", is_stream=True)
        assert client.status == (200 if is_begun else 502)
        plane.upstream.answers.clear()
        plane.upstream.responses.clear()
        del client, error
    assert left(Exchange, ParsedRequest) == 0


async def test_nothing_of_a_request_is_left_whose_client_hung_up(left: Callable[..., int]) -> None:
    plane = Plane("first")
    plane.upstream.answers["first"] = [stream(CHUNK, 30.0)]
    for _ in range(ROUNDS):
        client = Client(plane, "first", is_stream=True)
        task = asyncio.create_task(client.run())
        async with asyncio.timeout(30):
            while not client.body:
                await asyncio.sleep(0.001)
        client.connection.on_hangup()
        await task
        del client, task
    assert [line["status"] for line in plane.lines("outcome")] == ["cancelled"] * ROUNDS
    assert left(Exchange, ParsedRequest) == 0


async def talk_and_close(served: Served) -> None:
    await served.talk(GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))


async def hang_up_in_mid_body(served: Served) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(BEGUN)
    await until(lambda: len(served.server.server_state.tasks) == 1)
    writer.close()


async def hang_up_with_a_second_request_waiting(served: Served) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(GET.replace(b"/ok", b"/slow") + GET)
    await until(lambda: len(served.server.server_state.tasks) == 1)
    writer.close()


async def send_garbage(served: Served) -> None:
    await served.talk(b"no HTTP\r\n\r\n")


@pytest.mark.parametrize(
    "client", [talk_and_close, hang_up_in_mid_body, hang_up_with_a_second_request_waiting, send_garbage]
)
async def test_nothing_of_a_closed_connection_is_left(
    left: Callable[..., int], client: Callable[[Served], Awaitable[None]]
) -> None:
    async with serving() as served:
        for _ in range(ROUNDS):
            await client(served)
            state = served.server.server_state
            await until(lambda: not state.connections and not state.tasks)  # noqa: B023  # awaited in this round
        await asyncio.sleep(0.05)  # the loop lets go of what it called last
        assert left(ClientConnection) == 0
