"""Real workers on one rate limit: is exactly what it allows let in, also after one of them was killed?"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.fake_provider import FakeProvider, chat_answer, fake_provider
from tests.running_gateway import AUTHORIZATION, KEY, RunningGateway, running_gateway, simple_config

pytestmark = pytest.mark.slow

LIMIT = 100
AT_ONCE = 6
BODY = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with fake_provider() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(provider: FakeProvider) -> Iterator[RunningGateway]:
    with running_gateway(limited(provider, requests_per_minute=LIMIT), workers=2) as running:
        yield running


def limited(provider: FakeProvider, **limits: int) -> dict[str, Any]:
    config = simple_config(provider.url, ["m"])
    config["tenants"][0]["projects"][0]["keys"][0]["limits"] = limits
    return config


async def send(url: str, count: int, *, in_flight: int) -> list[httpx.Response | None]:
    limit = asyncio.Semaphore(in_flight)
    # A connection each, so that all workers get some.
    limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=0)

    async def one(client: httpx.AsyncClient) -> httpx.Response | None:
        async with limit:
            try:
                return await client.post(f"{url}/chat/completions", json=BODY, headers=AUTHORIZATION)
            except httpx.TransportError:
                return None

    async with httpx.AsyncClient(timeout=60, limits=limits) as client:
        return await asyncio.gather(*(one(client) for _ in range(count)))


def test_three_hundred_requests_and_a_limit_of_one_hundred(
    gateway: RunningGateway, provider: FakeProvider
) -> None:
    provider.default = chat_answer()
    before, started_s = len(provider.requests), time.monotonic()
    answers = asyncio.run(send(gateway.url, 300, in_flight=60))
    assert time.monotonic() - started_s < 50, "too slow to say anything about a minute"
    statuses = Counter(answer.status_code if answer is not None else 0 for answer in answers)
    print(dict(statuses), f"{time.monotonic() - started_s:.1f} s")
    assert statuses == {200: LIMIT, 429: 200}
    assert len(provider.requests) - before == LIMIT
    refused = next(answer for answer in answers if answer is not None and answer.status_code == 429)
    error = refused.json()["error"]
    assert (error["code"], error["type"], error["param"]) == ("rate_limit_exceeded", "requests", None)
    assert error["rate_limit"]["value"] == LIMIT
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-ratelimit-limit-requests"] == str(LIMIT)
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    taken = next(answer for answer in answers if answer is not None and answer.status_code == 200)
    assert int(taken.headers["x-ratelimit-remaining-requests"]) < LIMIT
    # The unmodified SDK understands it, and would have tried again.
    with (
        openai.OpenAI(base_url=gateway.url, api_key=KEY, max_retries=0) as client,
        pytest.raises(openai.RateLimitError) as caught,
    ):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
    assert caught.value.code == "rate_limit_exceeded"
    deadline = time.monotonic() + 20
    wanted = (
        "SELECT count(*) FROM billing_requestrecord WHERE status = 'refused' AND error_code ="
        " 'rate_limit_exceeded' AND features ->> 'refused_by' = 'requests of key acme/web/dev'"
    )
    while gateway.query(wanted)[0][0] < 201 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert gateway.query(wanted)[0][0] == 201
    gateway.manage("verify_usage")


def test_a_changed_limit_is_in_force_within_two_seconds(
    gateway: RunningGateway, provider: FakeProvider
) -> None:
    provider.default = chat_answer()
    gateway.apply(limited(provider, requests_per_minute=LIMIT + 40))
    time.sleep(2)
    answers = asyncio.run(send(gateway.url, 60, in_flight=20))
    statuses = Counter(answer.status_code if answer is not None else 0 for answer in answers)
    # Of those hundred some may be older than a minute by now.
    assert statuses[200] >= 40, statuses


def test_a_killed_worker_gives_its_places_back(gateway: RunningGateway, provider: FakeProvider) -> None:
    gateway.apply(limited(provider, concurrent=AT_ONCE))
    time.sleep(2)
    provider.default = [2.0, *chat_answer()]

    async def load_and_kill() -> Counter[int]:
        load = asyncio.create_task(send(gateway.url, 40, in_flight=40))
        await asyncio.sleep(1)
        await asyncio.to_thread(gateway.kill, "serve-0")
        return Counter(answer.status_code if answer is not None else 0 for answer in await load)

    statuses = asyncio.run(load_and_kill())
    killed_at_s = time.monotonic()
    print(dict(statuses))
    assert 1 <= statuses[200] + statuses[0] <= AT_ONCE
    provider.default = [0.5, *chat_answer()]
    best = 0
    while best < AT_ONCE and time.monotonic() < killed_at_s + 60:
        answers = asyncio.run(send(gateway.url, 12, in_flight=12))
        best = max(best, sum(answer is not None and answer.status_code == 200 for answer in answers))
        assert best <= AT_ONCE
        time.sleep(0.5)
    print(f"all places are back {time.monotonic() - killed_at_s:.1f} s after the kill")
    assert best == AT_ONCE
