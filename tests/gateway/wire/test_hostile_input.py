"""Whatever a provider or a client sends as JSON, reading it ends in an answer or in a refusal, never in a crash."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dataplane.errors import BadRequest
from gateway.wire.json_splice import replace_members
from gateway.wire.openai_answer import read_answer
from gateway.wire.openai_errors import fault_in_answer, read_fault
from gateway.wire.openai_request import parse_request, upstream_body
from gateway.wire.openai_stream import OpenAIStream, StreamGarbageError
from gateway.wire.openai_usage import read_usage

NAMES = [
    "choices", "message", "content", "refusal", "tool_calls", "function", "arguments", "finish_reason", "delta",
    "index", "text", "usage", "model", "prompt_tokens", "completion_tokens", "total_tokens",
    "prompt_tokens_details", "completion_tokens_details", "cached_tokens", "reasoning_tokens", "cost",
    "cost_in_usd_ticks", "service_tier", "x_groq", "error", "code", "type", "param", "detail", "status_code",
    "metadata", "messages", "role", "tools", "functions", "tool_choice", "response_format", "modalities", "n",
    "max_tokens", "max_completion_tokens", "stream", "stream_options", "include_usage", "models", "provider",
    "order", "only", "allow_fallbacks", "logprobs", "prompt", "input",
]  # fmt: skip
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["stop", "text", "image_url", "json_schema", "required", "content_filter"])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=25,
)
OBJECTS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=8)


@given(OBJECTS)
def test_any_answer_of_a_provider_can_be_read(payload: dict[str, Any]) -> None:
    facts = read_answer(payload, estimated_input_tokens=1)
    assert facts.usage.kind in ("reported", "estimated")
    assert read_usage(payload).kind in ("reported", "unknown")
    fault_in_answer(payload)


@given(OBJECTS)
def test_any_error_of_a_provider_becomes_a_fault(payload: dict[str, Any]) -> None:
    fault = read_fault(orjson.dumps(payload), 500, secret="sk-secret")
    assert isinstance(fault.message, str) and fault.message
    orjson.dumps(fault.extra)


@given(st.lists(OBJECTS, max_size=4), st.booleans(), st.integers(1, 40))
def test_any_stream_of_objects_can_be_relayed_in_any_pieces(
    payloads: list[dict[str, Any]], is_usage_wanted: bool, size: int
) -> None:
    stream = OpenAIStream(is_usage_wanted=is_usage_wanted, cost_of=lambda stream: 0.5)
    data = b"".join(b"data: " + orjson.dumps(payload) + b"\n\n" for payload in payloads)
    out = b"".join(stream.feed(data[at : at + size]) for at in range(0, len(data), size)) + stream.finish()
    assert stream.event_count == len(payloads)
    assert out.count(b"data: ") <= data.count(b"data: ")


@given(st.binary(max_size=200))
def test_any_bytes_as_a_stream_are_relayed_or_called_garbage(data: bytes) -> None:
    stream = OpenAIStream(is_usage_wanted=True, cost_of=lambda stream: None)
    try:
        stream.feed(data)
        stream.finish()
    except StreamGarbageError:
        return


@settings(max_examples=300)
@given(OBJECTS, st.sampled_from(["chat", "completions", "embeddings"]))
def test_any_request_is_read_or_refused_and_reaches_the_provider_whole(
    payload: dict[str, Any], endpoint: Any
) -> None:
    body = orjson.dumps({**payload, "model": "asked"}, option=orjson.OPT_INDENT_2)
    try:
        request = parse_request(body, endpoint)
    except BadRequest as refused:
        assert refused.code
        return
    sent = orjson.loads(upstream_body(request, upstream_model="u", output_limit_parameter="max_tokens"))
    assert sent["model"] == "u"
    ours = {"model", "models", "provider", "stream_options", "max_tokens", "max_completion_tokens"}
    assert {k: v for k, v in sent.items() if k not in ours} == {
        k: v for k, v in payload.items() if k not in ours
    }


@given(OBJECTS, st.dictionaries(st.sampled_from(NAMES), st.none() | st.just(b'"new"'), max_size=4))
def test_replaced_members_are_those_and_no_others(
    payload: dict[str, Any], changes: dict[str, bytes | None]
) -> None:
    expected = {name: value for name, value in payload.items() if name not in changes}
    expected |= {name: "new" for name, value in changes.items() if value is not None}
    assert orjson.loads(replace_members(orjson.dumps(payload), changes, present=payload)) == expected


@pytest.mark.parametrize("depth", [200, 300, 900])
def test_nesting_without_end_is_no_crash(depth: int) -> None:
    deep = b"[" * depth + b"1" + b"]" * depth
    answer = orjson.loads(b'{"choices":[{"message":{"content":%s,"tool_calls":[%s]}}]}' % (deep, deep))
    assert read_answer(answer, estimated_input_tokens=1).usage.kind == "estimated"
    error = b'{"error":{"message":%s,"detail":%s,"extra":%s}}' % (deep, deep, deep)
    assert read_fault(error, 500).message
    for event in (error, b'{"choices":[{"delta":{"content":%s}}]}' % deep):
        stream = OpenAIStream(is_usage_wanted=True, cost_of=lambda stream: 0.5)
        try:
            stream.feed(b"data: " + event + b"\n\n")
        except StreamGarbageError:
            continue
