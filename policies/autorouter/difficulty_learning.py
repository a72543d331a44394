"""Do a request's words tell which models will manage it, beyond what its workload tells? Learnt, and held to proof.

Pure. Ridge regression over hashed words, fitted to what the workload's estimate leaves unexplained. Each weight of the
result is scaled by what it earned on folds that it had not seen; where that is nothing, there is no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

from policies.autorouter.difficulty import DifficultyModel, bucket_matrix
from policies.autorouter.estimating import estimate_qualities
from policies.autorouter.tables import RouterTables

FOLDS: Final = 5
# Chosen by cross-validation inside the training rows of public data; flat around these values.
RIDGE: Final = 30.0
# Fewer examples than this say nothing about two thousand words.
MIN_EXAMPLES: Final = 200
# A direction counts when it stands out from chance by this many standard errors on unseen folds.
MIN_T: Final = 2.5

Floats = npt.NDArray[np.float64]


class Example(NamedTuple):
    """A request that several models answered, each answer scored in 0..1."""

    text: str
    workload: str
    task_type: str
    qualities: Mapping[str, float]


def learn_difficulty(examples: Sequence[Example], *, tables: RouterTables) -> DifficultyModel | None:
    """Return a model of difficulty for `tables`, or None when the words did not prove to help."""
    models = sorted({model for example in examples for model in example.qualities})
    if len(examples) < MIN_EXAMPLES or len(models) < 2:
        return None
    left = _unexplained(examples, models, tables)
    strength = _strengths(models, tables)
    is_scored = ~np.isnan(left)
    target = np.where(is_scored, left, 0.0) @ strength
    if not target.std():
        return None
    matrix = bucket_matrix(example.text for example in examples)
    folds = np.array([crc32(example.text.encode("utf-8", "surrogatepass")) % FOLDS for example in examples])
    fitted = _Ridge(matrix, target, folds)
    predicted = fitted.predict_unseen()
    spread = float(predicted.std())
    if not spread or _t_value(predicted, target) < MIN_T:
        return None
    weights, bias = fitted.solve(np.ones(len(folds), dtype=bool))
    # In production a difficulty is squash(value); so the slopes are fitted to that, on predictions of unseen folds.
    difficulty = 1 / (1 + np.exp(-predicted / spread)) - 0.5
    slopes = {
        model: _slope(difficulty[is_scored[:, at]], left[is_scored[:, at], at])
        for at, model in enumerate(models)
    }
    if not any(slopes.values()):
        return None
    return DifficultyModel(
        weights=tuple((weights / spread).tolist()), bias=bias / spread, slopes=slopes, n=len(examples)
    )


def _unexplained(examples: Sequence[Example], models: Sequence[str], tables: RouterTables) -> Floats:
    """Return quality minus estimate, less each request's mean: rows are requests, nan where a model did not answer."""
    estimates: dict[tuple[str, str], Floats] = {}
    left = np.full((len(examples), len(models)), np.nan)
    for row, example in enumerate(examples):
        key = (example.workload, example.task_type)
        if key not in estimates:
            found = estimate_qualities(
                models, [None] * len(models), workload=key[0], task_type=key[1], tables=tables
            )
            estimates[key] = np.array([quality.mean for quality in found])
        known = np.array([example.qualities.get(model, np.nan) for model in models])
        left[row] = known - estimates[key]
        left[row] -= np.nanmean(left[row])
    return left


def _strengths(models: Sequence[str], tables: RouterTables) -> Floats:
    """Return how far each model stands above the average: the direction in which difficulty pulls models apart."""
    found = estimate_qualities(models, [None] * len(models), workload="", task_type="", tables=tables)
    strength = np.array([quality.mean for quality in found])
    strength -= strength.mean()
    length = float(np.abs(strength).sum())
    return strength / length if length else strength


class _Ridge:
    """Ridge regression whose sums are kept by fold, so that leaving one out costs a subtraction."""

    def __init__(self, matrix: npt.NDArray[np.float32], target: Floats, folds: npt.NDArray[np.int64]) -> None:
        self._matrix, self._target, self._folds = matrix, target, folds
        parts = [matrix[folds == fold] for fold in range(FOLDS)]
        self._grams = [part.T @ part for part in parts]
        self._moments = [part.T @ target[folds == fold] for fold, part in enumerate(parts)]
        self._sums = [part.sum(axis=0, dtype=np.float64) for part in parts]

    def solve(self, is_used: npt.NDArray[np.bool_]) -> tuple[Floats, float]:
        """Return weights and bias from the rows that are used (whole folds)."""
        used = sorted(set(self._folds[is_used].tolist()))
        count = int(is_used.sum())
        mean = sum(self._sums[fold] for fold in used) / count
        target_mean = float(self._target[is_used].mean())
        gram = np.add.reduce([self._grams[fold] for fold in used]).astype(np.float64)
        gram -= count * np.outer(mean, mean)
        gram[np.diag_indices_from(gram)] += RIDGE
        moment = sum(self._moments[fold] for fold in used) - count * target_mean * mean
        weights = np.linalg.solve(gram, moment)
        return weights, target_mean - float(mean @ weights)

    def predict_unseen(self) -> Floats:
        """Return for each row the prediction of a model that had not seen its fold."""
        predicted = np.zeros(len(self._target))
        for fold in range(FOLDS):
            is_out = self._folds == fold
            if is_out.any() and not is_out.all():
                weights, bias = self.solve(~is_out)
                predicted[is_out] = self._matrix[is_out] @ weights + bias
        return predicted


def _t_value(predicted: Floats, target: Floats) -> float:
    correlation = float(np.corrcoef(predicted, target)[0, 1])
    return correlation * (len(target) - 2) ** 0.5 / max(1e-9, 1 - correlation**2) ** 0.5


def _slope(difficulty: Floats, left: Floats) -> float:
    """Return the least-squares slope through the means, shrunk by how surely it is not zero (James-Stein)."""
    if len(left) < MIN_EXAMPLES:
        return 0.0
    x = difficulty - difficulty.mean()
    square = float(x @ x)
    if not square:
        return 0.0
    slope = float(x @ left) / square
    residual = left - left.mean() - slope * x
    error_square = float(residual @ residual) / (len(left) - 2) / square
    return slope * max(0.0, 1 - error_square / slope**2) if slope else 0.0
