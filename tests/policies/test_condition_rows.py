"""Do rows and CEL say the same, both ways?"""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.condition_rows import FIELDS, Field, RowError, cel_to_rows, rows_to_cel
from policies.conditions import RUN_TIME_ERRORS, compile_condition, prepare
from policies.features import FEATURE_NAMES, Features

TEXTS = st.one_of(
    st.sampled_from(["", "a", "ab", "x", 'q"uote', "back\\slash", "new\nline", "tab\t", "it's", "é😀", "\x01\x7f"]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4),
)  # fmt: skip
TAGS = st.sampled_from(["a", "team", "with space", 'q"', "é", "x.y"])
PATTERNS = st.sampled_from(["a", "^a", "b$", "^$", "x|y", "\\d", "[a-c]+", "\\\\", '"'])
WHOLE = st.integers(0, 12)


def values(field: Field, operator: str) -> st.SearchStrategy[Any]:
    if operator in ("has", "has_not"):
        return st.none()
    if operator == "matches":
        return PATTERNS
    one: st.SearchStrategy[Any] = TEXTS
    if field.kind == "yes/no":
        one = st.booleans()
    elif field.kind == "number":
        one = st.sampled_from([0.0, 0.25, 1.0, 1e-9]) if field.is_fraction else WHOLE
    elif field.kind in ("choice", "weekday"):
        one = st.sampled_from([choice for choice, _ in field.choices])
    if operator == "is_one_of":
        return st.lists(one, min_size=1, max_size=3, unique=True)
    if operator == "between":
        return st.tuples(one, one).map(sorted)
    return one


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    field = draw(st.sampled_from(FIELDS))
    operator = draw(st.sampled_from(field.operators))
    name = f"tags.{draw(TAGS)}" if field.kind == "tag" else field.name
    return {"field": name, "operator": operator, "value": draw(values(field, operator))}


def groups(
    inner: st.SearchStrategy[dict[str, Any]], least: int, most: int = 3
) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"join": st.sampled_from(["and", "or"]), "rows": st.lists(inner, min_size=least, max_size=most)}
    )


NESTED = groups(st.one_of(rows(), groups(rows(), 2)), 2)
ALONE = st.builds(lambda row: {"join": "and", "rows": [row]}, rows())
GROUPS = st.one_of(ALONE, NESTED)

TEXT_FEATURES = ["requested_model", "tenant", "app", "task", "task_type", "language", "priority", "key"]
NUMBER_FEATURES = ["input_tokens", "max_output_tokens", "message_count", "turn", "max_latency_ms"]
FLAGS = ["has_images", "has_tools", "has_schema", "is_stream", "is_tool_forced"]
FEATURES = st.builds(
    Features,
    endpoint=st.sampled_from(["chat", "embeddings"]),
    tags=st.dictionaries(TAGS, TEXTS, max_size=4),
    hour=st.integers(0, 23),
    weekday=st.integers(1, 7),
    budget_used_ratio=st.sampled_from([0.0, 0.25, 1.0]),
    **dict.fromkeys(TEXT_FEATURES, TEXTS),
    **dict.fromkeys(NUMBER_FEATURES, WHOLE),
    **{name: st.booleans() for name in FLAGS},
)


def row_holds(row: dict[str, Any], features: Features) -> bool:
    name, operator, value = row["field"], row["operator"], row["value"]
    if name.startswith("tags."):
        tag = name.removeprefix("tags.")
        if operator in ("has", "has_not"):
            return (tag in features.tags) is (operator == "has")
        if tag not in features.tags:
            return False
        actual: Any = features.tags[tag]
    else:
        actual = getattr(features, name)
    return bool(
        {
            "is": lambda: actual == value,
            "eq": lambda: actual == value,
            "is_not": lambda: actual != value,
            "is_one_of": lambda: actual in value,
            "starts_with": lambda: actual.startswith(value),
            "contains": lambda: value in actual,
            "matches": lambda: re.search(value.replace("$", r"\Z"), actual),
            "lt": lambda: actual < value,
            "le": lambda: actual <= value,
            "ge": lambda: actual >= value,
            "gt": lambda: actual > value,
            "between": lambda: value[0] <= actual <= value[1],
        }[operator]()
    )


def group_holds(group: dict[str, Any], features: Features) -> bool:
    held = (
        group_holds(item, features) if "rows" in item else row_holds(item, features) for item in group["rows"]
    )
    return all(held) if group["join"] == "and" else any(held)


def cel_holds(text: str, features: Features) -> bool:
    condition = compile_condition(text)
    try:
        return condition.program(prepare(features, condition.feature_names)) is True
    except RUN_TIME_ERRORS:
        return False


@settings(max_examples=40, deadline=None)
@given(GROUPS, st.lists(FEATURES, min_size=1, max_size=3))
def test_rows_mean_in_cel_what_they_say(group: dict[str, Any], requests: list[Features]) -> None:
    text = rows_to_cel(group)
    for features in requests:
        assert cel_holds(text, features) is group_holds(group, features)


@settings(max_examples=80, deadline=None)
@given(GROUPS)
def test_rows_read_back_as_they_were_written(group: dict[str, Any]) -> None:
    assert cel_to_rows(rows_to_cel(group)) == group


@settings(max_examples=40, deadline=None)
@given(groups(st.one_of(rows(), groups(groups(rows(), 0), 0)), 0))
def test_needless_groups_go_and_nothing_else(group: dict[str, Any]) -> None:
    text = rows_to_cel(group)
    found = cel_to_rows(text)
    assert found is not None
    assert rows_to_cel(found) == text


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.text(max_size=40),
        st.lists(
            st.sampled_from(
                ["task", "tags", "hour", "has", "(", ")", "!", "&&", "||", "<=", "==", "in", "[", "]", ".", "1", '"a"']
            ),
            max_size=9,
        ).map(" ".join),
    ),
    FEATURES,
)  # fmt: skip
def test_any_text_is_rows_that_mean_the_same_or_stays_text(text: str, features: Features) -> None:
    group = cel_to_rows(text)
    if group is not None and group["rows"]:
        try:
            compile_condition(text)
        except ValueError:
            return
        assert cel_holds(text, features) is cel_holds(rows_to_cel(group), features)


@pytest.mark.parametrize(
    ("text", "rewritten"),
    [
        ("", ""),
        ("true", ""),
        ("4000 < input_tokens", "input_tokens > 4000"),
        ("task == 'it\\'s'", 'task == "it\'s"'),
        ("has(tags.team) && tags.team == 'x'", '"team" in tags && tags["team"] == "x"'),
        ("!has(tags.team) || !(has_tools)", '!("team" in tags) || !has_tools'),
        ("has_tools == false", "!has_tools"),
        ("turn > 1 || task in ['a'] && has_audio", 'turn > 1 || (task in ["a"] && has_audio)'),
        ("9 <= hour && hour <= 17 && weekday in [1, 2]", "(9 <= hour && hour <= 17) && weekday in [1, 2]"),
        ("17 <= hour && hour <= 9", "hour >= 17 && hour <= 9"),
        ("9 <= hour && turn <= 3", "hour >= 9 && turn <= 3"),
        ("budget_used_ratio > 0.8", "budget_used_ratio > 0.8"),
    ],
)
def test_what_people_write_is_shown_as_rows(text: str, rewritten: str) -> None:
    group = cel_to_rows(text)
    assert group is not None
    assert rows_to_cel(group) == rewritten


@pytest.mark.parametrize(
    "text",
    [
        "input_tokens + 1 > 2",
        "!(task == 'a')",
        "task.size() > 3",
        "task == app",
        "task > 'a'",
        "input_tokens > 4.5",
        "input_tokens == 'a'",
        "has_tools ? true : false",
        "task == 'a' // said so",
        "task.matches(r'\\d')",
        "task == '''a'''",
        "has(task)",
        "'a' in task",
        "nope == 'a'",
        "has_tools has_tools",
        "(has_tools",
        "task ==",
        "(" * 50 + "has_tools" + ")" * 50,
        "input_tokens != 5",
    ],
)
def test_what_rows_cannot_say_stays_text(text: str) -> None:
    assert cel_to_rows(text) is None


@pytest.mark.parametrize(
    ("row", "path", "part"),
    [
        ({"field": "nope", "operator": "is", "value": "a"}, "rows[0]", "no field"),
        ({"field": "tags.", "operator": "has", "value": None}, "rows[0]", "names the tag"),
        ({"field": "task", "operator": "lt", "value": "a"}, "rows[0]", "compared by one of"),
        ({"field": "task", "operator": "is", "value": 5}, "rows[0]", "needs a text"),
        ({"field": "task", "operator": "is", "value": "\0"}, "rows[0]", "NUL"),
        ({"field": "task", "operator": "is_one_of", "value": []}, "rows[0]", "needs one to"),
        ({"field": "hour", "operator": "eq", "value": 1.5}, "rows[0]", "whole number"),
        ({"field": "hour", "operator": "eq", "value": float("nan")}, "rows[0]", "not negative"),
        ({"field": "hour", "operator": "eq", "value": True}, "rows[0]", "not negative"),
        ({"field": "hour", "operator": "between", "value": [5, 1]}, "rows[0]", "is more than"),
        ({"field": "weekday", "operator": "is", "value": 8}, "rows[0]", "weekday"),
        ({"field": "endpoint", "operator": "is", "value": "images"}, "rows[0]", "is one of"),
        ({"field": "has_tools", "operator": "is", "value": "yes"}, "rows[0]", "yes or no"),
        ({"join": "xor", "rows": []}, "rows[0]", "joined"),
        ({"rows": [{"rows": [5]}]}, "rows[0].rows[0].rows[0]", "an object"),
        ({"rows": 5}, "rows[0]", "holds rows"),
    ],
)
def test_a_wrong_row_is_refused_at_its_place(row: dict[str, Any], path: str, part: str) -> None:
    with pytest.raises(RowError) as refused:
        rows_to_cel({"join": "and", "rows": [row]})
    assert refused.value.path == path
    assert part in refused.value.message


def test_every_feature_that_says_something_is_offered() -> None:
    assert {field.name for field in FIELDS} == FEATURE_NAMES - {"conversation"}
