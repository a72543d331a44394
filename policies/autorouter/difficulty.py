"""How much does a request ask of a model, to go by its words and its form? A small linear model over hashed words.

Pure. It earns its place or it is left out: the weights come from answers that were scored, and their scale is what
they earned on rows they had not seen (`policies.autorouter.difficulty_learning`). No text is kept: words are hashed.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import exp, log2
from typing import Any, Final
from zlib import crc32

import numpy as np
import numpy.typing as npt

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
    "punctuation",
    "long_words",
)
# What is looked at of a text: its beginning and its end, where people put what they want.
HEAD_CHARS: Final = 1600
TAIL_CHARS: Final = 600


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

    def difficulty(self, text: str) -> float:
        """Return the difficulty of a text, in [0, 1]."""
        words, form = read_words_and_form(text)
        value = self.bias
        weights, mask, bucket_count = self.weights, self.bucket_count - 1, self.bucket_count
        if words:
            total = 0.0
            for word in words:
                total += weights[crc32(word) & mask]
            value += total / len(words) ** 0.5
        for index, fact in enumerate(form):
            value += fact * weights[bucket_count + index]
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


def read_words_and_form(text: str) -> tuple[set[bytes], tuple[float, ...]]:
    """Return the distinct words of a text's beginning and end, in lower case, and the facts of FORM_NAMES."""
    length = len(text)
    looked_at = text if length <= HEAD_CHARS + TAIL_CHARS else f"{text[:HEAD_CHARS]} {text[-TAIL_CHARS:]}"
    raw = looked_at.lower().encode()
    listed = raw.translate(_SEPARATED).split()
    words = set(listed)
    seen = len(raw) or 1
    digits = len(raw) - len(raw.translate(None, b"0123456789"))
    marks = len(raw) - len(raw.translate(None, b"()[]{}<>=+*/^_\\|$%&#@~`"))
    long_words = sum(1 for word in words if len(word) > 9)
    lines = raw.count(b"\n")
    form = (
        FORM_SCALE * log2(1 + length) / 16,
        FORM_SCALE * log2(1 + len(listed)) / 12,
        FORM_SCALE * log2(1 + digits) / 8,
        FORM_SCALE * digits / seen,
        FORM_SCALE * log2(1 + lines) / 8,
        FORM_SCALE * min(12, len(_options(raw))) / 12,
        FORM_SCALE * marks / seen,
        FORM_SCALE * long_words / (len(words) or 1),
    )
    return words, form


def bucket_matrix(texts: Iterable[str], bucket_count: int = WORDS_BUCKETS) -> npt.NDArray[np.float32]:
    """Return one row a text: the shares of the hashed words, then the form. The training side of `difficulty`."""
    rows = []
    for text in texts:
        words, form = read_words_and_form(text)
        row = np.zeros(bucket_count + len(FORM_NAMES), dtype=np.float32)
        if words:
            share = len(words) ** -0.5
            for word in words:
                row[crc32(word) & (bucket_count - 1)] += share
        row[bucket_count:] = form
        rows.append(row)
    return np.vstack(rows) if rows else np.zeros((0, bucket_count + len(FORM_NAMES)), dtype=np.float32)


def _options(raw: bytes) -> set[bytes]:
    """The letters of multiple-choice options: lines that begin with "A." or "(b)" or "c)"."""
    return {line.lstrip(b" (")[:1] for line in raw.split(b"\n") if line.lstrip(b" (")[1:2] in (b".", b")")}


# Letters, digits and bytes of other scripts stay; everything else separates words.
_SEPARATED = bytes(code if (chr(code).isalnum() and code < 128) or code >= 128 else 32 for code in range(256))
