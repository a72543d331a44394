"""How does the demo answer without a provider? A client that fills the UpstreamClient port and touches no network.

Calls: nothing. The answers themselves are in simulated_answers.py. Orders in the last message, for trying things:
`[[simulate:error:429]]` refuses with that status, `[[simulate:slow:2]]` waits two seconds before the answer,
`[[simulate:cut]]` breaks the answer off half-way.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from gateway.dataplane.limits import LARGE_BODY_BYTES, Room
from gateway.dataplane.simulated_answers import (
    DEFAULT_DIMENSIONS,
    MAX_DIMENSIONS,
    build_embedding,
    chat_answer,
    chat_events,
    completion_answer,
    completion_events,
    count_tokens,
    encode_embedding,
    last_message,
    list_inputs,
    text_of,
)
from gateway.dataplane.upstream_errors import UpstreamError

PAUSE_S = 0.01
MAX_SLOW_S = 600.0
MAX_INPUTS = 2048

_ORDER = re.compile(r"\[\[simulate:(error|slow|cut)(?::(\d{1,3}(?:\.\d{1,3})?))?\]\]")

Headers = list[tuple[str, str]]


class SimulatedResponse:
    """An answer whose pieces are made while they are read."""

    def __init__(self, status: int, headers: Headers, pieces: Iterator[bytes], *, pause_s: float) -> None:
        self.status = status
        self.headers = headers
        self._pieces = pieces
        self._pause_s = pause_s
        self._is_closed = False

    async def read(self, *, limit_bytes: int, timeout_s: float, room: Room | None = None) -> bytes:
        """The whole answer. Raises UpstreamError (timeout, broken, too_large), GatewayUnready (no room)."""
        give_up_s = time.monotonic() + timeout_s
        parts: list[bytes] = []
        size_bytes = 0
        while piece := await self.read_chunk(timeout_s=give_up_s - time.monotonic()):
            size_bytes += len(piece)
            if size_bytes > limit_bytes:
                raise UpstreamError("too_large", f"the answer is larger than {limit_bytes} bytes")
            parts.append(piece)
        if size_bytes >= LARGE_BODY_BYTES and room is not None:
            await room.take_for_answer(size_bytes, wait_s=give_up_s - time.monotonic())
        return b"".join(parts)

    async def read_chunk(self, *, timeout_s: float) -> bytes:
        """The next piece, b"" at the end. Raises UpstreamError (timeout, broken)."""
        if self._is_closed:
            raise UpstreamError("broken", "the answer was closed")
        if self._pause_s > timeout_s:
            await asyncio.sleep(max(0.0, timeout_s))
            raise UpstreamError("timeout", "the simulated provider was too slow")
        await asyncio.sleep(self._pause_s)
        return next(self._pieces, b"")

    def close(self) -> None:
        """Nothing to give back: only stop answering."""
        self._is_closed = True


class SimulatedClient:
    """The demo's provider, base URL `simulated:`."""

    def __init__(self, *, pause_s: float = PAUSE_S) -> None:
        self._pause_s = pause_s

    async def send(
        self,
        *,
        method: str,
        url: str,
        headers: Headers,
        body: bytes | tuple[bytes | memoryview, ...],
        connect_timeout_s: float,
        head_timeout_s: float,
        allow_private_network: bool,
    ) -> SimulatedResponse:
        """Answer as a provider would. Raises UpstreamError (timeout) when ordered to be slower than allowed."""
        try:
            payload = orjson.loads(b"".join(body) if isinstance(body, tuple) else body)
        except orjson.JSONDecodeError:
            payload = None
        if not isinstance(payload, dict):
            return _refusal(400, "The request body is not a JSON object.")
        endpoint = url.partition("?")[0].rpartition("/")[2]
        orders = dict(_ORDER.findall(_asked(payload)))
        await _obey_slow(orders.get("slow", ""), head_timeout_s)
        status = int(float(orders.get("error") or 0))
        if 400 <= status <= 599:
            return _refusal(status, f"Simulated error {status}, as the message ordered. No model was called.")
        if endpoint == "embeddings":
            response = await self._embed(payload)
        elif url.endswith("/chat/completions"):
            response = self._generate(payload, chat_answer, chat_events)
        elif endpoint == "completions":
            response = self._generate(payload, completion_answer, completion_events)
        else:
            return _refusal(404, "The simulated provider knows chat completions, completions and embeddings.")
        if "cut" in orders:
            response._pieces = _cut_short(list(response._pieces))
        return response

    async def aclose(self) -> None:
        """No connection is open."""

    def _generate(self, payload: Mapping[str, Any], answer: Any, events: Any) -> SimulatedResponse:
        made = {"answer_id": uuid.uuid4().hex, "now_unix_s": time.time()}
        if payload.get("stream") is True:
            pieces = _event_stream(events(payload, **made))
            head = [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache")]
            return SimulatedResponse(200, [*head, _request_id()], pieces, pause_s=self._pause_s)
        return _json_response(200, answer(payload, **made))

    async def _embed(self, payload: Mapping[str, Any]) -> SimulatedResponse:
        texts = list_inputs(payload.get("input"))
        dimensions = payload.get("dimensions", DEFAULT_DIMENSIONS)
        if not isinstance(dimensions, int) or not 1 <= dimensions <= MAX_DIMENSIONS:
            return _refusal(400, f"dimensions must be between 1 and {MAX_DIMENSIONS}.", param="dimensions")
        if len(texts) > MAX_INPUTS:
            return _refusal(400, f"input may have at most {MAX_INPUTS} entries.", param="input")
        is_base64 = payload.get("encoding_format") == "base64"
        rows: list[orjson.Fragment] = []
        for index, text in enumerate(texts):
            vector = build_embedding(text, dimensions)
            row = {
                "object": "embedding",
                "index": index,
                "embedding": encode_embedding(vector) if is_base64 else vector,
            }
            rows.append(orjson.Fragment(orjson.dumps(row)))
            await asyncio.sleep(0)  # A thousand texts must not hold up everybody else's requests.
        tokens = sum(map(count_tokens, texts))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return _json_response(
            200, {"object": "list", "data": rows, "model": payload.get("model"), "usage": usage}
        )


def _asked(payload: Mapping[str, Any]) -> str:
    """The text that may hold orders: the last message, the prompt or the input."""
    if "messages" in payload:
        return text_of(last_message(payload))
    return " ".join(list_inputs(payload.get("prompt", payload.get("input"))))


async def _obey_slow(seconds: str, head_timeout_s: float) -> None:
    wait_s = min(float(seconds or 0), MAX_SLOW_S)
    if wait_s > head_timeout_s:
        await asyncio.sleep(head_timeout_s)
        raise UpstreamError("timeout", "the simulated provider was too slow, as the message ordered")
    if wait_s:
        await asyncio.sleep(wait_s)


def _event_stream(events: Iterator[Mapping[str, Any]]) -> Iterator[bytes]:
    for event in events:
        yield b"data: " + orjson.dumps(event) + b"\n\n"
    yield b"data: [DONE]\n\n"


def _cut_short(pieces: list[bytes]) -> Iterator[bytes]:
    """The first half, then what a dropped connection looks like."""
    if len(pieces) > 1:
        yield from pieces[: len(pieces) // 2]
    else:
        yield pieces[0][: len(pieces[0]) // 2]
    raise UpstreamError("broken", "the simulated provider broke off, as the message ordered")


def _json_response(status: int, payload: Mapping[str, Any]) -> SimulatedResponse:
    body = orjson.dumps(payload)
    headers = [("content-type", "application/json"), ("content-length", str(len(body))), _request_id()]
    return SimulatedResponse(status, headers, iter([body]), pause_s=0.0)


def _refusal(status: int, message: str, *, param: str | None = None) -> SimulatedResponse:
    kinds = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
    kind = kinds.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    code = None
    if status == 429:
        kind, code = "rate_limit_error", "rate_limit_exceeded"
    return _json_response(status, {"error": {"message": message, "type": kind, "param": param, "code": code}})


def _request_id() -> tuple[str, str]:
    return "x-request-id", f"req_simulated_{uuid.uuid4().hex}"
