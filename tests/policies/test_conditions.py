"""Does a condition hold for exactly the requests it names?"""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.conditions import RUN_TIME_ERRORS, ConditionError, compile_condition, prepare
from policies.features import FEATURE_NAMES, Features


def holds(text: str, features: Features) -> bool:
    condition = compile_condition(text)
    return bool(condition.program(prepare(features, condition.feature_names)))


@pytest.mark.parametrize(
    ("text", "features", "expected"),
    [
        ("input_tokens > 4000", Features(input_tokens=4001), True),
        ("input_tokens > 4000", Features(input_tokens=4000), False),
        ("task == 'chat' && !has_tools", Features(task="chat"), True),
        ("task in ['a', 'b']", Features(task="b"), True),
        ("tags.team == 'x'", Features(tags={"team": "x"}), True),
        ("tags['team'].startsWith('x')", Features(tags={"team": "xy"}), True),
        ("has(tags.team) && tags.team == 'x'", Features(), False),
        ("'team' in tags", Features(tags={"team": ""}), True),
        ("['a', 'b'].exists(name, name == task)", Features(task="b"), True),
        ("budget_used_ratio >= 0.8", Features(budget_used_ratio=0.8), True),
        ("tags['team'] == 'x' || input_tokens > 5", Features(input_tokens=9), True),
    ],
)
def test_a_condition_looks_at_features(text: str, features: Features, expected: bool) -> None:
    assert holds(text, features) is expected


@pytest.mark.parametrize(
    ("text", "column", "part"),
    [
        ("input_tokens >", 15, "too early"),
        ("input_tokens > > 3", 16, "extraneous input"),
        ("turn > 1 &&\n  nope > 1", 15, "no feature named 'nope'"),
        ("task.lower() == 'a'", 6, "no function named 'lower'"),
        ("input_tokens + 1", None, "a number, not true or false"),
        ("task", None, "a text, not true or false"),
        ("task > 5", None, "No such overload"),
        ("task.matches('(')", None, "regex"),
        ("", None, "empty"),
        ("has_tools && input_tokens", None, "No such overload"),
        ("true ? input_tokens : 1", None, "a number"),
        ("['a'].exists(x, x == task) || x == 'a'", None, "Undefined variable"),
        ("x" * 3000, None, "at most 2000"),
        ("task == '\0'", None, "NUL"),
        ("task == '\ud800'", None, "surrogate"),
        ("(" * 900 + "true" + ")" * 900, None, "nested too deeply"),
        (".exists(a, a)".join(["[true]"] * 5), None, "at most 3"),
    ],
)
def test_a_wrong_condition_is_refused_with_its_place(text: str, column: int | None, part: str) -> None:
    with pytest.raises(ConditionError) as refused:
        compile_condition(text)
    assert part in refused.value.message
    if column is not None:
        assert refused.value.column == column


def test_only_the_features_that_a_condition_names_are_reported() -> None:
    condition = compile_condition("turn > 1 && ['a'].exists(x, x == task)")
    assert condition.feature_names == {"turn", "task"}


def test_a_context_follows_every_change_of_a_value() -> None:
    condition = compile_condition("tags.team == 'x' && turn == 2")
    names = condition.feature_names
    results = [
        condition.program(prepare(Features(tags={"team": team}, turn=turn), names))
        for team, turn in [("x", 2), ("y", 2), ("x", 2), ("x", 3), ("x", 2)]
    ]
    assert results == [True, False, True, False, True]


@given(
    st.lists(
        st.builds(
            Features,
            input_tokens=st.integers(0, 3),
            turn=st.integers(0, 1),
            has_tools=st.booleans(),
            task=st.sampled_from(["", "a", "b"]),
            tags=st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["", "x"])),
            budget_used_ratio=st.sampled_from([0.0, 0.5]),
            app=st.text(max_size=2),
        ),
        max_size=8,
    )
)
def test_a_kept_context_never_shows_the_values_of_another_request(requests: list[Features]) -> None:
    text = (
        "[input_tokens, turn] == [{input_tokens}, {turn}] && has_tools == {has_tools} && task == '{task}'"
        " && tags == {tags} && size(app) < 99 && (budget_used_ratio < 0.25) == {is_low}"
    )
    for features in requests:
        tags = "{" + ", ".join(f"'{name}': '{value}'" for name, value in features.tags.items()) + "}"
        expected = text.format(
            input_tokens=features.input_tokens,
            turn=features.turn,
            has_tools=str(features.has_tools).lower(),
            task=features.task,
            tags=tags,
            is_low=str(features.budget_used_ratio < 0.25).lower(),
        )
        condition = compile_condition(expected)
        assert condition.program(prepare(features, condition.feature_names)) is True


def test_more_kinds_of_requests_than_are_kept_do_no_harm() -> None:
    condition = compile_condition("task == tags.task && input_tokens == turn")
    for _ in range(2):
        for number in range(600):
            features = Features(
                task=f"t{number}", tags={"task": f"t{number}"}, input_tokens=number, turn=number
            )
            assert condition.program(prepare(features, condition.feature_names)) is True


def test_a_missing_tag_is_a_key_error() -> None:
    condition = compile_condition("tags['team'] == 'x'")
    prepare(Features(tags={"team": "x"}), condition.feature_names)
    with pytest.raises(KeyError):
        condition.program(prepare(Features(), condition.feature_names))


def test_threads_do_not_share_contexts() -> None:
    condition = compile_condition("turn == 1")
    mine = prepare(Features(turn=1), condition.feature_names)
    other = threading.Thread(target=prepare, args=(Features(turn=2), condition.feature_names))
    other.start()
    other.join()
    assert condition.program(mine) is True


def test_lone_surrogates_and_huge_numbers_in_a_request_do_no_harm() -> None:
    condition = compile_condition("task == 'a' || tags.t == 'b' || max_output_tokens > 5")
    features = Features(task="\ud800", tags={"t": "\udfff", "\ud800": "x"}, max_output_tokens=2**70)
    assert condition.program(prepare(features, condition.feature_names)) in (True, False)


@given(st.text(max_size=60))
def test_any_text_compiles_or_is_refused(text: str) -> None:
    try:
        condition = compile_condition(text)
    except ConditionError as refused:
        assert refused.message
    else:
        assert condition.feature_names <= FEATURE_NAMES


_terms = st.sampled_from(
    [
        "input_tokens > 10",
        "turn == 1",
        "has_tools",
        "task == 'a'",
        "tags.team == 'x'",
        "tags['a'] != ''",
        "1 / turn > 0",
    ]
)


@given(
    st.recursive(
        _terms,
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(lambda t: f"({' '.join(t)})"),
            inner.map(lambda text: f"!({text})"),
        ),
        max_leaves=8,
    ),
    st.builds(
        Features,
        input_tokens=st.integers(0, 20),
        turn=st.integers(0, 2),
        has_tools=st.booleans(),
        task=st.sampled_from(["", "a"]),
        tags=st.dictionaries(st.sampled_from(["team", "a"]), st.text(max_size=3), max_size=2),
    ),
)
def test_a_compiled_condition_is_true_or_false_or_fails_in_a_known_way(text: str, features: Features) -> None:
    condition = compile_condition(text)
    try:
        assert condition.program(prepare(features, condition.feature_names)) in (True, False)
    except RUN_TIME_ERRORS:
        pass


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (f"[{'1,' * 200}1].all(x, [{'1,' * 200}1].all(y, x == y))", "too long for nested"),
        ("[1]. //\n all(task, [1]. //\n all(app, [1]. //\n all(key, [1]. //\n all(tenant, true))))", "at most 3"),
        (r"task.matches('\\w{200}')", "ms of every request"),
        ("task.matches(tags.pattern)", "in quotes"),
        ("task.matches('a' + app)", "in quotes"),
    ],
)  # fmt: skip
def test_a_condition_that_would_hold_up_every_request_is_refused(text: str, part: str) -> None:
    with pytest.raises(ConditionError, match=part):
        compile_condition(text)


@pytest.mark.parametrize(
    "text",
    [
        "task.matches('^(a|aa)+$')",
        "task.matches( r'^a b$' ) || app.matches(\"it's\")",
        "tags.exists(k, tags.exists(j, k == j + 'x'))",
        "task in ['map', 'filter', 'all', 'exists', 'matches']",
    ],
)
def test_ordinary_patterns_and_lists_are_taken(text: str) -> None:
    assert compile_condition(text).text == text
