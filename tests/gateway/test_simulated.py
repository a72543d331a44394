"""The demo's provider: it must be a believable OpenAI-format provider that never passes for a real model."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import struct
import time
from typing import Any

import pytest

from gateway.dataplane.ports import UpstreamClient, UpstreamResponse
from gateway.dataplane.simulated import SimulatedClient
from gateway.dataplane.upstream_errors import UpstreamError

URL = "simulated:/chat/completions"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "kelvin"]}},
            "required": ["city", "unit"],
        },
    },
}


def user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


async def send(payload: Any, url: str = URL, *, head_timeout_s: float = 5.0) -> UpstreamResponse:
    client: UpstreamClient = SimulatedClient(pause_s=0.0)
    return await client.send(
        method="POST",
        url=url,
        headers=[],
        body=json.dumps(payload).encode(),
        connect_timeout_s=1.0,
        head_timeout_s=head_timeout_s,
        allow_private_network=False,
    )


async def ask(url: str = URL, **payload: Any) -> dict[str, Any]:
    response = await send({"model": "small", **payload}, url)
    assert response.status == 200
    answer: dict[str, Any] = json.loads(await response.read(limit_bytes=10_000_000, timeout_s=5.0))
    return answer


async def stream(url: str = URL, **payload: Any) -> list[dict[str, Any]]:
    response = await send({"model": "small", "stream": True, **payload}, url)
    assert ("content-type", "text/event-stream; charset=utf-8") in response.headers
    chunks = []
    while chunk := await response.read_chunk(timeout_s=5.0):
        chunks.append(chunk)
    assert chunks.pop() == b"data: [DONE]\n\n"
    assert all(chunk.startswith(b"data: {") and chunk.endswith(b"}\n\n") for chunk in chunks)
    return [json.loads(chunk[6:]) for chunk in chunks]


async def test_every_answer_says_that_no_model_was_called_and_quotes_the_question() -> None:
    answer = await ask(
        messages=[{"role": "system", "content": "Be brief."}, *user("Hello\n there " + "x" * 200)]
    )
    choice = answer["choices"][0]
    assert choice["message"]["content"].startswith(
        "Simulated answer: no model was called. You said: Hello there xxx"
    )
    assert len(choice["message"]["content"]) < 150
    assert (choice["finish_reason"], answer["model"]) == ("stop", "small")
    assert answer["system_fingerprint"] == "simulated"
    usage = answer["usage"]
    assert usage["prompt_tokens"] == math.ceil((len("Be brief.") + 213) / 4)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    again = await ask(messages=user("Hello"))
    assert again["id"] != answer["id"]


async def test_n_choices_and_the_output_limit_are_obeyed() -> None:
    answer = await ask(messages=user("Hello"), n=3, max_completion_tokens=2, max_tokens=50)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert {choice["finish_reason"] for choice in answer["choices"]} == {"length"}
    assert {choice["message"]["content"] for choice in answer["choices"]} == {"Simulate"}
    assert answer["usage"]["completion_tokens"] == 6


async def test_a_stream_says_the_same_as_a_plain_answer_in_several_pieces() -> None:
    plain = await ask(messages=user("What is a pointsman?"))
    chunks = await stream(messages=user("What is a pointsman?"))
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert 8 <= len(chunks) <= 20
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == plain["choices"][0]["message"]["content"]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert all("usage" not in chunk for chunk in chunks)


async def test_a_stream_states_usage_last_and_only_when_asked() -> None:
    plain = await ask(messages=user("Hello"))
    chunks = await stream(messages=user("Hello"), stream_options={"include_usage": True})
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == plain["usage"]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


@pytest.mark.parametrize(
    ("choice", "text", "is_called"),
    [
        ("required", "Hello", True),
        ({"type": "function", "function": {"name": "get_weather"}}, "Hello", True),
        ("auto", "Please call get_weather for me", True),
        (None, "Use the tool, please", True),
        ("auto", "Hello", False),
        ("none", "Use the tool: get_weather", False),
    ],
)
async def test_a_tool_is_called_when_forced_or_named(choice: Any, text: str, is_called: bool) -> None:
    forced = {} if choice is None else {"tool_choice": choice}
    answer = (await ask(messages=user(text), tools=[WEATHER], **forced))["choices"][0]
    assert answer["finish_reason"] == ("tool_calls" if is_called else "stop")
    assert (answer["message"]["content"] is None) is is_called
    if is_called:
        function = answer["message"]["tool_calls"][0]["function"]
        assert function["name"] == "get_weather"
        assert json.loads(function["arguments"]) == {"city": "simulated", "unit": "celsius"}


async def test_a_streamed_tool_call_adds_up_to_the_same_arguments() -> None:
    chunks = await stream(messages=user("Hello"), tools=[WEATHER], tool_choice="required")
    calls = [call for c in chunks for call in c["choices"][0]["delta"].get("tool_calls", [])]
    assert calls[0]["id"] and calls[0]["function"]["name"] == "get_weather"
    arguments = "".join(call["function"]["arguments"] for call in calls)
    assert json.loads(arguments) == {"city": "simulated", "unit": "celsius"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_after_a_tools_result_comes_a_text() -> None:
    messages = [*user("Use the tool"), {"role": "tool", "tool_call_id": "1", "content": "sunny"}]
    answer = (await ask(messages=messages, tools=[WEATHER], tool_choice="required"))["choices"][0]
    assert answer["message"]["content"].endswith("The tool said: sunny")


async def test_json_answers_are_json() -> None:
    loose = await ask(messages=user("Hi"), response_format={"type": "json_object"})
    assert json.loads(loose["choices"][0]["message"]["content"])["simulated"] is True
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}}, "required": ["n"]}
    strict = await ask(
        messages=user("Hi"),
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    )
    assert json.loads(strict["choices"][0]["message"]["content"]) == {"n": 3}


async def test_legacy_completions_answer_each_prompt_with_echo_and_as_a_stream() -> None:
    url = "simulated:/completions"
    answer = await ask(url, prompt=["one", "two"], echo=True, n=2)
    texts = [choice["text"] for choice in answer["choices"]]
    assert [text[:12] for text in texts] == ["oneSimulated"] * 2 + ["twoSimulated"] * 2
    assert answer["object"] == "text_completion"
    chunks = await stream(url, prompt="one", stream_options={"include_usage": True})
    assert "".join(c["choices"][0]["text"] for c in chunks[:-1]) == texts[0].removeprefix("one")
    assert chunks[-1]["usage"]["completion_tokens"] == answer["usage"]["completion_tokens"] // 4


async def test_embeddings_are_unit_vectors_that_depend_on_the_text_alone() -> None:
    url = "simulated:/v1/embeddings"
    answer = await ask(url, input=["one", "two", "one"], dimensions=64)
    one, two, again = (row["embedding"] for row in answer["data"])
    assert one == again != two
    assert len(one) == 64
    assert math.isclose(sum(x * x for x in one), 1.0)
    packed = await ask(url, input="one", dimensions=64, encoding_format="base64")
    raw = base64.b64decode(packed["data"][0]["embedding"])
    assert struct.unpack("<64f", raw) == pytest.approx(one, rel=1e-6)
    tokens = await ask(url, input=[[1, 2, 3], [4]])
    assert [len(row["embedding"]) for row in tokens["data"]] == [256, 256]
    assert tokens["usage"]["prompt_tokens"] == 4


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
async def test_an_ordered_error_has_its_status_and_all_four_keys(status: int) -> None:
    response = await send({"model": "m", "messages": user(f"Hi [[simulate:error:{status}]]")})
    assert response.status == status
    error = json.loads(await response.read(limit_bytes=10_000, timeout_s=1.0))["error"]
    assert set(error) == {"message", "type", "param", "code"}


async def test_orders_in_earlier_messages_do_not_count() -> None:
    messages = [*user("[[simulate:error:500]]"), {"role": "assistant", "content": "oh"}, *user("Hello")]
    assert (await ask(messages=messages))["choices"]


@pytest.mark.parametrize("url", ["simulated:/models", "simulated:/audio/speech"])
async def test_an_endpoint_it_does_not_know_is_not_found(url: str) -> None:
    assert (await send({"model": "m"}, url)).status == 404


@pytest.mark.parametrize("body", [[], 7, None, "text"])
async def test_a_body_that_is_no_object_is_refused(body: Any) -> None:
    assert (await send(body)).status == 400


@pytest.mark.parametrize("is_stream", [True, False])
async def test_an_ordered_cut_breaks_the_answer_off_half_way(is_stream: bool) -> None:
    response = await send({"model": "m", "stream": is_stream, "messages": user("[[simulate:cut]]")})
    got = b""
    with pytest.raises(UpstreamError) as broken:
        while True:
            got += await response.read_chunk(timeout_s=1.0)
    assert broken.value.kind == "broken"
    assert got and b"[DONE]" not in got


async def test_an_ordered_delay_is_waited_for_and_ends_in_a_timeout_when_too_long() -> None:
    payload = {"model": "m", "messages": user("[[simulate:slow:0.05]]")}
    begun_s = time.monotonic()
    assert (await send(payload)).status == 200
    assert time.monotonic() - begun_s >= 0.05
    with pytest.raises(UpstreamError) as slow:
        await send(payload, head_timeout_s=0.01)
    assert slow.value.kind == "timeout"


async def test_waiting_can_be_cancelled() -> None:
    task = asyncio.create_task(
        send({"model": "m", "messages": user("[[simulate:slow:30]]")}, head_timeout_s=60)
    )
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 1.0)


async def test_a_closed_answer_and_one_that_is_too_large_are_errors() -> None:
    response = await send({"model": "m", "messages": user("Hi")})
    with pytest.raises(UpstreamError) as large:
        await response.read(limit_bytes=10, timeout_s=1.0)
    assert large.value.kind == "too_large"
    response.close()
    response.close()
    with pytest.raises(UpstreamError):
        await response.read_chunk(timeout_s=1.0)


@pytest.mark.parametrize(
    "odd",
    [
        {"messages": "text"},
        {"messages": [None, 3]},
        {"messages": user("Hi"), "tools": "x", "tool_choice": {"type": "function"}},
        {"messages": user("Hi"), "tools": [{"function": {"name": "", "parameters": 7}}, 3], "n": "x"},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}, 4, {"text": 5}]}], "n": True},
        {"messages": user("Hi"), "response_format": {"type": "json_schema"}, "stream_options": 3},
    ],
)
async def test_odd_requests_are_answered_and_not_stumbled_over(odd: dict[str, Any]) -> None:
    assert (await ask(**odd))["choices"]
    assert await stream(**odd)
