"""Are slow, silent and hostile clients bounded, and does a worker end in order?"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.dataplane.client_connection import ClientLimits, without_upgrade
from gateway.dataplane.server import WorkerServer, bind_listener, build_config
from tests.running_gateway import free_port

ROOT = Path(__file__).resolve().parents[3]
FAST = ClientLimits(head_s=0.3, keep_alive_s=0.4, body_gap_s=0.3, write_s=0.4, linger_s=0.3)
BEGUN = b"POST /ok HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nx"
GET = b"GET /ok HTTP/1.1\r\nhost: x\r\n\r\n"


class Application:
    """Answers with the body's length; `/flood` streams until it is stopped; `/slow` takes its time."""

    def __init__(self) -> None:
        self.flood_ended = asyncio.Event()
        self.gone = asyncio.Event()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        if scope["path"] == "/flood":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(2000):
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                if self.gone.is_set():
                    break
            self.flood_ended.set()
            await send({"type": "http.response.body", "body": b""})
            return
        size = 0
        if scope["path"] != "/early":
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    self.gone.set()
                    return
                size += len(message["body"])
                if not message["more_body"]:
                    break
        if scope["path"] == "/slow":
            await asyncio.sleep(0.8)
        body = f"{scope['path']} {size}".encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Served:
    def __init__(self, application: Application, port: int, server: WorkerServer) -> None:
        self.application = application
        self.port = port
        self.server = server

    async def talk(self, *pieces: bytes, pause_s: float = 0.0, timeout_s: float = 3.0) -> tuple[bytes, float]:
        """Send the pieces, read until the server closes; what it said and how long that took."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        begun = time.monotonic()
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(pause_s)
        try:
            async with asyncio.timeout(timeout_s):
                answer = await reader.read(-1)
        finally:
            writer.close()
        return answer, time.monotonic() - begun


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    application = Application()
    listener = bind_listener("127.0.0.1", 0)
    server = WorkerServer(build_config(application, limits=FAST), sweep_interval_s=0.1, drain_s=1.0)
    task = asyncio.create_task(server._serve([listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield Served(application, listener.getsockname()[1], server)
    server.should_exit = True
    await task


async def test_the_application_is_told_that_the_stop_begins_while_requests_still_run() -> None:
    application, told = Application(), asyncio.Event()
    listener = bind_listener("127.0.0.1", 0)
    server = WorkerServer(build_config(application, limits=FAST), drain_s=1.0, on_stopping=told.set)
    task = asyncio.create_task(server._serve([listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    assert not told.is_set()
    client = asyncio.create_task(Served(application, listener.getsockname()[1], server).talk(BEGUN))
    while not server.server_state.tasks:
        await asyncio.sleep(0.01)
    server.should_exit = True
    await asyncio.wait_for(told.wait(), 2)
    assert server.server_state.tasks
    await client
    await task


def error_in(answer: bytes, status: int) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"content-type: application/json" in head
    error: dict[str, Any] = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


async def test_a_silent_connection_is_closed_at_the_header_deadline(served: Served) -> None:
    answer, took_s = await served.talk()
    assert answer == b""
    assert 0.25 < took_s < 1


async def test_trickled_headers_are_refused_at_the_deadline(served: Served) -> None:
    answer, took_s = await served.talk(*[b"GET / HTTP/1.1\r\n"] + [b"a: b\r\n"] * 8, pause_s=0.07)
    assert error_in(answer, 408)["code"] == "request_timeout"
    assert took_s < 1.5


async def test_an_idle_connection_is_closed_after_its_keep_alive_time(served: Served) -> None:
    answer, took_s = await served.talk(GET)
    assert answer.endswith(b"/ok 0")
    assert b"\r\ndate: " in answer
    assert b"\r\nserver: " not in answer
    assert 0.35 < took_s < 1.2


async def test_a_stalled_body_closes_the_connection_and_tells_the_application(served: Served) -> None:
    request = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc"
    with contextlib.suppress(ConnectionError):
        await served.talk(request)
    await asyncio.wait_for(served.application.gone.wait(), 1)


async def test_a_body_that_keeps_coming_is_waited_for(served: Served) -> None:
    head = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\n"
    answer, _ = await served.talk(head, *[b"a"] * 6, pause_s=0.1)
    assert answer.endswith(b"/x 6")


async def test_a_slow_answer_is_no_fault_of_the_client(served: Served) -> None:
    answer, _ = await served.talk(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
    assert answer.endswith(b"/slow 0")


@pytest.mark.parametrize(
    "headers",
    [b"a: b\r\n" * 101, b"a: " + b"b" * 33_000 + b"\r\n", b"".join([b"a: " + b"b" * 3000 + b"\r\n"] * 12)],
)
async def test_too_many_or_too_large_headers_are_refused(served: Served, headers: bytes) -> None:
    answer, _ = await served.talk(b"GET / HTTP/1.1\r\n" + headers + b"\r\n")
    assert error_in(answer, 431)["code"] == "headers_too_large"


async def test_a_head_that_never_ends_is_refused_while_it_comes(served: Served) -> None:
    answer, _ = await served.talk(b"GET / HTTP/1.1\r\na: ", *[b"b" * 10_000] * 4, pause_s=0.01)
    assert error_in(answer, 431)


async def test_headers_within_the_limits_and_a_large_body_pass(served: Served) -> None:
    head = b"POST /x HTTP/1.1\r\n" + b"a: b\r\n" * 98 + b"content-length: 200000\r\n\r\n"
    answer, _ = await served.talk(head + b"x" * 200_000)
    assert answer.endswith(b"/x 200000")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"NONSENSE\r\n\r\n",
        GET + b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\na b: c\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST /x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    ],
)
async def test_garbage_is_refused_in_json(served: Served, garbage: bytes) -> None:
    answer, _ = await served.talk(garbage)
    if garbage.startswith(GET):  # its answer is on its way, so nothing more is said
        assert answer.endswith(b"/ok 0")
    else:
        assert error_in(answer, 400)["code"] == "invalid_http"


async def test_garbage_after_a_request_does_not_spoil_its_answer(served: Served) -> None:
    answer, _ = await served.talk(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n", b"GARBAGE\r\n\r\n", pause_s=0.1)
    assert answer.count(b"HTTP/1.1") == 1
    assert answer.endswith(b"/slow 0")


async def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    answer, _ = await served.talk(GET + b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n" + GET)
    bodies = [part.rpartition(b"\r\n")[2] for part in answer.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [b"/ok 0", b"/slow 0", b"/ok 0"]


async def test_expect_continue_is_answered(served: Served) -> None:
    head = b"POST /x HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n"
    answer, _ = await served.talk(head, b"abc", pause_s=0.1)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")
    assert answer.endswith(b"/x 3")


async def test_an_offer_of_http_2_is_ignored_and_the_body_read(served: Served) -> None:
    head = (
        b"POST /x HTTP/1.1\r\nhost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAEAAEAA\r\ncontent-length: 13\r\n\r\n"
    )
    answer, _ = await served.talk(head + b"Upgrade: body")
    assert answer.endswith(b"/x 13")
    assert without_upgrade(b"A / HTTP/1.1\r\nUpgrade: a\r\n\r\n\r\nUpgrade: b").endswith(
        b"\r\n\r\n\r\nUpgrade: b"
    )


async def test_an_early_answer_reaches_a_client_that_still_sends(served: Served) -> None:
    head = b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"
    with contextlib.suppress(ConnectionError):
        answer, took_s = await served.talk(head, b"x" * 100, b"x" * 100, pause_s=0.05)
        assert answer.endswith(b"/early 0")
        assert took_s < 1.2


async def test_a_client_that_does_not_read_is_dropped_and_frees_the_application(served: Served) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
    writer.write(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n")
    await asyncio.wait_for(served.application.flood_ended.wait(), 3)
    await asyncio.sleep(0.05)
    assert not served.server.server_state.connections
    writer.close()


async def test_a_client_that_reads_slowly_is_kept(served: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
    writer.write(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n")
    for _ in range(12):
        async with asyncio.timeout(1):
            for _ in range(100):
                await reader.read(65536)
        await asyncio.sleep(0.1)
    assert served.server.server_state.connections
    served.application.gone.set()
    writer.close()


WORKER = """
import asyncio, os, sys
from gateway.dataplane.server import bind_listener, run_worker
async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            print(message["type"], flush=True)
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/stream":
        try:
            for number in range(int(scope["query_string"])):
                await send({"type": "http.response.body", "body": b"%d\\n" % number, "more_body": True})
                await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            print("cancelled", flush=True)
            raise
    await send({"type": "http.response.body", "body": b"%d" % os.getpid()})
run_worker(application, bind_listener("127.0.0.1", int(sys.argv[1])))
"""


@contextlib.contextmanager
def worker(port: int) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(port)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "lifespan.startup\n"
        time.sleep(0.15)  # it listens right after
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_sigterm_lets_a_running_stream_finish_and_exits_with_0() -> None:
    port = free_port()
    with worker(port) as process, httpx.stream("GET", f"http://127.0.0.1:{port}/stream?20") as response:
        lines = response.iter_lines()
        assert next(lines) == "0"
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}/", timeout=2)
        assert [*lines] == [*map(str, range(1, 20)), str(process.pid)]
        assert process.wait(timeout=5) == 0
        assert process.stdout is not None
        assert process.stdout.read() == "lifespan.shutdown\n"


def test_a_second_signal_hurries_and_the_application_still_ends_in_order() -> None:
    port = free_port()
    with worker(port) as process, httpx.stream("GET", f"http://127.0.0.1:{port}/stream?2000") as response:
        lines = response.iter_lines()
        assert next(lines) == "0"
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=5) == 0
        with contextlib.suppress(httpx.RemoteProtocolError):
            assert str(process.pid) not in [*lines]
        assert process.stdout is not None
        assert process.stdout.read() == "cancelled\nlifespan.shutdown\n"


def test_two_workers_share_one_port() -> None:
    port = free_port()
    with worker(port) as first, worker(port) as second:
        seen = {httpx.get(f"http://127.0.0.1:{port}/", timeout=5).text for _ in range(40)}
        assert seen == {str(first.pid), str(second.pid)}
        first.send_signal(signal.SIGTERM)
        assert first.wait(timeout=5) == 0
        assert {httpx.get(f"http://127.0.0.1:{port}/", timeout=5).text for _ in range(5)} == {str(second.pid)}
