"""What does the simulated provider say? An OpenAI-format request -> the answer's object, or the events of a stream.

Pure: `now_unix_s` and the unique `answer_id` are arguments. Every text says that no model was called. Tokens are
characters / 4, at least one.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.dataplane.simulated_schema import build_instance

CHARACTERS_PER_TOKEN = 4
QUOTED_CHARACTERS = 80
MAX_PIECES = 16
FINGERPRINT = "simulated"
DEFAULT_DIMENSIONS = 256
MAX_DIMENSIONS = 4096

_WORD = re.compile(r"\S+\s*|\s+")

Payload = Mapping[str, Any]
Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """What one choice says: a text or one tool call."""

    text: str
    finish_reason: str
    tool_name: str = ""
    arguments: str = ""

    @property
    def tokens(self) -> int:
        return count_tokens(self.text + self.tool_name + self.arguments)


def count_tokens(text: str) -> int:
    """Characters / 4, rounded up, at least one."""
    return max(1, math.ceil(len(text) / CHARACTERS_PER_TOKEN))


def chat_answer(payload: Payload, *, answer_id: str, now_unix_s: float) -> Event:
    """One chat completion."""
    said = say(payload)
    message: Event = {"role": "assistant", "content": said.text, "refusal": None}
    if said.tool_name:
        function = {"name": said.tool_name, "arguments": said.arguments}
        message["content"] = None
        message["tool_calls"] = [
            {"id": f"call_simulated_{answer_id}", "type": "function", "function": function}
        ]
    choices = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": said.finish_reason}
        for index in range(_choice_count(payload))
    ]
    usage = _usage(_prompt_tokens(payload), said.tokens * len(choices))
    head = _head(payload, "chatcmpl", "chat.completion", answer_id, now_unix_s)
    return {**head, "choices": choices, "usage": usage, "system_fingerprint": FINGERPRINT}


def chat_events(payload: Payload, *, answer_id: str, now_unix_s: float) -> Iterator[Event]:
    """The chunks of one streamed chat completion: the role first, the finish reason last, then usage when asked."""
    said = say(payload)
    is_usage_asked = _is_usage_asked(payload)
    head = _head(payload, "chatcmpl", "chat.completion.chunk", answer_id, now_unix_s)
    head["system_fingerprint"] = FINGERPRINT
    indexes = range(_choice_count(payload))

    def chunk(index: int, delta: Event, finish_reason: str | None = None) -> Event:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**head, "choices": [choice], **({"usage": None} if is_usage_asked else {})}

    for index in indexes:
        first: Event = {"role": "assistant", "content": "", "refusal": None}
        if said.tool_name:
            call = {"index": 0, "id": f"call_simulated_{answer_id}", "type": "function"}
            first["content"] = None
            first["tool_calls"] = [{**call, "function": {"name": said.tool_name, "arguments": ""}}]
        yield chunk(index, first)
    for piece in split_pieces(said.arguments if said.tool_name else said.text):
        for index in indexes:
            if said.tool_name:
                yield chunk(index, {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
            else:
                yield chunk(index, {"content": piece})
    for index in indexes:
        yield chunk(index, {}, said.finish_reason)
    if is_usage_asked:
        yield {
            **head,
            "choices": [],
            "usage": _usage(_prompt_tokens(payload), said.tokens * len(indexes)),
        }


def completion_answer(payload: Payload, *, answer_id: str, now_unix_s: float) -> Event:
    """One legacy completion."""
    prompts, choices = _completion_choices(payload)
    usage = _usage(sum(map(count_tokens, prompts)), sum(said.tokens for said, _ in choices))
    return {
        **_head(payload, "cmpl", "text_completion", answer_id, now_unix_s),
        "choices": [
            {"index": index, "text": echo + said.text, "logprobs": None, "finish_reason": said.finish_reason}
            for index, (said, echo) in enumerate(choices)
        ],
        "usage": usage,
        "system_fingerprint": FINGERPRINT,
    }


def completion_events(payload: Payload, *, answer_id: str, now_unix_s: float) -> Iterator[Event]:
    """The chunks of one streamed legacy completion."""
    prompts, choices = _completion_choices(payload)
    is_usage_asked = _is_usage_asked(payload)
    head = _head(payload, "cmpl", "text_completion", answer_id, now_unix_s)
    head["system_fingerprint"] = FINGERPRINT
    for index, (said, echo) in enumerate(choices):
        pieces = split_pieces(echo + said.text)
        for number, piece in enumerate(pieces, 1):
            reason = said.finish_reason if number == len(pieces) else None
            choice = {"index": index, "text": piece, "logprobs": None, "finish_reason": reason}
            yield {**head, "choices": [choice], **({"usage": None} if is_usage_asked else {})}
    if is_usage_asked:
        usage = _usage(sum(map(count_tokens, prompts)), sum(said.tokens for said, _ in choices))
        yield {**head, "choices": [], "usage": usage}


def say(payload: Payload) -> Said:
    """Decide what one choice of a chat answer says."""
    last = last_message(payload)
    tool = None if last.get("role") in ("tool", "function") else _tool_to_call(payload, text_of(last))
    if tool is not None:
        parameters = tool.get("parameters")
        made = build_instance(parameters if isinstance(parameters, dict) else {"type": "object"})
        arguments = orjson.dumps(made if isinstance(made, dict) else {}).decode()
        return Said("", "tool_calls", tool_name=str(tool["name"]), arguments=arguments)
    response_format = payload.get("response_format")
    wanted = response_format if isinstance(response_format, dict) else {}
    kind = wanted.get("type")
    if kind == "json_object":
        text = orjson.dumps({"simulated": True, "answer": _sentence(last)}).decode()
    elif kind == "json_schema":
        described = wanted.get("json_schema")
        schema = described.get("schema") if isinstance(described, dict) else None
        text = orjson.dumps(build_instance(schema if schema is not None else {"type": "object"})).decode()
    else:
        text = _sentence(last)
    return _cut(text, payload)


def last_message(payload: Payload) -> Payload:
    """The last message, {} when there is none."""
    messages = payload.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    return last if isinstance(last, dict) else {}


def text_of(message: Payload) -> str:
    """A message's text, whatever form its content has."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [part.get("text") for part in content if isinstance(part, dict)]
    return " ".join(part for part in parts if isinstance(part, str))


def list_inputs(value: object) -> list[str]:
    """The texts of `prompt` or `input`: a text, token numbers, or a list of either."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        return [""]
    if all(isinstance(item, int) for item in value):
        return [_text_of_tokens(value)]
    return [_text_of_tokens(item) if isinstance(item, list) else str(item) for item in value]


def split_pieces(text: str) -> list[str]:
    """Cut a text into at most MAX_PIECES pieces: after words where it has enough of them."""
    units: list[str] = _WORD.findall(text)
    if len(units) < MAX_PIECES // 2:
        units = list(text)
    size = max(1, math.ceil(len(units) / MAX_PIECES))
    return ["".join(units[start : start + size]) for start in range(0, len(units), size)] or [""]


def build_embedding(text: str, dimensions: int) -> list[float]:
    """A vector of length one, the same for the same text, in no relation to its meaning."""
    digest = hashlib.shake_256(text.encode("utf-8", "surrogatepass")).digest(4 * dimensions)
    numbers = [number / 2**31 for number in struct.unpack(f"<{dimensions}i", digest)]
    length = math.sqrt(math.fsum(number * number for number in numbers)) or 1.0
    return [number / length for number in numbers]


def encode_embedding(vector: list[float]) -> str:
    """Base64 of little-endian 32-bit floats, as the OpenAI SDK asks for."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


def _sentence(last: Payload) -> str:
    quoted = " ".join(text_of(last)[: 4 * QUOTED_CHARACTERS].split())
    if len(quoted) > QUOTED_CHARACTERS:
        quoted = quoted[:QUOTED_CHARACTERS].rstrip() + "…"
    who = "The tool said" if last.get("role") in ("tool", "function") else "You said"
    return f"Simulated answer: no model was called. {who}: {quoted or '(no text)'}"


def _tool_to_call(payload: Payload, asked: str) -> Payload | None:
    """The tool that the request forces, or that its last message names."""
    tools = payload.get("tools")
    functions = [t.get("function") for t in tools if isinstance(t, dict)] if isinstance(tools, list) else []
    callable_ = [f for f in functions if isinstance(f, dict) and isinstance(f.get("name"), str) and f["name"]]
    choice = payload.get("tool_choice")
    if not callable_ or choice == "none":
        return None
    if isinstance(choice, dict):
        named = choice.get("function")
        wanted = named.get("name") if isinstance(named, dict) else None
        return next((f for f in callable_ if f["name"] == wanted), None)
    if choice == "required":
        return callable_[0]
    if last_message(payload).get("role") != "user":
        return None
    mentioned = next((f for f in callable_ if f["name"] in asked), None)
    return callable_[0] if mentioned is None and "use the tool" in asked.lower() else mentioned


def _cut(text: str, payload: Payload) -> Said:
    """Obey max_completion_tokens and max_tokens."""
    for name in ("max_completion_tokens", "max_tokens"):
        limit = payload.get(name)
        if isinstance(limit, int) and not isinstance(limit, bool) and limit >= 0:
            if len(text) > limit * CHARACTERS_PER_TOKEN:
                return Said(text[: limit * CHARACTERS_PER_TOKEN], "length")
            break
    return Said(text, "stop")


def _completion_choices(payload: Payload) -> tuple[list[str], list[tuple[Said, str]]]:
    """The prompts, and for each choice what it says and what it repeats of its prompt."""
    prompts = list_inputs(payload.get("prompt"))
    choices = []
    for prompt in prompts:
        said = _cut(_sentence({"role": "user", "content": prompt}), payload)
        choices += [(said, prompt if payload.get("echo") is True else "")] * _choice_count(payload)
    return prompts, choices


def _choice_count(payload: Payload) -> int:
    n = payload.get("n")
    return min(n, 128) if isinstance(n, int) and n > 0 else 1


def _is_usage_asked(payload: Payload) -> bool:
    options = payload.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _prompt_tokens(payload: Payload) -> int:
    messages = payload.get("messages")
    rows = [m for m in messages if isinstance(m, dict)] if isinstance(messages, list) else []
    characters = sum(len(text_of(row)) for row in rows)
    tools = payload.get("tools")
    characters += len(orjson.dumps(tools)) if isinstance(tools, list) else 0
    return max(1, math.ceil(characters / CHARACTERS_PER_TOKEN))


def _usage(input_tokens: int, output_tokens: int) -> Event:
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _head(payload: Payload, prefix: str, kind: str, answer_id: str, now_unix_s: float) -> Event:
    return {
        "id": f"{prefix}-simulated-{answer_id}",
        "object": kind,
        "created": int(now_unix_s),
        "model": payload.get("model"),
    }


def _text_of_tokens(tokens: list[Any]) -> str:
    """Token numbers stand for texts that we do not know; four characters each keep the count right."""
    return "".join(f"{token % 10_000 if isinstance(token, int) else 0:04d}" for token in tokens)
