"""Do records keep the router's scores short, and say the same in the form of every release?"""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.explaining import candidates_of, sentences
from policies.replaying import RecordedHealth, differing_members
from policies.score_columns import ScoreRow, read_rows, to_columns, with_columns, with_rows

names = st.sampled_from(["a", "b", "c", "d@eu", "7"])
rows = st.builds(
    lambda name, quality, error, cost, tenths, score: [
        name,
        quality / 1e4,
        error / 1e4,
        cost,
        None if tenths is None else tenths / 10,
        score / 1e5,
    ],
    names,
    st.integers(0, 10_000),
    st.integers(0, 5_000),
    st.none() | st.integers(0, 10**12),
    st.none() | st.integers(0, 10**8),
    st.integers(-(10**11), 10**6),
)


@given(st.lists(rows, min_size=1, max_size=5, unique_by=lambda row: row[0]), st.lists(names, unique=True))
def test_columns_say_what_rows_said(listed: list[list[Any]], candidates: list[str]) -> None:
    record = {"strategy": "auto", "slider": 5.0, "tables": 7, "candidates": candidates, "scores": listed}
    stored = orjson.loads(orjson.dumps(with_columns(record)))
    assert isinstance(stored["scores"], dict)
    assert with_rows(stored) == record
    assert read_rows(stored) == read_rows(record) == [ScoreRow(*row) for row in listed]
    assert sentences(stored) == sentences(record)
    assert candidates_of(stored) == candidates_of(record)
    assert differing_members(record, stored) == []
    ids = dict(enumerate(["a", "b", "c", "d@eu", "7", "unheard"]))
    new, old = RecordedHealth(stored, ids), RecordedHealth(record, ids)
    assert [new.latency_ms(at) for at in ids] == [old.latency_ms(at) for at in ids]


def test_another_score_is_another_decision() -> None:
    old = {"candidates": ["a"], "scores": [["a", 0.7, 0.02, 1200, 300.5, 0.65]]}
    new = with_columns({"candidates": ["a"], "scores": [["a", 0.7, 0.02, 1200, 300.6, 0.65]]})
    assert differing_members(old, new) == ["scores"]


@pytest.mark.parametrize(
    "scores",
    [[["a", 1200], ["b", None]], [["a", 12.5]], [], None],
    ids=["cost", "latency", "none", "missing"],
)
def test_scores_of_other_strategies_stay_as_they_are(scores: Any) -> None:
    record = {"strategy": "least_cost", "candidates": ["a", "b"], "scores": scores}
    assert with_columns(record) == with_rows(record) == record
    assert read_rows(record) == (scores or [])


def test_names_are_told_only_where_the_order_does_not() -> None:
    listed = [["a", 0.7, 0.02, 1200, None, 0.65], ["b", 0.6, 0.02, None, None, 0.5]]
    assert to_columns(listed, ["a", "b", "fallback"]) == {
        "q": [7000, 6000], "e": [200, 200], "c": [1200, None], "s": [65000, 50000]
    }  # fmt: skip
    assert to_columns(listed, ["b", "a"])["of"] == [1, 0]
    assert to_columns(listed, ["b"])["of"] == ["a", 0]


def test_a_dozen_candidates_take_less_than_a_kilobyte() -> None:
    listed = [
        [f"claude-sonnet-{n}@vertex-eu", 0.7123 + n / 97, 0.0211, 1_234_567 + n, 1234.5 + n, 0.65432] for n in range(12)
    ]  # fmt: skip
    candidates = [row[0] for row in listed]
    record = {
        "path": "routed", "draw": 0.12345678901234567, "rev": 4711, "policy": "pointsman/auto", "version": 12,
        "rule": "everything else", "strategy": "auto", "candidates": candidates,
        "scores": to_columns(listed, candidates),
        "tables": 7, "slider": 5.0, "pin": ["new"], "trace": ["long prompts", ["everything else", "matched"]],
    }  # fmt: skip
    assert len(orjson.dumps(record)) < 1000
    assert len(orjson.dumps(with_rows(record))) > 1300
