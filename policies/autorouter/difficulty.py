"""How much does a request ask of a model, to go by its words and its form? A small linear model over hashed words.

Pure. It earns its place or it is left out: the weights come from answers that were scored, and their scale is what
they earned on rows they had not seen (`policies.autorouter.difficulty_learning`). No text is kept: words are hashed.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import exp, log2
from typing import Any, Final
from zlib import crc32

import numpy as np
import numpy.typing as npt

from policies.autorouter.words import Words, read_words

UNKNOWN: Final = 0.5
WORDS_BUCKETS: Final = 2**10
# Beside the hashed words: facts about the form, each about 0..FORM_SCALE; one weighs as much as several words.
FORM_SCALE: Final = 9.0
FORM_NAMES: Final = (
    "characters",
    "words",
    "digits",
    "digit_share",
    "lines",
    "options",
    "marks",
    "word_length",
)


@dataclass(frozen=True, slots=True, eq=False)
class DifficultyModel:
    """Weights of hashed words and of form, and what a step in difficulty does to each model.

    `slopes`: the change of a model's quality, against the average model's, from the easiest (0) to the hardest (1)
    request. In the document `weights` is base64 of little-endian float16: the buckets first, then the form.
    """

    weights: tuple[float, ...]
    bias: float
    slopes: Mapping[str, float]
    n: int = 0
    bucket_count: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bucket_count", len(self.weights) - len(FORM_NAMES))
        if self.bucket_count < 1 or self.bucket_count & (self.bucket_count - 1):
            raise ValueError("the number of word buckets is a power of two")

    def difficulty(self, read: Words) -> float:
        """Return the difficulty of a text that was read, in [0, 1]."""
        value = self.bias
        weights, mask = self.weights, self.bucket_count - 1
        words = set(read.listed)
        if words:
            total = 0.0
            for hashed in map(crc32, words):
                total += weights[hashed & mask]
            value += total / len(words) ** 0.5
        at = self.bucket_count
        for fact in read_form(read):
            value += fact * weights[at]
            at += 1
        return squash(value)

    def to_document(self) -> dict[str, Any]:
        """Return the JSON form."""
        packed = np.asarray(self.weights, dtype="<f2").tobytes()
        return {
            "weights": base64.b64encode(packed).decode(),
            "bias": self.bias,
            "slopes": {model: round(slope, 5) for model, slope in self.slopes.items()},
            "n": self.n,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> DifficultyModel:
        """Build the model from its JSON form. Raises ValueError."""
        weights = np.frombuffer(base64.b64decode(document["weights"], validate=True), dtype="<f2")
        if not np.isfinite(weights).all():
            raise ValueError("difficulty weights must be finite numbers")
        return cls(
            weights=tuple(weights.astype(float).tolist()),
            bias=float(document["bias"]),
            slopes={str(model): float(slope) for model, slope in document["slopes"].items()},
            n=int(document.get("n", 0)),
        )


def squash(value: float) -> float:
    """Map any number to (0, 1): 0 becomes .5."""
    return 1.0 / (1.0 + exp(-max(-30.0, min(30.0, value))))


def read_form(read: Words) -> tuple[float, ...]:
    """Return the facts of FORM_NAMES."""
    raw, listed, length = read
    seen = len(raw) or 1
    digits = seen - len(raw.translate(None, b"0123456789"))
    marks = seen - len(raw.translate(None, b"()[]{}<>=+*/^_\\|$%&#@~`"))
    lines = raw.count(b"\n")
    word_count = len(listed)
    return (
        FORM_SCALE / 16 * log2(1 + length),
        FORM_SCALE / 12 * log2(1 + word_count),
        FORM_SCALE / 8 * log2(1 + digits),
        FORM_SCALE * digits / seen,
        FORM_SCALE / 8 * log2(1 + lines),
        FORM_SCALE / 12 * _count_options(raw) if lines else 0.0,
        FORM_SCALE * marks / seen,
        FORM_SCALE / 20 * min(20.0, seen / (word_count or 1)),
    )


def bucket_matrix(texts: Iterable[str], bucket_count: int = WORDS_BUCKETS) -> npt.NDArray[np.float32]:
    """Return one row a text: the shares of the hashed words, then the form. The training side of `difficulty`."""
    rows = []
    for text in texts:
        read = read_words(text)
        words = set(read.listed)
        row = np.zeros(bucket_count + len(FORM_NAMES), dtype=np.float32)
        if words:
            share = len(words) ** -0.5
            for word in words:
                row[crc32(word) & (bucket_count - 1)] += share
        row[bucket_count:] = read_form(read)
        rows.append(row)
    return np.vstack(rows) if rows else np.zeros((0, bucket_count + len(FORM_NAMES)), dtype=np.float32)


def _count_options(raw: bytes) -> int:
    """Count the different options of a multiple choice: lines that begin like "A." or "(b)" or "c)"."""
    return min(12, len(set(_OPTION.findall(raw))))


_OPTION = re.compile(rb"^\(?([a-z])[.)]", re.MULTILINE)
