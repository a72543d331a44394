"""Is a hard budget never overspent, whatever happens in whatever order?"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.billing.budget_machine import BudgetMachine

pytestmark = pytest.mark.django_db


def run(example_count: int, step_count: int) -> None:
    run_state_machine_as_test(
        BudgetMachine,
        settings=settings(
            max_examples=example_count,
            stateful_step_count=step_count,
            deadline=None,
            derandomize=not os.environ.get("BUDGET_SEED"),
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )


def test_budgets_are_never_overspent() -> None:
    run(int(os.environ.get("BUDGET_RUNS", "25")), 10)


@pytest.mark.nightly
def test_budgets_are_never_overspent_in_ten_thousand_runs() -> None:
    run(10_000, 40)
