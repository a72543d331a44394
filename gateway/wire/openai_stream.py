"""What does an OpenAI-format event stream say while it passes through?

Pure. `feed` takes bytes as they come and returns the bytes to forward: whole events only, untouched but for
four cases: a usage chunk nobody asked for is left out, the final usage gets our cost, an error loses secrets,
and nothing follows an event that is not JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from billing.usage import Usage
from gateway.wire.openai_answer import estimate_usage, with_unsaid
from gateway.wire.openai_errors import read_fault
from gateway.wire.openai_usage import count_images, find_usage, read_usage, says_output, with_images

MAX_EVENT_BYTES = 16 * 1024 * 1024

_BOUNDARY = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE = re.compile(rb"\r\n|\n|\r")

# The cost of the stream's usage so far in USD, None where nobody knows it.
CostOf = Callable[["OpenAIStream"], float | None]


class StreamGarbageError(Exception):
    """The provider sent something that is no event of this format."""


class OpenAIStream:
    """The state of one stream. Attributes are what has been seen so far."""

    __slots__ = (
        "_cost_of",
        "_is_usage_wanted",
        "_secret",
        "_tail",
        "answer_id",
        "error",
        "event_count",
        "finish_reason",
        "image_count",
        "is_done",
        "model",
        "output_characters",
        "said_characters",
        "service_tier",
        "usage",
    )

    def __init__(self, *, is_usage_wanted: bool, cost_of: CostOf, secret: str | None = None) -> None:
        self._tail = b""
        self._is_usage_wanted = is_usage_wanted
        self._cost_of = cost_of
        self._secret = secret
        self.event_count = 0
        self.usage: Mapping[str, Any] | None = None
        self.service_tier: object = None
        self.answer_id = ""
        self.model = ""
        self.finish_reason = ""
        self.is_done = False
        self.error: Mapping[str, Any] | None = None
        self.output_characters = 0
        # How many of them had come when the provider stated `usage`: it counts no more than these.
        self.said_characters = 0
        self.image_count = 0

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes, return whole events to forward. Raises StreamGarbageError (what came before is lost)."""
        data = self._tail + chunk if self._tail else chunk
        if b"\r" in data:
            return self._feed_any_line_end(data)
        end = data.rfind(b"\n\n")
        if end < 0:
            self._keep(data)
            return b""
        end += 2
        whole = data[:end] if end != len(data) else data
        self._tail = data[end:]
        if whole.find(b"\n\n") == end - 2:
            replaced = self._read_event(whole[:-2])
            return whole if replaced is None else replaced
        out: list[bytes] = []
        is_changed = False
        for event in whole.split(b"\n\n")[:-1]:
            replaced = self._read_event(event)
            if replaced is None:
                out.append(event + b"\n\n")
            else:
                is_changed = True
                out.append(replaced)
        return b"".join(out) if is_changed else whole

    def finish(self) -> bytes:
        """The provider closed the stream: read and return what stands after the last blank line."""
        tail, self._tail = self._tail, b""
        if not tail.strip():
            return b""
        replaced = self._read_event(tail)
        return tail + b"\n\n" if replaced is None else replaced

    def usage_so_far(self, *, estimated_input_tokens: int) -> Usage:
        """The provider's last word, with an estimate of what came after it or is in no count of it.

        Some count in the first event and go on counting: a stream that is broken off is not free from there on.
        """
        usage = read_usage(self.usage, service_tier=self.service_tier)
        if usage.kind == "unknown":
            usage = estimate_usage(
                input_tokens=estimated_input_tokens, output_characters=self.output_characters
            )
        else:
            said = self.said_characters if usage.output_tokens or says_output(self.usage) else 0
            if self.output_characters > said:
                usage = with_unsaid(usage, output_characters=self.output_characters - said)
        return with_images(usage, self.image_count)

    def _keep(self, tail: bytes) -> None:
        if len(tail) > MAX_EVENT_BYTES:
            raise StreamGarbageError("an event without end")
        self._tail = tail

    def _feed_any_line_end(self, data: bytes) -> bytes:
        out: list[bytes] = []
        start = 0
        for boundary in _BOUNDARY.finditer(data):
            # A lone CR at the very end may be half of a CRLF.
            if boundary.group() == b"\r\r" and boundary.end() == len(data):
                break
            replaced = self._read_event(data[start : boundary.start()])
            out.append(data[start : boundary.end()] if replaced is None else replaced)
            start = boundary.end()
        self._keep(data[start:])
        return b"".join(out)

    def _read_event(self, event: bytes) -> bytes | None:
        """Read one event without its blank line. None: forward it as it is; else what to forward instead."""
        if event.startswith(b"data: ") and b"\n" not in event and b"\r" not in event:
            data, name = event[6:], None
        else:
            data, name = _data_of(event)
            if not data:
                return None  # a comment, or fields without data
        if data[:6] == b"[DONE]":
            self.is_done = True
            return None
        try:
            payload = orjson.loads(data)
        except ValueError:
            payload = None
        if type(payload) is not dict:
            if self.is_done:
                return b""  # the answer is whole; what a proxy puts behind it is none of it
            raise StreamGarbageError("an event that is not a JSON object")
        self.event_count += 1
        get = payload.get
        if get("error"):
            return self._read_error(payload, name)
        if not self.answer_id:  # Azure's first event has an empty one
            answer_id = get("id")
            self.answer_id = answer_id if type(answer_id) is str else ""
        model = get("model")
        if model:
            self.model = model if type(model) is str else str(model)
        choices = get("choices")
        is_final = not choices
        if choices and type(choices) is list:
            is_final = self._read_choices(choices)
        tier = get("service_tier")
        if tier is not None:
            self.service_tier = tier
        if get("usage") or "x_groq" in payload:
            usage = find_usage(payload)
            if usage is not None:
                self.usage = usage
                self.said_characters = self.output_characters
                if is_final:
                    return self._read_final_usage(payload, usage, is_alone=not choices, name=name)
        return None

    def _read_choices(self, choices: list[Any]) -> bool:
        """Note finish reasons and count what was generated; True when a choice ends here."""
        is_final = False
        for choice in choices:
            if type(choice) is not dict:
                continue
            reason = choice.get("finish_reason")
            if reason is not None:
                is_final = True
                if reason:
                    self.finish_reason = str(reason)
            delta = choice.get("delta")
            if type(delta) is dict:
                content = delta.get("content")
                if type(content) is str:
                    self.output_characters += len(content)
                if len(delta) > 1 or type(content) is not str:
                    self.output_characters += _other_characters(delta)
                    if "images" in delta or type(content) is list:
                        self.image_count += count_images(delta)
            else:
                text = choice.get("text")
                if type(text) is str:
                    self.output_characters += len(text)
        return is_final

    def _read_error(self, payload: dict[str, Any], name: bytes | None) -> bytes:
        fault = read_fault(_dumps(payload), 502, secret=self._secret)
        self.error = {
            **fault.extra,
            "message": fault.message,
            "type": fault.type,
            "param": fault.param,
            "code": fault.code,
        }
        usage = find_usage(payload)
        if usage is not None:
            self.usage = usage
            self.said_characters = self.output_characters
        return _event({**payload, "error": self.error}, name)

    def _read_final_usage(
        self, payload: dict[str, Any], usage: Mapping[str, Any], *, is_alone: bool, name: bytes | None
    ) -> bytes | None:
        if not self._is_usage_wanted:
            # We asked for it, the client did not: clients that index choices[0] would crash.
            return b"" if is_alone else None
        if payload.get("usage") is not usage or "cost" in usage:
            return None  # the provider states a cost of its own: not ours to overwrite
        cost = self._cost_of(self)
        if cost is None:
            return None
        return _event({**payload, "usage": {**usage, "cost": cost}}, name)


def _event(payload: Mapping[str, Any], name: bytes | None) -> bytes:
    head = b"event: " + name + b"\n" if name else b""
    return head + b"data: " + _dumps(payload) + b"\n\n"


def _dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        raise StreamGarbageError("an event that is nested too deep") from None


def _data_of(event: bytes) -> tuple[bytes, bytes | None]:
    lines: list[bytes] = []
    name = None
    for line in _LINE.split(event):
        if line.startswith(b"data:"):
            lines.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line.startswith(b"event:"):
            name = line[6:].strip()
    return b"\n".join(lines), name


def _other_characters(delta: Mapping[str, Any]) -> int:
    count = 0
    for key in ("reasoning_content", "reasoning", "refusal"):
        text = delta.get(key)
        if type(text) is str:
            count += len(text)
    content = delta.get("content")
    if type(content) is list:
        count += len(_dumps(content))
    calls = delta.get("tool_calls")
    if type(calls) is list:
        for call in calls:
            function = call.get("function") if type(call) is dict else None
            if type(function) is dict:
                arguments = function.get("arguments")
                count += len(arguments) if type(arguments) is str else 0
    return count
