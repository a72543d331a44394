"""Does a budget of a deployment limit what is asked of that deployment alone, whoever asks, and leave the others?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from billing.budget_arithmetic import Lease, WindowNumbers
from gateway.dataplane.budgets import LeaseBook
from gateway.dataplane.deployment_holds import MAX_HELD
from policies.snapshot import BudgetTerms
from tests.gateway.dataplane.in_process import Plane, chat, refusal
from tests.gateway.dataplane.test_budget_holds import BROKEN, COST
from tests.gateway.dataplane.test_model_holds import ALL, Lent
from tests.gateway.dataplane.test_route_explain import explain, hello
from tests.make_routing import make_grant, make_policy, make_snapshot

PLENTY = 100_000_000
# More than 1,100 tokens in at 1,000 nano-USD, a hundred out at 2,000.
TOO_LITTLE = 1_000


class DeploymentPlane(Plane):
    """Deployments in order of priority; each amount is what is lent of the budget of that deployment."""

    def __init__(
        self, *names: str, of_caller: int | None = None, may_lower: bool = True, **amounts: int
    ) -> None:
        super().__init__(*(names or ("first", "second")))
        self.deployments = {
            name: replace(found, input_nanousd_per_mtok=10**9, output_nanousd_per_mtok=2 * 10**9)
            for name, found in self.deployments.items()
        }
        choices = [{"name": name} for name in self.deployments]
        policy = make_policy(self.deployments, {"strategy": "priority", "deployments": choices})
        self.ids = {name: found.id for name, found in self.deployments.items()}
        self.terms = {
            name: BudgetTerms(
                20 + place,
                f"deployment {name}",
                "total",
                "UTC",
                10**9,
                0,
                may_lower,
                deployment_id=self.ids[name],
            )
            for place, name in enumerate(amounts)
        }
        configuration: Any = self.gateway.configuration
        configuration.snapshot = make_snapshot(
            self.deployments,
            policy,
            deployment_budgets={self.ids[name]: (terms,) for name, terms in self.terms.items()},
        )
        configuration.grant = replace(make_grant(), budgets=() if of_caller is None else (ALL,))
        self.book = LeaseBook(now_s=lambda: 0.0)
        self.lease: dict[str, Lease] = {}
        for name, amount in amounts.items():
            self.lend(self.terms[name], name, amount)
        if of_caller is not None:
            self.lend(ALL, "caller", of_caller)
        self.book.is_wanted = Lent(self.book)  # type: ignore[assignment]
        self.gateway.budgets = self.book

    def lend(self, terms: BudgetTerms, name: str, amount: int) -> None:
        span = self.book.span_of(terms, 0.0)
        lease = Lease(f"{terms.id:08}-1111-4111-8111-111111111111", terms.id, span, amount, valid_until_s=1.0)
        self.lease[name] = self.book.leases[terms.id, span.starts_unix_s] = lease

    def ends(self) -> dict[str, tuple[int, int]]:
        """What is held and spent of each lease."""
        return {name: (lease.held_nanousd, lease.spent_nanousd) for name, lease in self.lease.items()}


async def test_each_candidate_holds_for_itself_and_the_one_that_was_called_is_charged():
    plane = DeploymentPlane(first=PLENTY, second=PLENTY)
    plane.upstream.answers["first"] = [chat()]
    client = await plane.ask("acme/auto", max_tokens=100)
    assert (client.status, plane.ends()) == (200, {"first": (0, COST), "second": (0, 0)})
    assert "x-pointsman-budget-remaining-usd" not in client.headers  # it is no budget of the caller
    intent = plane.lines("intent")[0]
    assert [(lease, deployment) for lease, _, deployment in intent["deployment_leases"]] == [
        (plane.lease["first"].id, plane.ids["first"]),
        (plane.lease["second"].id, plane.ids["second"]),
    ]
    assert (intent["hold"], intent["leases"]) == (0, [])
    assert plane.lines("outcome")[0]["deployment_uncertain"] == []


async def test_a_deployment_whose_budget_is_short_is_left_out_and_the_next_serves():
    plane = DeploymentPlane(first=TOO_LITTLE)
    plane.upstream.answers["second"] = [chat()]
    client = await plane.ask("acme/auto", max_tokens=100)
    assert (client.status, plane.calls(), plane.ends()) == (200, ["second"], {"first": (0, 0)})
    decision = plane.lines("intent")[0]["decision"]
    assert (decision["candidates"], decision["dropped"]) == (["second"], [["first", "deployment_budget"]])
    assert "hold" not in plane.lines("intent")[0]


async def test_the_answer_is_503_not_to_be_repeated_where_all_are_gone_and_says_no_sum_of_others():
    plane = DeploymentPlane(first=TOO_LITTLE, second=TOO_LITTLE)
    client = await plane.ask("acme/auto", max_tokens=100)
    assert (client.status, client.headers["x-should-retry"], plane.calls()) == (503, "false", [])
    error = client.error()
    assert error["code"] == "deployment_budget_exceeded"
    assert error["reasons"] == {"first": "deployment_budget", "second": "deployment_budget"}
    assert float(error["needed_usd"]) > 0.001 and error["resets_at"] is None
    assert not {"limit_usd", "spent_usd", "held_usd"} & set(error)
    outcome = plane.lines("outcome")[0]
    assert (outcome["status"], outcome["error"]) == ("refused", "deployment_budget_exceeded")
    assert plane.lines("intent")[0]["features"]["refused_by"] == "budget of deployment first"
    assert plane.ends() == {"first": (0, 0), "second": (0, 0)}


@pytest.mark.parametrize(("may_lower", "status"), [(True, 200), (False, 503)])
async def test_a_request_without_a_limit_gets_the_one_that_fits_when_nothing_else_is_left(
    may_lower: bool, status: int
):
    plane = DeploymentPlane(first=2_000_000, may_lower=may_lower)
    plane.upstream.answers["first"] = [chat()]
    assert (await plane.ask("first")).status == status
    assert plane.ends() == {"first": (0, COST if may_lower else 0)}


async def test_no_limit_is_lowered_where_another_deployment_can_serve():
    plane = DeploymentPlane(first=2_000_000)
    plane.upstream.answers["second"] = [chat()]
    assert ((await plane.ask("acme/auto")).status, plane.calls()) == (200, ["second"])
    assert b"max_tokens" not in plane.upstream.bodies[0]


async def test_requests_to_deployments_without_a_budget_hold_nothing():
    plane = DeploymentPlane(first=TOO_LITTLE)
    plane.upstream.answers["second"] = [chat()]
    assert (await plane.ask("second")).status == 200
    assert "hold" not in plane.lines("intent")[0]


async def test_what_broke_off_stays_uncertain_at_its_own_deployment_and_the_fallback_pays_for_itself():
    plane = DeploymentPlane(first=PLENTY, second=PLENTY)
    plane.upstream.answers.update(first=[BROKEN], second=[chat()])
    assert (await plane.ask("acme/auto", max_tokens=100)).status == 200
    ((deployment_id, unknown),) = plane.lines("outcome")[0]["deployment_uncertain"]
    held = {deployment: nanousd for _, nanousd, deployment in plane.lines("intent")[0]["deployment_leases"]}
    assert (deployment_id, unknown) == (plane.ids["first"], held[plane.ids["first"]])
    assert plane.ends() == {"first": (0, unknown), "second": (0, COST)}


async def test_a_second_attempt_at_the_same_deployment_holds_more_or_is_not_made():
    for lent, status, calls in ((PLENTY, 200, ["first", "first"]), (1_500_000, 502, ["first"])):
        plane = DeploymentPlane("first", first=lent)
        plane.upstream.answers["first"] = [BROKEN, chat()]
        client = await plane.ask("first", max_tokens=100)
        assert (client.status, plane.calls()) == (status, calls)
        held = plane.lines("intent")[0]["deployment_leases"][0][1]
        assert plane.ends() == {"first": (0, held + (COST if status == 200 else 0))}


async def test_a_refused_attempt_costs_nothing():
    plane = DeploymentPlane(first=PLENTY)
    plane.upstream.answers.update(first=[refusal(500, "broken")], second=[chat()])
    assert (await plane.ask("acme/auto", max_tokens=100)).status == 200
    assert plane.ends() == {"first": (0, 0)}


@pytest.mark.parametrize(("of_caller", "status", "spent"), [(PLENTY, 200, COST), (TOO_LITTLE, 402, 0)])
async def test_a_budget_of_the_caller_holds_besides_and_what_it_refuses_is_given_back(
    of_caller: int, status: int, spent: int
):
    plane = DeploymentPlane(first=PLENTY, of_caller=of_caller)
    plane.upstream.answers["first"] = [chat()]
    assert (await plane.ask("acme/auto", max_tokens=100)).status == status
    assert plane.ends() == {"first": (0, spent), "caller": (0, spent)}


async def test_a_worker_that_cannot_ask_leaves_the_deployment_out():
    plane = DeploymentPlane(first=PLENTY)
    plane.gateway.budgets = None
    plane.upstream.answers["second"] = [chat()]
    assert ((await plane.ask("acme/auto", max_tokens=5)).status, plane.calls()) == (200, ["second"])
    alone = DeploymentPlane("first", first=PLENTY)
    alone.gateway.budgets = None
    client = await alone.ask("first", max_tokens=5)
    assert (client.status, client.error()["code"]) == (503, "budget_unavailable")


async def test_a_deployment_without_a_price_is_left_out_by_its_budget():
    plane = DeploymentPlane(first=PLENTY)
    configuration: Any = plane.gateway.configuration
    unpriced = {plane.ids["first"]}
    find_price = configuration.find_price
    configuration.find_price = lambda deployment_id, at: (
        None if deployment_id in unpriced else find_price(deployment_id, at)
    )
    plane.upstream.answers["second"] = [chat()]
    assert ((await plane.ask("acme/auto", max_tokens=5)).status, plane.calls()) == (200, ["second"])
    assert plane.lines("intent")[0]["decision"]["dropped"] == [["first", "unpriced"]]
    client = await plane.ask("first", max_tokens=5)
    assert (client.status, client.error()["reasons"]) == (503, {"first": "unpriced"})


async def test_no_more_is_held_than_an_intent_line_names():
    names = [f"d{number}" for number in range(MAX_HELD + 2)]
    plane = DeploymentPlane(*names, **dict.fromkeys(names, PLENTY))
    plane.upstream.answers["d0"] = [chat()]
    assert (await plane.ask("acme/auto", max_tokens=5)).status == 200
    intent = plane.lines("intent")[0]
    assert len(intent["deployment_leases"]) == len(intent["decision"]["candidates"]) == MAX_HELD
    assert intent["decision"]["dropped"] == [[name, "deployment_budget"] for name in names[MAX_HELD:]]


@pytest.mark.parametrize(
    ("limit", "numbers", "is_spent"),
    [
        (100, None, False),
        (100, WindowNumbers(100, 60, 0, 40), False),  # what others hold may come back
        (100, WindowNumbers(100, 60, 1, 0), True),
        (100, WindowNumbers(100, 120, 0, 0), True),
        (101, WindowNumbers(100, 60, 1, 0), False),  # raised since: ask
        (90, WindowNumbers(100, 51, 0, 0), True),
    ],
)
def test_who_asks_for_more_than_is_left_need_not_wait(
    limit: int, numbers: WindowNumbers | None, is_spent: bool
):
    book = LeaseBook()
    terms = BudgetTerms(1, "deployment d", "total", "UTC", limit, 0)
    if numbers is not None:
        book.numbers[1, 0] = numbers
    found = book.find_spent((terms,), 40, at_unix_s=0.0)
    assert (found is not None) == is_spent
    if found is not None and numbers is not None:
        assert found.fits_nanousd == max(0, limit - numbers.spent_nanousd - numbers.uncertain_nanousd) < 40


async def test_explaining_says_whether_there_is_room_and_no_sum_of_others():
    plane = DeploymentPlane(first=PLENTY, second=PLENTY)
    for name, spent in (("first", 10**9), ("second", 7 * 10**8)):
        plane.book.numbers[plane.terms[name].id, 0] = WindowNumbers(10**9, spent, 0, 0)
    shown = orjson.loads((await explain(plane, hello("acme/auto", max_tokens=100))).body)
    first, second = shown["notes"]
    assert first.startswith("Budget of deployment first: this request may cost up to 0.001")
    assert first.endswith("and less than that is left: that deployment would be passed over.")
    assert second.endswith("USD there, which is not spent.")
    assert "0.7" not in second and "0.3" not in second
    assert plane.ends() == {"first": (0, 0), "second": (0, 0)}
