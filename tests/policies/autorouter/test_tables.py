"""Do the router's tables survive their JSON form, and is what is no such document refused?"""

from __future__ import annotations

import json

import pytest

from policies.autorouter.difficulty import FORM_NAMES, DifficultyModel
from policies.autorouter.tables import Amount, Latency, Rating, RouterTables, empty_tables
from policies.autorouter.words import read_words
from tests.policies.autorouter.made import workload


def full() -> RouterTables:
    return RouterTables(
        version=7,
        learnt_at_unix_s=1_760_000_000,
        ratings={"a": Rating(0.7, "by hand", "2025-01", usd_per_mtok=1.5), "b": Rating(0.5, is_guess=True)},
        types={"code": workload(10, 0.5, a=0.1)},
        workloads={"00aa": workload(120, 0.8, a=0.05, b=-0.05)._replace(label="support", task_type="code")},
        workload_output_tokens={("00aa", "a"): Amount(210.5, 40)},
        type_output_tokens={("code", "b"): Amount(99, 3)},
        latencies={("all", "a"): Latency(300, 900, 25)},
        pins={"00aa": "b"},
        extra_types={"legal": ("contract", "clause")},
        difficulty=DifficultyModel((0.5, -0.25) + (0.125,) * len(FORM_NAMES), 0.1, {"a": 0.02}, n=300),
    )


@pytest.mark.parametrize("tables", [empty_tables(), full()])
def test_tables_come_back_from_json_as_they_were(tables: RouterTables) -> None:
    document = json.loads(json.dumps(tables.to_document()))
    again = RouterTables.from_document(document)
    assert again.to_document() == document
    assert (again.workloads, again.ratings, again.latencies) == (
        tables.workloads,
        tables.ratings,
        tables.latencies,
    )


def test_difficulty_survives_to_half_precision() -> None:
    tables = full()
    again = RouterTables.from_document(tables.to_document())
    read = read_words("Prove that 7 divides n^7 - n.\nA. yes\nB. no")
    assert tables.difficulty and again.difficulty
    assert again.difficulty.difficulty(read) == pytest.approx(tables.difficulty.difficulty(read), abs=1e-3)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"format": 2},
        {"format": 1, "ratings": {"a": {"quality": 1.5}}},
        {"format": 1, "ratings": {"a": {}}},
        {"format": 1, "workloads": {"00aa": {"n": 1}}},
        {"format": 1, "workloads": ["00aa"]},
        {"format": 1, "difficulty": {"weights": "AAAA", "bias": 0, "slopes": {}}},
        {"format": 1, "latency_ms": {"all": {"a": [1]}}},
    ],
)
def test_what_is_no_such_document_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        RouterTables.from_document(document)
