"""Usage of every provider seen, in one set of terms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.usage import MAX_TOKENS
from gateway.wire.openai_usage import find_usage, read_usage
from tests.recorded_traffic import load_openai_records, needs_recorded_traffic


def test_cached_and_reasoning_tokens_are_inside_their_totals():
    usage = read_usage(
        {
            "prompt_tokens": 100,
            "completion_tokens": 50,
            "total_tokens": 150,
            "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 5},
            "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 0},
        }
    )
    assert (usage.kind, usage.input_tokens, usage.output_tokens) == ("reported", 100, 50)
    assert (usage.cache_read_tokens, usage.reasoning_tokens, usage.audio_input_tokens) == (60, 20, 5)
    assert usage.convention == "openai"


def test_reasoning_beside_completion_is_added_to_the_output():
    usage = read_usage(
        {
            "prompt_tokens": 12,
            "completion_tokens": 1,
            "total_tokens": 303,
            "completion_tokens_details": {"reasoning_tokens": 290},
        }
    )
    assert (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens) == (12, 291, 290)
    assert usage.convention == "reasoning_beside_completion"


def test_thoughts_that_only_the_total_shows_are_output():
    usage = read_usage({"prompt_tokens": 35, "completion_tokens": 12, "total_tokens": 109})
    assert (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens) == (35, 74, 62)


def test_audio_beside_the_prompt_is_input():
    usage = read_usage(
        {
            "prompt_tokens": 9,
            "completion_tokens": 201,
            "total_tokens": 585,
            "prompt_tokens_details": {"audio_tokens": 375},
        }
    )
    assert (usage.input_tokens, usage.output_tokens, usage.convention) == (384, 201, "audio_beside_prompt")


@pytest.mark.parametrize(
    "raw",
    [
        {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 7}},
        {
            "prompt_tokens": 9,
            "completion_tokens": 1,
            "prompt_cache_hit_tokens": 7,
            "prompt_cache_miss_tokens": 2,
        },
        {"prompt_tokens": 9, "completion_tokens": 1, "num_cached_tokens": 7},
        {"prompt_tokens": 9, "completion_tokens": 1, "cached_tokens": 7},
        {"prompt_tokens": 9, "completion_tokens": 1, "cache_read_input_tokens": 7},
    ],
)
def test_cached_tokens_are_found_in_all_spellings(raw):
    assert read_usage(raw).cache_read_tokens == 7


def test_a_total_alone_is_input():
    usage = read_usage({"total_tokens": 8})
    assert (usage.kind, usage.input_tokens, usage.output_tokens) == ("reported", 8, 0)


def test_groq_usage_is_found_in_its_own_object():
    assert find_usage({"x_groq": {"usage": {"prompt_tokens": 1}}}) == {"prompt_tokens": 1}
    assert find_usage({"usage": None, "x_groq": {"id": "x"}}) is None


@pytest.mark.parametrize("bad", [-1, "12", float("nan"), float("inf"), 1.5, True, MAX_TOKENS + 1, [], {}])
@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens", "total_tokens"])
def test_a_number_that_cannot_be_believed_makes_the_usage_unknown(name, bad):
    raw = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, name: bad}
    usage = read_usage(raw)
    assert (usage.kind, usage.input_tokens, usage.output_tokens) == ("unknown", None, None)


def test_missing_usage_is_unknown_not_zero():
    assert read_usage(None).kind == "unknown"
    assert read_usage({}).input_tokens is None
    assert read_usage({"queue_time": 0.1}).kind == "unknown"


@pytest.mark.parametrize(
    ("raw", "nanousd"),
    [
        ({"cost": 0.00013305}, 133_050),
        ({"cost": {"total_cost": 0.006}}, 6_000_000),
        ({"cost_in_usd_ticks": 1_330_500}, 133_050),
        ({"cost": -1}, None),
        ({"cost": "1"}, None),
        ({"cost": float("nan")}, None),
        ({}, None),
    ],
)
def test_the_cost_a_provider_states_is_kept(raw, nanousd):
    assert read_usage({"prompt_tokens": 1, "completion_tokens": 1, **raw}).reported_cost_nanousd == nanousd


@given(
    st.dictionaries(st.text(), st.none() | st.integers() | st.floats() | st.text() | st.lists(st.integers()))
)
def test_no_usage_object_breaks_the_reader(raw):
    usage = read_usage(raw)
    assert usage.input_tokens is None or usage.input_tokens >= 0


@needs_recorded_traffic
def test_every_recorded_usage_ties_to_the_providers_own_total():
    checked = 0
    for record in load_openai_records():
        raw = record["expect"].get("usage_raw")
        if not raw or raw.get("total_tokens") is None:
            continue
        usage = read_usage(raw)
        assert usage.kind == "reported", record["id"]
        assert usage.input_tokens + usage.output_tokens == raw["total_tokens"], record["id"]
        checked += 1
    assert checked > 500


def test_anthropics_cache_writes_of_an_hour_are_told_apart() -> None:
    usage = read_usage(
        {
            "prompt_tokens": 100,
            "completion_tokens": 5,
            "cache_creation_input_tokens": 60,
            "cache_creation": {"ephemeral_5m_input_tokens": 40, "ephemeral_1h_input_tokens": 20},
        }
    )
    assert (usage.cache_write_tokens, usage.cache_write_1h_tokens) == (60, 20)
