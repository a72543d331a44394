"""An application developer changes `base_url` and the key, nothing else: the unmodified OpenAI SDK must work.

Against the simulated provider: sync, async, streaming, tools, structured output, embeddings, models, error classes.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

import openai
import pytest
from pydantic import BaseModel

from tests.running_gateway import KEY, RunningGateway, running_gateway

pytestmark = pytest.mark.slow

PRICE = {"input_usd_per_mtok": "0.5", "output_usd_per_mtok": "1.5"}
CONFIG = {
    "providers": [{"name": "simulated", "base_url": "simulated:", "auth_style": "none"}],
    "models": [
        {"name": "sim", "context_tokens": 100_000, "capabilities": ["tools", "json_schema"]},
        {"name": "sim-text", "context_tokens": 1_000, "capabilities": ["logprobs"]},
        {"name": "sim-embed", "endpoints": ["embeddings"]},
    ],
    "deployments": [
        {
            "name": f"{name}@simulated",
            "model": name,
            "provider": "simulated",
            "upstream_model": name,
            "price": PRICE,
        }
        for name in ("sim", "sim-text", "sim-embed")
    ],
    "policies": [
        {
            "id": "acme/support",
            "baseline": "sim",
            "rules": [
                {
                    "name": "urgent",
                    "when": 'priority == "high"',
                    "strategy": "fixed",
                    "deployments": ["sim@simulated"],
                },
                {
                    "name": "rest",
                    "strategy": "priority",
                    "deployments": ["sim-text@simulated", "sim@simulated"],
                },
            ],
        }
    ],
    "tenants": [
        {
            "name": "acme",
            "policies": ["acme/support"],
            "projects": [{"name": "web", "keys": [{"name": "dev", "secret": "env:TEST_KEY"}]}],
        },
        {
            "name": "other",
            "projects": [{"name": "web", "keys": [{"name": "dev", "secret": "env:OTHER_KEY"}]}],
        },
    ],
}
OTHER_KEY = "pm-another-tenants-key-0000000000001"
HELLO = [{"role": "user", "content": "Say hello in five words."}]


@pytest.fixture(scope="module")
def gateway() -> Iterator[RunningGateway]:
    with running_gateway(None) as running:
        running.apply(CONFIG, OTHER_KEY=OTHER_KEY)
        yield running


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.url, api_key=KEY, max_retries=0, timeout=20) as client:
        yield client


def test_a_plain_answer_names_the_model_and_its_request_id(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="sim", messages=HELLO)
    assert "simulated" in (answer.choices[0].message.content or "").lower()
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None and answer.usage.total_tokens > 0
    assert answer._request_id


def test_a_routed_answer_says_who_served_it_and_the_record_agrees(
    client: openai.OpenAI, gateway: RunningGateway
) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="acme/support", messages=HELLO, extra_headers={"x-pointsman-priority": "high"}
    )
    headers = raw.headers
    assert headers["x-pointsman-policy"] == "acme/support"
    assert (headers["x-pointsman-rule"], headers["x-pointsman-policy-version"]) == ("urgent", "1")
    assert headers["x-pointsman-deployment"] == "sim@simulated"
    assert float(headers["x-pointsman-cost-usd"]) > 0
    record = gateway.wait_for_record(headers["x-request-id"])
    assert record["rule"] == "urgent"
    assert record["policy"] == "acme/support"
    assert record["cost_usd"].rstrip("0") == headers["x-pointsman-cost-usd"].rstrip("0")
    assert len(record["attempts"]) == 1
    assert record["decision"]


def test_a_stream_ends_properly_and_states_its_cost(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="sim", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "simulated" in text.lower()
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.model_extra is not None and chunks[-1].usage.model_extra["cost"] > 0


def test_a_stream_without_asked_usage_has_choices_in_every_chunk(
    client: openai.OpenAI, gateway: RunningGateway
) -> None:
    with client.chat.completions.with_streaming_response.create(
        model="sim", messages=HELLO, stream=True
    ) as raw:
        lines = [line for line in raw.iter_lines() if line.startswith("data: ")]
        request_id = raw.headers["x-request-id"]
    assert lines[-1] == "data: [DONE]"
    assert all(json.loads(line[6:])["choices"] for line in lines[:-1])
    record = gateway.wait_for_record(request_id)
    assert record["usage"]["kind"] == "reported"
    assert record["cost_nanousd"] > 0


def test_the_async_client_works(gateway: RunningGateway) -> None:
    async def ask() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=gateway.url, api_key=KEY, max_retries=0) as client:
            answer = await client.chat.completions.create(model="sim", messages=HELLO)
            text = ""
            async for chunk in await client.chat.completions.create(model="sim", messages=HELLO, stream=True):
                text += chunk.choices[0].delta.content or ""
            return answer.choices[0].message.content or "", text

    plain, streamed = asyncio.run(ask())
    assert "simulated" in plain.lower()
    assert "simulated" in streamed.lower()


def test_tools_are_called_and_answered(client: openai.OpenAI) -> None:
    tools = [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "parameters": {
                    "type": "object",
                    "properties": {"city": {"type": "string"}},
                    "required": ["city"],
                },
            },
        }
    ]
    answer = client.chat.completions.create(
        model="sim",
        messages=HELLO,
        tools=tools,
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
    )
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.name == "get_weather"
    assert "city" in json.loads(call.function.arguments)
    follow_up = client.chat.completions.create(
        model="sim",
        messages=[
            *HELLO,
            answer.choices[0].message,
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
        ],
        tools=tools,
    )
    assert follow_up.choices[0].message.content


def test_structured_output_is_parsed(client: openai.OpenAI) -> None:
    class Person(BaseModel):
        name: str
        age: int

    answer = client.chat.completions.parse(model="sim", messages=HELLO, response_format=Person)
    assert isinstance(answer.choices[0].message.parsed, Person)


def test_embeddings_come_in_the_encoding_the_sdk_asks_for(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="sim-embed", input=["one", "two"], dimensions=64)
    assert [len(row.embedding) for row in answer.data] == [64, 64]
    assert answer.usage.prompt_tokens > 0


def test_legacy_completions_work(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="sim", prompt="hello")
    assert answer.choices[0].text


def test_models_are_those_the_key_may_use(client: openai.OpenAI, gateway: RunningGateway) -> None:
    names = {model.id for model in client.models.list()}
    assert {"acme/support", "sim", "sim-text", "sim-embed"} <= names
    assert client.models.retrieve("acme/support").id == "acme/support"
    with openai.OpenAI(base_url=gateway.url, api_key=OTHER_KEY, max_retries=0) as other:
        assert "acme/support" not in {model.id for model in other.models.list()}
        with pytest.raises(openai.NotFoundError):
            other.models.retrieve("acme/support")
        with pytest.raises(openai.NotFoundError):
            other.chat.completions.create(model="acme/support", messages=HELLO)


def test_errors_arrive_as_the_sdks_classes(client: openai.OpenAI, gateway: RunningGateway) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="no-such-model", messages=HELLO)
    assert missing.value.code == "model_not_found"
    assert missing.value.request_id
    with pytest.raises(openai.BadRequestError) as empty:
        client.chat.completions.create(model="sim", messages=[])
    assert empty.value.param == "messages"
    with openai.OpenAI(base_url=gateway.url, api_key="pm-wrong", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError) as refused:
            stranger.chat.completions.create(model="sim", messages=HELLO)
        assert "pm-wrong" not in str(refused.value)
    for status, kind in ((429, openai.RateLimitError), (500, openai.InternalServerError)):
        with pytest.raises(kind):
            client.chat.completions.create(
                model="sim-text", messages=[{"role": "user", "content": f"[[simulate:error:{status}]]"}]
            )


def test_a_capability_a_model_lacks_is_refused_with_the_reason(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="sim-text",
            messages=HELLO,
            tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
        )
    assert refused.value.code == "no_capable_deployment"
    assert "tools" in str(refused.value)


def test_a_conversation_that_is_too_long_has_the_code_clients_branch_on(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="sim-text", messages=[{"role": "user", "content": "word " * 4000}]
        )
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "messages")


def test_a_broken_stream_raises_instead_of_ending_quietly(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIError):
        list(
            client.chat.completions.create(
                model="sim", messages=[{"role": "user", "content": "[[simulate:cut]]"}], stream=True
            )
        )


def test_a_request_is_nobody_elses_business(client: openai.OpenAI, gateway: RunningGateway) -> None:
    raw = client.chat.completions.with_raw_response.create(model="sim", messages=HELLO)
    gateway.wait_for_record(raw.headers["x-request-id"])
    with (
        openai.OpenAI(base_url=gateway.url, api_key=OTHER_KEY, max_retries=0) as other,
        pytest.raises(openai.NotFoundError),
    ):
        other.get(f"/requests/{raw.headers['x-request-id']}", cast_to=object)


def test_an_answer_is_rated_with_the_sdks_own_client(client: openai.OpenAI, gateway: RunningGateway) -> None:
    raw = client.chat.completions.with_raw_response.create(model="sim", messages=HELLO)
    request_id = raw.headers["x-request-id"]
    given = client.post("/feedback", body={"request_id": request_id, "rating": -1}, cast_to=object)
    assert given["quality"] == 0.0  # type: ignore[index]
    with pytest.raises(openai.BadRequestError):
        client.post("/feedback", body={"request_id": raw.parse().id, "rating": 1}, cast_to=object)
    gateway.wait_for_record(request_id)
    deadline_s = time.monotonic() + 10
    rows: list[tuple[object, ...]] = []
    while not rows and time.monotonic() < deadline_s:
        rows = gateway.query("SELECT quality FROM billing_feedback WHERE request_id = %s", (request_id,))
        time.sleep(0.05)
    assert rows == [(0.0,)]


@pytest.mark.parametrize("base", ["", "/", "/v1", "/v1/"])
def test_the_base_url_may_end_in_any_way(gateway: RunningGateway, base: str) -> None:
    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{gateway.port}{base}", api_key=KEY, max_retries=0
    ) as client:
        assert client.chat.completions.create(model="sim", messages=HELLO).choices
        assert client.models.list().data
