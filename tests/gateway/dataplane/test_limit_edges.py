"""What of limits and budgets stays right at the edges? Clients that leave as an answer comes, limits that change."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import orjson
import pytest

from billing.budget_arithmetic import Lease, WindowNumbers
from gateway.dataplane.budgets import LeaseBook
from gateway.dataplane.rate_limits import ShareBook
from gateway.dataplane.rate_windows import Amount, Limits, Report, Taken, Window, settle
from policies.explaining import sentences
from policies.snapshot import BudgetTerms, RateTerms
from tests.gateway.dataplane.in_process import Answer, Plane, refusal
from tests.gateway.dataplane.test_budget_holds import BudgetPlane
from tests.gateway.dataplane.test_model_holds import ModelPlane
from tests.gateway.dataplane.test_rate_limits import ONE, OTHER, Limited
from tests.gateway.dataplane.test_route_explain import explain, hello

LARGE = Answer(
    b'{"model": "served", "choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}],'
    b' "usage": {"prompt_tokens": 400, "completion_tokens": 100, "total_tokens": 500}}'
)
AT_ONCE = RateTerms(1, "key acme/web/dev", None, None, 1)
BUDGET = BudgetTerms(1, "acme each day", "total", "UTC", 1_000, 0)


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_a_place_that_comes_as_the_client_leaves_is_free_again(is_cancelled: bool) -> None:
    sent: list[dict[int, Report]] = []
    book = ShareBook(worker="w", send=sent.append, now_s=lambda: 50.0)
    task = asyncio.create_task(book.hold((AT_ONCE,), 1))
    while not sent:
        await asyncio.sleep(0)
    answer = settle(Window(), sent[0][1], Limits(concurrent=1), now_s=1_000.0)
    book.receive({1: answer}, 50.0)
    if is_cancelled:  # before the task has heard
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        book.refuse(await task)
    share = book.shares[1]
    assert (share.running, share.free_concurrent) == (0, 1)


async def test_what_is_lent_as_the_client_leaves_is_held_by_nobody() -> None:
    book = LeaseBook(now_s=lambda: 0.0)
    task = asyncio.create_task(book.hold((BUDGET,), 600, at_unix_s=0.0))
    while not book.wants:
        await asyncio.sleep(0)
    want = book.wants.popleft()
    lease = Lease("11111111-1111-4111-8111-111111111111", 1, want.span, 1_000, valid_until_s=1.0)
    assert lease.try_hold(600, now_s=0.0)
    want.answer(lease)  # on its way to the loop, and delivered
    loop = asyncio.get_running_loop()
    loop.call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (lease.held_nanousd, lease.spent_nanousd) == (0, 0)


async def test_a_limit_that_is_lowered_counts_at_once_for_what_a_worker_holds() -> None:
    limited = Limited(RateTerms(1, "key acme/web/dev", 800))
    assert (await limited.plane.ask("a")).status == 200
    assert limited.book.shares[1].free_requests > 50  # an eighth of what was left
    lower = RateTerms(1, "key acme/web/dev", 5)
    limited.terms[1] = lower
    configuration: Any = limited.plane.gateway.configuration
    configuration.grant = replace(configuration.grant, rate_limits=(lower,))
    limited.book.tick()  # within a second
    for _ in range(3):
        await asyncio.sleep(0)
    answers = [(await limited.plane.ask("a")).status for _ in range(8)]
    assert answers == [200] * 4 + [429] * 4
    # And what the worker took while it was told: it is no debt, nor room for others.
    book, share = limited.book, limited.book.shares[1]
    share.free_requests = -3
    limited.now_s += 1
    book.tick()
    for _ in range(3):
        await asyncio.sleep(0)
    assert share.free_requests == 0
    assert limited.settle(1, Report(OTHER, needs=(ONE,))).served == ()


async def test_tokens_that_another_worker_gives_back_are_found_within_a_second() -> None:
    limited = Limited(RateTerms(1, "key acme/web/dev", None, 1_000))
    all_of_it = Amount(tokens=1_000)
    second = int(limited.settle(1, Report(OTHER, needs=(all_of_it,))).now_s)
    limited.settle(1, Report(OTHER, taken=(Taken(second, 0, 1_000),)))
    refused = await limited.plane.ask("a", max_tokens=100)
    assert (refused.status, refused.headers["retry-after"]) == (429, "60")
    limited.settle(1, Report(OTHER, taken=(Taken(second, 0, -950),)))  # it took 50 after all
    limited.now_s += 1.0
    assert (await limited.plane.ask("a", max_tokens=100)).status == 200


async def test_a_large_request_without_room_leaves_the_room_to_small_ones() -> None:
    limited = Limited(rooms={"a": RateTerms(7, "deployment a", None, 1_000)}, names=("a", "b"))
    limited.plane.upstream.answers["a"] = [LARGE]
    answers = [await limited.plane.ask("acme/auto", max_tokens=limit) for limit in (500, 700, 20)]
    assert [client.headers["x-pointsman-deployment"] for client in answers] == ["a", "b", "a"]


async def test_a_request_that_no_deployment_ever_has_room_for_is_not_tried_again() -> None:
    limited = Limited(rooms={"a": RateTerms(7, "deployment a", None, 100)})
    refused = await limited.plane.ask("a", max_tokens=500)
    assert (refused.status, refused.error()["code"]) == (429, "rate_limit_exceeded")
    assert refused.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.headers
    assert "larger" in refused.error()["message"]


async def test_who_finds_no_room_lets_another_probe() -> None:
    """A deployment comes back from ejection, and has no room for the request that would try it."""
    limited = Limited(rooms={"b": RateTerms(7, "deployment b", 1)}, names=("a", "b", "c"))
    assert (await limited.plane.ask("b")).status == 200
    full = limited.plane.gateway.configuration.snapshot.deployments["b"]
    health, now_s = limited.plane.gateway.health, 1_000.0
    health._clock = lambda: now_s
    for _ in range(5):
        health.on_failure(full, "broken")
    now_s += 31.0
    limited.plane.upstream.answers["a"] = [refusal(500)]
    limited.book.shares[7].full_until_s = 0.0  # it seemed to have room when it was decided
    assert (await limited.plane.ask("acme/auto")).status == 200
    assert limited.plane.calls() == ["b", "a", "c"]
    assert health.may_call(full)


async def test_a_record_says_in_words_which_limit_or_budget_refused_the_request() -> None:
    limited = Limited(RateTerms(1, "key acme/web/dev", 1))
    assert [(await limited.plane.ask("a")).status for _ in range(2)] == [200, 429]
    assert (
        told(limited.plane)
        == "The request was refused: all requests per minute of key acme/web/dev were taken."
    )
    budgeted = BudgetPlane("a", lease_nanousd=1_000)
    assert (await budgeted.ask("a", max_tokens=5)).status == 402
    assert told(budgeted).endswith("what it could cost did not fit into the budget of acme each day.")
    of_model = ModelPlane(big=1, small=1)
    assert (await of_model.ask("acme/auto", max_tokens=5)).status == 402
    assert told(of_model).endswith("did not fit into the budget of acme (big).")


def told(plane: Plane) -> str:
    intent = plane.lines("intent")[-1]
    return sentences(intent["decision"], refused_by=intent["features"]["refused_by"])[-1]


async def test_explaining_says_what_limits_and_budgets_would_do_and_takes_nothing() -> None:
    limited = Limited(RateTerms(1, "key acme/web/dev", 2, 5_000, 3))
    assert (await limited.plane.ask("a", max_tokens=5)).status == 200
    for _ in range(3):
        notes = await explained(limited.plane, max_tokens=20)
    assert notes[0].startswith(
        "Limit: 2 requests per minute of key acme/web/dev; 1 left as far as this worker knows"
    )
    assert "refused" not in " ".join(notes)
    assert notes[2] == "Limit: 3 requests at once of key acme/web/dev."
    assert (await limited.plane.ask("a", max_tokens=5)).status == 200
    notes = await explained(limited.plane, max_tokens=20)
    assert "it would be refused (429). All is free again in 1m" in notes[0]
    assert "it would be refused (429), always." in (await explained(limited.plane, max_tokens=9_000))[1]
    limited.now_s += 70
    assert "refused" not in " ".join(await explained(limited.plane, max_tokens=20))


async def test_explaining_says_which_deployment_would_be_passed_over() -> None:
    limited = Limited(rooms={"a": RateTerms(7, "deployment a", None, 100)}, names=("a", "b"))
    assert (await limited.plane.ask("a", max_tokens=90)).status == 200
    limited.book.tick()  # 15 were used
    for _ in range(3):
        await asyncio.sleep(0)
    client = await explain(limited.plane, hello(max_tokens=88))
    shown = orjson.loads(client.body)
    assert shown["order"] == ["a", "b"]
    assert "85 left" in shown["notes"][0]
    assert "that deployment would be passed over. All is free" in shown["notes"][0]


async def test_explaining_says_what_is_left_of_budgets_and_routes_by_it() -> None:
    plane = BudgetPlane("a")
    held = plane.lease.held_nanousd
    assert "has not heard of late how much is left" in (await explained(plane, max_tokens=5))[0]
    key = (1, plane.lease.span.starts_unix_s)
    plane.book.numbers[key] = WindowNumbers(10**9, spent_nanousd=10**9 - 50)
    (note,) = await explained(plane, max_tokens=5)
    assert note.endswith("and only 0.00000005 USD are not spent: it would be refused (402).")
    client = await explain(plane, hello("a"))
    assert orjson.loads(client.body)["features"]["budget_used_ratio"] == 1.0
    assert plane.lease.held_nanousd == held


async def explained(plane: Plane, **fields: Any) -> list[str]:
    client = await explain(plane, hello("a", **fields))
    assert client.status == 200
    notes: list[str] = orjson.loads(client.body)["notes"]
    return notes


async def test_a_refusal_by_the_budget_of_a_model_says_what_is_left_of_it() -> None:
    plane = ModelPlane(big=1_000, small=1_000)
    for budget_id, spent in ((1, 700), (2, 400)):
        plane.book.numbers[budget_id, 0] = WindowNumbers(1_000, spent)
    client = await plane.ask("acme/auto", max_tokens=100)
    assert (client.status, client.headers["x-pointsman-budget-remaining-usd"]) == (402, "0.000000300")


async def test_explaining_asks_what_other_workers_took() -> None:
    limited = Limited(RateTerms(1, "key acme/web/dev", 5))
    second = int(limited.settle(1, Report(OTHER, needs=(ONE,) * 5)).now_s)
    (note,) = await explained(limited.plane)
    assert "0 left" in note
    assert note.endswith("others hold the rest, and what they do not use comes back within seconds.")
    limited.settle(1, Report(OTHER, taken=(Taken(second, 5, 0),)))
    (note,) = await explained(limited.plane)
    assert "it would be refused (429)" in note
    assert list(limited.windows[1].leases) == []
    assert limited.windows[1].used()[0] == 5
    limited.book.tick()
    assert limited.book.shares == {}
    limited.is_silent = True
    assert "5 left as far as this worker knows" in (await explained(limited.plane))[0]
