"""Is every change of a policy told, in words, and nothing else?"""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.differences import list_differences

RULES: list[dict[str, Any]] = [
    {"name": "long", "when": "input_tokens > 4000", "deployments": ["a", "b"], "fallbacks": ["c"]},
    {"name": "split", "strategy": "weighted", "deployments": [{"name": "a", "weight": 3}, "b"]},
    {"name": "rest", "strategy": "auto", "deployments": ["a", "c"]},
]
BEFORE: dict[str, Any] = {"baseline": "m", "rules": RULES}


def told(after: dict[str, Any], before: dict[str, Any] = BEFORE) -> list[tuple[str, str, str]]:
    return [(kind, rule, " ".join(sentences)) for kind, rule, sentences in list_differences(before, after)]


def with_rules(*rules: dict[str, Any]) -> dict[str, Any]:
    return {"baseline": "m", "rules": list(rules)}


LONG, SPLIT, REST = RULES


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ({**BEFORE, "baseline": "n"}, [("setting", "", "The baseline for savings is n; it was m.")]),
        ({"rules": RULES}, [("setting", "", "The baseline for savings is not set; it was m.")]),
        (with_rules(SPLIT, REST), [("removed", "long", "The 1st rule was removed.")]),
        (with_rules(SPLIT, LONG, REST), [("moved", "long", "Moved from 1st to 2nd.")]),
        (with_rules(REST, LONG, SPLIT), [("moved", "rest", "Moved from 3rd to 1st.")]),
        (with_rules(LONG, SPLIT, {**REST, "name": "other"}), [("changed", "other", "Renamed from “rest”.")]),
        (
            with_rules({**LONG, "name": "very long", "fallbacks": []}, SPLIT, REST),
            [("changed", "very long", "Renamed from “long”. c is no longer a fallback.")],
        ),
        (
            with_rules({**LONG, "strategy": "auto", "slider": 9}, SPLIT, {**REST, "strategy": "priority"}),
            [
                (
                    "changed",
                    "long",
                    "The strategy is auto; it was priority."
                    " The slider from quality (0) to cheapest (10) is at 9.",
                ),
                ("changed", "rest", "The strategy is priority; it was auto."),
            ],
        ),
        (
            with_rules(LONG, SPLIT, {**REST, "strategy": "least_cost"}),
            [("changed", "rest", "The strategy is least cost; it was auto.")],
        ),
        (
            with_rules(LONG, {**SPLIT, "slider": 9}, REST),
            [("changed", "split", "What the rule holds without using it changed.")],
        ),
        (
            with_rules(LONG, {"name": "new", "deployments": ["c"]}, SPLIT, REST),
            [("added", "new", "New as the 2nd rule. Matches always. Strategy priority over c.")],
        ),
        (
            with_rules({**LONG, "when": ""}, SPLIT, REST),
            [("changed", "long", "The condition is always; it was “input_tokens > 4000”.")],
        ),
        (
            with_rules({**LONG, "deployments": ["b", "a"]}, SPLIT, REST),
            [("changed", "long", "The order is now b, a.")],
        ),
        (
            with_rules({**LONG, "fallbacks": ["d"]}, SPLIT, REST),
            [("changed", "long", "d was added as a fallback. c is no longer a fallback.")],
        ),
        (
            with_rules(LONG, {**SPLIT, "deployments": [{"name": "a", "weight": 1}, "d"]}, REST),
            [
                (
                    "changed",
                    "split",
                    "d was added with weight 1. b was removed."
                    " The weight of a is 1; it was 3 (now drawn for 50%).",
                )
            ],
        ),
        (
            with_rules({**LONG, "max_attempts": 2, "timeout_s": 30, "is_enabled": False}, SPLIT, REST),
            [
                (
                    "changed",
                    "long",
                    "Switched off. Attempts at most: 2; before: the default."
                    " Time limit: 30 s; before: the default.",
                )
            ],
        ),
        (
            with_rules(LONG, SPLIT, {**REST, "slider": 8, "quality_floor": 0.5, "check_answers": True}),
            [
                (
                    "changed",
                    "rest",
                    "The slider from quality (0) to cheapest (10) is at 8; it was at 5."
                    " The quality floor is 0.5; it was not set."
                    " Answers are checked, and the next model is tried after a bad one.",
                )
            ],
        ),
    ],
)
def test_each_kind_of_change_has_its_sentence(
    after: dict[str, Any], expected: list[tuple[str, str, str]]
) -> None:
    assert told(after) == expected


def test_what_is_written_out_is_no_change() -> None:
    full = copy.deepcopy(BEFORE)
    full["session_stickiness"] = False
    full["rules"][0] |= {"strategy": "priority", "max_attempts": None, "deployments": [{"name": "a"}, "b"]}
    full["rules"][2] |= {"slider": 5, "quality_floor": None, "check_answers": False, "when": " "}
    assert told(full) == []


def test_a_rule_that_moved_and_changed_is_told_as_both() -> None:
    after = with_rules(SPLIT, REST, {**LONG, "strategy": "least_cost"})
    assert [(kind, rule) for kind, rule, _ in told(after)] == [("moved", "long"), ("changed", "long")]


_names = st.sampled_from(["a", "b", "c"])
_rules = st.fixed_dictionaries(
    {"name": st.sampled_from(["x", "y", "z", ""]), "deployments": st.lists(_names, max_size=3)},
    optional={
        "when": st.sampled_from(["", "has_tools"]),
        "strategy": st.sampled_from(["weighted", "auto"]),
        "fallbacks": st.lists(_names, max_size=2),
        "is_enabled": st.booleans(),
        "slider": st.integers(0, 10),
        "surprise": st.integers(0, 1),
    },
)
_documents = st.fixed_dictionaries(
    {"rules": st.one_of(st.lists(_rules, max_size=4), st.none(), st.lists(st.integers(), max_size=1))},
    optional={
        "baseline": st.sampled_from(["", "m"]),
        "session_stickiness": st.booleans(),
        "x": st.integers(),
    },
)


def plain(document: dict[str, Any]) -> Any:
    """What a document says, written out independently of the code under test."""
    defaults = {"when": "", "strategy": "priority", "fallbacks": [], "is_enabled": True, "slider": 5}
    rules = [rule if isinstance(rule, int) else {**defaults, **rule} for rule in document["rules"] or []]
    return rules, document.get("baseline", ""), document.get("session_stickiness", False), document.get("x")


@settings(max_examples=80, deadline=None)
@given(_documents, _documents)
def test_equal_documents_differ_in_nothing_and_others_in_something(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    assert list_differences(before, copy.deepcopy(before)) == []
    assert (list_differences(before, after) == []) is (plain(before) == plain(after))
    assert all(sentences for _, _, sentences in list_differences(before, after))
