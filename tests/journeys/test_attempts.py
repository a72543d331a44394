"""When a provider fails, nobody notices; when all fail, the client is told the truth."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fake_provider import (
    CLOSE,
    STREAM_HEAD,
    FakeProvider,
    chat_answer,
    chunk_event,
    error_answer,
    event,
    fake_provider,
    json_answer,
    piece,
    stream_answer,
)
from tests.running_gateway import AUTHORIZATION, RunningGateway, running_gateway, simple_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def providers() -> Iterator[tuple[FakeProvider, FakeProvider]]:
    with fake_provider() as first, fake_provider() as second:
        yield first, second


MODELS = [f"m{number}" for number in range(30)]


@pytest.fixture(scope="module")
def gateway(providers: tuple[FakeProvider, FakeProvider]) -> Iterator[RunningGateway]:
    first, second = providers
    config = simple_config(first.url, MODELS, credential="env:UPSTREAM_SECRET")
    config["providers"].append({**config["providers"][0], "name": "second", "base_url": second.url})
    config["deployments"] += [
        {**deployment, "name": f"{deployment['model']}@z-second", "provider": "second"}
        for deployment in list(config["deployments"])
    ]
    with running_gateway(config, UPSTREAM_SECRET="upstream-credential-123456") as running:
        yield running


_next_model = iter(MODELS)


@pytest.fixture
def model() -> str:
    """A model nobody else used: health of its deployments is untouched."""
    return next(_next_model)


@pytest.fixture(autouse=True)
def _fresh_providers(providers: tuple[FakeProvider, FakeProvider]) -> None:
    for provider in providers:
        provider.answers.clear()
        provider.requests.clear()
        provider.headers.clear()
        provider.default = None


def ask(
    gateway: RunningGateway,
    model: str,
    *,
    stream: bool = False,
    headers: dict[str, str] | None = None,
    **fields: Any,
) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}
    if stream:
        body["stream"] = True
    return httpx.post(
        f"{gateway.url}/chat/completions", json=body, headers={**AUTHORIZATION, **(headers or {})}, timeout=30
    )


def test_a_failing_deployment_is_replaced_before_the_client_notices(gateway, providers, model):
    providers[0].default = error_answer(500)
    answer = ask(gateway, model)
    assert answer.status_code == 200
    assert answer.headers["x-pointsman-provider"] == "second"
    assert answer.headers["x-pointsman-attempts"] == "2"
    record = gateway.wait_for_record(answer.headers["x-request-id"])
    assert [attempt["outcome"] for attempt in record["attempts"]] == ["http_error", "ok"]


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ([CLOSE], "broken"),
        (json_answer(b"<html>"), "bad_answer"),
        ([b"SSH-2.0-OpenSSH\r\n\r\n", CLOSE], "bad_answer"),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", CLOSE], "broken"),
        (json_answer({"error": {"message": "overloaded", "code": 502}}), "http_error"),
        ([b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n"], "bad_answer"),
        (error_answer(429, headers=("retry-after: 1",)), "rate_limited"),
    ],
)
def test_every_kind_of_failure_falls_back(gateway, providers, model, script, outcome):
    providers[0].default = script
    answer = ask(gateway, model)
    assert answer.status_code == 200, answer.text
    record = gateway.wait_for_record(answer.headers["x-request-id"])
    assert record["attempts"][0]["outcome"] == outcome
    assert record["attempts"][1]["outcome"] == "ok"


def test_a_stream_that_fails_before_its_first_event_falls_back(gateway, providers, model):
    providers[0].default = [
        STREAM_HEAD,
        piece(b": warming up\n\n"),
        event({"error": {"message": "busy", "code": 503}}),
        b"0\r\n\r\n",
    ]
    answer = ask(gateway, model, stream=True)
    assert answer.status_code == 200
    assert answer.headers["x-pointsman-provider"] == "second"
    assert answer.text.endswith("data: [DONE]\n\n")


def test_what_the_request_caused_is_final_and_harms_no_deployment(gateway, providers, model):
    providers[0].default = error_answer(400, "bad temperature", param="temperature", code="invalid_value")
    for _ in range(6):
        answer = ask(gateway, model)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "temperature"
        assert answer.headers["x-pointsman-attempts"] == "1"
    providers[0].default = None
    assert ask(gateway, model).headers["x-pointsman-provider"] == "upstream"


def test_when_all_fail_the_last_truth_is_told(gateway, providers, model):
    for provider in providers:
        provider.default = error_answer(503, "overloaded")
    answer = ask(gateway, model)
    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == "overloaded"
    assert int(answer.headers["x-pointsman-attempts"]) == 3
    record = gateway.wait_for_record(answer.headers["x-request-id"])
    assert (record["status"], record["http_status"]) == ("error", 503)


def test_a_pinned_request_has_no_substitute(gateway, providers, model):
    providers[0].default = error_answer(500)
    answer = ask(gateway, f"{model}@upstream", headers={"x-pointsman-pin": "1"})
    assert answer.status_code == 500
    assert answer.headers["x-pointsman-pin"] == "1"
    assert providers[1].requests == []
    record = gateway.wait_for_record(answer.headers["x-request-id"])
    assert record["is_pinned"] is True
    assert {attempt["deployment"] for attempt in record["attempts"]} == {f"{model}@upstream"}


def test_a_refused_credential_is_our_problem_and_never_shown(gateway, providers, model):
    providers[0].default = error_answer(401, "Incorrect API key provided: upstream-credential-123456")
    answer = ask(gateway, f"{model}@upstream")
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "provider_credential_rejected"
    assert "123456" not in answer.text
    again = ask(gateway, model)
    assert (again.status_code, again.headers["x-pointsman-provider"]) == (200, "second")


def test_five_failures_eject_a_deployment(gateway, providers, model):
    providers[0].default = error_answer(500)
    for _ in range(5):
        assert ask(gateway, model).status_code == 200
    before = len(providers[0].requests)
    answer = ask(gateway, model)
    assert answer.headers["x-pointsman-attempts"] == "1"
    assert len(providers[0].requests) == before
    record = gateway.wait_for_record(answer.headers["x-request-id"])
    assert "ejected" in json.dumps(record["decision"])


def test_a_stream_that_breaks_ends_with_an_honest_error(gateway, providers, model):
    providers[0].default = [STREAM_HEAD, chunk_event("one "), chunk_event("two "), CLOSE]
    answer = ask(gateway, model, stream=True)
    assert answer.status_code == 200
    events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert json.loads(events[-1])["error"]["code"] == "provider_connection_broken"
    assert "[DONE]" not in answer.text
    assert '"finish_reason": "stop"' not in answer.text
    record = gateway.wait_for_record(answer.headers["x-request-id"])
    assert (record["status"], record["usage"]["kind"]) == ("error", "estimated")
    assert record["usage"]["output_tokens"] > 0
    assert record["cost_nanousd"] > 0


def test_garbage_in_a_stream_ends_with_an_honest_error(gateway, providers, model):
    providers[0].default = [
        STREAM_HEAD,
        chunk_event("one "),
        0.1,
        event("{not json"),
        chunk_event("two "),
        b"0\r\n\r\n",
    ]
    answer = ask(gateway, model, stream=True)
    assert json.loads(answer.text.strip().splitlines()[-1][6:])["error"]["code"] == "provider_bad_answer"


def test_a_stream_without_an_end_is_told(gateway, providers, model):
    providers[0].default = [STREAM_HEAD, chunk_event("one "), b"0\r\n\r\n"]
    answer = ask(gateway, model, stream=True)
    assert (
        json.loads(answer.text.strip().splitlines()[-1][6:])["error"]["code"] == "provider_stream_incomplete"
    )


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"prompt_tokens": -5, "completion_tokens": 3},
        {"prompt_tokens": "9", "completion_tokens": 1},
        {"prompt_tokens": 10**30, "completion_tokens": 1},
    ],
)
def test_usage_that_cannot_be_believed_is_estimated_and_marked(gateway, providers, usage):
    providers[0].default = chat_answer("a" * 400, usage=usage)
    answer = ask(gateway, "m29")
    assert answer.status_code == 200
    record = gateway.wait_for_record(answer.headers["x-request-id"])
    assert record["usage"]["kind"] == "estimated"
    assert record["usage"]["output_tokens"] == 100


def test_a_client_that_hangs_up_stops_the_provider_within_two_seconds(gateway, providers, model):
    provider = providers[0]
    provider.default = stream_answer(words=200, pause_s=0.05)
    hangups = provider.hangups
    body = json.dumps(
        {"model": model, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    ).encode()
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            + f"authorization: {AUTHORIZATION['authorization']}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        received = b""
        while b"w5" not in received:
            received += client.recv(65536)
    request_id = received.split(b"x-request-id: ")[1].split(b"\r\n")[0].decode()
    deadline = time.monotonic() + 2
    while provider.hangups == hangups and time.monotonic() < deadline:
        time.sleep(0.02)
    assert provider.hangups == hangups + 1
    record = gateway.wait_for_record(request_id)
    assert (record["status"], record["usage"]["kind"]) == ("cancelled", "estimated")
    assert record["cost_nanousd"] > 0


def test_unknown_fields_pass_untouched_and_ours_do_not(gateway, providers, model):
    answer = ask(
        gateway,
        model,
        future_field={"a": [1, 2.50, None]},
        seed=7,
        provider={"order": ["second"]},
        models=["m28"],
    )
    assert answer.headers["x-pointsman-provider"] == "second"
    sent = providers[1].requests[-1]
    assert sent["future_field"] == {"a": [1, 2.5, None]}
    assert "provider" not in sent
    assert "models" not in sent
    assert "pm-" not in json.dumps(providers[1].headers[-1])
    assert providers[1].headers[-1]["authorization"] == "Bearer upstream-credential-123456"
