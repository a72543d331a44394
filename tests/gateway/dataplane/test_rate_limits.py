"""What do a limited key and a limited deployment see? A whole data plane, and a made-up row of the database."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from gateway.dataplane import rate_limits
from gateway.dataplane.rate_limit_headers import duration
from gateway.dataplane.rate_limits import ShareBook
from gateway.dataplane.rate_windows import Amount, Answer, Limits, Report, Window, settle
from policies.snapshot import RateTerms
from tests.gateway.dataplane.in_process import Plane, chat, refusal, stream
from tests.make_routing import make_grant, make_policy

OTHER = "another worker"
ONE = Amount(requests=1)


class Limited:
    """A data plane whose key and deployments may have limits. The database answers at once, or not at all."""

    def __init__(
        self, *limits: RateTerms, rooms: dict[str, RateTerms] | None = None, names: tuple[str, ...] = ("a",)
    ) -> None:
        rooms = rooms or {}
        bare = Plane(*names)
        deployments = {
            name: replace(deployment, rate_limit=rooms.get(name))
            for name, deployment in bare.deployments.items()
        }
        policy = make_policy(
            deployments, {"strategy": "priority", "deployments": [{"name": name} for name in names]}
        )
        self.plane = Plane(*names, policies=(policy,))
        snapshot = self.plane.gateway.configuration.snapshot
        by_model = {deployment.model.name: (deployment,) for deployment in deployments.values()}
        self.plane.gateway.configuration.snapshot = replace(
            snapshot, deployments=deployments, deployments_by_model=by_model
        )
        grant = make_grant()
        self.plane.gateway.configuration.grant = replace(grant, rate_limits=limits)  # type: ignore[attr-defined]
        self.terms = {terms.id: terms for terms in (*limits, *rooms.values())}
        self.windows: dict[int, Window] = {}
        self.is_away = self.is_silent = False
        self.now_s = 50.0
        self.asked = 0
        self.book = ShareBook(worker="w", send=self._send, worker_count=2, now_s=lambda: self.now_s)
        self.plane.gateway.rate_limits = self.book
        self.plane.gateway.health.room_in_s = self.book.room_in_s
        for name in names:
            self.plane.upstream.answers[name] = [chat()]

    def settle(self, limit_id: int, report: Report) -> Answer:
        terms = self.terms[limit_id]
        window = self.windows.setdefault(limit_id, Window())
        return settle(window, report, Limits(*terms[2:]), now_s=1_000_000.0 + self.now_s)

    def _send(self, reports: dict[int, Report]) -> None:
        self.asked += 1
        if self.is_silent:
            return
        loop, sent_at_s = asyncio.get_running_loop(), self.now_s
        if self.is_away:
            loop.call_soon(self.book.receive_nothing, reports)
            return
        answers: dict[int, Answer | None] = {
            limit_id: self.settle(limit_id, report) for limit_id, report in reports.items()
        }
        loop.call_soon(self.book.receive, answers, sent_at_s)


async def test_a_request_beyond_the_limit_is_told_when_to_come_back() -> None:
    limited = Limited(RateTerms(1, "key acme/web/dev", 3))
    taken = [await limited.plane.ask("a", max_tokens=5) for _ in range(3)]
    assert [client.status for client in taken] == [200, 200, 200]
    assert [client.headers["x-ratelimit-remaining-requests"] for client in taken] == ["2", "1", "0"]
    assert taken[0].headers["x-ratelimit-limit-requests"] == "3"
    assert "x-ratelimit-limit-tokens" not in taken[0].headers
    limited.now_s += 20.5
    refused = await limited.plane.ask("a")
    assert refused.status == 429
    error = refused.error()
    assert (error["code"], error["type"], error["param"]) == ("rate_limit_exceeded", "requests", None)
    assert error["rate_limit"]["limit"] == "key acme/web/dev"
    assert "limit 3, requested 1. Please try again in 40.5s." in error["message"]
    assert (refused.headers["retry-after"], refused.headers["retry-after-ms"]) == ("41", "40500")
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    line = limited.plane.lines("outcome")[-1]
    assert (line["status"], line["http"], line["error"]) == ("refused", 429, "rate_limit_exceeded")
    assert limited.plane.lines("intent")[-1]["features"]["refused_by"] == "requests of key acme/web/dev"
    # Who is refused next is refused here: nobody asks the database until there is room.
    before = limited.asked
    assert [(await limited.plane.ask("a")).status for _ in range(20)] == [429] * 20
    assert limited.asked == before
    limited.now_s += 40.5
    assert (await limited.plane.ask("a")).status == 200
    assert len(limited.plane.calls()) == 4


async def test_the_narrowest_and_the_widest_limit_both_count() -> None:
    limited = Limited(RateTerms(1, "key acme/web/dev", 5), RateTerms(2, "tenant acme", 2))
    assert [(await limited.plane.ask("a")).status for _ in range(3)] == [200, 200, 429]
    limited.book.tick()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    # What the tenant's limit refused did not count for the key's.
    assert limited.windows[1].used()[0] == 2


async def test_tokens_are_held_by_estimate_and_corrected_by_usage() -> None:
    limited = Limited(RateTerms(1, "key acme/web/dev", None, 1_000))
    client = await limited.plane.ask("a", max_tokens=900)  # 15 are used
    assert client.status == 200
    assert (await limited.plane.ask("a", max_tokens=900)).status == 200
    limited.book.tick()
    for _ in range(3):
        await asyncio.sleep(0)
    assert limited.windows[1].used()[1] == 30
    too_large = await limited.plane.ask("a", max_tokens=2_000)
    assert (too_large.status, too_large.headers["x-should-retry"]) == (429, "false")
    assert "larger than the limit" in too_large.error()["message"]


async def test_a_stream_counts_as_running_until_its_last_byte() -> None:
    limited = Limited(RateTerms(1, "key acme/web/dev", None, None, 1))
    limited.plane.upstream.answers["a"] = [stream(b"data: {}\n\n", 0.05, b"data: [DONE]\n\n")]
    first = asyncio.create_task(limited.plane.ask("a", is_stream=True))
    await asyncio.sleep(0.02)
    second = await limited.plane.ask("a")
    assert (second.status, second.error()["type"], second.headers["retry-after"]) == (429, "concurrent", "1")
    await first
    limited.plane.upstream.answers["a"] = [chat()]
    assert (await limited.plane.ask("a")).status == 200


async def test_a_refusal_of_the_provider_counts_as_a_request_without_tokens() -> None:
    limited = Limited(RateTerms(1, "key acme/web/dev", 5, 1_000))
    limited.plane.upstream.answers["a"] = [refusal(400)]
    assert (await limited.plane.ask("a", max_tokens=900)).status == 400
    limited.book.tick()
    for _ in range(3):
        await asyncio.sleep(0)
    assert limited.windows[1].used() == (1, 0)


async def test_a_deployment_without_room_is_left_out_and_the_record_says_why() -> None:
    limited = Limited(rooms={"a": RateTerms(7, "deployment a", 2)}, names=("a", "b"))
    answers = [await limited.plane.ask("acme/auto") for _ in range(4)]
    assert [client.headers["x-pointsman-deployment"] for client in answers] == ["a", "a", "b", "b"]
    decision = limited.plane.lines("intent")[-1]["decision"]
    assert decision["dropped"] == [["a", "rate_room"]]
    full = limited.plane.gateway.configuration.snapshot.deployments["a"]
    assert limited.plane.gateway.health.problem(full) == "rate_room"  # which explaining asks too
    assert limited.plane.lines("intent")[1]["decision"].get("dropped") is None
    assert "x-ratelimit-limit-requests" not in answers[0].headers
    limited.now_s += 70
    assert (await limited.plane.ask("acme/auto")).headers["x-pointsman-deployment"] == "a"


async def test_a_fallback_that_is_full_is_passed_over() -> None:
    limited = Limited(rooms={"b": RateTerms(7, "deployment b", 1)}, names=("a", "b", "c"))
    assert (await limited.plane.ask("b")).status == 200
    limited.plane.upstream.answers["a"] = [refusal(500)]
    answer = await limited.plane.ask("acme/auto")
    assert (answer.status, limited.plane.calls()) == (200, ["b", "a", "c"])
    # And with nothing behind it, what the first one said is what the client hears.
    limited = Limited(rooms={"b": RateTerms(7, "deployment b", 1)}, names=("a", "b"))
    assert (await limited.plane.ask("b")).status == 200
    limited.plane.upstream.answers["a"] = [refusal(503)]
    assert (await limited.plane.ask("acme/auto")).status == 503


async def test_a_place_at_a_deployment_is_free_again_after_each_attempt() -> None:
    limited = Limited(rooms={"a": RateTerms(7, "deployment a", None, None, 1)}, names=("a", "b"))
    limited.plane.upstream.answers["a"] = [refusal(500), chat()]
    assert (await limited.plane.ask("acme/auto")).headers["x-pointsman-deployment"] == "b"
    assert limited.book.shares[7].running == 0
    assert (await limited.plane.ask("acme/auto")).headers["x-pointsman-deployment"] == "a"
    assert limited.book.shares[7].running == 0


async def test_with_no_room_anywhere_the_soonest_time_is_told() -> None:
    limited = Limited(rooms={"a": RateTerms(7, "deployment a", 1)})
    assert (await limited.plane.ask("a")).status == 200
    limited.now_s += 30
    refused = await limited.plane.ask("a")
    assert (refused.status, refused.headers["retry-after"]) == (429, "31")
    assert refused.error()["reasons"] == {"a": "rate_room"}
    assert refused.error()["code"] == "rate_limit_exceeded"


async def test_while_the_database_is_away_a_worker_keeps_to_its_part_of_the_limit() -> None:
    limited = Limited(RateTerms(1, "key acme/web/dev", 10))
    limited.is_away = True
    # Two workers: five each in any minute.
    assert [(await limited.plane.ask("a")).status for _ in range(7)] == [200] * 5 + [429] * 2
    limited.now_s += 62
    assert (await limited.plane.ask("a")).status == 200
    limited.is_away = False
    limited.now_s += 2
    assert (await limited.plane.ask("a")).status == 200
    limited.book.tick()
    for _ in range(3):
        await asyncio.sleep(0)
    # What was let in meanwhile is told when it is back.
    assert limited.windows[1].used()[0] == 2


async def test_a_database_that_never_answers_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    limited = Limited(RateTerms(1, "key acme/web/dev", 10))
    limited.is_silent = True
    monkeypatch.setattr(rate_limits, "ANSWER_WAIT_S", -1.4)  # and 1.5 of patience
    began_s = time.perf_counter()
    assert [(await limited.plane.ask("a")).status for _ in range(6)] == [200] * 5 + [429]
    assert 0.09 < time.perf_counter() - began_s < 0.9
    # Nor when it stays silent: the question that is on its way is still without an answer.
    limited.now_s += 30
    began_s = time.perf_counter()
    assert [(await limited.plane.ask("a")).status for _ in range(2)] == [429] * 2
    assert time.perf_counter() - began_s < 0.09


async def test_room_that_another_worker_holds_is_asked_back_for() -> None:
    limited = Limited(RateTerms(1, "key acme/web/dev", 2))
    limited.settle(1, Report(OTHER, needs=(ONE, ONE)))  # it has taken both
    first = asyncio.create_task(limited.plane.ask("a"))
    await asyncio.sleep(0.02)
    assert not first.done()
    answer = limited.settle(1, Report(OTHER, free=ONE))
    assert answer.is_wanted
    limited.settle(1, Report(OTHER))  # it gives back what it does not use
    assert (await first).status == 200


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.12, "120ms"),
        (1, "1s"),
        (7.656, "7.66s"),
        (60, "1m0s"),
        (360, "6m0s"),
        (3661.5, "1h1m1.5s"),
    ],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
