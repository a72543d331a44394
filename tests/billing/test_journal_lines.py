"""Is every line either fit for the database or refused, and never a crash?"""

from __future__ import annotations

import uuid
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.journal_lines import interrupted, read_intent, read_outcome
from billing.journal_values import LineError, read_line
from billing.request_times import ForeignIdError, attempt_hex_of, attempt_id_of, started_at_of
from gateway.dataplane.request_ids import make_request_id

REQUEST_ID = make_request_id(1_790_000_000_000)
USAGE = {
    "kind": "reported",
    "input": 3,
    "output": 4,
    "cache_read": 1,
    "cache_write_1h": 6,
    "audio_in": 2,
    "reported_cost": 5,
}
ATTEMPT = {"n": 1, "deployment": 9, "outcome": "ok", "http": 200, "at": 0.1, "ms": 5, "usage": USAGE}
INTENT: dict[str, Any] = {
    "k": "intent", "v": 1, "id": REQUEST_ID, "tenant": 1, "project": 2, "key": 3, "endpoint": "chat",
    "model": "m", "stream": True, "pinned": False, "policy": None, "version": None, "rule": "",
    "tags": {}, "features": {}, "decision": {},
}  # fmt: skip
OUTCOME: dict[str, Any] = {
    "k": "outcome", "v": 1, "id": REQUEST_ID, "status": "ok", "http": 200, "error": "", "deployment": 9,
    "served": "m", "finish": "stop", "ms": 1.5, "ttft": None, "usage": USAGE, "price": 4, "cost": 7,
    "unpriced": False, "attempts": [ATTEMPT],
}  # fmt: skip

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**70), max_value=2**70)
    | st.floats(allow_nan=True)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def test_a_whole_request_is_read() -> None:
    intent, outcome = read_intent(INTENT), read_outcome(OUTCOME)
    assert (intent.id, intent.is_stream, intent.started_at.timestamp()) == (
        uuid.UUID(REQUEST_ID),
        True,
        1_790_000_000,
    )
    assert outcome.usage.input_tokens == 3
    assert outcome.usage.detail == {
        "audio_input_tokens": 2,
        "cache_write_1h_tokens": 6,
        "reported_cost_nanousd": 5,
    }
    assert outcome.attempts[0].usage == {
        "kind": "reported",
        "input_tokens": 3,
        "output_tokens": 4,
        "cache_read_tokens": 1,
        "audio_input_tokens": 2,
        "cache_write_1h_tokens": 6,
        "reported_cost_nanousd": 5,
    }
    assert interrupted(intent).usage.kind == "unknown"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "not-a-uuid"), ("id", 7), ("id", []), ("id", "611a95b8-274e-4cf8-81c9-c3e1a38e20e8"),
        ("id", "80000000-0000-7b1c-a15e-ff36b2f2da10"),
        ("status", "interrupted"), ("status", []), ("status", None), ("http", -1), ("http", 40_000), ("http", "200"),
        ("http", True), ("deployment", 0), ("deployment", 2**63), ("ms", "1"), ("ms", -1), ("ms", 1e300),
        ("cost", 1.5), ("cost", -1), ("cost", 10**17), ("unpriced", 1), ("attempts", {}), ("attempts", [7]),
        ("attempts", [{**ATTEMPT, "n": 0}]), ("attempts", [{**ATTEMPT, "at": None}]), ("usage", None),
        ("attempts", [{**ATTEMPT, "usage": {"kind": {}}}]),
        ("usage", {**USAGE, "input": 10**13}), ("usage", {**USAGE, "kind": "guessed"}), ("served", 5), ("v", 2),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused(field: str, value: object) -> None:
    with pytest.raises(LineError):
        read_outcome({**OUTCOME, field: value})


@given(st.sampled_from(sorted(INTENT)), anything, st.sampled_from(sorted(OUTCOME)), anything)
def test_no_value_of_any_type_does_more_than_refuse_the_line(
    intent_field: str, intent_value: object, outcome_field: str, outcome_value: object
) -> None:
    for read, line in (
        (read_intent, {**INTENT, intent_field: intent_value}),
        (read_outcome, {**OUTCOME, outcome_field: outcome_value}),
    ):
        try:
            read(line)
        except LineError:
            continue


@given(st.binary())
def test_no_bytes_do_more_than_refuse_the_line(raw: bytes) -> None:
    try:
        read_line(raw)
    except LineError:
        return


def test_nul_characters_and_lone_surrogates_are_taken_out() -> None:
    line = read_line(b'{"a\\u0000":"x\\u0000y","b":["\\u0000"],"c":"\\\\u0000"}')
    assert line == {"a": "xy", "b": [""], "c": "\\u0000"}
    cleaned = read_line(b'{"a":"x\\ud800y","b":"\xff"}')
    assert "\ud800" not in cleaned["a"]
    orjson.dumps(cleaned)


@pytest.mark.parametrize("raw", [b"{", b"[]", b"7", b'{"a":NaN}', b'{"a":Infinity}', b"[" * 100_000])
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(LineError):
        read_line(raw)


def test_long_texts_are_cut_to_their_columns() -> None:
    assert len(read_intent({**INTENT, "model": "x" * 1000}).requested_model) == 300
    assert len(read_outcome({**OUTCOME, "error": "x" * 1000}).error_code) == 80


@given(st.integers(min_value=1_600_000_000_000, max_value=7_000_000_000_000))
def test_the_millisecond_of_an_id_comes_back(unix_ms: int) -> None:
    at = started_at_of(uuid.UUID(make_request_id(unix_ms)))
    assert round(at.timestamp() * 1000) == unix_ms


def test_an_id_of_another_kind_has_no_time_and_attempts_have_ids_of_their_own() -> None:
    with pytest.raises(ForeignIdError):
        started_at_of(uuid.uuid4())
    request_id = uuid.UUID(REQUEST_ID)
    assert attempt_id_of(request_id, 1) == attempt_id_of(request_id, 1)
    assert attempt_hex_of(request_id, 3) == attempt_id_of(request_id, 3).hex
    assert len({request_id, attempt_id_of(request_id, 1), attempt_id_of(request_id, 2)}) == 3
