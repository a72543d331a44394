"""How good is a router's curve of quality over cost? Hull, AIQ, savings; APGR and CPT where there are two models.

Pure. A curve is a list of points (mean cost, mean quality); any mixture of two points can be had by tossing a coin, so
a curve counts as its upper convex hull. AIQ: RouterBench (arXiv 2403.12031). APGR, CPT: RouteLLM (arXiv 2406.18665).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Point(NamedTuple):
    """Means over the evaluated requests."""

    cost: float
    quality: float


def rising_hull(points: Iterable[Point]) -> list[Point]:
    """Return the upper convex hull from the cheapest point to the best one."""
    hull: list[Point] = []
    for point in sorted(set(points), key=lambda found: (found.cost, -found.quality)):
        if hull and point.quality <= hull[-1].quality:
            continue
        while len(hull) >= 2 and _is_below(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def aiq(points: Iterable[Point], *, cheapest: float, dearest: float) -> float:
    """Return the mean height of the hull between two costs.

    Left of its first point the curve is taken to be as high as there, right of its last one likewise.
    """
    hull = rising_hull(points)
    costs = np.array([point.cost for point in hull])
    qualities = np.array([point.quality for point in hull])
    if dearest <= cheapest:
        return float(qualities[-1])
    inside = costs[(costs > cheapest) & (costs < dearest)]
    grid = np.concatenate(([cheapest], inside, [dearest]))
    return float(np.trapezoid(np.interp(grid, costs, qualities), grid) / (dearest - cheapest))


def saving_at(points: Iterable[Point], quality: float, *, full_cost: float) -> float:
    """Return the share of `full_cost` that is saved where the hull first reaches `quality`; 0 when it never does."""
    hull = rising_hull(points)
    if not hull or hull[-1].quality < quality - 1e-12 or full_cost <= 0:
        return 0.0
    costs, qualities = [point.cost for point in hull], [point.quality for point in hull]
    cost = costs[0] if quality <= qualities[0] else float(np.interp(quality, qualities, costs))
    return max(0.0, 1 - cost / full_cost)


def recovered_gap(weak: Floats, strong: Floats, preference: Floats) -> tuple[Floats, Floats]:
    """Return the share of calls to the strong model, and the share of the quality gap that it recovers.

    The requests with the highest preference go to the strong model first.
    """
    order = np.argsort(-preference, kind="stable")
    shares = np.arange(len(order) + 1) / len(order)
    gained = np.concatenate(([0.0], np.cumsum((strong - weak)[order])))
    total = gained[-1]
    return shares, gained / total if total else np.zeros_like(gained)


def apgr(weak: Floats, strong: Floats, preference: Floats) -> float:
    """Return the mean recovered gap over all shares of strong calls; .5 is what chance gives."""
    shares, recovered = recovered_gap(weak, strong, preference)
    return float(np.trapezoid(recovered, shares))


def cpt(weak: Floats, strong: Floats, preference: Floats, target: float) -> float:
    """Return the least share of strong calls that recovers `target` of the gap."""
    shares, recovered = recovered_gap(weak, strong, preference)
    return float(shares[int(np.argmax(recovered >= target - 1e-12))])


def _is_below(left: Point, middle: Point, right: Point) -> bool:
    rise = (middle.quality - left.quality) * (right.cost - left.cost)
    return rise <= (right.quality - left.quality) * (middle.cost - left.cost)
