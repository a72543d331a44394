"""Is a hard budget never overspent, whatever happens in whatever order?"""

from __future__ import annotations

import os
from unittest import mock

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from gateway.dataplane import budgets
from tests.billing.budget_machine import BudgetMachine

pytestmark = pytest.mark.django_db


# All runs of a test are one transaction, in which nothing that was deleted can be cleaned up: 250 took three times as
# long a run as 25. And a part that fails can be run again by its seed, without those before it.
RUNS_A_TRANSACTION = 25


def run(example_count: int, step_count: int, *, seed_number: int) -> None:
    """Live `example_count` lives: the same ones each time."""
    machine = type("SeededMachine", (BudgetMachine,), {})
    seed(seed_number)(machine)
    # A request waits for its lease in real time. The machine has its own clocks; it may stand still for seconds.
    with mock.patch.object(budgets, "ANSWER_WAIT_S", 600.0):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=example_count,
                stateful_step_count=step_count,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                database=None,
            ),
        )


@pytest.mark.parametrize("seed_number", range(5))
def test_budgets_are_never_overspent_in_five_hundred_runs(seed_number: int) -> None:
    run(int(os.environ.get("BUDGET_RUNS", "500")) // 5, 10, seed_number=seed_number)


@pytest.mark.nightly
@pytest.mark.parametrize("seed_number", range(10_000 // RUNS_A_TRANSACTION))
def test_budgets_are_never_overspent_in_ten_thousand_runs(seed_number: int) -> None:
    run(RUNS_A_TRANSACTION, 40, seed_number=seed_number)
