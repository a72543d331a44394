"""Does a conversation keep the deployment that served it so far?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.features import Features
from policies.snapshot import ProviderSnapshot
from policies.stickiness import Cost, Pin, judge_pin
from tests.make_routing import make_deployments

CATALOG = make_deployments("a", "b", "c", input_nanousd_per_mtok=1_000_000_000)
CANDIDATES = [CATALOG["a"], CATALOG["b"], CATALOG["c"]]
LONG = Features(turn=3, input_tokens=100_000)


def judge(name: str, *costs: tuple[int | None, float], features: Features = LONG, reason: str = "") -> Any:
    return judge_pin(name, CANDIDATES, [Cost(*cost) for cost in costs], features, drop_reason=reason)


def test_a_new_conversation_leaves_the_order_alone() -> None:
    assert judge("") == (Pin("new"), 0)


def test_a_conversation_keeps_its_deployment_where_no_cost_is_known() -> None:
    assert judge("c") == (Pin("kept", "c"), 2)


def test_a_simulated_answer_keeps_no_conversation_from_a_real_model() -> None:
    """A key is added to a demo, and the same question asked again."""
    demo = ProviderSnapshot(2, "simulated", "openai_chat", "simulated:")
    simulated = replace(CATALOG["c"], provider=demo)
    found = judge_pin("c", [CATALOG["a"], simulated], [], LONG, drop_reason="")
    assert found == (Pin("broken", "c", "simulated"), 0)
    other = replace(CATALOG["b"], provider=demo)
    assert judge_pin("c", [other, simulated], [], LONG, drop_reason="") == (Pin("kept", "c"), 1)


def test_a_deployment_that_cannot_serve_loses_the_conversation_and_the_reason_is_told() -> None:
    assert judge("gone", reason="ejected") == (Pin("broken", "gone", "ejected"), 0)
    assert judge("gone") == (Pin("broken", "gone", "not_listed"), 0)


# 100,000 tokens at 1 USD a million are 0.1 USD, of which the cache saves 0.09: that much must another save, and a
# quarter of what is paid now.
@pytest.mark.parametrize(
    ("costs", "features", "is_kept"),
    [
        pytest.param([(50_000_000, 0.9), (120_000_000, 0.8)], LONG, True, id="the lost cache costs more"),
        pytest.param(
            [(1_000_000, 0.9), (130_000_000, 0.8)], LONG, False, id="the saving beats the lost cache"
        ),
        pytest.param([(1_000_000, 0.7), (130_000_000, 0.8)], LONG, True, id="cheaper and worse"),
        pytest.param(
            [(1_000_000, 0.9), (130_000_000, 0.8)],
            LONG._replace(is_tool_result=True),
            True,
            id="never between a tool call and its result",
        ),
        pytest.param([(None, 0.9), (130_000_000, 0.8)], LONG, True, id="an unknown price saves nothing"),
        pytest.param(
            [(90_000_000, 0.9), (100_000_000, 0.8)],
            Features(turn=1),
            True,
            id="a tenth is not worth a change",
        ),
        pytest.param(
            [(60_000_000, 0.9), (100_000_000, 0.8)], Features(turn=1), False, id="a first turn has no cache"
        ),
    ],
)
def test_it_leaves_when_another_is_better_and_the_saving_beats_the_lost_cache(
    costs: list[tuple[int | None, float]], features: Features, is_kept: bool
) -> None:
    pin, place = judge("b", *costs, features=features)
    assert (pin.state, place) == (("kept", 1) if is_kept else ("broken", 0))
    assert pin.reason == ("" if is_kept else "saving")


@given(
    st.sampled_from(["", "a", "b", "c", "gone"]),
    st.lists(st.tuples(st.none() | st.integers(0, 10**9), st.floats(0, 1)), min_size=3, max_size=3),
    st.builds(
        Features, turn=st.integers(0, 9), input_tokens=st.integers(0, 10**6), is_tool_result=st.booleans()
    ),
)
def test_between_a_tool_call_and_its_result_only_a_missing_deployment_breaks(
    name: str, costs: list[tuple[int | None, float]], features: Features
) -> None:
    pin, place = judge(name, *costs, features=features)
    assert 0 <= place < 3
    if pin.state == "kept":
        assert CANDIDATES[place].name == name
    if features.is_tool_result and name in CATALOG:
        assert pin.state == "kept"
