"""What does the lending thread say while the database is away, and does it lend again afterwards?"""

from __future__ import annotations

import asyncio

import pytest
from django.db import OperationalError

from billing import budgets, leasing
from billing.budget_scopes import terms_of
from billing.models import BudgetLease
from gateway.budget_leases import LeaseKeeper
from gateway.dataplane.budgets import BudgetShortError, BudgetUnknownError, Hold, LeaseBook
from policies.snapshot import BudgetTerms
from tests.make_configuration import make_tenant

pytestmark = pytest.mark.django_db


class Bench:
    """A worker's memory and its keeper, stepped by hand between turns of the loop."""

    def __init__(self, terms: BudgetTerms, name: str = "worker") -> None:
        self.terms = terms
        self.now_s = 100.0
        self.book = LeaseBook(now_s=lambda: self.now_s)
        self.keeper = LeaseKeeper(self.book, leasing.WorkerName("home", name))
        self.loop = asyncio.new_event_loop()

    def ask(self, nanousd: int) -> asyncio.Task[Hold]:
        at_unix_s = self.terms.counted_from_unix_s + 1.0
        task = self.loop.create_task(self.book.hold((self.terms,), nanousd, at_unix_s=at_unix_s))
        self.turn()
        return task

    def turn(self) -> None:
        for _ in range(3):
            self.loop.run_until_complete(asyncio.sleep(0))

    def step(self) -> None:
        self.keeper.step()
        self.turn()


@pytest.fixture
def terms() -> BudgetTerms:
    return terms_of(
        budgets.create_budget(tenant=make_tenant(), window="day", limit_nanousd=1_000, actor="a test")
    )


@pytest.fixture
def bench(terms: BudgetTerms):
    made = Bench(terms)
    yield made
    made.loop.close()


def test_while_the_database_is_away_a_lease_can_be_spent_and_no_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bench.ask(100)
    bench.step()
    assert first.result().nanousd == 100
    with monkeypatch.context() as outage:

        def fail(**_: object) -> None:
            raise OperationalError("gone")

        outage.setattr(leasing, "lend", fail)
        assert bench.ask(50).result().nanousd == 50  # of what was lent besides
        more = bench.ask(500)
        with pytest.raises(OperationalError):
            bench.keeper.step()
        bench.turn()
        assert isinstance(more.exception(), BudgetUnknownError)
    again = bench.ask(500)
    bench.step()
    assert again.result().nanousd == 500


def test_a_request_that_left_while_it_waited_holds_nothing(bench: Bench) -> None:
    task = bench.ask(100)
    task.cancel()
    bench.turn()
    bench.step()
    (lease,) = bench.book.leases.values()
    assert lease.held_nanousd == 0


def test_another_worker_gives_back_what_it_does_not_need(bench: Bench, terms: BudgetTerms) -> None:
    other = Bench(terms, "other")
    held = other.ask(600)
    other.step()
    other.book.settle(held.result(), 10)
    task = bench.ask(900)
    bench.step()
    assert not task.done()  # it waits, and says so
    other.now_s += 1
    other.step()
    bench.now_s += 0.2
    bench.step()
    assert task.result().nanousd == 900
    bench.now_s += 0.2
    short = bench.ask(100)
    bench.step()
    bench.now_s += 2
    bench.step()
    refusal = short.exception()
    assert isinstance(refusal, BudgetShortError)
    assert refusal.fits_nanousd == 90
    assert refusal.numbers.leased_nanousd == 910
    other.loop.close()


def test_what_a_deleted_budget_lent_is_lent_no_more(bench: Bench) -> None:
    held = bench.ask(100)
    bench.step()
    BudgetLease.objects.get().window.budget.delete()
    bench.now_s += 1
    bench.step()
    assert not bench.book.leases
    bench.book.settle(held.result(), 50)
    task = bench.ask(10)
    bench.step()
    assert isinstance(task.exception(), BudgetUnknownError)
