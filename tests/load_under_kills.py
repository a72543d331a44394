"""What does a client notice while processes are killed, and do the records agree with it afterwards?

Every request carries a marker of its own (in `metadata`, so it is in the record, and in the body the provider gets).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.fake_provider import FakeProvider, stream_answer
from tests.running_gateway import AUTHORIZATION

SLOW_WORD = "slowly"
# A stream that takes long enough to be cut by most kills of its gateway.
SLOW_ANSWER = stream_answer(words=8, pause_s=0.05)

Query = Callable[[str], list[tuple[Any, ...]]]


@dataclass
class Load:
    """Clients that send plain and streamed requests all the time, and what they have seen."""

    url: str
    sent: set[str] = field(default_factory=set)
    answered: dict[str, str] = field(default_factory=dict)  # marker by request id, whole answers only
    statuses: Counter[int] = field(default_factory=Counter)
    broken_count: int = 0
    is_stopping: bool = False

    async def run(self, *, client_count: int, slow_count: int = 0) -> None:
        """Send until `is_stopping`: `client_count` clients in a row of short requests, `slow_count` of slow streams."""
        senders = [self._send_all_the_time(is_slow=False) for _ in range(client_count)]
        senders += [self._send_all_the_time(is_slow=True) for _ in range(slow_count)]
        await asyncio.gather(*senders)

    async def _send_all_the_time(self, *, is_slow: bool) -> None:
        is_stream = is_slow
        async with httpx.AsyncClient(timeout=10) as client:
            while not self.is_stopping:
                is_stream = is_slow or not is_stream
                marker = str(uuid.uuid4())
                self.sent.add(marker)
                try:
                    answer = await client.post(
                        f"{self.url}/chat/completions",
                        json=build_body(marker, is_stream=is_stream, is_slow=is_slow),
                        headers=AUTHORIZATION,
                    )
                except httpx.TransportError:
                    self.broken_count += 1
                    await asyncio.sleep(0.02)
                    continue
                self.statuses[answer.status_code] += 1
                if answer.status_code == 200 and (not is_stream or answer.text.endswith("data: [DONE]\n\n")):
                    self.answered[answer.headers["x-request-id"]] = marker
                await asyncio.sleep(0.01)


def build_body(marker: str, *, is_stream: bool, is_slow: bool) -> dict[str, Any]:
    """A chat request that can be told from every other."""
    return {
        "model": "m",
        "stream": is_stream,
        "messages": [{"role": "user", "content": SLOW_WORD if is_slow else "hi"}],
        "metadata": {"marker": marker},
    }


def markers_at(provider: FakeProvider) -> set[str]:
    """The markers of all requests that have reached the provider."""
    return {request["metadata"]["marker"] for request in list(provider.requests)}


def check_nothing_is_lost_or_doubled(
    load: Load, provider: FakeProvider, query: Query, *, within_s: float
) -> dict[str, int]:
    """Wait until everything is ingested, compare records with clients and provider; return records by status."""
    deadline = time.monotonic() + within_s
    reached = markers_at(provider)
    while True:
        open_count = query("SELECT count(*) FROM billing_openintent")[0][0]
        rows = query("SELECT id::text, tags->>'marker' FROM billing_requestrecord")
        recorded = dict(rows)
        is_complete = open_count == 0 and load.answered.items() <= recorded.items()
        if (is_complete and reached <= set(recorded.values())) or time.monotonic() > deadline:
            break
        time.sleep(0.3)
    missing = load.answered.items() - recorded.items()
    assert not missing, f"{len(missing)} answered requests have no record"
    unrecorded = reached - set(recorded.values())
    assert not unrecorded, f"{len(unrecorded)} requests reached the provider and have no record"
    assert open_count == 0, f"{open_count} intents are still open"
    doubled = [marker for marker, count in Counter(marker for _, marker in rows).items() if count > 1]
    assert len(rows) == len(recorded)
    assert not doubled, f"{len(doubled)} requests have several records"
    assert set(recorded.values()) <= load.sent
    statuses = dict(query("SELECT status, count(*) FROM billing_requestrecord GROUP BY status"))
    assert statuses["ok"] >= len(load.answered)
    recorded_sums = query("SELECT count(*), sum(cost_nanousd)::bigint FROM billing_requestrecord")[0]
    for table in ("billing_usagebyday", "billing_usagebykeyday", "billing_usagebyhour"):
        sums = query(f"SELECT sum(request_count)::bigint, sum(cost_nanousd)::bigint FROM {table}")[0]
        assert sums == recorded_sums, table
    return statuses
