"""Do a request's words tell which models will manage it, beyond what its workload tells? Learnt, and held to proof.

Pure. Ridge regression over hashed words, fitted to what the workload's estimate leaves unexplained. What it predicts on
folds that it had not seen must go with what came; each model's slope is measured there too, and shrunk by how surely
it is not zero. Where nothing is left, there is no model of difficulty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

from policies.autorouter.difficulty import UNKNOWN, WORDS_BUCKETS, DifficultyModel, bucket_matrix
from policies.autorouter.estimating import estimate_qualities
from policies.autorouter.tables import RouterTables

FOLDS: Final = 5
# Chosen by cross-validation inside the training rows of public data; flat around these values.
RIDGE: Final = 30.0
# Fewer examples than this say nothing about two thousand words.
MIN_EXAMPLES: Final = 200
# A direction counts when it stands out from chance by this many standard errors on unseen folds.
MIN_T: Final = 1.5
# Routing takes the best of many estimates, and with it the luckiest errors: not the whole of a slope is used.
USED_SHARE: Final = 0.75

Floats = npt.NDArray[np.float64]
Folds = npt.NDArray[np.int64]


class Example(NamedTuple):
    """A request that several models answered, each answer scored in 0..1."""

    text: str
    workload: str
    task_type: str
    qualities: Mapping[str, float]


class Lesson(NamedTuple):
    """A model of difficulty, and what it would have said of each example's text had it not learnt from that."""

    model: DifficultyModel
    unseen: Sequence[float]


def fold_of(text: str) -> int:
    """Return the fold that a text is in: equal texts are never on both sides."""
    return crc32(text.encode("utf-8", "surrogatepass")) % FOLDS


def learn_difficulty(
    examples: Sequence[Example], *, tables: RouterTables, bucket_count: int = WORDS_BUCKETS
) -> Lesson | None:
    """Learn a model of difficulty for `tables`; None when the words did not prove to help."""
    if len(examples) < MIN_EXAMPLES:
        return None
    answers = _read_answers(examples, tables)
    if len(answers.models) < 2:
        return None
    target = np.where(np.isnan(answers.left), 0.0, answers.left) @ _strengths(answers.models, tables)
    if not target.std():
        return None
    folds = np.array([fold_of(example.text) for example in examples])
    fitted = _Ridge(bucket_matrix((example.text for example in examples), bucket_count), target, folds)
    predicted = fitted.predict_unseen()
    spread = float(predicted.std())
    if not spread or _t_value(predicted, target) < MIN_T:
        return None
    # In production a difficulty is squash(value); so slopes are fitted to that, on predictions of unseen folds.
    difficulty = 1 / (1 + np.exp(-predicted / spread)) - 0.5
    slopes = USED_SHARE * _slopes(difficulty, answers.left)
    if not slopes.any():
        return None
    weights, bias = fitted.solve(list(range(FOLDS)))
    model = DifficultyModel(
        weights=tuple((weights / spread).tolist()),
        bias=bias / spread,
        slopes=dict(zip(answers.models, slopes.tolist(), strict=True)),
        n=len(examples),
    )
    return Lesson(model, (difficulty + UNKNOWN).round(3).tolist())


class _Answers(NamedTuple):
    """`left`, requests by models: score minus estimate, less the request's mean. nan: the model did not answer."""

    models: list[str]
    left: Floats


def _read_answers(examples: Sequence[Example], tables: RouterTables) -> _Answers:
    models = sorted({model for example in examples for model in example.qualities})
    prices = [
        None if (rating := tables.ratings.get(model)) is None else rating.usd_per_mtok for model in models
    ]
    known: dict[tuple[str, str], list[float]] = {}
    for example in examples:
        key = (example.workload, example.task_type)
        if key not in known:
            found = estimate_qualities(models, prices, workload=key[0], task_type=key[1], tables=tables)
            known[key] = [quality.mean for quality in found]
    scores = np.array([[example.qualities.get(model, np.nan) for model in models] for example in examples])
    left = scores - np.array([known[example.workload, example.task_type] for example in examples])
    return _Answers(models, left - np.nanmean(left, axis=1, keepdims=True))


def _strengths(models: Sequence[str], tables: RouterTables) -> Floats:
    """Return how far each model stands above the average: the direction in which difficulty pulls models apart."""
    found = estimate_qualities(models, [None] * len(models), workload="", task_type="", tables=tables)
    strength = np.array([quality.mean for quality in found])
    strength -= strength.mean()
    length = float(np.abs(strength).sum())
    return strength / length if length else strength


class _Ridge:
    """Ridge regression whose sums are kept by fold, so that leaving one out costs a subtraction."""

    def __init__(self, matrix: npt.NDArray[np.float32], target: Floats, folds: Folds) -> None:
        self._matrix, self._target, self._folds = matrix, target, folds
        parts = [matrix[folds == fold] for fold in range(FOLDS)]
        targets = [target[folds == fold] for fold in range(FOLDS)]
        self._counts = np.array([len(part) for part in parts])
        self._grams = np.array([part.T @ part for part in parts])
        self._moments = np.array([part.T @ y for part, y in zip(parts, targets, strict=True)])
        self._sums = np.array([part.sum(axis=0, dtype=np.float64) for part in parts])
        self._target_sums = np.array([y.sum() for y in targets])

    def solve(self, used: list[int]) -> tuple[Floats, float]:
        """Return weights and bias from these folds."""
        count = self._counts[used].sum()
        mean = self._sums[used].sum(axis=0) / count
        target_mean = float(self._target_sums[used].sum() / count)
        gram = self._grams[used].sum(axis=0)
        gram -= (count * np.outer(mean, mean)).astype(np.float32)
        gram[np.diag_indices_from(gram)] += RIDGE
        moment = self._moments[used].sum(axis=0) - count * target_mean * mean
        # Single precision is enough behind a ridge, and takes half the time.
        weights = np.linalg.solve(gram, moment.astype(np.float32)).astype(np.float64)
        return weights, target_mean - float(mean @ weights)

    def predict_unseen(self) -> Floats:
        """Return for each row the prediction of a model that had not seen its fold."""
        predicted = np.zeros(len(self._target))
        for fold in range(FOLDS):
            is_out = self._folds == fold
            if is_out.any() and not is_out.all():
                weights, bias = self.solve([other for other in range(FOLDS) if other != fold])
                predicted[is_out] = self._matrix[is_out] @ weights + bias
        return predicted


def _t_value(predicted: Floats, target: Floats) -> float:
    correlation = float(np.corrcoef(predicted, target)[0, 1])
    return correlation * float(np.sqrt((len(target) - 2) / max(1e-9, 1 - correlation**2)))


def _slopes(difficulty: Floats, left: Floats) -> Floats:
    is_known = ~np.isnan(left)
    return np.array(
        [_slope(difficulty[known], part[known]) for known, part in zip(is_known.T, left.T, strict=True)]
    )


def _slope(difficulty: Floats, left: Floats) -> float:
    """Return the least-squares slope, shrunk by how surely it is not zero (James and Stein)."""
    x = difficulty - difficulty.mean() if len(difficulty) else difficulty
    square = float(x @ x)
    if len(left) < MIN_EXAMPLES // 2 or not square:
        return 0.0
    slope = float(x @ left) / square
    residual = left - left.mean() - slope * x
    error_square = float(residual @ residual) / (len(left) - 2) / square
    return slope * max(0.0, 1 - error_square / slope**2) if slope else 0.0
