"""`kill -9` of any process under load: nothing lost, nothing counted twice. Twenty times.

A client sends requests all the time and notes every answer it got whole. Every such answer must be in the records
once; every request that reached the provider must be in the records; totals must agree afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import Iterator

import httpx
import pytest

from tests.fake_provider import FakeProvider, fake_provider
from tests.running_gateway import AUTHORIZATION, RunningGateway, running_gateway, simple_config

pytestmark = pytest.mark.slow

KILLS = 20
WORKERS = 2


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with fake_provider() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(provider: FakeProvider) -> Iterator[RunningGateway]:
    with running_gateway(simple_config(provider.url, ["m"]), workers=WORKERS) as running:
        yield running


async def send_all_the_time(url: str, stop: asyncio.Event, answered: set[str]) -> None:
    """Send plain and streamed requests until told to stop; note the ids of whole answers."""
    async with httpx.AsyncClient(timeout=10) as client:
        while not stop.is_set():
            is_stream = random.random() < 0.5
            body = {
                "model": "m",
                "stream": is_stream,
                "messages": [{"role": "user", "content": "hi"}],
                "user": str(uuid.uuid4()),
            }
            try:
                answer = await client.post(f"{url}/chat/completions", json=body, headers=AUTHORIZATION)
            except httpx.TransportError:
                await asyncio.sleep(0.02)
                continue
            if answer.status_code == 200 and (not is_stream or answer.text.endswith("data: [DONE]\n\n")):
                answered.add(answer.headers["x-request-id"])
            await asyncio.sleep(0.01)


async def kill_now_and_then(gateway: RunningGateway, stop: asyncio.Event) -> None:
    names = [f"serve-{index}" for index in range(WORKERS)] + ["ingest"]
    dice = random.Random(7)
    for number in range(KILLS):
        await asyncio.sleep(dice.uniform(0.15, 0.5))
        name = names[number % len(names)]
        gateway.kill(name)
        gateway.start(name)
        if name != "ingest":
            # The other worker carries on; the next kill waits until this one is back.
            await asyncio.sleep(1.2)
    await asyncio.to_thread(gateway.wait_ready)
    await asyncio.sleep(0.5)
    stop.set()


def test_twenty_kills_lose_and_double_nothing(gateway: RunningGateway, provider: FakeProvider) -> None:
    answered: set[str] = set()

    async def run() -> None:
        stop = asyncio.Event()
        senders = [asyncio.create_task(send_all_the_time(gateway.url, stop, answered)) for _ in range(6)]
        await kill_now_and_then(gateway, stop)
        await asyncio.gather(*senders)

    asyncio.run(run())
    assert len(answered) > 200
    # Everything that reached the provider carries a marker of its own; each must have a record. Retries of the
    # gateway repeat a marker, so the records are at least as many as the markers and no answer is missing.
    markers = {request["user"] for request in provider.requests}
    deadline = time.monotonic() + 40
    ids: list[str] = []
    while time.monotonic() < deadline:
        ids = [str(row[0]) for row in gateway.query("SELECT id FROM billing_requestrecord")]
        open_count = gateway.query("SELECT count(*) FROM billing_openintent")[0][0]
        with contextlib.suppress(AssertionError):
            assert answered <= set(ids)
            assert len(ids) >= len(markers)
            assert open_count == 0
            break
        time.sleep(0.3)
    assert answered <= set(ids), f"{len(answered - set(ids))} answered requests have no record"
    assert len(ids) == len(set(ids))
    assert len(ids) >= len(markers)
    statuses = dict(gateway.query("SELECT status, count(*) FROM billing_requestrecord GROUP BY status"))
    assert statuses["ok"] >= len(answered)
    rolled_up = gateway.query("SELECT sum(request_count), sum(cost_nanousd) FROM billing_usagebyday")[0]
    recorded = gateway.query("SELECT count(*), sum(cost_nanousd) FROM billing_requestrecord")[0]
    assert tuple(map(int, rolled_up)) == tuple(map(int, recorded))
    gateway.manage("verify_usage")
