"""Would these tables have routed scored requests well? Every routing of them replayed, beside simple baselines.

Pure. A curve comes from sweeping tau, finer than the slider does. All requests are scored with the estimates that
`ranking` uses, and the slider's default with `ranking.rank` itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from policies.autorouter import curves
from policies.autorouter.curves import Point
from policies.autorouter.difficulty import UNKNOWN
from policies.autorouter.foreseeing import Choices, Floats, foresee
from policies.autorouter.offline_rows import Matrix
from policies.autorouter.ranking import DEFAULT_SLIDER, rank
from policies.autorouter.tables import RouterTables
from policies.autorouter.words import read_words
from policies.features import Features

TAUS: Final = np.concatenate(([0.0], np.geomspace(1e-4, 1e3, 160)))
SAVING_LEVELS: Final = (0.95, 0.98, 1.0)
DEFAULT_BOOTSTRAP_COUNT: Final = 200


class Routing(NamedTuple):
    """What a router would have chosen: one row of `choices` (a model's column) a setting, one column a request."""

    name: str
    choices: Choices
    preference: Floats | None = None


def read_features(matrix: Matrix, tables: RouterTables) -> list[Features]:
    """Return each request's features as the gateway would read them."""
    difficulty = tables.difficulty
    return [
        Features(
            input_tokens=round(tokens),
            workload=row.workload,
            task_type=row.task_type,
            difficulty=UNKNOWN
            if difficulty is None
            else round(difficulty.difficulty(read_words(row.prompt)), 3),
        )
        for row, tokens in zip(matrix.rows, matrix.input_tokens, strict=True)
    ]


def route_by_tables(name: str, matrix: Matrix, tables: RouterTables, features: Sequence[Features]) -> Routing:
    """Return what the automatic router would choose, tau by tau."""
    foreseen = foresee(matrix.deployments, features, tables)
    choices = np.array([foreseen.choose(tau) for tau in TAUS])
    preference = None
    if len(matrix.deployments) == 2:
        quality, ratio = foreseen.quality - foreseen.caution, foreseen.cost_ratio
        dearer = int(ratio.mean(axis=0).argmax())
        gap = ratio[:, dearer] - ratio[:, 1 - dearer]
        preference = (quality[:, dearer] - quality[:, 1 - dearer]) / np.maximum(gap, 1e-9)
    return Routing(name, choices, preference)


def route_by_default(matrix: Matrix, tables: RouterTables, features: Sequence[Features]) -> Choices:
    """Return what `rank` puts first at the slider's default."""
    return np.array(
        [
            rank(
                matrix.deployments,
                facts,
                tables=tables,
                slider=DEFAULT_SLIDER,
                quality_floor=None,
                latency_ms=_no_latency,
            ).order[0]
            for facts in features
        ]
    )


def _no_latency(deployment_id: int) -> None:
    return None


def route_oracle(matrix: Matrix) -> Routing:
    """Return the choices of somebody who knows every score and cost beforehand."""
    ratio = matrix.costs / matrix.costs.mean(axis=0).max()
    return Routing("oracle", np.array([(matrix.scores - tau * ratio).argmax(axis=1) for tau in TAUS]))


def list_mix(training: Matrix) -> list[str]:
    """Return the models on the training rows' hull, cheapest first: what one would mix without a router."""
    costs, qualities = training.costs.mean(axis=0), training.scores.mean(axis=0)
    points = [Point(float(cost), float(quality)) for cost, quality in zip(costs, qualities, strict=True)]
    return [training.models[points.index(point)] for point in curves.rising_hull(points)]


def route_mix(matrix: Matrix, mix: Sequence[str]) -> Routing:
    """Return one setting for each model of the mix: the hull of a curve does the mixing."""
    columns = [matrix.models.index(model) for model in mix]
    return Routing("mix", np.array([np.full(len(matrix.rows), column) for column in columns]))


def route_by_length(matrix: Matrix, mix: Sequence[str]) -> Routing:
    """Return the choices of a router that sends longer prompts to the dearer models of the mix."""
    lengths = np.array([float(len(row.prompt)) for row in matrix.rows])
    order = np.argsort(-lengths, kind="stable")
    columns = [matrix.models.index(model) for model in mix]
    settings = [np.full(len(lengths), columns[0])]
    for dearer in columns[1:]:
        cheaper = settings[-1]
        for share in np.linspace(0, 1, 51):
            chosen = cheaper.copy()
            chosen[order[: round(share * len(lengths))]] = dearer
            settings.append(chosen)
    return Routing("length", np.array(settings), lengths if len(matrix.models) == 2 else None)


class Measured(NamedTuple):
    """A routing on a matrix: what each setting cost and earned, request by request (settings by requests)."""

    routing: Routing
    costs: Floats
    qualities: Floats

    def points(self, weights: Floats) -> list[Point]:
        """Return the curve; `weights` say how often each request counts and sum to 1."""
        return [
            Point(float(cost), float(quality))
            for cost, quality in zip(self.costs @ weights, self.qualities @ weights, strict=True)
        ]


def measure(matrix: Matrix, routing: Routing) -> Measured:
    """Look up what the chosen models cost and scored."""
    at = np.arange(len(matrix.rows))
    unique = np.unique(routing.choices, axis=0)
    return Measured(routing, matrix.costs[at, unique], matrix.scores[at, unique])


def summarise(matrix: Matrix, measured: Measured, weights: Floats) -> dict[str, float]:
    """Return the figures of one curve. Savings are shares of the best single model's cost."""
    single_costs, single_qualities = matrix.costs.T @ weights, matrix.scores.T @ weights
    best = int(single_qualities.argmax())
    points = measured.points(weights)
    quality, cost = float(single_qualities[best]), float(single_costs[best])
    best_quality = max(point.quality for point in points)
    figures = {
        "aiq": curves.aiq(points, cheapest=float(single_costs.min()), dearest=float(single_costs.max())),
        "best_quality": best_quality,
        "gain": best_quality / quality - 1 if quality else 0.0,
    }
    for level in SAVING_LEVELS:
        figures[f"savings_at_{round(level * 100)}"] = curves.saving_at(
            points, level * quality, full_cost=cost
        )
    return figures


def summarise_two(matrix: Matrix, preference: Floats, index: Choices) -> dict[str, float]:
    """Return APGR and CPT of the requests at `index`; the dearer model is taken to be the strong one."""
    strong = int(matrix.costs.mean(axis=0).argmax())
    scores = matrix.scores[index]
    weak_scores, strong_scores, wanted = scores[:, 1 - strong], scores[:, strong], preference[index]
    return {
        "apgr": curves.apgr(weak_scores, strong_scores, wanted),
        "cpt50": curves.cpt(weak_scores, strong_scores, wanted, 0.5),
        "cpt80": curves.cpt(weak_scores, strong_scores, wanted, 0.8),
    }


def bootstrap(
    matrix: Matrix, measured: Measured, against: Measured, *, count: int, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return 95 % intervals of a curve's figures, and of its AIQ's lead over `against`, from resampled requests."""
    generator = np.random.default_rng(seed)
    row_count = len(matrix.rows)
    drawn: dict[str, list[float]] = {}
    for _ in range(count):
        index = generator.integers(0, row_count, row_count)
        weights = np.bincount(index, minlength=row_count) / row_count
        figures = summarise(matrix, measured, weights)
        figures["aiq_over_mix"] = figures["aiq"] - summarise(matrix, against, weights)["aiq"]
        if measured.routing.preference is not None:
            figures |= summarise_two(matrix, measured.routing.preference, index)
        for name, value in figures.items():
            drawn.setdefault(name, []).append(value)
    return {
        name: (round(float(np.quantile(values, 0.025)), 5), round(float(np.quantile(values, 0.975)), 5))
        for name, values in drawn.items()
    }


def evaluate(
    matrix: Matrix,
    *,
    mix: Sequence[str],
    current: RouterTables,
    candidate: RouterTables,
    bootstrap_count: int = DEFAULT_BOOTSTRAP_COUNT,
    on_step: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Replay every row under each routing. The result is JSON; the candidate's figures also stand at its top."""
    weights = np.full(len(matrix.rows), 1 / len(matrix.rows))
    everything = np.arange(len(matrix.rows))
    single_costs, single_qualities = matrix.costs.mean(axis=0), matrix.scores.mean(axis=0)
    best, cheapest = int(single_qualities.argmax()), int(single_costs.argmin())
    rows: dict[str, dict[str, Any]] = {
        "random": {"quality": float(matrix.scores.mean()), "cost_usd": float(matrix.costs.mean())},
        "cheapest": _single(matrix, cheapest),
        "best_single": _single(matrix, best),
    }
    on_step("candidate tables")
    features = read_features(matrix, candidate)
    routings = [
        route_mix(matrix, mix),
        route_by_length(matrix, mix),
        route_by_tables("current", matrix, current, read_features(matrix, current)),
        route_by_tables("candidate", matrix, candidate, features),
        route_oracle(matrix),
    ]
    measured = {routing.name: measure(matrix, routing) for routing in routings}
    for name, found in measured.items():
        rows[name] = summarise(matrix, found, weights)
        if found.routing.preference is not None:
            rows[name] |= summarise_two(matrix, found.routing.preference, everything)
    on_step("default slider")
    chosen = route_by_default(matrix, candidate, features)
    quality = float(matrix.scores[everything, chosen].mean())
    cost = float(matrix.costs[everything, chosen].mean())
    on_step("bootstrap")
    return {
        **rows["candidate"],
        "aiq_over_mix": rows["candidate"]["aiq"] - rows["mix"]["aiq"],
        "best_quality_over_mix": rows["candidate"]["best_quality"] - rows["mix"]["best_quality"],
        "default_quality": quality,
        "default_quality_ratio": quality / single_qualities[best] if single_qualities[best] else 1.0,
        "default_saving": 1 - cost / float(single_costs[best]),
        "best_single_quality": float(single_qualities[best]),
        "row_count": len(matrix.rows),
        "model_count": len(matrix.models),
        "unseen_row_share": float(np.mean([row.workload not in candidate.workloads for row in matrix.rows])),
        "rows": rows,
        "intervals": bootstrap(matrix, measured["candidate"], measured["mix"], count=bootstrap_count),
    }


def _single(matrix: Matrix, column: int) -> dict[str, Any]:
    return {
        "model": matrix.models[column],
        "quality": float(matrix.scores[:, column].mean()),
        "cost_usd": float(matrix.costs[:, column].mean()),
    }
