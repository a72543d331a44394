"""Is a rule that is called unreachable never reached?"""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.condition_rows import read_group, rows_to_cel
from policies.features import Features
from policies.impossible_conditions import is_impossible
from policies.reachability import Shadowed, implies, list_shadowed
from tests.policies.test_condition_rows import GROUPS, group_holds, row_holds


def shadowed(*conditions: str | None) -> list[tuple[int, ...]]:
    return [(place, *by) for place, by in list_shadowed([{"when": when} for when in conditions])]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("input_tokens > 4000", "input_tokens > 8000"),
        ("input_tokens > 4000", "input_tokens >= 4001"),
        ("input_tokens > 4000", "input_tokens == 5000"),
        ("input_tokens >= 0", "input_tokens < 5"),
        ("budget_used_ratio > 0.5", "budget_used_ratio >= 0.6"),
        ("has_tools", "has_tools && turn > 1"),
        ("has_tools || has_images", "has_images"),
        ("turn > 1", "(turn > 3 && has_tools) || turn == 2"),
        ("2 <= turn && turn <= 5", "turn > 1 && turn < 6"),
        ("task in ['a', 'b']", "task == 'a'"),
        ("task.startsWith('su')", "task in ['sum', 'sub']"),
        ("task.startsWith('su')", "task.startsWith('sum')"),
        ("task.contains('u')", "task.startsWith('su')"),
        ("task != 'x'", "task == 'y'"),
        ("task != 'x'", "task.startsWith('y')"),
        ("'team' in tags", "tags.team == 'a'"),
        ("tags.team != 'b'", "tags['team'] in ['a', 'c']"),
        ("1 <= weekday && weekday <= 5", "weekday == 3"),
        ("weekday != 7", "1 <= weekday && weekday <= 5"),
        ("input_tokens + turn > 5", "input_tokens + turn > 5 "),
        ("true", "has_tools"),
        (None, "input_tokens + turn > 5"),
        ("", ""),
        ("hour > 3 && has_tools", "has_tools && turn > 2 && 4 <= hour && hour <= 6"),
    ],
)
def test_a_rule_behind_a_wider_one_is_never_reached(earlier: str | None, later: str) -> None:
    assert shadowed(earlier, later) == [(1, 0)]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("input_tokens > 8000", "input_tokens > 4000"),
        ("budget_used_ratio > 0.5", "budget_used_ratio >= 0.5"),
        ("has_tools && turn > 1", "has_tools"),
        ("has_tools", "!has_tools"),
        ("has_images", "has_tools || has_images"),
        ("task != 'x'", ""),
        ("tags.team != 'b'", "!('team' in tags)"),
        ("'team' in tags", "!('team' in tags)"),
        ("tags.team != 'b'", "tags.other == 'a'"),
        ("task.matches('a')", "task == 'a'"),
        ("weekday != 7", "weekday in [6, 7]"),
        ("turn > 1 && turn < 4", "turn > 1"),
        ("turn + 1 > 2", "turn + 1 > 3"),
    ],
)
def test_a_rule_that_some_request_can_reach_is_not_named(earlier: str, later: str) -> None:
    assert shadowed(earlier, later) == []


def test_a_rule_that_is_off_neither_takes_nor_is_named() -> None:
    rules: list[Any] = [
        {"when": "", "is_enabled": False},
        {"when": "turn > 1"},
        {"when": "turn > 2", "is_enabled": False},
        {"when": "turn > 3"},
        {"when": 5},
        "odd",
    ]
    assert list_shadowed(rules) == [Shadowed(3, (1,))]


@pytest.mark.parametrize(
    ("conditions", "by"),
    [
        (["has_tools", "!has_tools", ""], (0, 1)),
        (["input_tokens > 4000", "input_tokens <= 4000", "has_tools"], (0, 1)),
        (["turn < 2", "turn == 2", "turn > 2", ""], (0, 1, 2)),
        (["budget_used_ratio < 0.5", "budget_used_ratio >= 0.5", ""], (0, 1)),
        (["'t' in tags", "!('t' in tags)", ""], (0, 1)),
        (["tags.t == 'a'", "tags.t != 'a'", "!('t' in tags)", ""], (0, 1, 2)),
        (["task == 'a'", "task != 'a'", ""], (0, 1)),
        (["1 <= weekday && weekday <= 5", "weekday in [6, 7]", ""], (0, 1)),
        (["has_tools", "turn > 5", "!has_tools && hour < 3", "hour == 2"], (0, 2)),
        (["has_tools && turn > 1", "!has_tools", "turn > 3"], (0, 1)),
        (["has_tools || !has_tools", ""], (0,)),
        (["turn > 5", "has_tools", "turn > 5 || has_tools"], (0, 1)),
        (["turn > 5", "has_tools", "(turn > 7 || has_tools) && has_images"], (0, 1)),
        (["turn > 5 || has_tools", "turn <= 5 && !has_tools", "has_images"], (0, 1)),
    ],
)
def test_several_rules_together_leave_nothing_to_a_later_one(
    conditions: list[str], by: tuple[int, ...]
) -> None:
    assert shadowed(*conditions) == [(len(conditions) - 1, *by)]


@pytest.mark.parametrize(
    "conditions",
    [
        ["has_tools", "!has_images", ""],
        ["input_tokens > 4000", "input_tokens < 4000", ""],
        ["budget_used_ratio < 0.5", "budget_used_ratio > 0.5", ""],
        ["tags.t == 'a'", "tags.t != 'a'", ""],
        ["task == 'a'", "task == 'b'", ""],
        ["turn + 1 > 2", "turn + 1 <= 2", ""],
        ["endpoint == 'chat'", "endpoint in ['completions', 'embeddings']", ""],  # others may come
    ],
)
def test_what_several_rules_leave_is_reached(conditions: list[str]) -> None:
    assert shadowed(*conditions) == []


def row(field: str, operator: str, value: Any) -> dict[str, Any]:
    return {"field": field, "operator": operator, "value": value}


WORDS = ["", "a", "ab", "b"]
NUMBERS = [0, 2, 3]
TEXTS = [
    *(
        row("task", operator, word)
        for operator in ("is", "is_not", "starts_with", "contains")
        for word in WORDS
    ),
    row("task", "is_one_of", ["a", "ab"]),
    row("task", "is_one_of", ["b"]),
    row("task", "matches", "a"),
]
TURNS = [
    *(row("turn", operator, number) for operator in ("lt", "le", "eq", "ge", "gt") for number in NUMBERS),
    row("turn", "between", [1, 3]),
    row("turn", "between", [2, 2]),
]
RATIOS = [
    *(
        row("budget_used_ratio", operator, number)
        for operator in ("lt", "le", "eq", "ge", "gt")
        for number in NUMBERS
    ),
]
TAGS = [
    *(row("tags.t", operator, word) for operator in ("is", "is_not") for word in WORDS),
    row("tags.t", "has", None),
    row("tags.t", "has_not", None),
    row("tags.t", "is_one_of", ["a", "b"]),
]
DAYS = [
    *(row("weekday", operator, day) for operator in ("is", "is_not") for day in (1, 4)),
    row("weekday", "is_one_of", [1, 2, 4]),
    row("weekday", "between", [2, 7]),
    row("weekday", "between", [1, 7]),
]
FLAGS = [row("has_tools", "is", True), row("has_tools", "is", False)]
ATOMS = [*TEXTS, *TURNS, *RATIOS, *TAGS, *DAYS, *FLAGS]
REQUESTS = [
    *(Features(task=word) for word in [*WORDS, "ba", "c", "aba"]),
    *(Features(turn=number, budget_used_ratio=number + 0.5, has_tools=number > 2) for number in range(5)),
    *(Features(turn=4 - number, budget_used_ratio=number, task="a") for number in range(4)),
    *(Features(tags={"t": word}, task=word) for word in [*WORDS, "c"]),
    *(Features(weekday=day, turn=day % 4, task=WORDS[day % 4]) for day in range(1, 8)),
]


def test_no_comparison_is_called_narrower_than_one_that_it_is_not() -> None:
    told = 0
    for narrow in ATOMS:
        for wide in ATOMS:
            if implies(read_group({"rows": [narrow]}), read_group({"rows": [wide]})):
                told += narrow != wide
                for features in REQUESTS:
                    assert row_holds(wide, features) or not row_holds(narrow, features), (narrow, wide)
    assert told > 100


_groups = st.one_of(
    *(
        st.fixed_dictionaries(
            {
                "join": st.sampled_from(["and", "or"]),
                "rows": st.lists(
                    st.one_of(
                        st.sampled_from(atoms),
                        st.fixed_dictionaries(
                            {"join": st.just("or"), "rows": st.lists(st.sampled_from(atoms), max_size=2)}
                        ),
                    ),
                    max_size=3,
                ),
            }
        )
        for atoms in (TURNS, TEXTS + TAGS, TURNS + FLAGS, RATIOS)
    )
)


@settings(max_examples=100, deadline=None)
@given(_groups, _groups)
def test_where_the_narrow_condition_holds_the_wide_one_does(
    narrow: dict[str, Any], wide: dict[str, Any]
) -> None:
    small, large = read_group(narrow), read_group(wide)
    if implies(small, large):
        for features in REQUESTS:
            assert group_holds(large.as_json(), features) or not group_holds(small.as_json(), features)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.one_of(*(st.sampled_from(atoms) for atoms in (TURNS, TAGS, FLAGS, RATIOS, DAYS))), max_size=6
    ),
    _groups,
)
def test_a_rule_that_earlier_ones_shadow_gets_no_request(
    rows: list[dict[str, Any]], last: dict[str, Any]
) -> None:
    groups = [*({"join": "and", "rows": [atom]} for atom in rows), last]
    rules = [{"when": rows_to_cel(group)} for group in groups]
    for place, by in list_shadowed(rules):
        for features in REQUESTS:
            if group_holds(read_group(groups[place]).as_json(), features):
                assert any(group_holds(read_group(groups[other]).as_json(), features) for other in by)


@settings(max_examples=60, deadline=None)
@given(st.lists(_groups, min_size=1, max_size=3), _groups)
def test_a_rule_that_earlier_alternatives_shadow_gets_no_request(
    earlier: list[dict[str, Any]], last: dict[str, Any]
) -> None:
    groups = [*earlier, last]
    for place, by in list_shadowed([{"when": rows_to_cel(group)} for group in groups]):
        for features in REQUESTS:
            if group_holds(read_group(groups[place]).as_json(), features):
                assert any(group_holds(read_group(groups[other]).as_json(), features) for other in by)


def test_many_rules_of_many_alternatives_are_compared_in_bounded_time() -> None:
    rules = [
        {"when": f"(turn > {at} || has_tools) && (task == 'x{at}' || hour > {at % 24}) && tags.t{at} == 'a'"}
        for at in range(40)
    ]
    begun_s = time.thread_time()
    assert list_shadowed([*rules, {}]) == []
    assert time.thread_time() - begun_s < 3


@settings(max_examples=100, deadline=None)
@given(_groups)
def test_what_is_called_impossible_no_request_meets(group: dict[str, Any]) -> None:
    if is_impossible(rows_to_cel(group)):
        assert not any(group_holds(read_group(group).as_json(), features) for features in REQUESTS)


@pytest.mark.parametrize(
    "condition",
    [
        "false",
        "weekday == 8",
        "hour >= 24",
        "hour > 23 && input_tokens > 3",
        "hour == 25 && has_tools",
        "has_tools && !has_tools",
        "!(weekday in [1, 2, 3, 4, 5, 6, 7])",
        "input_tokens > 100 && input_tokens < 50",
        "turn > 2 && turn < 3",
        "(turn > 5 || turn > 7) && turn < 3",
        "task_type == 'a' && task_type == 'b'",
        "task in ['a', 'b'] && task.startsWith('c')",
        "tags.a == 'x' && !('a' in tags)",
        "input_tokens < 0",
        "difficulty > 1",
    ],
)
def test_a_condition_that_contradicts_itself_is_found(condition: str) -> None:
    assert is_impossible(condition)


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "true",
        "hour == 23",
        "weekday == 7 && hour < 1",
        "turn > 2 && turn < 4",
        "budget_used_ratio > 2",
        "budget_used_ratio > 0.2 && budget_used_ratio < 0.3",
        "task.matches('a') && task == 'b'",
        "tags.a != 'x' && 'a' in tags",
        "tags.a == 'x' && tags.b == 'y'",
        "turn > 1 && (turn < 1 || has_tools)",
        "input_tokens / 2 > 3",
        "not cel at all",
    ],
)
def test_a_condition_that_some_request_meets_is_not(condition: str) -> None:
    assert not is_impossible(condition)


@settings(max_examples=30, deadline=None)
@given(GROUPS, GROUPS)
def test_a_condition_implies_itself_and_what_is_wider(one: dict[str, Any], other: dict[str, Any]) -> None:
    narrow, wide = ({"join": join, "rows": [one, other]} for join in ("and", "or"))
    assert implies(read_group(one), read_group(one))
    assert implies(read_group(narrow), read_group(one))
    assert implies(read_group(one), read_group(wide))
