"""Are slow, silent and hostile clients bounded, and does a worker end in order?"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.dataplane.client_connection import ClientConnection, ClientLimits, Phase, without_upgrade
from gateway.dataplane.server import WorkerServer, bind_listener, build_config
from tests.running_gateway import free_port

ROOT = Path(__file__).resolve().parents[3]
# Each test shortens the one time that it is about: on a busy machine any other would pass too.
PATIENT = ClientLimits(
    head_s=60, keep_alive_s=60, body_gap_s=60, body_bytes_per_s=0.001, write_s=60, linger_s=60
)
BEGUN = b"POST /ok HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nx"
GET = b"GET /ok HTTP/1.1\r\nhost: x\r\n\r\n"


class Application:
    """Answers with the body's length; `/flood` streams until it is stopped, `/brook` little; `/slow` takes its time."""

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
        if scope["path"] in ("/flood", "/brook"):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(2000 if scope["path"] == "/flood" else 3):
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

    async def talk(
        self, *pieces: bytes, pause_s: float = 0.0, timeout_s: float = 30.0
    ) -> tuple[bytes, float]:
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

    async def connection(self) -> ClientConnection:
        """The only connection, once the server has it."""
        await until(lambda: len(self.server.server_state.connections) == 1)
        (found,) = self.server.server_state.connections
        assert isinstance(found, ClientConnection)
        return found


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def serving(**limits: float) -> AsyncIterator[Served]:
    application = Application()
    listener = bind_listener("127.0.0.1", 0)
    config = build_config(application, limits=replace(PATIENT, **limits))  # type: ignore[arg-type]  # all are seconds
    server = WorkerServer(config, sweep_interval_s=0.1, drain_s=1.0)
    task = asyncio.create_task(server._serve([listener]))
    await until(lambda: server.started)
    try:
        yield Served(application, listener.getsockname()[1], server)
    finally:  # a failed test must not leave the loop with a server that nobody ends
        server.should_exit = True
        await task


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    # Answered connections close soon, so that what was said can be read to its end.
    async with serving(keep_alive_s=0.1) as served:
        yield served


async def test_a_client_of_http_1_0_gets_a_stream_without_chunks_up_to_the_end_of_the_connection(
    served,
) -> None:
    answer, _ = await served.talk(b"GET /brook HTTP/1.0\r\nhost: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert body == b"x" * (3 * 65536)


async def test_the_application_is_told_that_the_stop_begins_while_requests_still_run() -> None:
    application, told = Application(), asyncio.Event()
    listener = bind_listener("127.0.0.1", 0)
    server = WorkerServer(build_config(application, limits=PATIENT), drain_s=1.0, on_stopping=told.set)
    task = asyncio.create_task(server._serve([listener]))
    await until(lambda: server.started)
    assert not told.is_set()
    client = asyncio.create_task(Served(application, listener.getsockname()[1], server).talk(BEGUN))
    await until(lambda: bool(server.server_state.tasks))
    server.should_exit = True
    await asyncio.wait_for(told.wait(), 30)
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


async def test_a_silent_connection_is_closed_at_the_header_deadline() -> None:
    async with serving(head_s=0.3) as served:
        answer, took_s = await served.talk()
    assert answer == b""
    assert took_s > 0.25


async def test_trickled_headers_are_refused_at_the_deadline() -> None:
    async with serving(head_s=0.3) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        answer = asyncio.create_task(reader.read(-1))
        writer.write(b"GET / HTTP/1.1\r\n")
        begun, count = time.monotonic(), 0
        while not answer.done():  # for as long as it is listened to
            await asyncio.sleep(0.07)
            writer.write(b"a: b\r\n")
            count += 1
            assert count < 90, "more headers than are accepted: the deadline never came"
        assert error_in(answer.result(), 408)["code"] == "request_timeout"
        assert time.monotonic() - begun > 0.25
        writer.close()


async def test_an_idle_connection_is_closed_after_its_keep_alive_time() -> None:
    async with serving(keep_alive_s=0.4) as served:
        answer, took_s = await served.talk(GET)
    assert answer.endswith(b"/ok 0")
    assert b"\r\ndate: " in answer
    assert b"\r\nserver: " not in answer
    assert took_s > 0.35


async def test_a_stalled_body_closes_the_connection_and_tells_the_application() -> None:
    request = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc"
    async with serving(body_gap_s=0.3) as served:
        with contextlib.suppress(ConnectionError):
            await served.talk(request)
        await asyncio.wait_for(served.application.gone.wait(), 30)


async def test_a_body_that_keeps_coming_is_waited_for_and_each_gap_counts_anew(served: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\n")
    connection = await served.connection()
    await until(lambda: connection.phase == Phase.BODY)
    for _ in range(5):
        before_s = connection.since_s
        writer.write(b"a")
        await until(lambda: connection.since_s > before_s)  # noqa: B023  (it is awaited here)
        # When the gap that it ended would have been too long.
        connection.check_patience(before_s + PATIENT.body_gap_s + 0.000_001)
        assert not connection.transport.is_closing()
    writer.write(b"a")
    assert (await reader.read(-1)).endswith(b"/x 6")
    writer.close()


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


async def test_an_early_answer_reaches_a_client_that_still_sends() -> None:
    head = b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"
    async with serving(linger_s=0.3) as served:
        with contextlib.suppress(ConnectionError):
            answer, _ = await served.talk(head, b"x" * 100, b"x" * 100, pause_s=0.05)
            assert answer.endswith(b"/early 0")
        await until(lambda: not served.server.server_state.connections)


async def test_a_client_that_does_not_read_is_dropped_and_frees_the_application() -> None:
    async with serving(write_s=0.4) as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
        writer.write(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n")
        await asyncio.wait_for(served.application.flood_ended.wait(), 30)
        await until(lambda: not served.server.server_state.connections)
        writer.close()


async def test_a_client_that_reads_slowly_is_kept_and_one_that_stops_is_not(served: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
    writer.write(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n")
    connection = await served.connection()
    await until(lambda: connection.blocked_since_s is not None)
    for _ in range(5):
        before_s = connection.blocked_since_s
        assert before_s is not None
        while connection.blocked_since_s in (before_s, None):
            await reader.read(65536)
            await asyncio.sleep(0)
        # When it would have been blocked for too long, had it not read.
        connection.check_patience(before_s + PATIENT.write_s + 0.000_001)
        assert not connection.transport.is_closing()
    assert connection.blocked_since_s is not None
    connection.check_patience(connection.blocked_since_s + PATIENT.write_s + 0.000_001)
    assert connection.transport.is_closing()
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


def wait_for_listener(port: int, *, is_there: bool) -> None:
    """Wait until the port takes connections, or no more."""
    give_up_s = time.monotonic() + 30
    while time.monotonic() < give_up_s:
        with socket.socket() as asking:
            if (asking.connect_ex(("127.0.0.1", port)) == 0) == is_there:
                return
        time.sleep(0.01)
    raise AssertionError(f"port {port} is {'not ' if is_there else ''}open")


@contextlib.contextmanager
def worker(port: int) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(port)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "lifespan.startup\n"
        wait_for_listener(port, is_there=True)  # it listens right after
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
        wait_for_listener(port, is_there=False)
        assert [*lines] == [*map(str, range(1, 20)), str(process.pid)]
        assert process.wait(timeout=30) == 0
        assert process.stdout is not None
        assert process.stdout.read() == "lifespan.shutdown\n"


def test_a_second_signal_hurries_and_the_application_still_ends_in_order() -> None:
    port = free_port()
    with worker(port) as process, httpx.stream("GET", f"http://127.0.0.1:{port}/stream?2000") as response:
        lines = response.iter_lines()
        assert next(lines) == "0"
        process.send_signal(signal.SIGTERM)
        wait_for_listener(port, is_there=False)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        with contextlib.suppress(httpx.RemoteProtocolError):
            assert str(process.pid) not in [*lines]
        assert process.stdout is not None
        assert process.stdout.read() == "cancelled\nlifespan.shutdown\n"


def test_two_workers_share_one_port() -> None:
    port = free_port()
    with worker(port) as first, worker(port) as second:
        both, seen = {str(first.pid), str(second.pid)}, set[str]()
        give_up_s = time.monotonic() + 30
        while seen != both and time.monotonic() < give_up_s:
            seen.add(httpx.get(f"http://127.0.0.1:{port}/", timeout=30).text)
        assert seen == both
        first.send_signal(signal.SIGTERM)
        assert first.wait(timeout=30) == 0
        assert {httpx.get(f"http://127.0.0.1:{port}/", timeout=30).text for _ in range(5)} == {
            str(second.pid)
        }
