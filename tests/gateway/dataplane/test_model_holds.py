"""Does a budget of one model limit that model alone, and leave the others to serve?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from billing.budget_arithmetic import Lease, WindowNumbers
from gateway.dataplane.budgets import BudgetShortError, LeaseBook, Want
from policies.snapshot import BudgetTerms
from tests.gateway.dataplane.in_process import Plane, chat
from tests.gateway.dataplane.test_budget_holds import BROKEN, COST
from tests.make_routing import make_grant, make_policy, make_snapshot

ALL = BudgetTerms(9, "acme each day", "total", "UTC", 10**9, 0)


class Lent:
    """In the place of the lending thread: each lease is all that there is of its budget."""

    def __init__(self, book: LeaseBook) -> None:
        self.book = book

    def set(self) -> None:
        want: Want = self.book.wants.popleft()
        lease = self.book.leases[want.key]
        numbers = WindowNumbers(lease.amount_nanousd, lease.spent_nanousd, 0, lease.held_nanousd)
        want.answer(BudgetShortError(want.terms, want.span, numbers, lease.free_nanousd()))


class ModelPlane(Plane):
    """`big` and `small` are two models at 1 and 2 USD per million tokens; each amount is a budget of its model."""

    def __init__(self, *, budget_of_all: int | None = None, may_lower: bool = True, **amounts: int) -> None:
        super().__init__("big", "small")
        self.deployments = {
            name: replace(found, input_nanousd_per_mtok=10**9, output_nanousd_per_mtok=2 * 10**9)
            for name, found in self.deployments.items()
        }
        ids = {name: found.model.id for name, found in self.deployments.items()}
        assert ids["big"] != ids["small"]
        rule = {"strategy": "priority", "deployments": [{"name": "big"}, {"name": "small"}]}
        configuration: Any = self.gateway.configuration
        configuration.snapshot = make_snapshot(self.deployments, make_policy(self.deployments, rule))
        of_models = tuple(
            BudgetTerms(place, f"acme ({name})", "total", "UTC", 10**9, 0, may_lower, ids[name])
            for place, name in enumerate(amounts, 1)
        )
        general = () if budget_of_all is None else (ALL,)
        configuration.grant = replace(make_grant(), budgets=general, model_budgets=of_models)
        self.book = LeaseBook(now_s=lambda: 0.0)
        self.lease: dict[str, Lease] = {}
        for terms, (name, amount) in zip(of_models, amounts.items(), strict=True):
            self.lend(terms, name, amount)
        if budget_of_all is not None:
            self.lend(ALL, "all", budget_of_all)
        self.book.is_wanted = Lent(self.book)  # type: ignore[assignment]
        self.gateway.budgets = self.book

    def lend(self, terms: BudgetTerms, name: str, amount: int) -> None:
        span = self.book.span_of(terms, 0.0)
        lease = Lease(f"{terms.id:08}-1111-4111-8111-111111111111", terms.id, span, amount, valid_until_s=1.0)
        self.lease[name] = self.book.leases[terms.id, span.starts_unix_s] = lease

    def ends(self) -> dict[str, tuple[int, int]]:
        """What is held and spent of each lease."""
        return {name: (lease.held_nanousd, lease.spent_nanousd) for name, lease in self.lease.items()}


async def test_a_model_that_fits_serves_and_only_its_own_budget_is_charged():
    plane = ModelPlane(big=100_000_000, small=100_000_000)
    plane.upstream.answers["big"] = [chat()]
    plane.book.numbers[1, 0] = WindowNumbers(10**9, 3 * 10**8, 10**8, 5)
    plane.book.numbers[2, 0] = WindowNumbers(10**9, 10**9, 0, 0)  # of the model that does not serve
    client = await plane.ask("acme/auto", max_tokens=100)
    assert (client.status, client.headers["x-pointsman-budget-remaining-usd"]) == (200, "0.600000000")
    assert plane.ends() == {"big": (0, COST), "small": (0, 0)}
    intent = plane.lines("intent")[0]
    big, small = (plane.deployments[name].model.id for name in ("big", "small"))
    assert [(lease, model) for lease, _, model in intent["model_leases"]] == [
        (plane.lease["big"].id, big),
        (plane.lease["small"].id, small),
    ]
    assert (intent["hold"], intent["leases"]) == (0, [])


async def test_a_model_whose_budget_is_short_is_left_out_and_the_others_stay():
    plane = ModelPlane(big=1_000)
    plane.upstream.answers["small"] = [chat()]
    client = await plane.ask("acme/auto", max_tokens=100)
    assert (client.status, plane.calls(), plane.ends()) == (200, ["small"], {"big": (0, 0)})
    decision = plane.lines("intent")[0]["decision"]
    assert (decision["candidates"], decision["dropped"]) == (["small"], [["big", "model_budget"]])


async def test_the_answer_is_402_where_all_are_gone():
    plane = ModelPlane(big=1_000, small=1_000)
    client = await plane.ask("acme/auto", max_tokens=100)
    assert (client.status, client.error()["code"], plane.calls()) == (402, "budget_exceeded", [])
    assert client.error()["budget"] == "acme (big)"
    assert plane.ends() == {"big": (0, 0), "small": (0, 0)}
    assert plane.lines("outcome")[0]["error"] == "budget_exceeded"


@pytest.mark.parametrize(("may_lower", "status"), [(True, 200), (False, 402)])
async def test_a_request_without_a_limit_gets_the_one_that_fits_when_nothing_else_is_left(
    may_lower: bool, status: int
):
    plane = ModelPlane(big=2_000_000, may_lower=may_lower)
    plane.upstream.answers["big"] = [chat()]
    assert (await plane.ask("big")).status == status
    assert plane.ends() == {"big": (0, COST if may_lower else 0)}


async def test_nothing_is_limited_of_a_model_without_a_budget():
    plane = ModelPlane(big=1_000)
    plane.upstream.answers["small"] = [chat()]
    assert (await plane.ask("small")).status == 200
    assert b"max_tokens" not in plane.upstream.bodies[0]
    assert "hold" not in plane.lines("intent")[0]


async def test_a_budget_of_all_models_holds_besides():
    plane = ModelPlane(budget_of_all=100_000_000, big=1_000)
    plane.upstream.answers["small"] = [chat()]
    assert (await plane.ask("acme/auto", max_tokens=100)).status == 200
    assert plane.ends() == {"big": (0, 0), "all": (0, COST)}
    short = ModelPlane(budget_of_all=1_000, big=100_000_000)
    client = await short.ask("acme/auto", max_tokens=100)
    assert (client.status, client.error()["budget"]) == (402, ALL.name)
    assert short.ends() == {"big": (0, 0), "all": (0, 0)}


async def test_what_broke_off_stays_uncertain_at_its_own_model():
    plane = ModelPlane(big=100_000_000, small=100_000_000)
    plane.upstream.answers.update(big=[BROKEN], small=[chat()])
    assert (await plane.ask("acme/auto", max_tokens=100)).status == 200
    big = plane.deployments["big"].model.id
    ((model_id, unknown),) = plane.lines("outcome")[0]["model_uncertain"]
    held = {model: nanousd for _, nanousd, model in plane.lines("intent")[0]["model_leases"]}
    assert (model_id, unknown) == (big, held[big])
    assert plane.ends() == {"big": (0, unknown), "small": (0, COST)}


async def test_a_worker_that_cannot_ask_refuses():
    plane = ModelPlane(big=1_000)
    plane.gateway.budgets = None
    assert (await plane.ask("acme/auto", max_tokens=5)).status == 503
