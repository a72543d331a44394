"""How does evidence become a new version of the router's tables?

Pure: `now_unix_s` is an argument. Differences are paired: models are compared on the requests that several of them
answered; what only one model answered is compared within its workload. Evidence halves every 90 days.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from policies.autorouter.tables import (
    ALL_TYPES,
    ALL_WORKLOADS,
    Amount,
    Estimate,
    Latency,
    RouterTables,
    Workload,
)

Source = Literal["feedback", "evaluation", "check", "shadow"]
HALF_LIFE_DAYS: Final = 90.0
# An answer that passes a free check may still be wrong, and two that agree may be wrong together: both say less than a
# person or a checker does.
SOURCE_WEIGHTS: Final[Mapping[str, float]] = {
    "evaluation": 1.0,
    "shadow": 0.25,
    "feedback": 1.0,
    "check": 0.25,
}
# Quantiles of fewer latencies say nothing.
MIN_LATENCIES: Final = 5
# The two-way fit of requests and models: exact at once where every model answered every request.
FIT_ROUNDS: Final = 12
# Where there is little evidence, a single answer is taken to vary like this around its estimate.
TYPICAL_VARIANCE: Final = 0.15

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


class Evidence(NamedTuple):
    """One scored answer. Those with the same `pair_id` are answers of several models to one request."""

    workload: str
    task_type: str
    model: str
    quality: float
    output_tokens: float | None = None
    latency_ms: float | None = None
    at_unix_s: float = 0.0
    pair_id: str = ""
    source: Source = "feedback"


def learn(
    evidence: Iterable[Evidence],
    *,
    priors: RouterTables,
    now_unix_s: float,
    version: int = 0,
    labels: Mapping[str, str] | None = None,
) -> RouterTables:
    """Return tables that rest on this evidence alone, with the ratings, pins and types of `priors`.

    `labels` are names for workloads, for people. The difficulty model of `priors` is kept: it is learnt from texts, by
    `difficulty_learning`. Raises ValueError for a quality outside 0..1.
    """
    rows = list(evidence)
    columns = _read_columns(rows, now_unix_s)
    by_workload = columns.group(columns.workloads)
    return RouterTables(
        version=version,
        learnt_at_unix_s=now_unix_s,
        ratings=priors.ratings,
        types={
            **{
                name: _fit(columns, index)._replace(task_type=name)
                for name, index in columns.group(columns.types).items()
                if name
            },
            **({ALL_TYPES: _fit(columns, np.arange(len(rows)))} if rows else {}),
        },
        workloads={
            name: _fit(columns, index)._replace(
                label=(labels or {}).get(name, ""), task_type=columns.commonest_type(index)
            )
            for name, index in by_workload.items()
            if name
        },
        workload_output_tokens=_output_tokens(columns, columns.workloads),
        type_output_tokens=_output_tokens(columns, columns.types),
        latencies=_latencies(columns),
        pins=priors.pins,
        extra_types=priors.extra_types,
        difficulty=priors.difficulty,
    )


class _Columns(NamedTuple):
    """Evidence by column; `pairs` and `models` are indices.

    An answer that can be compared with no other answer to its request shares a pair with its workload's other such.
    """

    workloads: npt.NDArray[np.str_]
    types: npt.NDArray[np.str_]
    models: Indices
    pairs: Indices
    is_paired: npt.NDArray[np.bool_]
    quality: Floats
    weight: Floats
    output_tokens: Floats
    latency_ms: Floats
    model_names: Sequence[str]

    def group(self, names: npt.NDArray[np.str_]) -> dict[str, Indices]:
        """Return the row numbers of each name."""
        if not len(names):
            return {}
        order = np.argsort(names, kind="stable")
        found, starts = np.unique(names[order], return_index=True)
        return {str(name): part for name, part in zip(found, np.split(order, starts[1:]), strict=True)}

    def commonest_type(self, index: Indices) -> str:
        """Return the type that most of these rows have."""
        names, counts = np.unique(self.types[index], return_counts=True)
        return str(names[counts.argmax()])


def _read_columns(rows: Sequence[Evidence], now_unix_s: float) -> _Columns:
    if any(not 0 <= row.quality <= 1 for row in rows):
        raise ValueError("the quality of an answer is between 0 and 1")
    model_names = sorted({row.model for row in rows})
    model_numbers = {name: number for number, name in enumerate(model_names)}
    answers = Counter((row.workload, row.pair_id) for row in rows if row.pair_id)
    is_paired = [answers[row.workload, row.pair_id] > 1 for row in rows]
    pair_numbers: dict[tuple[str, str], int] = {}
    pairs = [
        pair_numbers.setdefault((row.workload, row.pair_id if is_in_pair else ""), len(pair_numbers))
        for row, is_in_pair in zip(rows, is_paired, strict=True)
    ]
    age_days = np.array([max(0.0, now_unix_s - row.at_unix_s) / 86_400 for row in rows])
    return _Columns(
        workloads=np.array([row.workload for row in rows], dtype=np.str_),
        types=np.array([row.task_type for row in rows], dtype=np.str_),
        models=np.array([model_numbers[row.model] for row in rows], dtype=np.int64),
        pairs=np.array(pairs, dtype=np.int64),
        is_paired=np.array(is_paired, dtype=bool),
        quality=np.array([row.quality for row in rows], dtype=float),
        weight=np.array([SOURCE_WEIGHTS[row.source] for row in rows]) * 0.5 ** (age_days / HALF_LIFE_DAYS),
        output_tokens=np.array([np.nan if row.output_tokens is None else row.output_tokens for row in rows]),
        latency_ms=np.array([np.nan if row.latency_ms is None else row.latency_ms for row in rows]),
        model_names=model_names,
    )


def _fit(columns: _Columns, index: Indices) -> Workload:
    """Fit quality = request + model by weighted least squares, in turns; report the model part, centred."""
    weight, quality = columns.weight[index], columns.quality[index]
    models, model_at = np.unique(columns.models[index], return_inverse=True)
    pairs, pair_at = np.unique(columns.pairs[index], return_inverse=True)
    counts = np.bincount(model_at, weight)
    pair_weight = np.bincount(pair_at, weight)
    difference = np.zeros(len(models))
    request = np.zeros(len(pairs))
    for _ in range(FIT_ROUNDS):
        request = np.bincount(pair_at, weight * (quality - difference[model_at])) / pair_weight
        difference = np.bincount(model_at, weight * (quality - request[pair_at])) / counts
        difference -= (counts * difference).sum() / counts.sum()
    residual = quality - request[pair_at] - difference[model_at]
    squares = np.bincount(model_at, weight * residual**2)
    error = np.sqrt((squares + TYPICAL_VARIANCE) / (counts + 1) / counts)
    return Workload(
        n=_request_count(pair_at, weight, columns.is_paired[index]),
        level=float((pair_weight * request).sum() / pair_weight.sum()),
        models={
            columns.model_names[model]: Estimate(float(counts[at]), float(difference[at]), float(error[at]))
            for at, model in enumerate(models)
        },
    )


def _request_count(pair_at: npt.NDArray[np.intp], weight: Floats, is_paired: npt.NDArray[np.bool_]) -> float:
    """Count requests: several answers to one request count once, by the weightiest."""
    heaviest = np.zeros(pair_at.max() + 1)
    np.maximum.at(heaviest, pair_at[is_paired], weight[is_paired])
    return float(heaviest.sum() + weight[~is_paired].sum())


def _output_tokens(columns: _Columns, names: npt.NDArray[np.str_]) -> dict[tuple[str, str], Amount]:
    found = {}
    for (name, model), index in _by_model(columns, names, columns.output_tokens):
        weight = columns.weight[index]
        mean = float((weight * columns.output_tokens[index]).sum() / weight.sum())
        found[name, model] = Amount(mean, float(weight.sum()))
    return found


def _latencies(columns: _Columns) -> dict[tuple[str, str], Latency]:
    found = {}
    everywhere = np.full(len(columns.workloads), ALL_WORKLOADS)
    for names in (columns.workloads, everywhere):
        for (name, model), index in _by_model(columns, names, columns.latency_ms):
            if len(index) >= MIN_LATENCIES:
                p50, p95 = np.quantile(columns.latency_ms[index], (0.5, 0.95))
                found[name, model] = Latency(float(p50), float(p95), float(columns.weight[index].sum()))
    return found


def _by_model(
    columns: _Columns, names: npt.NDArray[np.str_], values: Floats
) -> Iterable[tuple[tuple[str, str], Indices]]:
    """Return the row numbers of each (name, model) that have a value."""
    for name, index in columns.group(names).items():
        known = index[~np.isnan(values[index])]
        for model in np.unique(columns.models[known]):
            yield (name, columns.model_names[model]), known[columns.models[known] == model]
