"""Is a second model asked only where a tenant opted in, within its budget, and without the client noticing?"""

from __future__ import annotations

import asyncio
import datetime as dt
from functools import partial
from typing import Any

import orjson
import pytest

from billing.journal_evidence import read_shadow
from gateway.dataplane.budgets import Lease, LeaseBook
from gateway.dataplane.shadowing import MAX_RUNNING, ShadowSampler
from policies.replaying import StoredRequest, recompute
from policies.snapshot import TenantSnapshot
from tests.gateway.dataplane.in_process import Answer, Plane, chat, refusal, stream
from tests.gateway.dataplane.test_auto_requests import auto_plane, empty
from tests.gateway.dataplane.test_budget_holds import TERMS
from tests.make_routing import make_grant


class Purse:
    """A day's budget in memory, and what was done with it."""

    def __init__(self, nanousd: int = 10**12) -> None:
        self.left_nanousd = nanousd
        self.settled: list[tuple[int, int]] = []

    async def reserve(self, tenant_id: int, day: dt.date, nanousd: int, /) -> bool:
        await asyncio.sleep(0)
        if nanousd > self.left_nanousd:
            return False
        self.left_nanousd -= nanousd
        return True

    async def settle(self, tenant_id: int, day: dt.date, reserved_nanousd: int, cost_nanousd: int, /) -> None:
        self.left_nanousd += reserved_nanousd - cost_nanousd
        self.settled.append((reserved_nanousd, cost_nanousd))


class Shadowed:
    """A plane with three models of which the weak one serves, and its sampler."""

    def __init__(self, *, percent: float = 100.0, nanousd: int = 10**12, **grant: Any) -> None:
        self.plane: Plane = auto_plane()
        tenant = TenantSnapshot(1, "acme", policy_ids=frozenset({"acme/auto"}), shadow_percent=percent)
        self.plane.gateway.configuration.grant = make_grant(tenant=tenant, **grant)  # type: ignore[attr-defined]
        self.plane.gateway.conversations = None
        self.purse = Purse(nanousd)
        self.sampler = ShadowSampler(self.plane.gateway, self.purse)
        self.plane.gateway.shadows = self.sampler

    def answer(self, **answers: Answer) -> None:
        for name, answer in answers.items():
            self.plane.upstream.answers[name] = [answer]

    async def ask(self, **fields: Any) -> Any:
        client = await self.plane.ask("acme/auto", **{"max_tokens": 50, **fields})
        await self.finish()
        return client

    async def finish(self) -> None:
        while self.sampler._tasks:
            await asyncio.gather(*self.sampler._tasks, return_exceptions=True)

    def outcomes(self) -> dict[str, int]:
        return dict(self.plane.gateway.stats.shadows)

    def verdicts(self) -> list[tuple[float, str]]:
        (line,) = self.plane.lines("shadow")
        return [(answer["quality"], answer["detail"]) for answer in line["answers"]]


async def test_a_sampled_request_is_asked_again_after_its_client_has_the_answer() -> None:
    setting = Shadowed()
    setting.answer(weak=chat("yes"), fair=chat("Yes."))
    client = await setting.ask()
    assert client.status == 200
    plane = setting.plane
    assert plane.calls() == ["weak", "fair"]
    assert plane.kinds() == ["intent", "call", "outcome", "sent", "intent", "call", "outcome", "shadow"]
    first, second = plane.lines("intent")
    assert second["features"]["shadow_of"] == first["id"] != second["id"]
    assert "shadow_of" not in first["features"]
    assert (second["model"], second["pinned"], second["policy"], second["rule"]) == ("fair", True, None, "")
    assert not {"workload", "task_type", "conversation"} & second["features"].keys()
    outcome = plane.lines("outcome")[1]
    assert (outcome["status"], outcome["cost"], outcome["deployment"]) == ("ok", 20_000, 2)
    (line,) = plane.lines("shadow")
    assert (line["id"], line["request"], line["cost"]) == (second["id"], first["id"], 20_000)
    assert line["workload"] == first["features"]["workload"]
    assert [answer["deployment"] for answer in line["answers"]] == [1, 2]
    assert setting.verdicts()[0] == setting.verdicts()[1]
    assert setting.verdicts()[0][1] == "same_answer"
    assert read_shadow(line).served.deployment_id == 1
    assert b"yes" not in orjson.dumps(plane.lines("shadow")).lower()
    assert setting.outcomes() == {"compared": 1}


async def test_the_shadow_is_none_of_the_clients_traffic() -> None:
    setting = Shadowed()
    setting.answer(weak=chat("yes"), fair=refusal(429, retry_after="20"))
    await setting.ask()
    gateway = setting.plane.gateway
    assert setting.plane.calls() == ["weak", "fair"]  # and not a second time
    assert gateway.stats.requests == {("chat", "ok"): 1}
    assert gateway.health.problem(setting.plane.deployments["fair"]) is None
    assert setting.plane.lines("outcome")[1]["status"] == "error"
    assert setting.purse.settled[0][1] == 0
    assert setting.outcomes() == {"failed": 1}


async def test_the_decision_of_a_shadow_comes_out_again_from_its_record() -> None:
    setting = Shadowed()
    setting.answer(weak=chat("yes"))
    await setting.ask(provider={"ignore": ["nobody"]})
    line = setting.plane.lines("intent")[1]
    stored = StoredRequest(
        requested_model=line["model"],
        endpoint=line["endpoint"],
        is_stream=line["stream"],
        is_pinned=line["pinned"],
        tenant="acme",
        project="web",
        key="dev",
        tags=line["tags"],
        features=line["features"],
        decision=line["decision"],
    )
    configuration = setting.plane.gateway.configuration
    again = recompute(stored, snapshot=configuration.snapshot, grant=configuration.grant)  # type: ignore[attr-defined]
    assert again == line["decision"]


@pytest.mark.parametrize(
    ("fair", "details"),
    [
        (chat("no"), ["other_answer", "other_answer"]),
        (empty(), ["sound", "empty"]),
        (chat("I would say that it depends on the day"), None),
    ],
)
async def test_what_two_answers_tell(fair: Answer, details: list[str] | None) -> None:
    setting = Shadowed()
    setting.answer(weak=chat("yes"), fair=fair)
    await setting.ask()
    if details is None:
        assert not setting.plane.lines("shadow")
        assert setting.outcomes() == {"not_comparable": 1}
        return
    (served, served_detail), (other, other_detail) = setting.verdicts()
    assert [served_detail, other_detail] == details
    assert other == 0 if "empty" in details else served < other  # the fair model is held to be the better one


async def test_an_answer_in_free_text_is_not_asked_for_again() -> None:
    setting = Shadowed()
    setting.answer(weak=chat("It depends on what is meant by that"))
    await setting.ask()
    assert setting.plane.calls() == ["weak"]
    assert setting.outcomes() == {"not_comparable": 1}


@pytest.mark.parametrize(
    "fields",
    [
        {"is_stream": True},
        {"n": 2},
        {"store": True},
        {"tools": [{"type": "web_search"}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://i"}}]}
            ]
        },
        {"messages": [{"role": "user", "content": "x" * 300_000}]},
        {"headers": {"x-pointsman-pin": "1"}, "model": "weak"},
        {"model": "model-weak"},
    ],
)
async def test_what_may_not_be_sent_twice_is_not(fields: dict[str, Any]) -> None:
    setting = Shadowed()
    model = fields.pop("model", "acme/auto")
    setting.answer(weak=stream() if fields.get("is_stream") else chat("yes"))
    client = await setting.plane.ask(model, **{"max_tokens": 50, **fields})
    await setting.finish()
    assert client.status == 200
    assert setting.plane.calls() == ["weak"]


async def test_nothing_is_sent_twice_for_a_tenant_that_did_not_opt_in_or_by_a_draw_above_its_share() -> None:
    for percent, draw in ((0.0, 0.0), (5.0, 0.05), (5.0, 0.9)):
        setting = Shadowed(percent=percent)
        setting.answer(weak=chat("yes"))
        setting.plane.gateway.draw = partial(float, draw)
        await setting.ask()
        assert setting.plane.calls() == ["weak"]


async def test_no_call_is_made_that_the_budget_cannot_bear_or_whose_cost_has_no_bound() -> None:
    setting = Shadowed(nanousd=1_000_000)
    setting.answer(weak=chat("yes"))
    await setting.ask()
    assert setting.outcomes() == {"no_budget": 1}
    await setting.plane.ask("acme/auto")  # without max_tokens, of models whose limit nobody knows
    await setting.finish()
    assert setting.outcomes() == {"no_budget": 1, "no_candidate": 1}
    assert setting.plane.calls() == ["weak", "weak"]


async def test_the_worst_case_is_set_aside_and_what_it_cost_is_kept() -> None:
    setting = Shadowed()
    setting.answer(weak=chat("yes"))
    await setting.ask()
    ((reserved, cost),) = setting.purse.settled
    assert cost == 20_000
    message = b'{"role":"user","content":"hi"}'
    body_bytes = len(b'{"model":"acme/auto","stream":false,"messages":[%s],"max_tokens":50}' % message)
    assert reserved == (body_bytes + 1000) * 1000 + 50 * 2000
    assert setting.purse.left_nanousd == 10**12 - cost


async def test_a_call_whose_cost_nobody_knows_keeps_all_that_was_set_aside() -> None:
    setting = Shadowed()
    setting.answer(weak=chat("yes"), fair=Answer(b"[]"))
    await setting.ask()
    assert setting.plane.lines("outcome")[1]["cost"] is None
    assert not setting.purse.settled
    assert setting.purse.left_nanousd < 10**12


async def test_a_busy_worker_drops_what_it_has_no_room_for() -> None:
    setting = Shadowed()
    setting.answer(weak=chat("yes"), fair=Answer(0.2, *chat("yes").pieces))
    for _ in range(MAX_RUNNING + 2):
        assert (await setting.plane.ask("acme/auto", max_tokens=50)).status == 200
    assert setting.outcomes() == {"busy": 2}
    await setting.sampler.close()
    setting.plane.gateway.is_draining = True
    await setting.ask()
    assert setting.outcomes()["busy"] == 3


async def test_stopping_ends_running_shadows_with_an_outcome_of_unknown_cost() -> None:
    setting = Shadowed()
    setting.answer(weak=chat("yes"), fair=Answer(30.0))
    await setting.plane.ask("acme/auto", max_tokens=50)
    while setting.plane.calls() != ["weak", "fair"]:
        await asyncio.sleep(0)
    await asyncio.wait_for(setting.sampler.close(), 5)
    outcome = setting.plane.lines("outcome")[1]
    assert (outcome["status"], outcome["error"], outcome["cost"]) == ("error", "gateway_stopping", None)
    assert outcome["attempts"][0]["usage"]["kind"] == "unknown"
    assert len(setting.plane.lines("intent")) == len(setting.plane.lines("outcome")) == 2
    assert setting.purse.left_nanousd < 10**12


async def test_a_full_journal_ends_it_before_anything_is_called() -> None:
    setting = Shadowed()
    setting.answer(weak=chat("yes"))
    await setting.plane.ask("acme/auto", max_tokens=50)
    setting.plane.is_journal_full = True
    await setting.finish()
    assert setting.plane.calls() == ["weak"]
    assert setting.purse.left_nanousd == 10**12
    assert setting.outcomes() == {"failed": 1}


class Used:
    """Leases of a hard budget of which so much is used."""

    def __init__(self, used_ratio: float, book: LeaseBook) -> None:
        self.ratio = used_ratio
        self.book = book

    def used_ratio(self, budgets: Any, /, *, at_unix_s: float) -> float:
        return self.ratio

    def __getattr__(self, name: str) -> Any:
        return getattr(self.book, name)


@pytest.mark.parametrize(("used_ratio", "calls"), [(0.4, ["weak", "fair"]), (0.6, ["weak"])])
async def test_a_shadow_holds_of_hard_budgets_too_and_leaves_the_second_half_to_callers(
    used_ratio: float, calls: list[str]
) -> None:
    setting = Shadowed(budgets=(TERMS,))
    plane = setting.plane
    book = LeaseBook(now_s=lambda: 0.0)
    span = book.span_of(TERMS, 0.0)
    lease = Lease("11111111-1111-4111-8111-111111111111", 1, span, 10**9, valid_until_s=1.0)
    book.leases[1, span.starts_unix_s] = lease
    plane.gateway.budgets = Used(used_ratio, book)  # type: ignore[assignment]
    setting.sampler = plane.gateway.shadows = ShadowSampler(plane.gateway, setting.purse)
    setting.answer(weak=chat("yes"), fair=chat("yes"))
    await setting.ask()
    assert plane.calls() == calls
    holds = [line["hold"] for line in plane.lines("intent")]
    assert len(holds) == len(calls) and all(holds)
    assert (lease.held_nanousd, lease.spent_nanousd) == (0, 20_000 * len(calls))
