"""A provider whose every answer a test decides, byte by byte. Real sockets on loopback, one thread.

A script is a list of steps for one request: bytes to write, seconds (float) to wait, or CLOSE. `answers` maps a word
found in the request body to a script, or to a list of scripts for one request after the other (the last one repeats).
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CLOSE = object()
Script = list[Any]


def json_answer(payload: Any, status: int = 200, headers: tuple[str, ...] = ()) -> Script:
    """One complete JSON answer."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    head = [
        f"HTTP/1.1 {status} X",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *headers,
    ]
    return ["\r\n".join(head).encode() + b"\r\n\r\n" + body]


def chat_answer(text: str = "hello", **fields: Any) -> Script:
    """A small chat completion with usage 10 + 5."""
    return json_answer(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "upstream-model",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
            **fields,
        }
    )


def error_answer(
    status: int, message: str = "injected", headers: tuple[str, ...] = (), **fields: Any
) -> Script:
    """An OpenAI-shaped error."""
    return json_answer(
        {"error": {"message": message, "type": "server_error", "param": None, "code": None, **fields}},
        status,
        headers,
    )


def piece(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def event(payload: Any) -> bytes:
    """One SSE event in one HTTP chunk; a text goes out as it is."""
    data = payload.encode() if isinstance(payload, str) else json.dumps(payload).encode()
    return piece(b"data: " + data + b"\n\n")


def chunk_event(text: str | None, finish: str | None = None) -> bytes:
    """A chat chunk."""
    delta = {} if text is None else {"content": text}
    return event(
        {
            "id": "c1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "upstream-model",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        }
    )


USAGE_EVENT = event(
    {
        "id": "c1",
        "model": "upstream-model",
        "choices": [],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
)
STREAM_END = event("[DONE]") + b"0\r\n\r\n"


def stream_answer(words: int = 5, pause_s: float = 0.0) -> Script:
    """A whole stream, usage included."""
    script: Script = [STREAM_HEAD]
    for number in range(words):
        script += [chunk_event(f"w{number} ")]
        if pause_s:
            script += [pause_s]
    return [*script, chunk_event(None, "stop"), USAGE_EVENT, STREAM_END]


class FakeProvider:
    """Serves scripts; `requests` are the parsed bodies, `headers` their headers, in order of arrival."""

    def __init__(self) -> None:
        self.answers: dict[str, Script | list[Script]] = {}
        self.default: Script | None = None
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.hangups = 0
        self.open_connections = 0
        self.url = ""
        self._counts: dict[str, int] = {}

    def script_for(self, body: bytes) -> Script:
        for word, answer in self.answers.items():
            if word.encode() in body:
                if answer and isinstance(answer[0], list):
                    index = self._counts.get(word, 0)
                    self._counts[word] = index + 1
                    chosen: Script = answer[min(index, len(answer) - 1)]
                    return chosen
                return answer
        if self.default is not None:
            return self.default
        return stream_answer() if b'"stream":true' in body.replace(b" ", b"") else chat_answer()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode("latin-1").split("\r\n")[1:-2]
                headers = {
                    name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
                }
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.headers.append(headers)
                self.requests.append(json.loads(body) if body else {})
                for step in self.script_for(body):
                    if step is CLOSE:
                        return
                    if isinstance(step, (int, float)):
                        # Notice a hang-up while pausing, as a real server does.
                        try:
                            await asyncio.wait_for(reader.read(1), step)
                            self.hangups += 1
                            return
                        except TimeoutError:
                            continue
                    writer.write(step)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open_connections -= 1
            writer.close()


@contextmanager
def fake_provider() -> Iterator[FakeProvider]:
    """Run a fake provider on a free port; `url` ends in /v1."""
    provider = FakeProvider()
    loop = asyncio.new_event_loop()
    started = threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        server = await asyncio.start_server(provider.handle, "127.0.0.1", 0, limit=2**26)
        provider.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        started.set()
        await stop.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0.05)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    started.wait(10)
    try:
        yield provider
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
