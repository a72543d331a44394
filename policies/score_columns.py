"""How does a record keep what the automatic router judged its candidates by, and how is that read again?

Pure. Written by column, in whole numbers, a third shorter than rows that name each candidate:

    {"q": [7321, …], "e": [240, …], "c": [1230000, null, …], "t": [12345, null, …], "s": [70134, …], "of": [1, 0, "x"]}

Quality and its standard error in ten-thousandths, expected cost in nano-USD, expected time in tenths of a millisecond,
score in hundred-thousandths. `t` is missing where no time is known. `of` says whose they are, by place among the
record's candidates or by name, and is missing where they run beside these. Records of earlier releases hold rows:
[name, quality, error, nano-USD, ms, score]; both are read, and neither says more than the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

# The numbers of an automatic rule's row, after its name.
AUTO_LENGTH = 6


class ScoreRow(NamedTuple):
    """One candidate, as it was judged."""

    name: str
    quality: float
    error: float
    cost_nanousd: int | None
    latency_ms: float | int | None
    score: float


def to_columns(rows: Iterable[Sequence[Any]], candidates: list[str]) -> dict[str, list[Any]]:
    """Return the columns of rows like ScoreRow; `candidates` are the names that the record lists."""
    names: list[str] = []
    qualities: list[int] = []
    errors: list[int] = []
    costs: list[int | None] = []
    times: list[int | None] = []
    scores: list[int] = []
    # One loop: on the hot path it takes half the time of a comprehension for each column.
    has_times = False
    for name, quality, error, cost, latency_ms, score in rows:
        names.append(name)
        qualities.append(round(quality * 1e4))
        errors.append(round(error * 1e4))
        costs.append(cost)
        scores.append(round(score * 1e5))
        if latency_ms is None:
            times.append(None)
        else:
            times.append(round(latency_ms * 10))
            has_times = True
    columns: dict[str, list[Any]] = {"q": qualities, "e": errors, "c": costs, "s": scores}
    if has_times:
        columns["t"] = times
    if candidates[: len(names)] != names:
        places = {name: place for place, name in enumerate(candidates)}
        columns["of"] = [places.get(name, name) for name in names]
    return columns


def read_rows(record: Mapping[str, Any]) -> list[Any]:
    """Return a record's scores as rows, whoever gave them; those of an automatic rule as ScoreRow."""
    scores = record.get("scores") or []
    if not isinstance(scores, dict):
        return [ScoreRow(*row) if len(row) == AUTO_LENGTH else row for row in scores]
    return [
        ScoreRow(name, quality / 1e4, error / 1e4, cost, ms, score / 1e5)
        for (name, ms), quality, error, cost, score in zip(
            read_latencies(record), scores["q"], scores["e"], scores["c"], scores["s"], strict=True
        )
    ]


def read_latencies(record: Mapping[str, Any]) -> list[tuple[str, float | int | None]]:
    """Return (name, ms) of each candidate of a record whose scores are columns."""
    columns, candidates = record["scores"], record.get("candidates") or []
    whose, times = columns.get("of"), columns.get("t")
    names = (
        candidates[: len(columns["q"])]
        if whose is None
        else [place if isinstance(place, str) else candidates[place] for place in whose]
    )
    if times is None:
        return [(name, None) for name in names]
    return [(name, None if time is None else time / 10) for name, time in zip(names, times, strict=True)]


def with_rows(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the record with its scores as rows: for readers outside, to whom the form shall stay the same."""
    if not isinstance(record.get("scores"), dict):
        return record
    return {**record, "scores": [list(row) for row in read_rows(record)]}


def with_columns(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the record as this release writes it."""
    scores = record.get("scores")
    if not isinstance(scores, list) or not scores or len(scores[0]) != AUTO_LENGTH:
        return record
    return {**record, "scores": to_columns(scores, record.get("candidates") or [])}
