"""Are a curve's figures what their definitions say, worked out by hand?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.autorouter.curves import Point, aiq, apgr, cpt, rising_hull, saving_at

POINTS = st.lists(st.builds(Point, st.floats(0.01, 10), st.floats(0, 1)), min_size=1, max_size=12)


def test_the_hull_leaves_out_what_a_mixture_beats() -> None:
    points = [Point(1, 0.5), Point(2, 0.55), Point(3, 0.9), Point(4, 0.8), Point(1, 0.4)]
    assert rising_hull(points) == [Point(1, 0.5), Point(3, 0.9)]


@settings(max_examples=60, deadline=None)
@given(POINTS)
def test_no_point_lies_above_the_hull(points: list[Point]) -> None:
    hull = rising_hull(points)
    costs, qualities = [p.cost for p in hull], [p.quality for p in hull]
    assert costs == sorted(costs)
    for point in points:
        if point.cost >= costs[0]:
            assert point.quality <= np.interp(point.cost, costs, qualities) + 1e-9


def test_aiq_is_the_mean_height_between_two_costs() -> None:
    # A straight rise from .5 to .9 over half the span, flat after it.
    points = [Point(1, 0.5), Point(3, 0.9)]
    assert aiq(points, cheapest=1, dearest=5) == pytest.approx((0.7 * 2 + 0.9 * 2) / 4)
    assert aiq([Point(2, 0.6)], cheapest=1, dearest=5) == pytest.approx(0.6)
    assert aiq([Point(1, 0.6)], cheapest=1, dearest=1) == pytest.approx(0.6)


def test_a_saving_is_read_where_the_hull_first_reaches_the_quality() -> None:
    points = [Point(1, 0.5), Point(3, 0.9)]
    assert saving_at(points, 0.7, full_cost=4) == pytest.approx(0.5)
    assert saving_at(points, 0.4, full_cost=4) == pytest.approx(0.75)
    assert saving_at(points, 0.95, full_cost=4) == 0
    assert saving_at(points, 0.9, full_cost=2) == 0


def test_apgr_is_one_half_by_chance_and_near_one_with_foresight() -> None:
    weak, strong = np.array([0.0, 0, 1, 1]), np.array([1.0, 1, 1, 1])
    assert apgr(weak, strong, np.array([2.0, 2, 1, 1])) == pytest.approx(0.75)
    assert apgr(weak, strong, np.array([1.0, 1, 2, 2])) == pytest.approx(0.25)
    assert cpt(weak, strong, np.array([2.0, 2, 1, 1]), 0.5) == pytest.approx(0.25)
    assert cpt(weak, strong, np.array([1.0, 1, 2, 2]), 0.5) == pytest.approx(0.75)
    drawn = np.random.default_rng(0)
    many = drawn.integers(0, 2, 4000).astype(float)
    assert apgr(1 - many, np.ones(4000), drawn.random(4000)) == pytest.approx(0.5, abs=0.02)
