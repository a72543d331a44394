"""A real model behind the gateway: llama.cpp with SmolLM2-135M, when it runs on this machine.

Start it with `../shared/tools/start_llama.sh start`; without it these tests are skipped. The configuration is the one
the README shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import openai
import pytest

from tests.running_gateway import KEY, RunningGateway, running_gateway

UPSTREAM = "http://127.0.0.1:18081"


def _is_running() -> bool:
    try:
        return httpx.get(f"{UPSTREAM}/health", timeout=1).status_code == 200
    except httpx.TransportError:
        return False


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _is_running(), reason=f"no llama.cpp server answers at {UPSTREAM}"),
]

CONFIG = {
    "providers": [
        {
            "name": "local",
            "wire_format": "openai_chat",
            "base_url": f"{UPSTREAM}/v1",
            "credential": "env:LOCAL_KEY",
            "allow_private_network": True,
        }
    ],
    "models": [
        {"name": "smollm2-135m", "context_tokens": 8192, "capabilities": ["tools", "json_schema", "logprobs"]}
    ],
    "deployments": [
        {
            "name": "smollm2@local",
            "model": "smollm2-135m",
            "provider": "local",
            "upstream_model": "smollm2-135m",
            "region": "eu",
            "price": {
                "input_usd_per_mtok": "0.05",
                "cache_read_usd_per_mtok": "0.005",
                "output_usd_per_mtok": "0.20",
            },
        }
    ],
    "policies": [
        {
            "id": "acme/support",
            "baseline": "smollm2-135m",
            "rules": [
                {
                    "name": "long prompts",
                    "when": "input_tokens > 4000",
                    "strategy": "priority",
                    "deployments": ["smollm2@local"],
                },
                {
                    "name": "rest",
                    "strategy": "weighted",
                    "deployments": [{"name": "smollm2@local", "weight": 1}],
                },
            ],
        }
    ],
    "tenants": [
        {
            "name": "acme",
            "time_zone": "Europe/Berlin",
            "policies": ["acme/support"],
            "projects": [{"name": "web", "keys": [{"name": "dev", "secret": "env:TEST_KEY"}]}],
        }
    ],
}
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def gateway() -> Iterator[RunningGateway]:
    with running_gateway(CONFIG, LOCAL_KEY="sk-llama-local") as running:
        yield running


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.url, api_key=KEY, max_retries=0, timeout=60) as client:
        yield client


def test_a_routed_question_is_answered_recorded_and_priced(
    client: openai.OpenAI, gateway: RunningGateway
) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="acme/support", messages=QUESTION, max_tokens=24, temperature=0
    )
    answer = raw.parse()
    assert "France" in (answer.choices[0].message.content or "")
    record = gateway.wait_for_record(raw.headers["x-request-id"])
    assert (record["rule"], record["deployment"]) == ("rest", "smollm2@local")
    assert record["usage"]["kind"] == "reported"
    assert answer.usage is not None
    assert record["usage"]["input_tokens"] == answer.usage.prompt_tokens
    assert record["usage"]["output_tokens"] == answer.usage.completion_tokens
    assert record["cost_nanousd"] > 0


def test_a_streamed_question_is_answered_word_by_word(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="smollm2-135m",
            messages=QUESTION,
            max_tokens=24,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "France" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert len(chunks) > 5
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 0


def test_a_schema_is_obeyed(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model="smollm2-135m",
        messages=QUESTION,
        max_tokens=40,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": schema},
        },
    )
    assert set(json.loads(answer.choices[0].message.content or "")) == {"city"}


def test_a_tool_is_called(client: openai.OpenAI) -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "say",
            "parameters": {
                "type": "object",
                "properties": {"text": {"type": "string"}},
                "required": ["text"],
            },
        },
    }
    answer = client.chat.completions.create(
        model="smollm2-135m",
        messages=[{"role": "user", "content": "Please say hello."}],
        tools=[tool],
        tool_choice="required",
        max_tokens=60,
        temperature=0,
    )
    calls = answer.choices[0].message.tool_calls or []
    assert [call.function.name for call in calls][:1] == ["say"]
    assert "text" in json.loads(calls[0].function.arguments)


def test_a_context_that_is_too_long_is_refused_by_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="smollm2-135m", messages=[{"role": "user", "content": "word " * 20_000}], max_tokens=5
        )
    assert "context_window" in str(refused.value)
