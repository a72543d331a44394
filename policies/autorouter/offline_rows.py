"""What do files of scored answers say? Requests, candidates with prices, scores and costs, ready to be replayed.

Reads: gzipped JSON Lines files (one request a line: id, source, task, prompt, score {model: 0..1}, split, and where
known out_chars {model: characters}), a file of prices, a file of public profiles.

A row's `task` stands for what a company calls one workload: a key or an app tag. So it becomes the app of the request.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from policies.autorouter.difficulty_learning import Example
from policies.autorouter.estimating import blended_usd_per_mtok
from policies.autorouter.fingerprint import workload_of_label
from policies.autorouter.learning import Evidence
from policies.autorouter.public_ratings import find_public_rating, plain_name
from policies.autorouter.request_types import find_type
from policies.autorouter.tables import Rating
from policies.snapshot import DeploymentSnapshot, ModelSnapshot, ProviderSnapshot

CHARS_PER_TOKEN: Final = 4
# The length of an answer where the file does not say.
ASSUMED_OUTPUT_TOKENS: Final = 300
# A model that answered fewer of the rows is left out; rows that then lack a model's score too.
MIN_ANSWERED_SHARE: Final = 0.9
# A public benchmark is read on our scale when it and ours know this many models and order them alike.
MIN_SHARED_MODELS: Final = 5
MIN_CLOSENESS: Final = 0.8
PROVIDER = ProviderSnapshot(1, "offline", "openai_chat", "")

Floats = npt.NDArray[np.float64]


class FileError(ValueError):
    """A file that cannot be evaluated; the message says why."""


class Row(NamedTuple):
    """One request as its file has it, the workload that its task stands for, and the type that its words tell.

    `split` is empty when the file has none.
    """

    id: str
    source: str
    task: str
    prompt: str
    scores: Mapping[str, float]
    output_chars: Mapping[str, float]
    split: str
    workload: str
    task_type: str


class Prices(NamedTuple):
    """USD per million tokens (input, output) by model, some of them by source, and tokens around each prompt."""

    usd_per_mtok: Mapping[str, tuple[float, float]]
    by_source: Mapping[str, Mapping[str, tuple[float, float]]]
    overhead_tokens: Mapping[str, int]

    def find(self, model: str, source: str) -> tuple[float, float] | None:
        """Return input and output price, that of the source first."""
        return self.by_source.get(source, {}).get(model) or self.usd_per_mtok.get(model)


class Matrix(NamedTuple):
    """Requests by models: `scores` in 0..1, `costs` in USD as they came about."""

    rows: Sequence[Row]
    deployments: tuple[DeploymentSnapshot, ...]
    scores: Floats
    costs: Floats
    input_tokens: Floats
    left_out_models: tuple[str, ...]
    left_out_row_count: int

    @property
    def models(self) -> list[str]:
        """Names of the candidates, in the order of the columns."""
        return [deployment.name for deployment in self.deployments]


def read_rows(path: Path, split: str = "") -> list[Row]:
    """Read the rows of one split ("" or "all": every row). Raises FileError."""
    rows: list[Row] = []
    splits: set[str] = set()
    number = 0
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                entry = json.loads(line)
                found = str(entry.get("split", ""))
                splits.add(found or "(none)")
                if split in ("", "all", found):
                    rows.append(_read_row(entry, number))
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise FileError(f"{path}: {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise FileError(f"{path}, line {number}: {error}") from error
    if not rows:
        raise FileError(
            f"{path}: no rows of the split '{split}'; the file has: {', '.join(sorted(splits)) or 'none'}"
        )
    return rows


def _read_row(entry: Mapping[str, Any], number: int) -> Row:
    scores = {str(model): float(score) for model, score in entry["score"].items() if score is not None}
    if any(not 0 <= score <= 1 for score in scores.values()):
        raise ValueError("a score is between 0 and 1")
    task, prompt = str(entry.get("task", "")), str(entry["prompt"])
    return Row(
        id=str(entry.get("id", number)),
        source=str(entry.get("source", "")),
        task=task,
        prompt=prompt,
        scores=scores,
        output_chars={str(m): float(n) for m, n in (entry.get("out_chars") or {}).items() if n is not None},
        split=str(entry.get("split", "")),
        workload=_workload(task),
        task_type=find_type(prompt),
    )


_workload = lru_cache(maxsize=1024)(workload_of_label)


def read_prices(path: Path) -> Prices:
    """Read a file of prices: {"usd_per_1m": {MODEL: [in, out]}, "usd_per_1m_SOURCE": …, "overhead_tokens": {…}}."""
    document = _read_json(path)
    prefix = "usd_per_1m"
    if not isinstance(document.get(prefix), dict):
        raise FileError(f'{path}: no member "{prefix}"')
    return Prices(
        usd_per_mtok=_pairs(document[prefix]),
        by_source={
            name.removeprefix(f"{prefix}_"): _pairs(entry)
            for name, entry in document.items()
            if name.startswith(f"{prefix}_")
        },
        overhead_tokens={name: int(count) for name, count in (document.get("overhead_tokens") or {}).items()},
    )


def read_profiles(path: Path) -> dict[str, dict[str, float]]:
    """Read {benchmark: {model: accuracy in 0..1}} out of a file of public profiles.

    A table that says it was computed from rows like those that are evaluated is passed over.
    """
    found: dict[str, dict[str, float]] = {}
    for name, table in _read_json(path).items():
        if not isinstance(table, dict) or ".jsonl" in str(table.get("source", "")):
            continue
        for model, accuracies in (table.get("models") or table.get("accuracy") or {}).items():
            for benchmark, percent in accuracies.items():
                if percent is not None:
                    found.setdefault(f"{name}.{benchmark}", {})[model] = float(percent) / 100
    return found


def rate_models(
    deployments: Iterable[DeploymentSnapshot], profiles: Mapping[str, Mapping[str, float]]
) -> dict[str, Rating]:
    """Return ratings for the candidates that a public table knows; the others are left to their price neighbours.

    A benchmark speaks another scale than ours: it is read off the models that both know, by a straight line.
    """
    scales = _scales(profiles)
    by_plain_name = {
        benchmark: {plain_name(model): value for model, value in profiles[benchmark].items()}
        for benchmark in scales
    }
    ratings = {}
    for deployment in deployments:
        model = deployment.model.name
        input_price, output_price = deployment.input_nanousd_per_mtok, deployment.output_nanousd_per_mtok
        price = blended_usd_per_mtok((input_price or 0) / 1e9, (output_price or 0) / 1e9)
        rating = find_public_rating(model)
        if rating is None:
            values = [
                (slope * value + intercept, benchmark)
                for benchmark, (slope, intercept) in scales.items()
                if (value := profiles[benchmark].get(model, by_plain_name[benchmark].get(plain_name(model))))
                is not None
            ]
            if not values:
                continue
            mean = sum(value for value, _ in values) / len(values)
            rating = Rating(min(1.0, max(0.0, mean)), ", ".join(benchmark for _, benchmark in values))
        ratings[model] = rating._replace(usd_per_mtok=price)
    return ratings


def _scales(profiles: Mapping[str, Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Return (slope, intercept) to our scale, of the benchmark of each table that runs closest to it."""
    best: dict[str, tuple[float, str, tuple[float, float]]] = {}
    for name, values in profiles.items():
        shared = [(v, rating.quality) for model, v in values.items() if (rating := find_public_rating(model))]
        if len(shared) < MIN_SHARED_MODELS:
            continue
        theirs, ours = np.array(shared).T
        if not theirs.std() or not ours.std():
            continue
        closeness = float(np.corrcoef(theirs, ours)[0, 1])
        slope, intercept = np.polyfit(theirs, ours, 1)
        table = name.split(".")[0]
        if closeness > best.get(table, (MIN_CLOSENESS,))[0]:
            best[table] = (closeness, name, (float(slope), float(intercept)))
    return {name: line for _, name, line in best.values()}


def build_matrix(rows: Sequence[Row], prices: Prices, models: Sequence[str] | None = None) -> Matrix:
    """Lay the rows out; `models` limits the candidates. Raises FileError when fewer than two can be compared."""
    seen = list(dict.fromkeys(model for row in rows for model in row.scores))
    sources = list(dict.fromkeys(row.source for row in rows))
    kept = [
        model
        for model in seen
        if (models is None or model in models)
        and all(prices.find(model, source) is not None for source in sources)
        and sum(model in row.scores for row in rows) >= MIN_ANSWERED_SHARE * len(rows)
    ]
    complete = [row for row in rows if all(model in row.scores for model in kept)]
    if len(kept) < 2 or not complete:
        raise FileError("fewer than two models have scores and a price")
    deployments = tuple(
        _deployment(at, model, prices.find(model, sources[0])) for at, model in enumerate(kept, 1)
    )
    input_tokens = np.array(
        [len(row.prompt) / CHARS_PER_TOKEN + prices.overhead_tokens.get(row.source, 0) for row in complete]
    )
    output_tokens = np.array([[tokens_of(row, model) for model in kept] for row in complete])
    # A file of several sources may have several prices a model; the candidates show those of the first.
    rates_of = {source: np.array([prices.find(model, source) for model in kept]) for source in sources}
    rates = np.array([rates_of[row.source] for row in complete])
    return Matrix(
        rows=complete,
        deployments=deployments,
        scores=np.array([[row.scores[model] for model in kept] for row in complete]),
        costs=(input_tokens[:, None] * rates[:, :, 0] + output_tokens * rates[:, :, 1]) / 1e6,
        input_tokens=input_tokens,
        left_out_models=tuple(model for model in seen if model not in kept),
        left_out_row_count=len(rows) - len(complete),
    )


def tokens_of(row: Row, model: str) -> float:
    """Return the length of a model's answer in tokens."""
    chars = row.output_chars.get(model)
    return ASSUMED_OUTPUT_TOKENS if chars is None else chars / CHARS_PER_TOKEN


def list_evidence(rows: Iterable[Row]) -> list[Evidence]:
    """Return every score of the rows as evidence of today."""
    found = []
    for row in rows:
        pair = f"{row.source}/{row.id}"
        for model, score in row.scores.items():
            tokens = tokens_of(row, model)
            found.append(
                Evidence(row.workload, row.task_type, model, score, tokens, pair_id=pair, source="evaluation")
            )
    return found


def list_examples(rows: Iterable[Row]) -> list[Example]:
    """Return the rows as examples to learn difficulty from."""
    return [Example(row.prompt, row.workload, row.task_type, row.scores) for row in rows]


def _deployment(number: int, model: str, price: tuple[float, float] | None) -> DeploymentSnapshot:
    assert price is not None
    return DeploymentSnapshot(
        id=number,
        name=model,
        model=ModelSnapshot(id=number, name=model),
        provider=PROVIDER,
        upstream_model=model,
        input_nanousd_per_mtok=round(price[0] * 1e9),
        output_nanousd_per_mtok=round(price[1] * 1e9),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: {error}") from error
    if not isinstance(document, dict):
        raise FileError(f"{path}: not a JSON object")
    return document


def _pairs(document: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    return {model: (float(pair[0]), float(pair[1])) for model, pair in document.items()}
