"""What is the fastest provider to measure a gateway against? It parses nothing it need not and answers from memory.

Calls: nothing.
Run: python -m gateway.bench.mock_provider [--port N]; it prints its port and serves on loopback until it is killed.
The model name in a streaming request gives the stream's shape: `stream-200x5` is 200 chunks, 5 ms apart.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import socket
import sys
from typing import Any

import httptools
import orjson
import uvloop

ANSWER_CHARACTERS = 200
HEAD_BYTES = 400  # Model and stream stand in front in what our load generator sends.
OUTPUT_TOKENS = 50

_STREAM_MODEL = re.compile(rb'"model"\s*:\s*"stream-(\d{1,6})x(\d{1,5})"')
_STREAM = re.compile(rb'"stream"\s*:\s*true')

USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": OUTPUT_TOKENS,
    "total_tokens": 12 + OUTPUT_TOKENS,
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0},
}


def _frame(event: object) -> bytes:
    """One server-sent event as one chunk of a chunked body."""
    data = b"data: " + (event if isinstance(event, bytes) else orjson.dumps(event)) + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


def _stream_event(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1_767_225_600,
        "model": "bench",
        "system_fingerprint": "bench",
        "choices": [choice],
    }


def _whole_answer() -> bytes:
    text = ("A pointsman sets the points. " * ANSWER_CHARACTERS)[:ANSWER_CHARACTERS]
    message = {"role": "assistant", "content": text, "refusal": None}
    body = orjson.dumps(
        {
            "id": "chatcmpl-bench",
            "object": "chat.completion",
            "created": 1_767_225_600,
            "model": "bench",
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": USAGE,
            "system_fingerprint": "bench",
        }
    )
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_bench\r\n"
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


ANSWER = _whole_answer()
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"x-request-id: req_bench\r\ntransfer-encoding: chunked\r\n\r\n"
)
STREAM_FIRST = _frame(_stream_event({"role": "assistant", "content": ""}))
# Different texts in turn: nobody may take the stream for a model that repeats itself.
STREAM_CHUNKS = tuple(_frame(_stream_event({"content": f" w{number:02d}"})) for number in range(64))
STREAM_LAST = (
    _frame(_stream_event({}, "stop"))
    + _frame({**_stream_event({}), "choices": [], "usage": USAGE})
    + _frame(b"[DONE]")
    + b"0\r\n\r\n"
)


class Connection(asyncio.Protocol):
    """One client's connection. One request at a time: nobody pipelines to a provider."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._head = b""
        self._chunks_left = 0
        self._pause_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as it is for TCP
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self._transport is not None:
                self._transport.close()

    def on_message_begin(self) -> None:
        self._head = b""

    def on_body(self, body: bytes) -> None:
        if len(self._head) < HEAD_BYTES:
            self._head += body[:HEAD_BYTES]

    def on_message_complete(self) -> None:
        if self._transport is None:
            return
        if not _STREAM.search(self._head):
            self._transport.write(ANSWER)
            return
        shape = _STREAM_MODEL.search(self._head)
        self._chunks_left = int(shape[1]) if shape else 50
        self._pause_s = int(shape[2]) / 1000 if shape else 0.02
        self._transport.write(STREAM_HEAD + STREAM_FIRST)
        self._timer = self._loop.call_later(self._pause_s, self._write_chunk)

    def _write_chunk(self) -> None:
        if self._transport is None:
            return
        if self._chunks_left:
            self._transport.write(STREAM_CHUNKS[self._chunks_left & 63])
            self._chunks_left -= 1
            self._timer = self._loop.call_later(self._pause_s, self._write_chunk)
        else:
            self._timer = None
            self._transport.write(STREAM_LAST)


async def serve(port: int) -> None:
    """Serve on loopback until cancelled; the port is the first line on stdout."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    uvloop.run(serve(parser.parse_args().port))
