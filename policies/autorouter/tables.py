"""What has the automatic router learnt so far? One immutable version of its tables, and their JSON form.

Pure. Qualities are in 0..1, differences likewise; tokens and milliseconds are means or quantiles; `n` counts evidence
after decay, so it is no whole number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from policies.autorouter.difficulty import DifficultyModel

FORMAT = 1
MEMO_SIZE = 2048
_Value = TypeVar("_Value")
# The key under which latencies of all workloads together stand.
ALL_WORKLOADS = "all"
# The entry of `types` that holds the evidence of all requests.
ALL_TYPES = "all"


class Rating(NamedTuple):
    """What a model is taken to be worth before any evidence of our own.

    `on` is the date of the source, `usd_per_mtok` the price it was rated at (three parts input, one part output).
    """

    quality: float
    source: str = ""
    on: str = ""
    is_guess: bool = False
    usd_per_mtok: float | None = None


class Estimate(NamedTuple):
    """Evidence on one model: its mean paired difference from the average model, with `n` and standard error."""

    n: float
    difference: float
    error: float


class Workload(NamedTuple):
    """Evidence on one workload. `level` is the quality of the average model, `n` counts requests."""

    n: float
    level: float
    models: Mapping[str, Estimate]
    label: str = ""
    task_type: str = ""


class Amount(NamedTuple):
    """A running mean and what it rests on."""

    mean: float
    n: float


class Latency(NamedTuple):
    """Time to a whole answer."""

    p50_ms: float
    p95_ms: float
    n: float


class ProvenDefault(NamedTuple):
    """How far the default slider may go, found on requests that were not learnt from: its tau, and the share of the
    best single model's quality that the tables themselves foresee to lose there."""

    tau: float
    foreseen_loss: float


@dataclass(frozen=True, slots=True, eq=False)
class RouterTables:
    """Everything that `ranking.rank` knows. Keys of pairs are (workload, model) or (type, model).

    Compared by identity. `memo` is where `ranking` keeps what it computed from this very version: the tables' own
    look-up structures, never anything that changes an answer.

    `to_document()` gives, and `from_document()` takes, this JSON object (every member but `format` may be missing):

        {"format": 1, "version": 7, "learnt_at_unix_s": 1760000000,
         "ratings": {MODEL: {"quality": 0.73, "source": "…", "on": "2025-01", "is_guess": false, "usd_per_mtok": 4.4}},
         "types": {TYPE | "all": {"level": 0.7, "n": 900, "models": {MODEL: [n, difference, error]}}},
         "workloads": {WORKLOAD: {"n": 120, "level": 0.8, "label": "support", "task_type": "code",
                                  "models": {MODEL: [n, difference, error]}}},
         "output_tokens": {"workloads": {WORKLOAD: {MODEL: [mean, n]}}, "types": {TYPE: {MODEL: [mean, n]}}},
         "latency_ms": {WORKLOAD | "all": {MODEL: [p50, p95, n]}},
         "pins": {WORKLOAD: MODEL},
         "extra_types": {TYPE: [WORD, …]},
         "difficulty": {…} | null,                       (see policies.autorouter.difficulty)
         "default": {"tau": 0.11, "foreseen_loss": 0.002}}   (see policies.autorouter.cross_validation)
    """

    version: int = 0
    learnt_at_unix_s: float = 0.0
    ratings: Mapping[str, Rating] = field(default_factory=dict)
    types: Mapping[str, Workload] = field(default_factory=dict)
    workloads: Mapping[str, Workload] = field(default_factory=dict)
    workload_output_tokens: Mapping[tuple[str, str], Amount] = field(default_factory=dict)
    type_output_tokens: Mapping[tuple[str, str], Amount] = field(default_factory=dict)
    latencies: Mapping[tuple[str, str], Latency] = field(default_factory=dict)
    pins: Mapping[str, str] = field(default_factory=dict)
    extra_types: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    difficulty: DifficultyModel | None = None
    default: ProvenDefault | None = None
    memo: dict[Any, Any] = field(default_factory=dict, repr=False)

    def remember(self, key: Any, value: _Value) -> _Value:
        """Put a value that follows from these tables and `key` into the memo, and return it. The memo is bounded."""
        if len(self.memo) >= MEMO_SIZE:
            self.memo.clear()
        self.memo[key] = value
        return value

    def to_document(self) -> dict[str, Any]:
        """Return the JSON form; numbers are rounded to what they are worth."""
        return {
            "format": FORMAT,
            "version": self.version,
            "learnt_at_unix_s": round(self.learnt_at_unix_s),
            "ratings": {model: _rating_document(rating) for model, rating in self.ratings.items()},
            "types": {name: _workload_document(entry) for name, entry in self.types.items()},
            "workloads": {name: _workload_document(entry) for name, entry in self.workloads.items()},
            "output_tokens": {
                "workloads": _nested(self.workload_output_tokens, 1),
                "types": _nested(self.type_output_tokens, 1),
            },
            "latency_ms": _nested(self.latencies, 1),
            "pins": dict(self.pins),
            "extra_types": {name: list(words) for name, words in self.extra_types.items()},
            "difficulty": None if self.difficulty is None else self.difficulty.to_document(),
            **({} if self.default is None else {"default": self.default._asdict()}),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> RouterTables:
        """Build tables from their JSON form. Raises ValueError when it is not one."""
        if document.get("format") != FORMAT:
            raise ValueError(
                f"router tables of format {document.get('format')!r}; this release reads {FORMAT}"
            )
        try:
            tokens = document.get("output_tokens") or {}
            difficulty = document.get("difficulty")
            default = document.get("default")
            return cls(
                version=int(document.get("version") or 0),
                learnt_at_unix_s=float(document.get("learnt_at_unix_s") or 0),
                ratings={
                    model: Rating(**{**entry, "quality": _share(entry["quality"])})
                    for model, entry in (document.get("ratings") or {}).items()
                },
                types=_workloads(document.get("types") or {}),
                workloads=_workloads(document.get("workloads") or {}),
                workload_output_tokens=_flat(tokens.get("workloads") or {}, Amount),
                type_output_tokens=_flat(tokens.get("types") or {}, Amount),
                latencies=_flat(document.get("latency_ms") or {}, Latency),
                pins={str(name): str(model) for name, model in (document.get("pins") or {}).items()},
                extra_types={
                    str(name): tuple(str(word) for word in words)
                    for name, words in (document.get("extra_types") or {}).items()
                },
                difficulty=None if difficulty is None else DifficultyModel.from_document(difficulty),
                default=None
                if default is None
                else ProvenDefault(_share(default["tau"]), _share(default["foreseen_loss"])),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a document of router tables: {error}") from error


def empty_tables() -> RouterTables:
    """Return tables without any evidence: models are judged by public ratings, or by their price neighbour's."""
    return RouterTables()


def _share(value: Any) -> float:
    number = float(value)
    if not 0 <= number <= 1:
        raise ValueError(f"a quality, a share of it or a tau is between 0 and 1, not {number}")
    return number


def _rating_document(rating: Rating) -> dict[str, Any]:
    document = rating._asdict()
    # What it does not say is left out; a quality of 0 is said.
    return {name: document[name] for name in document if name == "quality" or document[name]}


def _workload_document(entry: Workload) -> dict[str, Any]:
    document: dict[str, Any] = {
        "n": round(entry.n, 2),
        "level": round(entry.level, 5),
        "models": {
            model: [round(found.n, 2), round(found.difference, 5), round(found.error, 5)]
            for model, found in entry.models.items()
        },
    }
    if entry.label:
        document["label"] = entry.label
    if entry.task_type:
        document["task_type"] = entry.task_type
    return document


def _workloads(document: Mapping[str, Any]) -> dict[str, Workload]:
    return {
        str(name): Workload(
            n=float(entry["n"]),
            level=float(entry["level"]),
            models={
                model: Estimate(*(float(number) for number in numbers))
                for model, numbers in entry["models"].items()
            },
            label=str(entry.get("label", "")),
            task_type=str(entry.get("task_type", "")),
        )
        for name, entry in document.items()
    }


def _nested(
    flat: Mapping[tuple[str, str], tuple[float, ...]], digits: int
) -> dict[str, dict[str, list[float]]]:
    nested: dict[str, dict[str, list[float]]] = {}
    for (group, model), numbers in flat.items():
        nested.setdefault(group, {})[model] = [round(number, digits) for number in numbers]
    return nested


def _flat(nested: Mapping[str, Mapping[str, Any]], kind: type[Any]) -> dict[tuple[str, str], Any]:
    return {
        (str(group), str(model)): kind(*(float(number) for number in numbers))
        for group, models in nested.items()
        for model, numbers in models.items()
    }
