"""Does the check of budgets find what is wrong, and do windows follow what is priced afterwards?"""

from __future__ import annotations

import datetime as dt
import uuid
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from billing import budgets, leasing
from billing.models import AttemptsByDay, Budget, BudgetLease, BudgetWindow
from billing.rerating import Question, rerate
from billing.verifying import verify
from billing.verifying_budgets import find_wrong_budgets
from tests import make
from tests.make_configuration import make_deployment

pytestmark = pytest.mark.django_db
NOW = timezone.now()
USD = 10**9


def unpriced(tmp_path: Path, world: make.World, count: int) -> None:
    lines = [
        line for _ in range(count) for line in make.request_lines(world, price=None, cost=None, unpriced=True)
    ]
    make.ingest(tmp_path, lines)


def price_them() -> None:
    question = Question(NOW.date() - dt.timedelta(days=2), NOW.date() + dt.timedelta(days=1))
    rerate(question, actor="fiona", reason="the list came late", now=timezone.now())


def make_budget(world: make.World, **fields: Any) -> Budget:
    arguments = {"window": "month", "limit_nanousd": USD, "actor": "fin", **fields}
    return budgets.create_budget(tenant=world.tenant, **arguments)


def spent(budget: Budget) -> int:
    return BudgetWindow.objects.get(budget=budget).spent_nanousd


def test_windows_count_what_is_priced_afterwards_once_and_a_later_budget_too(tmp_path: Path) -> None:
    world = make.world()
    model = world.deployment.model
    early = [
        make_budget(world),
        make_budget(world, api_key=world.key, window="day"),
        make_budget(world, model=model, is_hard=False),
        make_budget(world, model=make_deployment().model),
    ]
    unpriced(tmp_path, world, 2)
    make.ingest(tmp_path, make.request_lines(world), worker="worker-2")
    assert [spent(row) for row in early] == [make.COST_NANOUSD] * 3 + [0]
    price_them()
    price_them()
    late = [make_budget(world, window="week"), make_budget(world, window="week", model=model)]
    assert [spent(row) for row in (*early, *late)] == [3 * make.COST_NANOUSD] * 3 + [0] + [
        3 * make.COST_NANOUSD
    ] * 2
    assert list(find_wrong_budgets()) == []
    assert verify(now=timezone.now()).differences == ()


def test_deployments_windows_count_what_is_priced_afterwards_too_and_are_proved(tmp_path: Path) -> None:
    world = make.world()

    def at_deployment(window: str, **fields: Any) -> Budget:
        limits: dict[str, Any] = {"limit_nanousd": USD, "actor": "fin", **fields}
        return budgets.create_budget(deployment=world.deployment, window=window, **limits)

    early = at_deployment("month")
    unpriced(tmp_path, world, 2)
    make.ingest(tmp_path, make.request_lines(world), worker="worker-2")
    assert spent(early) == make.COST_NANOUSD
    price_them()
    late = at_deployment("week")
    assert spent(early) == spent(late) == 3 * make.COST_NANOUSD
    assert verify(now=timezone.now()).differences == ()
    AttemptsByDay.objects.update(cost_nanousd=7)
    (wrong,) = verify(now=timezone.now()).differences
    assert (wrong.kind, wrong.stored, wrong.expected) == (
        "attempts_by_day.cost_nanousd", "7", str(3 * make.COST_NANOUSD),
    )  # fmt: skip
    BudgetWindow.objects.filter(budget=late).update(spent_nanousd=5)
    (found,) = find_wrong_budgets()
    assert (found.kind, found.expected) == ("budget spent", str(3 * make.COST_NANOUSD))
    assert found.what.startswith(f"budget of deployment {world.deployment}")


def test_a_window_that_had_ended_stays_as_it_was_and_is_no_difference(tmp_path: Path) -> None:
    world = make.world()
    budget = make_budget(world, window="day", now=NOW)
    unpriced(tmp_path, world, 1)
    window = BudgetWindow.objects.get(budget=budget)
    assert window.ends_at is not None
    question = Question(NOW.date() - dt.timedelta(days=2), NOW.date() + dt.timedelta(days=1))
    rerate(question, actor="fiona", reason="late", now=window.ends_at + dt.timedelta(hours=1))
    assert spent(budget) == 0
    assert list(find_wrong_budgets()) == []


@pytest.mark.parametrize(
    ("column", "kind"), [("spent_nanousd", "budget spent"), ("leased_nanousd", "budget leased")]
)
def test_a_wrong_amount_of_a_window_is_found(tmp_path: Path, column: str, kind: str) -> None:
    world = make.world()
    make_budget(world)
    make.ingest(tmp_path, make.request_lines(world))
    row = BudgetWindow.objects.get()
    name = leasing.WorkerName("home", "worker")
    leasing.grow_lease(name=name, lease_id=str(uuid.uuid4()), window_id=row.pk, nanousd=500)
    assert list(find_wrong_budgets()) == []
    BudgetWindow.objects.update(**{column: getattr(BudgetWindow.objects.get(), column) + 7})
    (found,) = verify(now=timezone.now()).differences
    assert (found.kind, int(found.stored) - int(found.expected)) == (kind, 7)
    assert str(world.tenant) in found.what


def test_more_taken_than_the_limit_is_found_unless_something_explains_it() -> None:
    world = make.world()
    budget = make_budget(world)
    window = BudgetWindow.objects.get()
    BudgetLease.objects.create(
        window=window, home="h", worker="w", amount_nanousd=2 * USD, expires_at=timezone.now()
    )
    BudgetWindow.objects.update(leased_nanousd=2 * USD)
    assert list(find_wrong_budgets()) == []  # it was made in this window: what was under way counts
    Budget.objects.update(created_at=window.starts_at - dt.timedelta(days=40))
    (found,) = find_wrong_budgets()
    assert (found.kind, found.stored) == ("budget over its limit", str(2 * USD))
    budgets.change_budget(budget=budget, limit_nanousd=USD // 2, actor="fin")
    assert list(find_wrong_budgets()) == []
