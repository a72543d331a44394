"""What did a run of an evaluation set find? Each deployment's quality with its error, cost, latency; the bad answers.

Reads: evaluation_run, evaluation_answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from django.db.models import Avg, Count, FloatField, Q, QuerySet, StdDev, Sum
from django.db.models.aggregates import Aggregate

from billing.models import EvaluationAnswer, EvaluationRun
from policies.models import Deployment

# Standard errors to each side of the bar: 95 of 100 such bars hold the true value.
BAR = 1.96
BAD_BELOW = 0.5


@dataclass(frozen=True, slots=True)
class Result:
    """One deployment's result. `low`..`high`: 95 % interval of `quality` over cases like these.

    `behind` is how much lower its quality is than the best one's on the cases that both answered, with the standard
    error of that difference. `cost_nanousd` sums what is known; `unknown_cost_count` answers are not in it.
    """

    deployment: Deployment
    answer_count: int
    failed_count: int
    bad_count: int
    quality: float | None
    low: float | None
    high: float | None
    cost_nanousd: int
    unknown_cost_count: int
    median_ms: float | None
    mean_output_tokens: float | None
    behind: float | None = None
    behind_error: float | None = None

    @property
    def answer_cost_nanousd(self) -> int | None:
        """What an answer cost on average."""
        known = self.answer_count + self.failed_count - self.unknown_cost_count
        return self.cost_nanousd // known if known else None


class _Median(Aggregate):
    function = "percentile_cont"
    template = "%(function)s(0.5) WITHIN GROUP (ORDER BY %(expressions)s)"
    output_field = FloatField()


def summarise(run: EvaluationRun) -> list[Result]:
    """The results of a run (also of one that is under way), the best first."""
    deployments = {row.pk: row for row in run.deployments.select_related("model", "provider")}
    rows = (
        run.answers.order_by()
        .values("deployment_id")
        .annotate(
            judged=Count("quality"),
            failed=Count("id", filter=Q(quality__isnull=True)),
            bad=Count("id", filter=Q(quality__lt=BAD_BELOW)),
            mean=Avg("quality"),
            deviation=StdDev("quality", sample=True),
            cost=Sum("cost_nanousd", default=0),
            unknown=Count("id", filter=Q(cost_nanousd__isnull=True)),
            median_ms=_Median("duration_ms"),
            tokens=Avg("output_tokens"),
        )
    )
    results: list[Result] = []
    for row in rows:
        low, high = interval(row["mean"], row["deviation"], row["judged"])
        results.append(
            Result(
                deployment=deployments[row["deployment_id"]],
                answer_count=row["judged"],
                failed_count=row["failed"],
                bad_count=row["bad"],
                quality=row["mean"],
                low=low,
                high=high,
                cost_nanousd=int(row["cost"]),
                unknown_cost_count=row["unknown"],
                median_ms=row["median_ms"],
                mean_output_tokens=row["tokens"],
            )
        )
    results.sort(
        key=lambda result: (-(result.quality if result.quality is not None else -1), result.deployment.name)
    )
    return _with_differences(run, results)


def interval(mean: float | None, deviation: float | None, count: int) -> tuple[float | None, float | None]:
    """The 95 % interval of a mean of qualities in 0..1, as if two good and two bad answers more had been seen.

    For right-or-wrong qualities this is Agresti and Coull's (The American Statistician 52, 1998): it stays honest where
    all answers went the same way, and where there are few.
    """
    if mean is None or not count:
        return None, None
    squares = (count - 1) * (deviation or 0.0) ** 2 + count * mean * mean
    centre = (mean * count + 2) / (count + 4)
    variance = max(0.0, (squares + 2) / (count + 4) - centre * centre)
    error = math.sqrt(variance / (count + 4))
    return max(0.0, centre - BAR * error), min(1.0, centre + BAR * error)


def _with_differences(run: EvaluationRun, results: Sequence[Result]) -> list[Result]:
    """Results with their paired difference to the best one."""
    if len(results) < 2 or results[0].quality is None:
        return list(results)
    qualities: dict[int, dict[int, float]] = {}
    rows = run.answers.filter(quality__isnull=False).order_by()
    for deployment_id, case_id, quality in rows.values_list("deployment_id", "case_id", "quality"):
        if quality is not None:
            qualities.setdefault(deployment_id, {})[case_id] = quality
    best = qualities[results[0].deployment.pk]
    found = [results[0]]
    for result in results[1:]:
        own = qualities.get(result.deployment.pk, {})
        behind, error = paired_difference(best, own)
        found.append(replace(result, behind=behind, behind_error=error))
    return found


def paired_difference(
    first: Mapping[int, float], second: Mapping[int, float]
) -> tuple[float | None, float | None]:
    """Mean of first minus second over what both have, and its standard error (None below two pairs)."""
    differences = [first[key] - second[key] for key in first.keys() & second.keys()]
    count = len(differences)
    if not count:
        return None, None
    mean = math.fsum(differences) / count
    if count < 2:
        return mean, None
    variance = math.fsum((value - mean) ** 2 for value in differences) / (count - 1)
    return mean, math.sqrt(variance / count)


def list_bad_answers(run: EvaluationRun, *, deployment_id: int | None = None) -> QuerySet[EvaluationAnswer]:
    """Answers that were bad or missing, in the order of their cases."""
    rows = run.answers.filter(Q(quality__lt=BAD_BELOW) | Q(quality__isnull=True))
    if deployment_id is not None:
        rows = rows.filter(deployment_id=deployment_id)
    return rows.select_related("case", "deployment").order_by("case__number", "deployment__name")
