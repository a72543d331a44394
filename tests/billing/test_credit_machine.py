"""Is credit never drawn twice and never lost, whatever happens in whatever order?"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from billing.credit_order import Usable, share_out
from tests.billing.credit_machine import CreditMachine


def run(example_count: int, step_count: int) -> None:
    run_state_machine_as_test(
        CreditMachine,
        settings=settings(
            max_examples=example_count,
            stateful_step_count=step_count,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )


@pytest.mark.django_db(transaction=True)
def test_credit_is_never_lost_or_drawn_twice() -> None:
    run(8, 12)


@pytest.mark.nightly
@pytest.mark.django_db(transaction=True)
def test_credit_is_never_lost_or_drawn_twice_in_a_thousand_runs() -> None:
    run(1_000, 30)


MODELS = ("a", "b", "c")
SCOPES = st.one_of(st.just(frozenset[str]()), st.frozensets(st.sampled_from(MODELS), min_size=1))


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    grants=st.lists(st.tuples(st.integers(0, 50), SCOPES), max_size=5),
    by_model=st.dictionaries(st.sampled_from(MODELS), st.integers(0, 60)),
    tax=st.integers(0, 20),
    unit=st.sampled_from([1, 5]),
)
def test_no_order_of_scopes_draws_more_than_there_is_to_pay(
    grants: list[tuple[int, frozenset[str]]], by_model: dict[str, int], tax: int, unit: int
) -> None:
    usable = [Usable(number, left, scope) for number, (left, scope) in enumerate(grants)]
    wanted = sum(by_model.values()) + tax
    shares = dict(share_out(usable, wanted_nano=wanted, by_model=by_model, unit_nano=unit))
    assert all(amount % unit == 0 and 0 <= amount <= grants[n][0] for n, amount in shares.items())
    assert sum(shares.values()) <= wanted
    # Hall: grants for certain models draw no more than those models cost, however they are put together.
    for some in (frozenset(MODELS[:n]) | frozenset(MODELS[m:]) for n in range(4) for m in range(4)):
        inside = sum(amount for n, amount in shares.items() if grants[n][1] and grants[n][1] <= some)
        assert inside <= sum(by_model.get(model, 0) for model in some)
    if unit == 1 and not any(scope for _, scope in grants):
        assert sum(shares.values()) == min(wanted, sum(left for left, _ in grants))
