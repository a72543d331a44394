"""Every recorded chat, completions and embeddings exchange of an OpenAI-format provider, pushed through the gateway.

The replay provider serves the record named in the body. The client must get the provider's bytes; the record must
hold the provider's usage.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from gateway.wire.openai_usage import read_usage
from tests.recorded_traffic import OPENAI_ENDPOINTS, SHARED, load_openai_records, needs_recorded_traffic
from tests.running_gateway import AUTHORIZATION, RunningGateway, free_port, running_gateway, simple_config

pytestmark = [needs_recorded_traffic, pytest.mark.slow]

PATHS = {"chat": "/chat/completions", "completions": "/completions", "embeddings": "/embeddings"}
# An error object under status 200: the client gets a real status.
ERRORS_UNDER_200 = {"azure.chat-completions.4a4f501a"}


@dataclass
class Pushed:
    record: dict[str, Any]
    wants_usage: bool
    status: int
    body: bytes
    headers: httpx.Headers


def build_body(record: dict[str, Any], model: str) -> dict[str, Any]:
    """The recorded request (or a small one where it is not kept), asking the replay provider for this record."""
    recorded = record["request"].get("body")
    body = json.loads(recorded) if recorded else {}
    endpoint = OPENAI_ENDPOINTS[record["endpoint"]]
    if endpoint == "chat" and not body.get("messages"):
        body["messages"] = [{"role": "user", "content": "hello"}]
    if endpoint == "completions":
        body.setdefault("prompt", "hello")
    if endpoint == "embeddings":
        body.setdefault("input", "hello")
    if endpoint != "embeddings":
        body["stream"] = "stream" in record["features"] and record["status"] < 400
    for name in ("models", "provider"):  # OpenRouter's own fallbacks and providers: here they would mean ours
        body.pop(name, None)
    return {**body, "model": model, "user": f"[[replay:{record['id']}]]"}


@pytest.fixture(scope="module")
def replay_url() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(SHARED / "tools" / "replay_upstream.py"), "--port", str(port)],
        stdout=subprocess.DEVNULL,
    )
    for _ in range(200):
        try:
            httpx.get(f"http://127.0.0.1:{port}/health", timeout=1)
            break
        except httpx.TransportError:
            time.sleep(0.1)
    yield f"http://127.0.0.1:{port}/v1"
    process.terminate()
    process.wait()


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    return load_openai_records()


@pytest.fixture(scope="module")
def gateway(
    django_db_setup: None, replay_url: str, records: list[dict[str, Any]]
) -> Iterator[RunningGateway]:
    # A refused credential stays out and a 429 cools: each such record has a deployment of its own.
    own = [f"own-{record['id']}" for record in records if record["status"] in (401, 403, 429)]
    with running_gateway(simple_config(replay_url, ["recorded", *own])) as running:
        yield running


@pytest.fixture(scope="module")
def pushed(gateway: RunningGateway, records: list[dict[str, Any]]) -> list[Pushed]:
    async def push(client: httpx.AsyncClient, record: dict[str, Any]) -> Pushed:
        model = f"own-{record['id']}" if record["status"] in (401, 403, 429) else "recorded"
        body = build_body(record, model)
        url = gateway.url + PATHS[OPENAI_ENDPOINTS[record["endpoint"]]]
        answer = await client.post(url, json=body, headers=AUTHORIZATION)
        wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        return Pushed(record, wants_usage, answer.status_code, answer.content, answer.headers)

    async def push_all() -> list[Pushed]:
        done: list[Pushed] = []
        async with httpx.AsyncClient(timeout=60) as client:
            for start in range(0, len(records), 8):
                done += await asyncio.gather(*(push(client, record) for record in records[start : start + 8]))
        return done

    return asyncio.run(push_all())


def events(data: bytes) -> list[Any]:
    found = []
    for block in data.replace(b"\r\n", b"\n").split(b"\n\n"):
        text = b"\n".join(line[5:].lstrip() for line in block.split(b"\n") if line.startswith(b"data:"))
        if text:
            found.append(text.decode() if text.startswith(b"[DONE]") else json.loads(text))
    return found


def test_every_answer_reaches_the_client_byte_for_byte(pushed: list[Pushed]) -> None:
    plain = [p for p in pushed if p.record["status"] == 200 and "stream" not in p.record["features"]]
    assert len(plain) > 450
    for p in plain:
        if p.record["id"] in ERRORS_UNDER_200:
            continue
        assert p.status == 200, (p.record["id"], p.body)
        assert p.body == p.record["response"]["body"].encode(), p.record["id"]
        assert p.headers["x-request-id"] == p.headers["x-pointsman-request-id"]


def test_every_stream_reaches_the_client_event_for_event(pushed: list[Pushed]) -> None:
    streams = [p for p in pushed if p.record["status"] == 200 and "stream" in p.record["features"]]
    assert len(streams) > 120
    for p in streams:
        sent = events(p.record["response"]["body"].encode())
        is_error = any(isinstance(event, dict) and event.get("error") for event in sent)
        expected, got = list(sent), events(p.body)
        if not p.wants_usage:
            expected = [
                e for e in expected if not (isinstance(e, dict) and e.get("usage") and not e.get("choices"))
            ]
        if is_error:
            assert p.status >= 400 or any(isinstance(event, dict) and event.get("error") for event in got), (
                p.record["id"]
            )
            continue
        assert p.status == 200, (p.record["id"], p.body)
        for event in got:
            if isinstance(event, dict) and isinstance(event.get("usage"), dict) and event not in expected:
                assert event["usage"].pop("cost") >= 0, p.record["id"]
        assert got == expected, p.record["id"]
        if not p.wants_usage and len(expected) == len(sent):
            assert p.body.rstrip() == p.record["response"]["body"].encode().rstrip(), p.record["id"]


def test_every_refusal_keeps_its_status_in_the_openai_form(pushed: list[Pushed]) -> None:
    refused = [p for p in pushed if p.record["status"] >= 400 or p.record["id"] in ERRORS_UNDER_200]
    assert len(refused) > 20
    for p in refused:
        error = json.loads(p.body)["error"]
        assert set(error) >= {"message", "type", "param", "code"}, p.record["id"]
        assert all(error[key] is None or isinstance(error[key], str) for key in ("param", "code")), p.record[
            "id"
        ]
        if p.record["status"] in (401, 403):
            # Our credential was refused, not the client's key: a 401 would send the client looking in the wrong place.
            assert (p.status, error["code"]) == (502, "provider_credential_rejected"), p.record["id"]
        elif p.record["id"] in ERRORS_UNDER_200:
            assert p.status == 400
        else:
            assert p.status == p.record["status"], p.record["id"]


def test_every_recorded_usage_is_the_providers(gateway: RunningGateway, pushed: list[Pushed]) -> None:
    wanted = {p.headers["x-request-id"]: p for p in pushed}
    deadline = time.monotonic() + 30
    rows: dict[str, tuple[Any, ...]] = {}
    while len(rows) < len(wanted) and time.monotonic() < deadline:
        rows = {
            str(row[0]): row
            for row in gateway.query(
                "SELECT id, usage_kind, input_tokens, output_tokens, cache_read_tokens, reasoning_tokens, cost_nanousd,"
                " status, served_model FROM billing_requestrecord"
            )
        }
        time.sleep(0.2)
    assert set(rows) == set(wanted)
    compared = 0
    for request_id, p in wanted.items():
        _, kind, input_tokens, output_tokens, cached, reasoning, cost, status, served = rows[request_id]
        raw = p.record["expect"].get("usage_raw")
        if status != "ok":
            assert p.status >= 400 or "mid-stream-error" in p.record["features"], p.record["id"]
            continue
        assert served == (p.record["expect"].get("model") or served), p.record["id"]
        if not raw:
            assert kind == "estimated", p.record["id"]
            continue
        usage = read_usage(raw)
        if raw.get("total_tokens"):
            assert input_tokens + output_tokens == raw["total_tokens"], p.record["id"]
        assert (kind, input_tokens, output_tokens, cached, reasoning) == (
            "reported",
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_tokens,
            usage.reasoning_tokens,
        ), p.record["id"]
        uncached = max(0, input_tokens - cached - usage.cache_write_tokens)
        assert cost is not None and cost >= uncached * 1000, p.record["id"]
        compared += 1
    assert compared > 500


def test_the_books_agree_afterwards(gateway: RunningGateway, pushed: list[Pushed]) -> None:
    assert pushed
    gateway.manage("verify_usage")
