"""In which order are a rule's deployments tried?

Pure. `draw` in [0, 1) is the only randomness. Every strategy returns all deployments it was given, each once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, assert_never

from policies.features import Features
from policies.snapshot import DeploymentSnapshot, Strategy

# Output that a request is taken to produce when its sender set no limit.
EXPECTED_OUTPUT_TOKENS = 500
# The share of `least_latency` requests that go to one of the others first: a deployment that was slow once is
# otherwise never measured again.
EXPLORED_SHARE = 0.02


class LatencyView(Protocol):
    """Measured latencies."""

    def latency_ms(self, deployment_id: int, /) -> float | int | None:
        """Running mean of the time to the first token; None: not measured."""
        ...


class Ordered(NamedTuple):
    """Deployments in the order of trying, with the number each was judged by (None: none was known).

    `scores` is empty for strategies that judge by no number. Costs are nano-USD, latencies ms.
    """

    deployments: Sequence[DeploymentSnapshot]
    scores: Sequence[float | int | None] = ()


def put_in_order(
    strategy: Strategy,
    deployments: Sequence[DeploymentSnapshot],
    weights: Sequence[float],
    *,
    features: Features,
    health: LatencyView,
    draw: float,
) -> Ordered:
    """Order `deployments`; `weights` run beside them."""
    if strategy == "priority" or strategy == "fixed":
        return Ordered(deployments)
    if strategy == "weighted":
        return Ordered(_by_weight(deployments, weights, draw))
    if strategy == "least_cost":
        return _by_cost(deployments, features)
    if strategy == "least_latency":
        return _by_latency(deployments, health, draw)
    if strategy == "auto":
        raise ValueError("the automatic router ranks by itself")
    assert_never(strategy)


def expected_cost_nanousd(deployment: DeploymentSnapshot, features: Features) -> int | None:
    """What the request would about cost here, for comparing; None: unpriced."""
    input_rate, output_rate = deployment.input_nanousd_per_mtok, deployment.output_nanousd_per_mtok
    if input_rate is None and output_rate is None:
        return None
    output_tokens = (features.max_output_tokens or EXPECTED_OUTPUT_TOKENS) * max(1, features.choice_count)
    return (features.input_tokens * (input_rate or 0) + output_tokens * (output_rate or 0)) // 1_000_000


def _by_weight(
    deployments: Sequence[DeploymentSnapshot], weights: Sequence[float], draw: float
) -> list[DeploymentSnapshot]:
    """The drawn one first, in proportion to the weights; the others by falling weight, then as listed.

    A weight of 0 is never drawn while another has more: it is a fallback only.
    """
    # Stable also when reversed: equal weights stay as listed.
    order = sorted(range(len(deployments)), key=weights.__getitem__, reverse=True)
    point = draw * sum(weights)
    for index, weight in enumerate(weights):
        if point < weight:
            order.remove(index)
            order.insert(0, index)
            break
        point -= weight
    return [deployments[index] for index in order]


def _by_cost(deployments: Sequence[DeploymentSnapshot], features: Features) -> Ordered:
    """Cheapest expected cost first, unpriced last: an unknown price is not a low one. Ties as listed."""
    costs = [expected_cost_nanousd(deployment, features) for deployment in deployments]
    order = sorted(range(len(deployments)), key=lambda index: _known_first(costs[index]))
    return Ordered([deployments[index] for index in order], [costs[index] for index in order])


def _by_latency(deployments: Sequence[DeploymentSnapshot], health: LatencyView, draw: float) -> Ordered:
    """Fastest first. One that was never measured comes before all others: one request tells.

    `draw` below EXPLORED_SHARE puts one of the others first, evenly.
    """
    # As exact as the record keeps them, so that the record gives the same order again.
    latencies = [tenth(health.latency_ms(deployment.id)) for deployment in deployments]
    order = sorted(
        range(len(deployments)), key=lambda index: -1.0 if (ms := latencies[index]) is None else ms
    )
    if draw < EXPLORED_SHARE and len(order) > 1:
        order.insert(0, order.pop(1 + int(draw / EXPLORED_SHARE * (len(order) - 1))))
    return Ordered([deployments[index] for index in order], [latencies[index] for index in order])


def tenth(ms: float | int | None) -> float | int | None:
    """A latency as exact as a record keeps it."""
    return None if ms is None else round(ms * 10) / 10


def _known_first(value: float | int | None) -> tuple[bool, float]:
    return value is None, value or 0
