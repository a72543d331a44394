"""How does a stream reach the client once its first event is here? Relay, idle comments, honest ends.

Calls: the ASGI send channel and the provider's response. From the first byte on (commit point) there is no retry and
no fallback; a stream that breaks ends with an error event and without `finish_reason` or `[DONE]` of our making.
"""

from __future__ import annotations

import asyncio
import time

import orjson

from gateway.dataplane.answer_headers import answer_headers
from gateway.dataplane.attempts import StreamAnswer
from gateway.dataplane.exchange import Exchange, Send
from gateway.dataplane.upstream_errors import UpstreamError
from gateway.wire.openai_errors import recorded_code
from gateway.wire.openai_stream import StreamGarbageError

STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
# How long a provider may take to end a stream after its last event before its connection is dropped.
END_TIMEOUT_S = 0.25
KEEPALIVE = b": keepalive\n\n"


async def relay(exchange: Exchange, answer: StreamAnswer, send: Send) -> None:
    """Send the head, the first events and all that follows; write the outcome before the last byte."""
    exchange.is_committed = True
    head = STREAM_HEADERS + answer_headers(exchange)
    try:
        await send({"type": "http.response.start", "status": 200, "headers": head})
        keepalive = _Keepalive(send, exchange.gateway.timeouts.keepalive_comment_s)
        try:
            problem = await _relay_events(exchange, answer, send, keepalive)
        finally:
            keepalive.stop()
        last = _conclude(exchange, answer, problem)
        await send({"type": "http.response.body", "body": answer.first + last})
        if problem is None and not answer.is_ended:
            await _await_end(answer)
    finally:
        # A half-read response is dropped, so that a provider stops generating for nobody.
        answer.response.close()


def _conclude(exchange: Exchange, answer: StreamAnswer, problem: tuple[str, str] | None) -> bytes:
    """Settle, tell the deployment's health, write the outcome; return what must follow the last events."""
    settle(exchange, answer)
    attempt = answer.attempt
    health = exchange.gateway.health
    if problem is not None:
        code, message = problem
        attempt.outcome = code.removeprefix("provider_")
        attempt.error_code = code
        attempt.error_message = message
        health.on_failure(attempt.deployment, "broken")
        exchange.write_outcome("error", http_status=200, error_code=code)
        return error_event(code, message)
    error = answer.stream.error
    if error is not None:
        code = recorded_code(error.get("code"), error.get("type")) or "provider_error"
        attempt.outcome = "error_in_stream"
        attempt.error_code = code
        attempt.error_message = "The provider sent an error in the stream."
        health.on_failure(attempt.deployment, "error_in_stream")
        exchange.write_outcome("error", http_status=200, error_code=code)
    else:
        health.on_success(attempt.deployment, attempt.latency_ms())
        exchange.write_outcome("ok", http_status=200)
    return b""


async def _await_end(answer: StreamAnswer) -> None:
    """Read the end of a stream that follows its `[DONE]`, so that the connection can be used again."""
    try:
        await answer.response.read_chunk(timeout_s=END_TIMEOUT_S)
    except UpstreamError:
        return


async def _relay_events(
    exchange: Exchange, answer: StreamAnswer, send: Send, keepalive: _Keepalive
) -> tuple[str, str] | None:
    """Forward events until the end. Returns (code, message) when the stream broke.

    What must go out together with the end of the answer (`[DONE]`, the last events) is left in `answer.first`:
    the outcome line is written before it is sent.
    """
    stream, response = answer.stream, answer.response
    limit_s = exchange.gateway.timeouts.between_events_s
    deadline_s = exchange.deadline_s()
    pending = answer.first
    answer.first = b""
    last_event_s = time.perf_counter()
    event_count = stream.event_count
    is_ended = answer.is_ended
    try:
        while True:
            if is_ended or stream.is_done:
                answer.first = pending
                answer.is_ended = is_ended
                break
            if pending:
                keepalive.note_sent()
                await send({"type": "http.response.body", "body": pending, "more_body": True})
            now_s = time.perf_counter()
            if stream.event_count != event_count:
                event_count, last_event_s = stream.event_count, now_s
            left_s = min(last_event_s + limit_s, deadline_s) - now_s
            if left_s <= 0:  # comments, or events without end, keep coming
                return "provider_timeout", "The provider did not come to an end in time."
            chunk = await response.read_chunk(timeout_s=left_s)
            if chunk:
                pending = stream.feed(chunk)
            else:
                pending, is_ended = stream.finish(), True
    except StreamGarbageError as garbage:
        return "provider_bad_answer", f"The provider's stream holds {garbage}."
    except UpstreamError as error:
        error.with_traceback(None)  # as where an attempt fails: no cycle over the connection
        if error.kind == "timeout":
            return "provider_timeout", "The provider stopped sending."
        return "provider_connection_broken", "The provider broke the connection off."
    if not stream.is_done and not stream.finish_reason and stream.error is None:
        return "provider_stream_incomplete", "The provider ended the stream before the answer was complete."
    return None


def settle(exchange: Exchange, answer: StreamAnswer) -> None:
    """Put usage on the attempt: what the provider reported, else an estimate from what passed through."""
    attempt, stream = answer.attempt, answer.stream
    attempt.end_ms = exchange.elapsed_ms()
    attempt.answer_id = stream.answer_id
    exchange.served_model = stream.model
    exchange.finish_reason = stream.finish_reason
    features = exchange.features
    sent = features.input_tokens if features is not None else 0
    exchange.charge(attempt, stream.usage_so_far(estimated_input_tokens=sent))


def error_event(code: str, message: str) -> bytes:
    """An error as SDKs read it inside a stream: a data event with a top-level `error`."""
    error = {"message": message, "type": "upstream_error", "param": None, "code": code}
    return b"data: " + orjson.dumps({"error": error}) + b"\n\n"


class _Keepalive:
    """Sends a comment when nothing was sent for a while. One timer, moved on only when it fires."""

    __slots__ = ("_handle", "_interval_s", "_last_s", "_loop", "_send", "_task")

    def __init__(self, send: Send, interval_s: float) -> None:
        self._send = send
        self._interval_s = interval_s
        self._loop = asyncio.get_running_loop()
        self._last_s = self._loop.time()
        self._task: asyncio.Task[None] | None = None
        self._handle = self._loop.call_later(interval_s, self._fire)

    def note_sent(self) -> None:
        self._last_s = self._loop.time()

    def stop(self) -> None:
        self._handle.cancel()
        if self._task is not None:
            self._task.cancel()

    def _fire(self) -> None:
        now_s = self._loop.time()
        if now_s - self._last_s >= self._interval_s:
            self._last_s = now_s
            self._task = self._loop.create_task(self._comment())
        self._handle = self._loop.call_later(self._last_s + self._interval_s - now_s, self._fire)

    async def _comment(self) -> None:
        await self._send({"type": "http.response.body", "body": KEEPALIVE, "more_body": True})
