"""Is a new version of the router's tables at least as good as the one in force? Judged on evidence held back from it.

Pure. Two questions. Does it foresee the quality of answers no worse? Asked of every judgement. Does it route no worse,
in quality over cost? Asked of requests to which a checker judged several models' answers. Worse counts where it is
more than chance: where nine of ten intervals for the difference lie wholly on the wrong side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Final, NamedTuple

from policies.autorouter.answered import (
    NO_MEANS,
    Answered,
    Judged,
    SizeSource,
    group_answers,
    route_answered,
)
from policies.autorouter.comparing import Comparison, compare
from policies.autorouter.estimating import estimate_qualities
from policies.autorouter.learning import SOURCE_WEIGHTS
from policies.autorouter.ranking import TYPICAL_REQUEST
from policies.autorouter.tables import RouterTables
from policies.snapshot import DeploymentSnapshot

MIN_HELD_OUT: Final = 20
# Of fewer requests that several models answered, nothing is said about routing.
MIN_COMPARED: Final = 30
# A 90 % interval reaches so many standard errors to each side.
INTERVAL_ERRORS: Final = 1.645


class Side(NamedTuple):
    """A version to be judged: its tables fold by fold (one that is in force has seen none of what is held back), and
    how difficult it takes the held-back questions to be, by pair id. `name` is what sentences call it."""

    by_fold: Sequence[RouterTables]
    difficulties: Mapping[str, float]
    name: str = "the version in force"


class GateResult(NamedTuple):
    """The verdict, sentences that say why, and the numbers they rest on.

    `is_thin`: what was held back is too little to say that the version is better, or as good in routing. It may go
    into force, but not by itself.
    """

    passes: bool
    reasons: tuple[str, ...]
    numbers: Mapping[str, float]
    is_thin: bool = False


def gate(
    *,
    candidate: Side,
    current: Side,
    held_out: Sequence[Judged],
    deployments: Mapping[str, DeploymentSnapshot],
    mean_input_tokens: Mapping[str, float] = NO_MEANS,
) -> GateResult:
    """Judge a candidate beside the tables in force; `deployments`: what would serve each model.

    `mean_input_tokens`: of each workload, for requests of which no record says how long they were.
    Without held-out evidence the two know the same of quality, and differ in running means alone: it passes.
    """
    if not held_out:
        return GateResult(
            True, ("No new judgements: only output lengths and latencies were measured anew.",), {}
        )
    foresight = _compare_foresight(candidate, current, held_out)
    groups = group_answers(held_out, deployments, mean_input_tokens)
    routing = _compare_routing(candidate, current, groups)
    return GateResult(
        passes=foresight.passes and routing.passes,
        reasons=(*foresight.reasons, *routing.reasons),
        numbers={**foresight.numbers, **routing.numbers},
        # Better in foresight is enough to go by; as good as before there, and nobody knows in routing, is not.
        is_thin=foresight.is_thin and routing.is_thin,
    )


def _compare_foresight(candidate: Side, current: Side, held_out: Sequence[Judged]) -> GateResult:
    errors_now, errors_new = _squared_errors(current, held_out), _squared_errors(candidate, held_out)
    worse = _mean_difference(errors_new, errors_now)
    low, high = worse.mean - INTERVAL_ERRORS * worse.error, worse.mean + INTERVAL_ERRORS * worse.error
    numbers: dict[str, float] = {
        "held_back_judgements": len(held_out),
        "typical_error_in_force": round(sqrt(sum(errors_now) / len(errors_now)), 4),
        "typical_error_new": round(sqrt(sum(errors_new) / len(errors_new)), 4),
    }
    passes = low <= 0
    found = "better than" if high < 0 else "as well as" if passes else "worse than"
    reason = (
        f"It foresees the quality of answers {found} {current.name}: off by {numbers['typical_error_new']:.3f}"
        f" typically, against {numbers['typical_error_in_force']:.3f}, on {len(held_out):,} judgements held back from"
        " it."
    )
    return GateResult(passes, (reason,), numbers, is_thin=high >= 0)


def _compare_routing(candidate: Side, current: Side, groups: Sequence[Answered]) -> GateResult:
    request_count = sum(len(group.requests) for group in groups)
    if request_count < MIN_COMPARED:
        reason = (
            f"Whether it routes better is not known: of {request_count:,} requests held back a checker judged several"
            f" models' answers, {MIN_COMPARED} are needed. An evaluation set run over two or more models brings them."
        )
        return GateResult(True, (reason,), {"requests_answered_by_several": request_count}, is_thin=True)
    found = compare(
        groups,
        [route_answered(group, current.by_fold, current.difficulties) for group in groups],
        [route_answered(group, candidate.by_fold, candidate.difficulties) for group in groups],
    )
    passes = found.lead_high >= 0
    how = "better than" if found.lead_low > 0 else "as well as" if passes else "worse than"
    reason = (
        f"It routes {how} {current.name}: quality over cost {found.aiq_new:.4f} against {found.aiq_now:.4f}, a"
        f" lead of {found.lead_low:+.4f} to {found.lead_high:+.4f}, on {request_count:,} requests held back that"
        " several models answered."
    )
    sizes = Counter(source for group in groups for source in group.size_sources)
    return GateResult(
        passes,
        (reason, _say_sizes(sizes)),
        {**_numbers(found), **{f"size_of_{s}": sizes[s] for s in SizeSource}},
    )


def _say_sizes(sizes: Mapping[SizeSource, int]) -> str:
    """On which lengths of requests the costs rest."""
    parts = [
        f"{sizes[source]:,} {text}"
        for source, text in (
            (SizeSource.RECORD, "as long as their records say"),
            (SizeSource.WORKLOAD, "as long as their workload's mean"),
            (SizeSource.ASSUMED, f"of {TYPICAL_REQUEST.input_tokens} input tokens, which is assumed"),
        )
        if sizes[source]
    ]
    return f"Costs are those of requests: {'; '.join(parts)}."


def _numbers(found: Comparison) -> dict[str, float]:
    """Costs are for a thousand requests."""
    return {
        "requests_answered_by_several": found.request_count,
        "aiq_in_force": round(found.aiq_now, 4),
        "aiq_new": round(found.aiq_new, 4),
        "aiq_lead_low": round(found.lead_low, 4),
        "aiq_lead_high": round(found.lead_high, 4),
        "default_quality_in_force": round(found.default_quality_now, 4),
        "default_quality_new": round(found.default_quality_new, 4),
        "default_cost_usd_in_force": round(1000 * found.default_cost_usd_now, 4),
        "default_cost_usd_new": round(1000 * found.default_cost_usd_new, 4),
        "best_single_quality": round(found.best_single_quality, 4),
        "best_single_cost_usd": round(1000 * found.best_single_cost_usd, 4),
    }


class _Mean(NamedTuple):
    mean: float
    error: float


def _mean_difference(one: Sequence[float], other: Sequence[float]) -> _Mean:
    """The mean of one - other, paired, with its standard error."""
    differences = [a - b for a, b in zip(one, other, strict=True)]
    mean = sum(differences) / len(differences)
    variance = sum((d - mean) ** 2 for d in differences) / max(1, len(differences) - 1)
    return _Mean(mean, sqrt(variance / len(differences)) + 1e-12)


def _squared_errors(side: Side, held_out: Sequence[Judged]) -> list[float]:
    return [
        SOURCE_WEIGHTS[one.evidence.source]
        * (one.evidence.quality - _estimate(side.by_fold[one.fold], one)) ** 2
        for one in held_out
    ]


def _estimate(tables: RouterTables, one: Judged) -> float:
    workload, task_type, model = one.evidence.workload, one.evidence.task_type, one.evidence.model
    (found,) = estimate_qualities([model], [None], workload=workload, task_type=task_type, tables=tables)
    return found.mean
