"""Bad input gets a clear OpenAI-shaped answer and a record, and poisons nothing."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fake_provider import FakeProvider, chat_answer, fake_provider
from tests.running_gateway import AUTHORIZATION, KEY, RunningGateway, running_gateway, simple_config

pytestmark = pytest.mark.slow

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with fake_provider() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(provider: FakeProvider) -> Iterator[RunningGateway]:
    with running_gateway(simple_config(provider.url, ["m"])) as running:
        yield running


def post(
    gateway: RunningGateway, content: bytes, *, path: str = "/chat/completions", **headers: str
) -> httpx.Response:
    sent = {**JSON, **AUTHORIZATION, **headers}
    return httpx.post(gateway.url + path, content=content, headers=sent, timeout=30)


def check_error(answer: httpx.Response, status: int, code: str | None) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    assert answer.status_code == status, answer.text
    assert set(error) >= {"message", "type", "param", "code"}
    assert error["code"] == code
    assert error["message"]
    assert answer.headers["x-request-id"]
    assert answer.headers["content-type"] == "application/json"
    return error


MESSAGES = '"messages":[{"role":"user","content":"hi"}]'
DEEP = '{"model":"m","messages":[{"role":"user","content":"hi"}],"x":' + "[" * 100 + "]" * 100 + "}"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("", 400, "invalid_json"),
        ("{", 400, "invalid_json"),
        ("[]", 400, "invalid_json"),
        ('"text"', 400, "invalid_json"),
        ('{"model":"m","temperature":NaN,' + MESSAGES + "}", 400, "invalid_json"),
        ('{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}', 400, "invalid_json"),
        ("{" + MESSAGES + "}", 400, "missing_required_parameter"),
        ('{"model":7,' + MESSAGES + "}", 400, "missing_required_parameter"),
        ('{"model":"m"}', 400, "missing_required_parameter"),
        ('{"model":"m","messages":"hi"}', 400, "invalid_type"),
        ('{"model":"m","messages":[]}', 400, "invalid_type"),
        ('{"model":"m","messages":["hi"]}', 400, "invalid_type"),
        ('{"model":"m","stream":"yes",' + MESSAGES + "}", 400, "invalid_type"),
        ('{"model":"m","max_tokens":"many",' + MESSAGES + "}", 400, "invalid_type"),
        ('{"model":"m","max_tokens":-1,' + MESSAGES + "}", 400, "invalid_value"),
        ('{"model":"m","n":1000,' + MESSAGES + "}", 400, "invalid_value"),
        ('{"model":"m","provider":"openai",' + MESSAGES + "}", 400, "invalid_type"),
        ('{"model":"m","models":"x",' + MESSAGES + "}", 400, "invalid_type"),
        ('{"model":"nobody\\u0000knows",' + MESSAGES + "}", 404, "model_not_found"),
        ('{"model":"unknown/model",' + MESSAGES + "}", 404, "model_not_found"),
        (DEEP, 400, "json_too_deep"),
    ],
)
def test_a_body_that_makes_no_sense_is_refused_and_recorded(gateway, provider, body, status, code):
    before = len(provider.requests)
    answer = post(gateway, body.encode())
    check_error(answer, status, code)
    assert len(provider.requests) == before
    record = gateway.wait_for_record(answer.headers["x-request-id"])
    assert (record["status"], record["http_status"], record["error_code"]) == ("refused", status, code)
    assert record["cost_nanousd"] == 0


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Basic abc"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer nope"},
        {"x-api-key": "nope"},
        {"authorization": "Bearer " + "x" * 5000},
    ],
)
def test_a_wrong_or_missing_key_gets_one_and_the_same_401(gateway, headers):
    answer = httpx.post(f"{gateway.url}/chat/completions", content=b"{}", headers={**JSON, **headers})
    error = check_error(answer, 401, "invalid_api_key")
    assert "nope" not in answer.text
    assert error["message"].startswith("Incorrect API key provided.")


def test_the_key_may_come_in_any_of_three_headers(gateway):
    for headers in ({"authorization": f"bearer {KEY}"}, {"x-api-key": KEY}, {"api-key": KEY}):
        answer = httpx.post(
            f"{gateway.url}/chat/completions",
            json={"model": "m", "messages": [{"role": "user", "content": "hi"}]},
            headers=headers,
        )
        assert answer.status_code == 200, headers


def test_a_body_over_the_limit_is_refused_before_anything_else(gateway):
    answer = post(gateway, b'{"x":"' + b"x" * (33 * 1024 * 1024) + b'"}', authorization="Bearer nobody")
    check_error(answer, 413, "request_too_large")


def test_what_is_not_json_is_told_so(gateway):
    answer = post(gateway, b"a=1", **{"content-type": "application/x-www-form-urlencoded"})
    check_error(answer, 415, "unsupported_content_type")


def test_nul_emoji_and_every_script_pass_byte_for_byte(gateway, provider):
    text = "NUL \x00, emoji 🚂, accents é, 日本語, عربى"
    provider.default = chat_answer(text)
    body = json.dumps(
        {"model": "m", "messages": [{"role": "user", "content": text}]}, ensure_ascii=False
    ).encode()
    answer = post(gateway, body)
    assert answer.json()["choices"][0]["message"]["content"] == text
    assert provider.requests[-1]["messages"][0]["content"] == text
    record = gateway.wait_for_record(answer.headers["x-request-id"])
    assert text not in json.dumps(record)


def test_nul_in_what_is_recorded_does_not_stop_the_books(gateway, provider):
    provider.default = chat_answer("x", model="served\x00model")
    body = {
        "model": "m",
        "metadata": {"te\x00am": "blue\x00"},
        "messages": [{"role": "user", "content": "hi"}],
    }
    answer = post(gateway, json.dumps(body).encode())
    assert answer.status_code == 200
    record = gateway.wait_for_record(answer.headers["x-request-id"])
    assert record["served_model"] == "servedmodel"


@pytest.mark.parametrize(
    "path", ["/responses", "/images/generations", "/audio/speech", "/files", "/moderations"]
)
def test_what_is_not_offered_says_so_in_json(gateway, path):
    answer = post(gateway, b"{}", path=path)
    check_error(answer, 501, "not_offered")
    assert answer.headers["x-should-retry"] == "false"


def test_a_compressed_body_is_refused_by_name(gateway):
    answer = post(gateway, gzip.compress(b"{}"), **{"content-encoding": "gzip"})
    check_error(answer, 415, "unsupported_content_encoding")


@pytest.mark.parametrize(
    ("path", "instead"),
    [
        ("/openai/deployments/m/chat/completions?api-version=1", "AzureOpenAI"),
        ("/api/v1/chat/completions", "management API"),
        ("/v1", "/v1/chat/completions"),
    ],
)
def test_clients_made_for_other_addresses_are_told_the_right_one(gateway, path, instead):
    answer = httpx.post(f"http://127.0.0.1:{gateway.port}{path}", json={}, headers=AUTHORIZATION)
    check_error(answer, 404, "unknown_url")
    assert instead in answer.json()["error"]["message"]


def test_two_slashes_before_v1_are_one(gateway, provider):
    provider.default = chat_answer("x")
    url = f"http://127.0.0.1:{gateway.port}//v1/chat/completions"
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    answer = httpx.post(url, json=body, headers=AUTHORIZATION)
    assert answer.status_code == 200


def test_a_nearly_right_model_is_answered_with_the_right_name(gateway):
    for name in ("M", "openai/m"):
        answer = post(gateway, f'{{"model":"{name}",{MESSAGES}}}'.encode())
        error = check_error(answer, 404, "model_not_found")
        assert "Did you mean 'm'? GET /v1/models lists" in error["message"]


def test_other_paths_and_methods_answer_json(gateway):
    check_error(post(gateway, b"{}", path="/nonsense"), 404, "unknown_url")
    answer = httpx.get(f"{gateway.url}/chat/completions", headers=AUTHORIZATION)
    check_error(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("OPTIONS", "/v1/chat/completions", 204),
        ("OPTIONS", "/v1/models", 204),
        ("HEAD", "/v1/models", 200),
        ("HEAD", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models/m", 405),
        ("GET", "/v1/key", 200),
        ("GET", "/v1/requests/nonsense", 404),
        ("GET", "/v1/generation", 404),
        ("GET", "/healthz", 200),
        ("HEAD", "/readyz", 200),
        ("GET", "/v1", 404),
        ("POST", "/v1/fine_tuning/jobs", 501),
    ],
)
def test_every_answer_carries_a_request_id(gateway, method, path, status):
    url = f"http://127.0.0.1:{gateway.port}{path}"
    answer = httpx.request(method, url, headers=AUTHORIZATION)
    assert answer.status_code == status
    assert len(answer.headers["x-request-id"]) == 36
    if method == "OPTIONS":
        assert answer.headers["allow"].endswith("OPTIONS")
        assert "content-length" not in answer.headers
    elif method == "HEAD":
        assert answer.content == b""
    else:
        assert answer.headers["content-type"] == "application/json"


def test_openrouters_clients_find_their_generation_and_key(gateway, provider):
    provider.default = None
    answer = post(gateway, b'{"model":"m",' + MESSAGES.encode() + b"}")
    record = gateway.wait_for_record(answer.headers["x-request-id"])
    found = httpx.get(f"{gateway.url}/generation", params={"id": record["id"]}, headers=AUTHORIZATION)
    generation = found.json()["data"]
    assert generation["total_cost"] == record["cost_nanousd"] / 1e9 > 0
    assert (generation["tokens_prompt"], generation["tokens_completion"]) == (10, 5)
    body_id = answer.json()["id"]
    for path in (f"generation?id={body_id}", f"requests/{body_id}"):
        by_answer = httpx.get(f"{gateway.url}/{path}", headers=AUTHORIZATION).json()
        assert by_answer.get("data", by_answer)["id"] == record["id"]
    key = httpx.get(f"{gateway.url}/key", headers=AUTHORIZATION).json()["data"]
    assert (key["label"], key["limit"]) == ("dev", None)
    assert KEY not in found.text
    assert httpx.get(f"{gateway.url}/key").status_code == 401


def test_a_slash_at_the_end_is_no_redirect(gateway):
    answer = post(gateway, b'{"model":"m",' + MESSAGES.encode() + b"}", path="/chat/completions/")
    assert answer.status_code == 200


def test_health_needs_no_key_and_metrics_needs_its_own(gateway):
    root = f"http://127.0.0.1:{gateway.port}"
    assert httpx.get(f"{root}/healthz").status_code == 200
    assert httpx.get(f"{root}/readyz").json() == {"status": "ok"}
    assert httpx.get(f"{root}/metrics").status_code == 401
    token = json.loads((gateway.data_dir / "secrets.json").read_text())["metrics_token"]
    time.sleep(1.2)
    page = httpx.get(f"{root}/metrics", headers={"authorization": f"Bearer {token}"})
    assert "pointsman_requests_total{" in page.text
    assert "pointsman_request_duration_seconds_bucket" in page.text
    assert KEY not in page.text


def test_no_secret_is_in_logs_or_journal(gateway):
    for path in [*gateway.data_dir.glob("*.log"), *gateway.data_dir.glob("journal/*/*.jsonl")]:
        assert KEY not in path.read_text(), path
