"""Is a new version of the router's tables at least as good as the one in force? Judged on evidence held back from it.

Pure. Two questions: does it foresee the quality of answers no worse, and does it choose models no worse? The second is
asked of requests that several models answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Final, NamedTuple

from policies.autorouter.estimating import estimate_qualities
from policies.autorouter.learning import SOURCE_WEIGHTS, Evidence
from policies.autorouter.tables import RouterTables

MIN_HELD_OUT: Final = 20
# What chance does to a comparison of this size is forgiven: so many standard errors of the difference.
FORGIVEN_ERRORS: Final = 1.0


class GateResult(NamedTuple):
    """The verdict, sentences that say why, and the numbers they rest on."""

    passes: bool
    reasons: tuple[str, ...]
    numbers: Mapping[str, float]


def gate(candidate: RouterTables, current: RouterTables, held_out: Sequence[Evidence]) -> GateResult:
    """Judge a candidate beside the tables in force.

    Without held-out evidence the two know the same of quality, and differ in running means alone: it passes.
    """
    if not held_out:
        return GateResult(
            True, ("No new judgements: only output lengths and latencies were measured anew.",), {}
        )
    reasons: list[str] = []
    errors_now = _squared_errors(current, held_out)
    errors_new = _squared_errors(candidate, held_out)
    worse = _mean_difference(errors_new, errors_now)
    numbers: dict[str, float] = {
        "held_back_judgements": len(held_out),
        "typical_error_in_force": round(sqrt(sum(errors_now) / len(errors_now)), 4),
        "typical_error_new": round(sqrt(sum(errors_new) / len(errors_new)), 4),
    }
    passes = worse.mean <= FORGIVEN_ERRORS * worse.error
    reasons.append(
        f"It {'foresees' if passes else 'does not foresee'} the quality of answers at least as well as the version"
        f" in force: off by {numbers['typical_error_new']:.3f} typically, against"
        f" {numbers['typical_error_in_force']:.3f}, on {len(held_out):,} judgements held back from it."
    )
    pairs = _pairs(held_out)
    if pairs:
        chosen_now = [_chosen_quality(current, pair) for pair in pairs]
        chosen_new = [_chosen_quality(candidate, pair) for pair in pairs]
        lost = _mean_difference(chosen_now, chosen_new)
        chooses_well = lost.mean <= FORGIVEN_ERRORS * lost.error
        passes = passes and chooses_well
        numbers |= {
            "requests_answered_by_several": len(pairs),
            "chosen_quality_in_force": round(sum(chosen_now) / len(pairs), 4),
            "chosen_quality_new": round(sum(chosen_new) / len(pairs), 4),
        }
        reasons.append(
            f"The models that it takes for the best {'are at least as good' if chooses_well else 'are worse'}:"
            f" {numbers['chosen_quality_new']:.3f} against {numbers['chosen_quality_in_force']:.3f}, on"
            f" {len(pairs):,} requests that several models answered."
        )
    return GateResult(passes, tuple(reasons), numbers)


class _Mean(NamedTuple):
    mean: float
    error: float


def _mean_difference(one: Sequence[float], other: Sequence[float]) -> _Mean:
    """The mean of one - other, paired, with its standard error."""
    differences = [a - b for a, b in zip(one, other, strict=True)]
    mean = sum(differences) / len(differences)
    variance = sum((d - mean) ** 2 for d in differences) / max(1, len(differences) - 1)
    return _Mean(mean, sqrt(variance / len(differences)) + 1e-12)


def _squared_errors(tables: RouterTables, held_out: Sequence[Evidence]) -> list[float]:
    return [
        SOURCE_WEIGHTS[one.source] * (one.quality - _estimate(tables, one, [one.model])[0]) ** 2
        for one in held_out
    ]


def _estimate(tables: RouterTables, one: Evidence, models: Sequence[str]) -> list[float]:
    found = estimate_qualities(
        models, [None] * len(models), workload=one.workload, task_type=one.task_type, tables=tables
    )
    return [quality.mean for quality in found]


def _pairs(held_out: Sequence[Evidence]) -> list[list[Evidence]]:
    """Answers of several models to one request."""
    groups: dict[tuple[str, str], list[Evidence]] = {}
    for one in held_out:
        if one.pair_id:
            groups.setdefault((one.workload, one.pair_id), []).append(one)
    return [group for group in groups.values() if len({one.model for one in group}) > 1]


def _chosen_quality(tables: RouterTables, pair: Sequence[Evidence]) -> float:
    """The quality of the answer by the model that these tables take for the best."""
    estimates = _estimate(tables, pair[0], [one.model for one in pair])
    best = max(range(len(pair)), key=lambda place: (estimates[place], -place))
    return pair[best].quality
