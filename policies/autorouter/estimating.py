"""How good, how dear and how slow is each model taken to be on a workload? Prior, type, then the workload's evidence.

Pure.

Quality: the model's rating (operator's or public; an unknown model has its price neighbour's, marked as a guess), moved
by the evidence on the request's type (small weight), then by the workload's own with n / (n + 40). Evidence is a mean
paired difference from the average model, so an easy workload does not flatter the models that happened to serve it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import log, sqrt
from typing import Final, NamedTuple

from policies.autorouter.public_ratings import find_public_rating
from policies.autorouter.tables import ALL_TYPES, Amount, Latency, Rating, RouterTables, Workload

# Pseudo-counts of the estimate so far against a workload's own evidence, that of its type, and that of all requests.
WORKLOAD_PSEUDO_COUNT: Final = 40.0
TYPE_PSEUDO_COUNT: Final = 400.0
OVERALL_PSEUDO_COUNT: Final = 100.0
# However much there is, evidence on the type moves an estimate by this share at most: workloads of one type differ.
MOST_OF_TYPE: Final = 0.3
# Ten judgements are as likely to mislead as to help: a workload's evidence counts from the eleventh on.
UNCOUNTED: Final = 10.0
# Departures of this size, in squared standard errors a model, are taken for chance.
CHANCE_FACTOR: Final = 1.0
# How far a rating may be off: its standard error where somebody rated the model, and where it is a neighbour's.
RATING_ERROR: Final = 0.08
GUESS_ERROR: Final = 0.16
# Output where nothing is known of the model on the workload or the type.
TYPICAL_OUTPUT_TOKENS: Final = 400.0
OUTPUT_PSEUDO_COUNT: Final = 10.0
# What a model without a rated neighbour is worth by its price alone: about what public tables show, from small open
# models (0.1 USD per million tokens) to the largest (10 USD and more).
_CHEAPEST_USD, _DEAREST_USD = 0.1, 10.0
_CHEAPEST_QUALITY, _DEAREST_QUALITY = 0.45, 0.8


class Quality(NamedTuple):
    """An estimate in 0..1, its standard error, and the evidence of this workload that it rests on."""

    mean: float
    error: float
    evidence_count: float
    is_guess: bool


def blended_usd_per_mtok(input_usd_per_mtok: float, output_usd_per_mtok: float) -> float:
    """Return one price to compare models by: three parts input, one part output."""
    return (3 * input_usd_per_mtok + output_usd_per_mtok) / 4


def find_rating(model: str, usd_per_mtok: float | int | None, tables: RouterTables) -> Rating:
    """Return the tables' rating, a public one, or that of the nearest model by price, marked as a guess."""
    rating = tables.ratings.get(model) or find_public_rating(model)
    if rating is not None:
        return rating
    if usd_per_mtok is None:
        return Rating(_DEAREST_QUALITY / 2 + _CHEAPEST_QUALITY / 2, "no price, no rating", is_guess=True)
    neighbours = [
        (abs(log(max(other.usd_per_mtok, 1e-4) / max(usd_per_mtok, 1e-4))), name)
        for name, other in tables.ratings.items()
        if other.usd_per_mtok is not None and not other.is_guess
    ]
    if neighbours:
        distance, name = min(neighbours)
        if distance <= log(3):
            return Rating(tables.ratings[name].quality, f"as {name}, by price", is_guess=True)
    return Rating(quality_by_price(usd_per_mtok), "by price", is_guess=True)


def quality_by_price(usd_per_mtok: float) -> float:
    """Return what a model of this price is usually worth."""
    place = log(max(usd_per_mtok, 1e-4) / _CHEAPEST_USD) / log(_DEAREST_USD / _CHEAPEST_USD)
    return _CHEAPEST_QUALITY + min(1.0, max(0.0, place)) * (_DEAREST_QUALITY - _CHEAPEST_QUALITY)


def estimate_qualities(
    models: Sequence[str],
    usd_per_mtok: Sequence[float | int | None],
    *,
    workload: str,
    task_type: str,
    tables: RouterTables,
) -> list[Quality]:
    """Estimate each model's quality on the workload; prices run beside the models."""
    key = (task_type, tuple(models), tuple(usd_per_mtok))
    start: _Start = tables.memo.get(key) or tables.remember(key, _before_workload(*key, tables))
    means, errors = start.means, start.errors
    counts: Mapping[str, float] = {}
    by_workload = tables.workloads.get(workload)
    if by_workload is not None:
        means, errors = _move(means, errors, by_workload, WORKLOAD_PSEUDO_COUNT)
        counts = {model: found.n for model, found in by_workload.models.items()}
    return [
        Quality(
            min(1.0, max(0.0, means[model])), errors[model], counts.get(model, 0.0), model in start.guessed
        )
        for model in models
    ]


class _Start(NamedTuple):
    """What is known of models on a type, before a workload's own evidence."""

    means: Mapping[str, float]
    errors: Mapping[str, float]
    guessed: frozenset[str]


def _before_workload(
    task_type: str,
    models: tuple[str, ...],
    usd_per_mtok: tuple[float | int | None, ...],
    tables: RouterTables,
) -> _Start:
    ratings = {
        model: find_rating(model, price, tables) for model, price in zip(models, usd_per_mtok, strict=True)
    }
    means: Mapping[str, float] = {model: rating.quality for model, rating in ratings.items()}
    errors: Mapping[str, float] = {
        model: GUESS_ERROR if rating.is_guess else RATING_ERROR for model, rating in ratings.items()
    }
    overall = tables.types.get(ALL_TYPES)
    if overall is not None:
        means, errors = _move(means, errors, overall, OVERALL_PSEUDO_COUNT)
    by_type = tables.types.get(task_type)
    if by_type is not None:
        means, errors = _move(means, errors, by_type, TYPE_PSEUDO_COUNT, most=MOST_OF_TYPE)
    return _Start(means, errors, frozenset(model for model, rating in ratings.items() if rating.is_guess))


def _move(
    means: Mapping[str, float],
    errors: Mapping[str, float],
    evidence: Workload,
    pseudo_count: float,
    *,
    most: float = 1.0,
) -> tuple[dict[str, float], dict[str, float]]:
    """Move estimates towards evidence: each model's difference by n / (n + k), the common level by the same rule.

    Evidence that agrees with an estimate moves it nowhere and makes it surer all the same.

    A difference is from the average model of the evidence, an estimate is absolute: `offset` is where the first
    stands in the second, weighing the models by how much is known of them.
    """
    shares = {
        model: most * counted(found.n) / (counted(found.n) + pseudo_count)
        for model, found in evidence.models.items()
        if model in means and counted(found.n) > 0
    }
    weight = sum(shares.values())
    if not weight:
        return dict(means), dict(errors)
    offset = sum(s * (means[m] - evidence.models[m].difference) for m, s in shares.items()) / weight
    trust = _trust(means, evidence, offset, shares)
    lift = most * counted(evidence.n) / (counted(evidence.n) + pseudo_count) * (evidence.level - offset)
    moved, moved_errors = {}, {}
    for model, mean in means.items():
        share = shares.get(model, 0.0)
        found = evidence.models.get(model)
        target = mean if found is None else found.difference + offset
        moved[model] = mean + trust * share * (target - mean) + lift
        sampled = 0.0 if found is None else found.error
        moved_errors[model] = sqrt((share * sampled) ** 2 + ((1 - share) * errors[model]) ** 2)
    return moved, moved_errors


def _trust(means: Mapping[str, float], evidence: Workload, offset: float, models: Collection[str]) -> float:
    """Return how much of a departure from the estimates is more than chance: the rule of James and Stein.

    Where the differences stray from the estimates no further than their errors let one expect, nothing moves.
    """
    strayed = 0.0
    for model in models:
        found = evidence.models[model]
        strayed += ((found.difference + offset - means[model]) / max(found.error, 1e-6)) ** 2
    return max(0.0, 1 - CHANCE_FACTOR * (len(models) - 1) / strayed) if strayed else 0.0


def counted(n: float) -> float:
    """Return how much of `n` counts: the first few judgements decide nothing, the next ones move by little."""
    return max(0.0, n - UNCOUNTED)


def expected_output_tokens(model: str, *, workload: str, task_type: str, tables: RouterTables) -> float:
    """Return the mean output of this model on this workload, resting on the type's and then on a usual one."""
    by_type = tables.type_output_tokens.get((task_type, model))
    mean = TYPICAL_OUTPUT_TOKENS if by_type is None else _shrink(by_type, TYPICAL_OUTPUT_TOKENS)
    by_workload = tables.workload_output_tokens.get((workload, model))
    return mean if by_workload is None else _shrink(by_workload, mean)


def expected_latency(model: str, *, workload: str, tables: RouterTables) -> Latency | None:
    """Return the latency of this model on this workload, else over all workloads, else None."""
    return tables.latencies.get((workload, model)) or tables.latencies.get(("all", model))


def _shrink(amount: Amount, towards: float) -> float:
    return (amount.n * amount.mean + OUTPUT_PSEUDO_COUNT * towards) / (amount.n + OUTPUT_PSEUDO_COUNT)
