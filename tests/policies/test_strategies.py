"""Does each strategy order deployments as it says?"""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from policies.features import Features
from policies.snapshot import DeploymentSnapshot, Strategy
from policies.strategies import EXPLORED_SHARE, expected_cost_nanousd, put_in_order
from tests.make_routing import FakeHealth, make_deployments

DEPLOYMENTS = list(make_deployments("a", "b", "c", "d").values())


def order(
    strategy: Strategy,
    deployments: list[DeploymentSnapshot] = DEPLOYMENTS,
    weights: list[float] | None = None,
    features: Features = Features(),  # noqa: B008
    health: FakeHealth | None = None,
    draw: float = 0.5,
) -> list[str]:
    ordered = put_in_order(
        strategy,
        deployments,
        weights or [1.0] * len(deployments),
        features=features,
        health=health or FakeHealth(),
        draw=draw,
    )
    return [deployment.name for deployment in ordered.deployments]


def priced(**rates: tuple[int, int] | None) -> list[DeploymentSnapshot]:
    """priced(a=(input, output), b=None): deployments with rates in nano-USD per million tokens."""
    return [
        make_deployments(
            name,
            input_nanousd_per_mtok=None if pair is None else pair[0],
            output_nanousd_per_mtok=None if pair is None else pair[1],
        )[name]
        for name, pair in rates.items()
    ]


def test_fixed_and_priority_keep_the_order_of_the_list() -> None:
    assert order("fixed") == order("priority") == ["a", "b", "c", "d"]


def test_weighted_puts_the_drawn_one_first_and_the_others_by_falling_weight() -> None:
    weights = [1.0, 5.0, 3.0, 0.0]
    assert order("weighted", weights=weights, draw=0.0) == ["a", "b", "c", "d"]
    assert order("weighted", weights=weights, draw=0.5) == ["b", "c", "a", "d"]
    assert order("weighted", weights=weights, draw=0.99) == ["c", "b", "a", "d"]


def test_weighted_shares_follow_the_weights() -> None:
    weights = [1.0, 5.0, 4.0, 0.0]
    first = Counter(order("weighted", weights=weights, draw=n / 10_000)[0] for n in range(10_000))
    assert [first[name] for name in "abcd"] == [1000, 5000, 4000, 0]


def test_without_any_weight_left_the_order_is_that_of_the_list() -> None:
    assert order("weighted", weights=[0.0, 0.0, 0.0, 0.0], draw=0.7) == ["a", "b", "c", "d"]


def test_least_cost_compares_what_this_request_would_cost() -> None:
    deployments = priced(talker=(1_000_000, 9_000_000), reader=(5_000_000, 1_000_000))
    assert order("least_cost", deployments, features=Features(input_tokens=100_000)) == ["talker", "reader"]
    writing = Features(input_tokens=10, max_output_tokens=4000)
    assert order("least_cost", deployments, features=writing) == ["reader", "talker"]
    # Without a limit 500 tokens are expected, for each choice asked for.
    assert expected_cost_nanousd(deployments[0], Features(choice_count=2)) == 9_000


def test_an_unpriced_deployment_is_not_a_cheap_one() -> None:
    deployments = priced(unknown=None, dear=(10**12, 10**12), free=(0, 0))
    assert order("least_cost", deployments, features=Features(input_tokens=1)) == ["free", "dear", "unknown"]


def test_least_latency_measures_the_unknown_first_then_the_fastest() -> None:
    ids = {deployment.name: deployment.id for deployment in DEPLOYMENTS}
    health = FakeHealth(latencies={ids["a"]: 300.0, ids["b"]: 20.0, ids["d"]: 100.0})
    assert order("least_latency", health=health) == ["c", "b", "d", "a"]


def test_least_latency_explores_evenly_and_rarely() -> None:
    health = FakeHealth(latencies={d.id: 10.0 * index for index, d in enumerate(DEPLOYMENTS)})
    first = Counter(order("least_latency", health=health, draw=n / 30_000)[0] for n in range(30_000))
    assert first["a"] == 30_000 * (1 - EXPLORED_SHARE)
    assert first["b"] == first["c"] == first["d"] == 200


@given(
    st.sampled_from(["fixed", "priority", "weighted", "least_cost", "least_latency"]),
    st.lists(
        st.tuples(
            st.floats(0, 1e9),
            st.one_of(st.none(), st.integers(0, 10**15)),
            st.one_of(st.none(), st.floats(0, 1e6)),
        ),
        max_size=8,
    ),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 10**9),
)
def test_every_strategy_returns_each_deployment_once(
    strategy: Strategy,
    rows: list[tuple[float, int | None, float | None]],
    draw: float,
    tokens: int,
) -> None:
    deployments = priced(
        **{f"d{n}": None if row[1] is None else (row[1], row[1]) for n, row in enumerate(rows)}
    )
    health = FakeHealth(
        latencies={d.id: row[2] for d, row in zip(deployments, rows, strict=True) if row[2] is not None}
    )
    features = Features(input_tokens=tokens)
    found = put_in_order(
        strategy, deployments, [row[0] for row in rows], features=features, health=health, draw=draw
    )
    assert sorted(d.id for d in found.deployments) == sorted(d.id for d in deployments)
    again = put_in_order(
        strategy, deployments, [row[0] for row in rows], features=features, health=health, draw=draw
    )
    assert list(again.deployments) == list(found.deployments)
