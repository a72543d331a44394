"""What does a request hold of its budgets, what is refused, and what stays at its end? In process, over fakes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from billing.budget_arithmetic import Lease, WindowNumbers
from gateway.dataplane.budgets import BudgetShortError, LeaseBook, Want
from gateway.dataplane.listings import serve_listing
from gateway.dataplane.most_costs import (
    DEFAULT_OUTPUT_TOKENS,
    MEDIA_TOKENS,
    TEMPLATE_TOKENS,
    CostPlan,
    most_input_tokens,
)
from gateway.dataplane.upstream_errors import UpstreamError
from gateway.wire.openai_request import parse_request
from policies.snapshot import BudgetTerms
from tests.gateway.dataplane.in_process import CHUNK, SECRET, Client, Plane, chat, refusal, stream
from tests.make_routing import make_grant, make_policy, make_snapshot

TERMS = BudgetTerms(1, "acme each day", "total", "UTC", 100_000_000, 0)
COST = 10 * 1000 + 5 * 2000
BROKEN = UpstreamError("broken", "scripted")


class LentOut:
    """In the place of the lending thread: nothing more is lent, and who asks hears it at once."""

    def __init__(self, book: LeaseBook, lease: Lease) -> None:
        self.book, self.lease = book, lease

    def set(self) -> None:
        want: Want = self.book.wants.popleft()
        lease = self.lease
        numbers = WindowNumbers(lease.amount_nanousd, lease.spent_nanousd, 0, lease.held_nanousd)
        want.answer(BudgetShortError(want.terms, want.span, numbers, lease.free_nanousd()))


class BudgetPlane(Plane):
    """A plane whose key has one budget, all of it leased already."""

    def __init__(
        self, *names: str, lease_nanousd: int = 100_000_000, terms: BudgetTerms = TERMS, **options: Any
    ) -> None:
        super().__init__(*names, **options)
        self.deployments = {
            name: replace(found, input_nanousd_per_mtok=10**9, output_nanousd_per_mtok=2 * 10**9)
            for name, found in self.deployments.items()
        }
        policy = make_policy(
            self.deployments, {"strategy": "priority", "deployments": [{"name": name} for name in names]}
        )
        configuration: Any = self.gateway.configuration
        configuration.snapshot = make_snapshot(self.deployments, policy)
        configuration.grant = replace(make_grant(), budgets=(terms,))
        self.book = LeaseBook(now_s=lambda: 0.0)
        span = self.book.span_of(terms, 0.0)
        self.lease = Lease("11111111-1111-4111-8111-111111111111", 1, span, lease_nanousd, valid_until_s=1.0)
        self.book.leases[1, span.starts_unix_s] = self.lease
        self.book.is_wanted = LentOut(self.book, self.lease)  # type: ignore[assignment]
        self.gateway.budgets = self.book

    def held(self, max_tokens: int, client_body: bytes) -> int:
        return (len(client_body) + TEMPLATE_TOKENS) * 1000 + max_tokens * 2000


async def test_the_most_it_can_cost_is_held_before_the_call_and_settled_with_what_it_did_cost():
    plane = BudgetPlane("a")
    plane.upstream.answers["a"] = [chat()]
    client = Client(plane, "a", max_tokens=100, n=2)
    held: list[int] = []
    plane.upstream.bodies = Watching(lambda: held.append(plane.lease.held_nanousd))  # type: ignore[assignment]
    await client.run()
    most = plane.held(200, client._payload)
    assert (client.status, held) == (200, [most])
    intent = plane.lines("intent")[0]
    assert (intent["hold"], intent["leases"]) == (most, [plane.lease.id])
    assert (plane.lease.held_nanousd, plane.lease.spent_nanousd) == (0, COST)
    assert "uncertain" not in plane.lines("outcome")[0]


class Watching(list[bytes]):
    def __init__(self, note: Any) -> None:
        super().__init__()
        self.note = note

    def append(self, item: bytes) -> None:
        self.note()


async def test_what_does_not_fit_is_refused_with_the_numbers_and_calls_nobody():
    plane = BudgetPlane("a", lease_nanousd=2_000_000)
    client = await plane.ask("a", max_tokens=1000)
    assert (client.status, client.headers["x-should-retry"], plane.calls()) == (402, "false", [])
    error = client.error()
    assert (error["code"], error["limit_usd"], error["spent_usd"]) == ("budget_exceeded", "0.002", "0")
    assert (error["held_usd"], error["resets_at"]) == ("0", None)
    outcome = plane.lines("outcome")[0]
    assert (outcome["status"], outcome["error"], outcome["cost"]) == ("refused", "budget_exceeded", 0)
    assert (plane.lease.held_nanousd, plane.lease.spent_nanousd) == (0, 0)


async def test_a_request_without_an_output_limit_gets_the_one_that_fits():
    plane = BudgetPlane("a", lease_nanousd=2_000_000)
    plane.upstream.answers["a"] = [chat()]
    client = await plane.ask("a")
    sent = orjson.loads(plane.upstream.bodies[0])["max_tokens"]
    assert (client.status, sent) == (200, (2_000_000 - plane.held(0, client._payload)) // 2000)
    assert 16 <= sent < DEFAULT_OUTPUT_TOKENS


async def test_a_request_without_an_output_limit_leaves_half_of_what_is_left_to_others():
    plane = BudgetPlane("a", lease_nanousd=8_000_000)
    plane.upstream.answers["a"] = [chat()]
    client = await plane.ask("a")
    sent = orjson.loads(plane.upstream.bodies[0])["max_tokens"]
    assert sent == (4_000_000 - plane.held(0, client._payload)) // 2000


async def test_a_budget_that_does_not_allow_lower_limits_refuses():
    plane = BudgetPlane("a", lease_nanousd=2_000_000, terms=TERMS._replace(may_lower_limit=False))
    assert (await plane.ask("a")).status == 402


async def test_where_the_models_own_limit_is_not_known_one_is_sent():
    plane = BudgetPlane("a")
    plane.upstream.answers["a"] = [chat()]
    await plane.ask("a")
    assert orjson.loads(plane.upstream.bodies[0])["max_tokens"] == DEFAULT_OUTPUT_TOKENS


async def test_a_deployment_without_a_price_is_not_tried():
    plane = BudgetPlane("a", "b")
    unpriced = {**plane.deployments, "a": replace(plane.deployments["a"], input_nanousd_per_mtok=None)}
    configuration: Any = plane.gateway.configuration
    policy = make_policy(unpriced, {"strategy": "priority", "deployments": [{"name": "a"}, {"name": "b"}]})
    configuration.snapshot = make_snapshot(unpriced, policy)
    plane.upstream.answers["b"] = [chat()]
    assert ((await plane.ask("acme/auto", max_tokens=5)).status, plane.calls()) == (200, ["b"])
    assert plane.lines("intent")[0]["decision"]["dropped"] == [["a", "unpriced"]]


@pytest.mark.parametrize(("spent", "called"), [(79, "a"), (81, "b")])
async def test_a_policy_can_downgrade_before_the_budget_is_used_up(spent: int, called: str):
    plane = BudgetPlane("a", "b")
    policy = make_policy(
        plane.deployments,
        {
            "name": "save",
            "when": "budget_used_ratio >= 0.8",
            "strategy": "fixed",
            "deployments": [{"name": "b"}],
        },
        {"strategy": "fixed", "deployments": [{"name": "a"}]},
    )
    configuration: Any = plane.gateway.configuration
    configuration.snapshot = make_snapshot(plane.deployments, policy)
    plane.book.numbers[1, 0] = WindowNumbers(100, spent, 0, 0)
    plane.upstream.answers.update(a=[chat()], b=[chat()])
    await plane.ask("acme/auto", max_tokens=5)
    assert plane.calls() == [called]
    assert plane.lines("intent")[0]["features"]["budget_used_ratio"] == spent / 100


async def test_an_answer_says_what_is_left_of_the_tightest_budget_as_far_as_the_worker_knows():
    plane = BudgetPlane("a")
    plane.upstream.answers["a"] = [chat(), chat(), chat()]
    told = "x-pointsman-budget-remaining-usd"
    assert told not in (await plane.ask("a", max_tokens=5)).headers
    plane.book.numbers[1, 0] = WindowNumbers(2 * 10**9, 5 * 10**8, 1, 7)
    assert (await plane.ask("a", max_tokens=5)).headers[told] == "1.499999999"
    plane.book.numbers[1, 0] = WindowNumbers(10**9, 2 * 10**9, 0, 0)
    assert (await plane.ask("a", max_tokens=5)).headers[told] == "0.000000000"


async def test_an_attempt_that_broke_off_stays_uncertain_and_the_next_one_is_held_besides():
    plane = BudgetPlane("a", "b")
    plane.upstream.answers.update(a=[BROKEN], b=[chat()])
    client = await plane.ask("acme/auto", max_tokens=100)
    most = plane.held(100, client._payload)
    assert (client.status, plane.lines("outcome")[0]["uncertain"]) == (200, most)
    assert (plane.lease.held_nanousd, plane.lease.spent_nanousd) == (0, most + COST)


async def test_an_attempt_that_broke_off_is_the_last_where_no_other_fits():
    plane = BudgetPlane("a", "b", lease_nanousd=1_500_000)
    plane.upstream.answers.update(a=[BROKEN], b=[chat()])
    assert (await plane.ask("acme/auto", max_tokens=100)).status == 502
    assert plane.calls() == ["a"]
    assert plane.lease.held_nanousd == 0


async def test_an_attempt_that_was_refused_used_nothing_so_the_hold_is_enough_for_the_next():
    plane = BudgetPlane("a", "b", lease_nanousd=1_500_000)
    plane.upstream.answers.update(a=[refusal(503)], b=[chat()])
    assert (await plane.ask("acme/auto", max_tokens=100)).status == 200
    assert (plane.lease.held_nanousd, plane.lease.spent_nanousd) == (0, COST)


async def test_a_client_that_leaves_in_the_middle_pays_for_what_was_produced():
    plane = BudgetPlane("a")
    plane.upstream.answers["a"] = [stream(CHUNK, CHUNK, 60.0)]
    client = Client(plane, "a", is_stream=True, max_tokens=100)
    task = asyncio.create_task(client.run())
    while client.body.count(b"word") < 2:
        await asyncio.sleep(0)
    assert plane.lease.held_nanousd == plane.held(100, client._payload)
    client.connection.on_hangup()
    await task
    spent = plane.lease.spent_nanousd
    assert plane.lease.held_nanousd == 0
    assert plane.lines("outcome")[0]["cost"] == spent
    assert 0 < spent < plane.held(100, client._payload) // 2


async def test_without_a_journal_nothing_stays_held():
    plane = BudgetPlane("a")
    plane.is_journal_full = True
    assert (await plane.ask("a", max_tokens=5)).status == 503
    assert (plane.lease.held_nanousd, plane.lease.spent_nanousd, plane.calls()) == (0, 0, [])


async def test_a_worker_that_cannot_ask_says_that_it_does_not_know():
    plane = BudgetPlane("a")
    plane.gateway.budgets = None
    client = await plane.ask("a", max_tokens=5)
    assert (client.status, client.error()["code"]) == (503, "budget_unavailable")


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_the_callers_own_limit_is_sent_as_it_is(field: str):
    plane = BudgetPlane("a")
    plane.upstream.answers["a"] = [chat()]
    await plane.ask("a", **{field: 7})
    sent = orjson.loads(plane.upstream.bodies[0])
    assert {name: sent[name] for name in ("max_tokens", "max_completion_tokens") if name in sent} == {
        field: 7
    }


async def test_a_key_is_told_its_tightest_budget_in_openrouters_words():
    plane = BudgetPlane("a")
    configuration: Any = plane.gateway.configuration
    wide = TERMS._replace(id=2, name="acme each month", window="month", limit_nanousd=900_000_000)
    configuration.grant = replace(configuration.grant, budgets=(wide, TERMS))
    span = plane.book.span_of(wide, plane.gateway.now_unix_s())
    plane.book.numbers[2, span.starts_unix_s] = WindowNumbers(900_000_000, 30_000_000, 0, 0)
    span = plane.book.span_of(TERMS, plane.gateway.now_unix_s())
    plane.book.numbers[1, span.starts_unix_s] = WindowNumbers(100_000_000, 75_000_000, 5_000_000, 0)
    client = Client(plane, "a")
    scope = {"method": "GET", "headers": [(b"authorization", f"Bearer {SECRET}".encode())]}
    await serve_listing(plane.gateway, scope, client.send, "key", "")
    told = orjson.loads(client.body)["data"]
    assert (told["limit"], told["usage"], told["limit_remaining"]) == (0.1, 0.08, 0.02)
    assert (told["limit_of"], told["limit_reset"]) == ("acme each day", None)


@pytest.mark.parametrize(
    "part",
    [
        b'{"type":"image_url","image_url":{"url":"http://i"}}',
        b'{"type":"image_url","text":"x","image_url":{"url":"http://i"}}',
        b'{"type":"image\\u005furl","image\\u005furl":{"url":"http://i"}}',
        b'{"type":"video_url","video_url":{"url":"http://i"}}',
        b'{"image_url":{"url":"http://i"}}',
    ],
)
def test_what_a_provider_fetches_is_held_for_however_it_is_written(part: bytes) -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"hi"},%b]}]}' % part
    assert most_input_tokens(parse_request(body, "chat")) == len(body) + TEMPLATE_TOKENS + MEDIA_TOKENS
    plain = b'{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"image_url"}]}]}'
    assert most_input_tokens(parse_request(plain, "chat")) == len(plain) + TEMPLATE_TOKENS


def test_of_two_output_limits_the_larger_one_is_held_as_providers_differ_in_which_they_read() -> None:
    held = []
    for limits in ({"max_tokens": 2_000}, {"max_completion_tokens": 1, "max_tokens": 2_000}):
        plane = BudgetPlane("a")
        asyncio.run(plane.ask("a", **limits))
        (intent,) = plane.lines("intent")
        held.append(intent["hold"])
    assert held[1] >= held[0] > 2_000 * 2_000


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"prompt": "hi"}, 1),
        ({"prompt": ["hi"] * 7}, 7),
        ({"prompt": ["hi"] * 7, "n": 2}, 14),
        ({"prompt": [[1, 2], [3]]}, 2),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": "hi", "best_of": 500}, 500),
        ({"prompt": "hi", "best_of": "20"}, 20),
        ({"prompt": "hi", "best_of": [9]}, 1),
    ],
)
def test_every_answer_that_may_be_written_is_held_for(fields: dict[str, Any], count: int) -> None:
    plane = BudgetPlane("a", lease_nanousd=10**12)
    held = []
    for sent in ({"prompt": "hi"}, fields):
        body = orjson.dumps({"model": "a", "max_tokens": 1_000, **sent})
        parsed = parse_request(body, "completions")
        exchange: Any = SimpleNamespace(
            features=SimpleNamespace(max_output_tokens=1_000), gateway=plane.gateway, started_at_unix_s=0.0
        )
        plan = CostPlan(exchange, parsed, [plane.deployments["a"]])
        held.append(plan.most_nanousd(None) - (len(body) + TEMPLATE_TOKENS) * 1_000)
    assert held[1] == count * held[0] > 0
