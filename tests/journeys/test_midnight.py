"""A tenant's midnight passes under load: does each request count in the day in which it began, within its limit?"""

from __future__ import annotations

import asyncio
import struct
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from billing.money import usd_text
from tests.fake_provider import chat_answer, fake_provider
from tests.running_gateway import AUTHORIZATION, RunningGateway, running_gateway, simple_config

pytestmark = pytest.mark.slow

AFFORDABLE = 20
# The provider says 10 tokens in and 1,000 out; a token out costs 2,000 nano-USD, one in 1,000.
COST_NANOUSD = 10 * 1_000 + 1_000 * 2_000
# Besides what each costs, its input is held by its bytes: half a request more lets twenty be held at once.
LIMIT_NANOUSD = AFFORDABLE * COST_NANOUSD + COST_NANOUSD // 2
ACROSS = 4
# PostgreSQL knows this name too (another time of it, which only reports would show).
ZONE = "Antarctica/Troll"
MIDNIGHT_IN_S = 18
ANSWER = chat_answer(usage={"prompt_tokens": 10, "completion_tokens": 1_000, "total_tokens": 1_010})
BODY = {"model": "m", "max_tokens": 1_000, "messages": [{"role": "user", "content": "hi"}]}
SETTLED_WITHIN_S = 30


def write_zone(folder: Path, midnight_unix_s: int) -> None:
    """A time zone (RFC 8536, version 1) of one offset, in which a day begins at that second."""
    offset_s = -midnight_unix_s % 86_400
    offset_s -= 86_400 if offset_s > 43_200 else 0
    path = folder / ZONE
    path.parent.mkdir(parents=True)
    counts = struct.pack(">6l", 0, 0, 0, 0, 1, 4)
    path.write_bytes(b"TZif" + bytes(16) + counts + struct.pack(">lBB", offset_s, 0, 0) + b"PMT\0")


async def send(client: httpx.AsyncClient, url: str, statuses: Counter[int]) -> httpx.Response:
    answer = await client.post(f"{url}/chat/completions", json=BODY)
    statuses[answer.status_code] += 1
    return answer


async def keep_sending(
    client: httpx.AsyncClient, url: str, statuses: Counter[int], *, until_unix_s: float
) -> None:
    """Three at a time until then."""

    async def one_after_another() -> None:
        while time.time() < until_unix_s:
            await send(client, url, statuses)
            await asyncio.sleep(0.02)

    await asyncio.gather(*(one_after_another() for _ in range(3)))


def windows_of(gateway: RunningGateway) -> list[tuple[int, int, int, int]]:
    """Begin, spent, uncertain and leased of each window, the first one first."""
    return gateway.query(  # type: ignore[return-value]
        "SELECT extract(epoch FROM starts_at)::bigint, spent_nanousd, uncertain_nanousd, leased_nanousd"
        " FROM billing_budgetwindow ORDER BY starts_at"
    )


def test_a_day_ends_under_load_and_each_request_counts_in_the_day_in_which_it_began(tmp_path: Path) -> None:
    zones = f"{tmp_path}:/usr/share/zoneinfo"
    with fake_provider() as provider:
        config = simple_config(provider.url, ["m"])
        tenants, config["tenants"] = config["tenants"], []
        with running_gateway(config, workers=2, PYTHONTZPATH=zones) as gateway:
            midnight = int(time.time()) + MIDNIGHT_IN_S
            write_zone(tmp_path, midnight)
            tenants[0]["time_zone"] = ZONE
            tenants[0]["budgets"] = [{"window": "day", "limit_usd": usd_text(LIMIT_NANOUSD)}]
            gateway.apply({**config, "tenants": tenants})
            time.sleep(2)  # within which the workers know of it
            before: Counter[int] = Counter()
            through: Counter[int] = Counter()
            after: Counter[int] = Counter()
            across: Counter[int] = Counter()

            async def load() -> dict[str, Any]:
                async with httpx.AsyncClient(timeout=60, headers=AUTHORIZATION) as client:
                    provider.default = [midnight + 1.5 - time.time(), *ANSWER]
                    held = [asyncio.create_task(send(client, gateway.url, across)) for _ in range(ACROSS)]
                    while len(provider.requests) < ACROSS:
                        await asyncio.sleep(0.01)
                    provider.default = [0.05, *ANSWER]
                    await keep_sending(client, gateway.url, before, until_unix_s=midnight - 5)
                    refused = await send(client, gateway.url, before)
                    assert time.time() < midnight, "the machine is too slow for this midnight"
                    await keep_sending(client, gateway.url, through, until_unix_s=midnight + 1)
                    await asyncio.gather(*held)
                    await keep_sending(client, gateway.url, after, until_unix_s=midnight + 5)
                    await send(client, gateway.url, after)
                    error: dict[str, Any] = refused.json()["error"]
                    return error

            refused = asyncio.run(load())
            print(
                f"before {dict(before)}, through {dict(through)}, across {dict(across)}, after {dict(after)}"
            )
            assert refused["code"] == "budget_exceeded"
            assert across == {200: ACROSS}
            # Most of each day's budget is spent, in it, and the rest of the load is refused.
            assert AFFORDABLE - ACROSS - 4 <= before[200] <= AFFORDABLE - ACROSS and before[402]
            assert set(through) <= {200, 402} and through
            assert set(after) <= {200, 402} and after[402]
            served = before[200] + through[200] + across[200] + after[200]
            assert len(provider.requests) == served

            deadline_s = time.monotonic() + SETTLED_WITHIN_S
            while (windows := windows_of(gateway)) and (
                sum(window[1] for window in windows) < served * COST_NANOUSD
                or any(window[3] for window in windows)
            ):
                assert time.monotonic() < deadline_s, f"{windows} with {served} served\n{gateway.logs()}"
                time.sleep(0.2)
            by_day = gateway.query(
                "SELECT started_at >= to_timestamp(%s), sum(cost_nanousd)::bigint, count(*) FILTER (WHERE"
                " started_at + duration_ms * interval '1 ms' >= to_timestamp(%s)) FROM billing_requestrecord"
                " WHERE status = 'ok' GROUP BY 1 ORDER BY 1",
                (midnight, midnight),
            )
            first, second = windows
            assert (first[0], second[0]) == (midnight - 86_400, midnight)
            assert [first[1], second[1]] == [day[1] for day in by_day]
            assert by_day[0][2] >= ACROSS  # they ended the day after
            assert max(first[1], second[1]) <= LIMIT_NANOUSD
            assert second[1] >= (AFFORDABLE - 3) * COST_NANOUSD
            assert [first[2:], second[2:]] == [(0, 0), (0, 0)]
            gateway.manage("verify_usage")
