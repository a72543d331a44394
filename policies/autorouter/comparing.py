"""Which of two versions of the tables routes the same requests better, and is the difference more than chance?

Pure. Quality over cost as `curves` has it, pooled over all requests; the interval of the lead comes from resampling
requests, each time for both versions at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from policies.autorouter import curves
from policies.autorouter.answered import Answered, Routed
from policies.autorouter.curves import Point
from policies.autorouter.foreseeing import Choices, Floats

TAUS: Final = np.concatenate(([0.0], np.geomspace(1e-3, 1e3, 60)))
RESAMPLES: Final = 200
# Nine of ten such intervals hold the true lead, so one in twenty lies wholly below it.
INTERVAL: Final = (0.05, 0.95)


class Comparison(NamedTuple):
    """How two versions did on the same requests. `lead`: AIQ of the new one less that of the one in force."""

    request_count: int
    aiq_now: float
    aiq_new: float
    lead_low: float
    lead_high: float
    default_quality_now: float
    default_quality_new: float
    default_cost_usd_now: float
    default_cost_usd_new: float
    best_single_quality: float
    best_single_cost_usd: float


class _Curve(NamedTuple):
    """Settings by requests."""

    costs: Floats
    qualities: Floats

    def aiq(self, weights: Floats, limits: tuple[Floats, Floats]) -> float:
        points = [
            Point(float(cost), float(quality))
            for cost, quality in zip(self.costs @ weights, self.qualities @ weights, strict=True)
        ]
        cheapest, dearest = (float(limit @ weights) for limit in limits)
        return curves.aiq(points, cheapest=cheapest, dearest=dearest)


def compare(groups: Sequence[Answered], now: Sequence[Routed], new: Sequence[Routed]) -> Comparison:
    """Compare two versions; `now` and `new` run beside the groups, of which there is one at least."""
    curve_now, curve_new = _curve(groups, now), _curve(groups, new)
    row_count = sum(len(group.scores) for group in groups)
    limits = (
        np.concatenate([group.costs[:, group.costs.mean(axis=0).argmin()] for group in groups]),
        np.concatenate([group.costs[:, group.costs.mean(axis=0).argmax()] for group in groups]),
    )
    weights = np.full(row_count, 1 / row_count)
    low, high = _lead(curve_now, curve_new, limits)
    best = [np.full(len(group.scores), group.scores.mean(axis=0).argmax()) for group in groups]
    single = _took(groups, best)
    default_now, default_new = (_took(groups, [one.by_default for one in routed]) for routed in (now, new))
    return Comparison(
        request_count=row_count,
        aiq_now=curve_now.aiq(weights, limits),
        aiq_new=curve_new.aiq(weights, limits),
        lead_low=low,
        lead_high=high,
        default_quality_now=default_now.quality,
        default_quality_new=default_new.quality,
        default_cost_usd_now=default_now.cost,
        default_cost_usd_new=default_new.cost,
        best_single_quality=single.quality,
        best_single_cost_usd=single.cost,
    )


def _curve(groups: Sequence[Answered], routed: Sequence[Routed]) -> _Curve:
    costs, qualities = [], []
    for group, found in zip(groups, routed, strict=True):
        at = np.arange(len(group.scores))
        choices = np.array([found.foreseen.choose(tau) for tau in TAUS])
        costs.append(group.costs[at, choices])
        qualities.append(group.scores[at, choices])
    return _Curve(np.concatenate(costs, axis=1), np.concatenate(qualities, axis=1))


def _lead(now: _Curve, new: _Curve, limits: tuple[Floats, Floats]) -> tuple[float, float]:
    generator = np.random.default_rng(0)
    row_count = len(limits[0])
    leads = []
    for _ in range(RESAMPLES):
        weights = generator.multinomial(row_count, np.full(row_count, 1 / row_count)) / row_count
        leads.append(new.aiq(weights, limits) - now.aiq(weights, limits))
    low, high = np.quantile(leads, INTERVAL)
    return float(low), float(high)


def _took(groups: Sequence[Answered], choices: Sequence[Choices]) -> Point:
    """Return the mean cost and quality of these choices."""
    picked = [
        (group.costs[np.arange(len(one)), one], group.scores[np.arange(len(one)), one])
        for group, one in zip(groups, choices, strict=True)
    ]
    return Point(
        float(np.concatenate([costs for costs, _ in picked]).mean()),
        float(np.concatenate([scores for _, scores in picked]).mean()),
    )
