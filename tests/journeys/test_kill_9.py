"""`kill -9` of gateways and ingester under load: nothing lost, nothing counted twice. Twenty times.

All processes of an installation, PostgreSQL and the supervisor included: test_kill_any_process.py.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from tests.fake_provider import FakeProvider, fake_provider
from tests.load_under_kills import Load, check_nothing_is_lost_or_doubled
from tests.running_gateway import RunningGateway, running_gateway, simple_config

pytestmark = pytest.mark.slow

KILLS = 20
WORKERS = 2
ANSWERS = 200


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with fake_provider() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(provider: FakeProvider) -> Iterator[RunningGateway]:
    with running_gateway(simple_config(provider.url, ["m"]), workers=WORKERS) as running:
        yield running


async def kill_now_and_then(gateway: RunningGateway, load: Load) -> None:
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
    # A machine that does other things too answers few between two kills.
    async with asyncio.timeout(120):
        while len(load.answered) <= ANSWERS:
            await asyncio.sleep(0.1)
    await asyncio.sleep(0.5)
    load.is_stopping = True


def test_twenty_kills_lose_and_double_nothing(gateway: RunningGateway, provider: FakeProvider) -> None:
    load = Load(gateway.url)

    async def run() -> None:
        await asyncio.gather(load.run(client_count=6), kill_now_and_then(gateway, load))

    asyncio.run(run())
    assert len(load.answered) > ANSWERS
    check_nothing_is_lost_or_doubled(load, provider, gateway.query, within_s=40)
    gateway.manage("verify_usage")
