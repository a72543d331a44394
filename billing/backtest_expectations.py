"""How long an answer, and after what time, is to be expected of a deployment on a workload?

Pure. Means of the records of the same period: of the model on that workload, else of the model, else of all. A
workload is the fingerprint that the record holds, else the rule that took the request.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

# A mean of fewer says less than the next wider one.
MIN_SEEN = 5
# Nothing at all is known: as `policies.strategies` assumes.
UNKNOWN_TOKENS = 500.0

Level = Literal["workload", "model", "all", "none"]


class Seen(NamedTuple):
    """What one deployment did on one workload: a row of the aggregate over the records."""

    workload: str
    deployment_id: int
    output_count: int
    output_sum: float
    output_square_sum: float
    first_token_count: int
    first_token_sum_ms: float
    duration_count: int
    duration_sum_ms: float


class Expected(NamedTuple):
    """An answer's length in tokens. `error` is that of the mean, `spread` that of single answers, one sigma each.

    `key` names the mean: its error is the same for all requests that are judged by it.
    """

    tokens: float
    error: float
    spread: float
    level: Level
    key: tuple[str, int]


@dataclass(slots=True)
class _Moments:
    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, count: int, total: float, squares: float) -> None:
        self.count += count
        self.total += total
        self.squares += squares

    def mean(self) -> float:
        return self.total / self.count

    def spread(self) -> float:
        """Standard deviation of single values. Of one value nothing is known: as wide as the value."""
        if self.count < 2:
            return self.mean()
        return math.sqrt(max(0.0, self.squares - self.total**2 / self.count) / (self.count - 1))


class Expectations:
    """What to expect, from `Seen` rows. `model_of`: deployment id -> model id."""

    def __init__(self, rows: Iterable[Seen], model_of: Mapping[int, int]) -> None:
        self._model_of = model_of
        self._by_workload: dict[tuple[str, int], _Moments] = {}
        self._by_model: dict[int, _Moments] = {}
        self._all = _Moments()
        self._first_token: dict[tuple[str, int], tuple[int, float]] = {}
        self._duration: dict[tuple[str, int], tuple[int, float]] = {}
        self._kept: dict[tuple[str, int], Expected] = {}
        for row in rows:
            self._take(row)

    def _take(self, row: Seen) -> None:
        for kept, count, total in (
            (self._first_token, row.first_token_count, row.first_token_sum_ms),
            (self._duration, row.duration_count, row.duration_sum_ms),
        ):
            for workload in (row.workload, ""):
                before = kept.get((workload, row.deployment_id), (0, 0.0))
                kept[workload, row.deployment_id] = (before[0] + count, before[1] + total)
        model_id = self._model_of.get(row.deployment_id)
        if model_id is None or not row.output_count:
            return
        moments = (row.output_count, row.output_sum, row.output_square_sum)
        self._by_workload.setdefault((row.workload, model_id), _Moments()).add(*moments)
        self._by_model.setdefault(model_id, _Moments()).add(*moments)
        self._all.add(*moments)

    def output_tokens(self, workload: str, model_id: int) -> Expected:
        """How long the model's answer will about be."""
        found = self._kept.get((workload, model_id))
        if found is None:
            found = self._kept[workload, model_id] = self._expect(workload, model_id)
        return found

    def _expect(self, workload: str, model_id: int) -> Expected:
        own = self._by_workload.get((workload, model_id))
        if own is not None and own.count >= MIN_SEEN:
            spread = own.spread()
            return Expected(
                own.mean(), spread / math.sqrt(own.count), spread, "workload", (workload, model_id)
            )
        model = self._by_model.get(model_id)
        if model is not None and model.count >= MIN_SEEN:
            # How far its workloads lie apart: this one may be any of them.
            parts = [m for (_, other), m in self._by_workload.items() if other == model_id]
            error = max(_between(parts), model.spread() / math.sqrt(model.count))
            return Expected(model.mean(), error, model.spread(), "model", ("", model_id))
        if self._all.count:
            error = max(_between(list(self._by_model.values())), self._all.spread())
            return Expected(self._all.mean(), error, self._all.spread(), "all", ("", 0))
        return Expected(UNKNOWN_TOKENS, UNKNOWN_TOKENS, UNKNOWN_TOKENS, "none", ("", 0))

    def first_token_ms(self, workload: str, deployment_id: int) -> float | None:
        """Mean time to the first token of this deployment; None: it answered too little in the period."""
        return _mean_of(self._first_token, workload, deployment_id)

    def duration_ms(self, workload: str, deployment_id: int) -> float | None:
        """Mean time to the whole answer."""
        return _mean_of(self._duration, workload, deployment_id)


def _mean_of(
    kept: Mapping[tuple[str, int], tuple[int, float]], workload: str, deployment_id: int
) -> float | None:
    for name in (workload, ""):
        count, total = kept.get((name, deployment_id), (0, 0.0))
        if count >= MIN_SEEN:
            return total / count
    return None


def _between(parts: list[_Moments]) -> float:
    """How far the means of the parts lie apart, weighted by their counts."""
    count = sum(part.count for part in parts)
    mean = sum(part.total for part in parts) / count
    return math.sqrt(sum(part.count * (part.mean() - mean) ** 2 for part in parts) / count)
