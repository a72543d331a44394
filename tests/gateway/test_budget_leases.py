"""What does the lending thread say while the database is away, and does it lend again afterwards?"""

from __future__ import annotations

import asyncio

import pytest
from django.db import OperationalError

from billing import budgets, leasing
from billing.budget_scopes import terms_of
from billing.models import Budget, BudgetLease, BudgetWindow
from gateway.budget_leases import TICK_S, LeaseKeeper
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


def change(bench: Bench, limit_nanousd: int | None = None, *, is_enabled: bool | None = None) -> None:
    budget = Budget.objects.get(pk=bench.terms.id)
    budgets.change_budget(budget=budget, limit_nanousd=limit_nanousd, is_enabled=is_enabled, actor="a test")
    bench.terms = terms_of(Budget.objects.get(pk=bench.terms.id))


def tick(bench: Bench) -> None:
    bench.now_s += TICK_S
    bench.step()


def test_a_busy_worker_gives_back_at_its_next_tick_what_a_lowered_limit_has_no_room_for(bench: Bench) -> None:
    held = bench.ask(100)
    bench.step()
    (lease,) = bench.book.leases.values()
    assert lease.free_nanousd() >= 50
    change(bench, 110)
    tick(bench)  # within 2 s of its last request: not idle
    assert (lease.free_nanousd(), lease.held_nanousd) == (0, 100)
    assert BudgetLease.objects.get().amount_nanousd == 100
    # What was promised stays, what the new limit leaves besides is lent, and not a nano-USD more.
    fitting, too_much = bench.ask(10), bench.ask(1)
    tick(bench)
    assert fitting.result().nanousd == 10
    assert isinstance(too_much.exception(), BudgetShortError)
    change(bench, 60)  # below what is in flight
    bench.book.settle(held.result(), 5)
    tick(bench)
    bench.book.settle(fitting.result(), 0)
    tick(bench)
    assert lease.free_nanousd() == 10  # nothing is over: it may stay
    assert bench.book.numbers[bench.terms.id, lease.span.starts_unix_s].room_nanousd() == 45
    again = bench.ask(55)
    tick(bench)
    assert again.result().nanousd == 55
    more = bench.ask(1)
    tick(bench)
    assert isinstance(more.exception(), BudgetShortError)


def test_a_raised_limit_is_lent_at_once_and_what_is_off_for_a_while_is_held_to_it_again(bench: Bench) -> None:
    held = bench.ask(1_000)
    bench.step()
    short = bench.ask(1)
    bench.step()
    assert isinstance(short.exception(), BudgetShortError)
    change(bench, 1_500)
    more = bench.ask(500)
    bench.step()
    assert more.result().nanousd == 500
    change(bench, is_enabled=False)
    tick(bench)
    for hold in (held.result(), more.result()):
        bench.book.settle(hold, 100)
    # Meanwhile requests without a hold are counted by the ingester, beyond the limit.
    BudgetWindow.objects.update(spent_nanousd=1_400)
    tick(bench)
    change(bench, is_enabled=True)
    refused = bench.ask(1)
    tick(bench)
    assert isinstance(refused.exception(), BudgetShortError)


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
