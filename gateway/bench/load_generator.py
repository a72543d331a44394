"""How long do answers take, and what do they cost? Sends one kind of request for some seconds and counts.

Run: python -m gateway.bench.load_generator '{"port": 8000, "key": "…", …}' (the fields
of Plan); prints one JSON object.
Calls: a server on loopback, nothing else. Closed loop: each connection sends its next request when an answer is
complete. At a rate: requests are sent by the clock, whatever the answers do.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httptools
import uvloop

from gateway.bench.processes import cpu_s, machine_cpu_s

MESSAGE_BYTES = 2_000
ANSWER_TIMEOUT_S = 30.0
LATE_S = 0.002  # Clocks of event loops tick in milliseconds; a later start than this counts as waiting time.
# Streams of one length that begin together would stay together, and each would wait for the others.
STREAM_STARTS_APART_S = 0.002
MAX_SECONDS = 300.0
MAX_CONNECTIONS = 1_000
MAX_RATE_PER_S = 20_000.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One measurement. `rate_per_s` 0: closed loop. `pids`: whose CPU time to count; `our_pids`: not foreign."""

    port: int
    model: str
    key: str = "none"
    seconds: float = 2.0
    warm_s: float = 0.2
    connections: int = 32
    rate_per_s: float = 0.0
    body_bytes: int = 0
    is_stream: bool = False
    pids: Sequence[int] = ()
    our_pids: Sequence[int] = ()

    def __post_init__(self) -> None:
        if (
            self.seconds > MAX_SECONDS
            or self.connections > MAX_CONNECTIONS
            or self.rate_per_s > MAX_RATE_PER_S
        ):
            raise ValueError(
                f"at most {MAX_SECONDS:g} s, {MAX_CONNECTIONS} connections and {MAX_RATE_PER_S:g} requests/s"
            )


def build_body(plan: Plan) -> bytes:
    """A chat request; `body_bytes` makes it a long conversation of messages of 2 kB. Pure."""
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Say hello in five words."},
    ]
    if plan.body_bytes:
        sentence = 'The pointsman says "left"\nand the train goes to the left. '
        text = (sentence * (MESSAGE_BYTES // len(sentence) + 1))[: MESSAGE_BYTES - 100]
        roles = ("user", "assistant")
        count = max(1, plan.body_bytes // MESSAGE_BYTES)
        messages = [{"role": roles[number % 2], "content": text} for number in range(count)]
    body: dict[str, Any] = {"model": plan.model}
    if plan.is_stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    body |= {"temperature": 0.7, "max_tokens": 64, "messages": messages}
    return json.dumps(body, separators=(",", ":")).encode()


def build_request(plan: Plan) -> bytes:
    """The whole HTTP request. Pure."""
    body = build_body(plan)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{plan.port}\r\nauthorization: Bearer {plan.key}\r\n"
        f"content-type: application/json\r\naccept: */*\r\nuser-agent: pointsman-bench\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection(asyncio.Protocol):
    """One connection to the server; `on_end` is told when an answer is complete or will never be."""

    def __init__(self, on_end: Callable[[Connection], None]) -> None:
        self._on_end = on_end
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._tail = b""
        self.is_open = False
        self.is_waiting = False
        self.status = 0
        self.sent_s = self.first_event_s = self.end_s = 0.0
        self.event_count = 0
        self.is_done_seen = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as it is for TCP
        self._transport = transport
        self.is_open = True
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self.is_waiting:
            self.status = 0
            self._end()

    def send(self, request: bytes, *, since_s: float) -> None:
        """Send one request; its time counts from `since_s`."""
        assert self._transport is not None
        self.is_waiting = True
        self.sent_s = since_s
        self.first_event_s = 0.0
        self.event_count = 0
        self.is_done_seen = False
        self._tail = b""
        self._transport.write(request)

    def abort(self) -> None:
        """Drop the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self.end_s = time.perf_counter()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()

    def on_body(self, body: bytes) -> None:
        data = self._tail + body
        count = data.count(b"data: ")
        if count:
            self.event_count += count
            if not self.first_event_s:
                self.first_event_s = self.end_s
        self._tail = data[-5:]  # A marker may be cut in two; a whole one does not fit in here.
        if b"[DONE]" in data[-32:]:
            self.is_done_seen = True

    def on_message_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if not self._parser.should_keep_alive():
            self.is_open = False
            self.abort()
        self._end()

    def _end(self) -> None:
        self.is_waiting = False
        self._on_end(self)


class Run:
    """One measurement while it runs."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._request = build_request(plan)
        self._loop = asyncio.get_running_loop()
        self._connections: set[Connection] = set()
        self._idle: list[Connection] = []
        self._stop_s = 0.0
        self._is_closed_loop = True
        self.forget()

    def forget(self) -> None:
        """Begin to count anew."""
        self.times_s: list[float] = []
        self.first_event_times_s: list[float] = []
        self.errors: Counter[str] = Counter()
        self.chunk_count = 0

    async def closed_loop(self, seconds: float) -> float:
        """Each connection sends its next request when an answer is complete. The seconds until the last answer."""
        self._is_closed_loop = True
        begun_s = time.perf_counter()
        self._stop_s = begun_s + seconds
        for _ in range(self._plan.connections):
            connection = await self._take()
            if connection is not None:
                connection.send(self._request, since_s=time.perf_counter())
            if self._plan.is_stream:
                await asyncio.sleep(STREAM_STARTS_APART_S)
        await self._wait_for_answers()
        return time.perf_counter() - begun_s

    async def at_rate(self, seconds: float) -> float:
        """Send by the clock; an answer that is late delays no other request."""
        self._is_closed_loop = False
        begun_s = time.perf_counter()
        for number in range(int(self._plan.rate_per_s * seconds)):
            due_s = begun_s + number / self._plan.rate_per_s
            wait_s = due_s - time.perf_counter()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            connection = await self._take()
            if connection is not None:
                now_s = time.perf_counter()
                connection.send(self._request, since_s=due_s if now_s - due_s > LATE_S else now_s)
        self._stop_s = time.perf_counter()
        await self._wait_for_answers()
        return time.perf_counter() - begun_s

    def close(self) -> None:
        """Drop all connections."""
        for connection in self._connections:
            connection.abort()

    async def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        if len(self._connections) >= MAX_CONNECTIONS:
            self.errors["too many answers outstanding"] += 1
            return None
        try:
            _, connection = await self._loop.create_connection(
                lambda: Connection(self._note_end), "127.0.0.1", self._plan.port
            )
        except OSError as error:
            self.errors[type(error).__name__] += 1
            return None
        self._connections.add(connection)
        return connection

    def _note_end(self, connection: Connection) -> None:
        is_stream = self._plan.is_stream
        is_good = connection.status == 200 and (not is_stream or connection.is_done_seen)
        if is_good:
            self.times_s.append(connection.end_s - connection.sent_s)
            if is_stream:
                self.first_event_times_s.append(connection.first_event_s - connection.sent_s)
                self.chunk_count += connection.event_count
        elif connection.status == 200:
            self.errors["stream without end"] += 1
        else:
            self.errors[f"status {connection.status}" if connection.status else "connection lost"] += 1
        if not connection.is_open:
            self._connections.discard(connection)
            return
        # After an error a connection rests: a server that refuses everything is not to be stormed.
        if self._is_closed_loop and is_good and time.perf_counter() < self._stop_s:
            connection.send(self._request, since_s=time.perf_counter())
        else:
            self._idle.append(connection)

    async def _wait_for_answers(self) -> None:
        while any(connection.is_waiting for connection in self._connections):
            await asyncio.sleep(0.005)
            if time.perf_counter() > self._stop_s + ANSWER_TIMEOUT_S:
                self.errors["no answer in time"] += sum(c.is_waiting for c in self._connections)
                self.close()
                return


async def measure(plan: Plan) -> dict[str, Any]:
    """Warm up, measure, and return the figures."""
    run = Run(plan)
    if plan.warm_s:
        await run.closed_loop(plan.warm_s)
        run.forget()
    watched_s, ours_s, machine_s = cpu_s(plan.pids), cpu_s(plan.our_pids), machine_cpu_s()
    own_s = time.process_time()
    work = run.at_rate(plan.seconds) if plan.rate_per_s else run.closed_loop(plan.seconds)
    wall_s = await work
    watched_s, ours_s = cpu_s(plan.pids) - watched_s, cpu_s(plan.our_pids) - ours_s
    own_s = time.process_time() - own_s
    foreign_s = machine_cpu_s() - machine_s - ours_s - own_s
    run.close()
    count = len(run.times_s)
    figures: dict[str, Any] = {
        "requests": count,
        "errors": dict(run.errors),
        "wall_s": round(wall_s, 3),
        "requests_per_s": round(count / wall_s, 1),
        "p50_ms": percentile_ms(run.times_s, 50),
        "p99_ms": percentile_ms(run.times_s, 99),
        "load_generator_cores": round(own_s / wall_s, 3),
        "foreign_cores": round(max(0.0, foreign_s / wall_s), 3) if plan.our_pids else None,
    }
    if plan.pids and count:
        figures["cpu_us_per_request"] = round(watched_s / count * 1e6, 1)
        figures["cpu_cores"] = round(watched_s / wall_s, 3)
    if plan.is_stream:
        figures["chunks"] = run.chunk_count
        figures["first_chunk_p50_ms"] = percentile_ms(run.first_event_times_s, 50)
        figures["first_chunk_p99_ms"] = percentile_ms(run.first_event_times_s, 99)
        if plan.pids and run.chunk_count:
            figures["cpu_us_per_chunk"] = round(watched_s / run.chunk_count * 1e6, 2)
    return figures


def percentile_ms(times_s: Sequence[float], percent: float) -> float | None:
    """The nearest-rank percentile in milliseconds, None of nothing. Pure."""
    if not times_s:
        return None
    ordered = sorted(times_s)
    rank = max(0, -int(-len(ordered) * percent // 100) - 1)
    return round(ordered[rank] * 1000, 3)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(uvloop.run(measure(Plan(**json.loads(sys.argv[1]))))) + "\n")
