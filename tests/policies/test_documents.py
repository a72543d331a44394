"""Is everything wrong with a policy document found, at its place?"""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.document_checks import Problem, check_document, has_errors
from policies.documents import build_rules, normalise_document
from policies.snapshot import AutoSettings
from tests.make_routing import make_deployments

DEPLOYMENTS = make_deployments("a", "b", "c")
SOUND: dict[str, Any] = {
    "baseline": "m",
    "rules": [
        {
            "name": "long",
            "when": "input_tokens > 4000",
            "strategy": "weighted",
            "deployments": [{"name": "a", "weight": 2}, "b"],
            "fallbacks": ["c"],
            "max_attempts": 2,
            "timeout_s": 30,
        },
        {"name": "rest", "deployments": ["a"]},
    ],
}


AUTO: dict[str, Any] = {"name": "rest", "strategy": "auto", "deployments": ["a", "b"]}


def check(document: object, disabled: tuple[str, ...] = ()) -> list[Problem]:
    return check_document(document, deployment_names=DEPLOYMENTS, model_names=["m"], disabled_names=disabled)


def changed(path: list[str | int], value: object) -> dict[str, Any]:
    document: dict[str, Any] = copy.deepcopy(SOUND)
    place: Any = document
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return document


def test_a_sound_document_has_no_problems() -> None:
    assert check(SOUND) == []


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        (["baseline"], "nothing", "baseline"),
        (["baseline"], 5, "baseline"),
        (["surprise"], 1, "surprise"),
        (["session_stickiness"], "yes", "session_stickiness"),
        (["rules"], [], "rules"),
        (["rules"], "x", "rules"),
        (["rules", 0], "x", "rules[0]"),
        (["rules", 0, "name"], " ", "rules[0].name"),
        (["rules", 0, "name"], "a\nb", "rules[0].name"),
        (["rules", 0, "name"], "x" * 201, "rules[0].name"),
        (["rules", 1, "name"], " long", "rules[1].name"),
        (["rules", 0, "surprise"], 1, "rules[0].surprise"),
        (["rules", 0, "when"], 5, "rules[0].when"),
        (["rules", 0, "when"], "nope > 1", "rules[0].when"),
        (["rules", 0, "strategy"], "best", "rules[0].strategy"),
        (["rules", 0, "strategy"], ["weighted"], "rules[0].strategy"),
        (["rules", 0, "strategy"], "fixed", "rules[0].deployments"),
        (["rules", 0, "deployments"], [], "rules[0].deployments"),
        (["rules", 0, "deployments"], None, "rules[0].deployments"),
        (["rules", 0, "deployments", 0], "nothing", "rules[0].deployments[0]"),
        (["rules", 0, "deployments", 0], 5, "rules[0].deployments[0]"),
        (["rules", 0, "deployments", 1], "a", "rules[0].deployments[1]"),
        (["rules", 0, "deployments", 0, "weight"], -1, "rules[0].deployments[0].weight"),
        (["rules", 0, "deployments", 0, "weight"], float("nan"), "rules[0].deployments[0].weight"),
        (["rules", 0, "deployments", 0, "weight"], float("inf"), "rules[0].deployments[0].weight"),
        (["rules", 0, "deployments", 0, "weight"], 10**400, "rules[0].deployments[0].weight"),
        (["rules", 0, "deployments", 0, "weight"], True, "rules[0].deployments[0].weight"),
        (["rules", 0, "deployments", 0, "surprise"], 1, "rules[0].deployments[0].surprise"),
        (["rules", 0, "deployments"], [{"name": "a", "weight": 0}], "rules[0].deployments"),
        (["rules", 0, "fallbacks"], ["nothing"], "rules[0].fallbacks[0]"),
        (["rules", 0, "fallbacks"], ["a"], "rules[0].fallbacks[0]"),
        (["rules", 0, "fallbacks"], "c", "rules[0].fallbacks"),
        (["rules", 0, "max_attempts"], 0, "rules[0].max_attempts"),
        (["rules", 0, "max_attempts"], 1.5, "rules[0].max_attempts"),
        (["rules", 0, "max_attempts"], True, "rules[0].max_attempts"),
        (["rules", 0, "timeout_s"], 0, "rules[0].timeout_s"),
        (["rules", 0, "timeout_s"], 601, "rules[0].timeout_s"),
        (["rules", 0, "is_enabled"], 1, "rules[0].is_enabled"),
        (["rules", 0, "slider"], 5, "rules[0].slider"),
        (["rules", 0, "quality_floor"], None, "rules[0].quality_floor"),
        (["rules", 1], {**AUTO, "slider": 10.5}, "rules[1].slider"),
        (["rules", 1], {**AUTO, "slider": True}, "rules[1].slider"),
        (["rules", 1], {**AUTO, "quality_floor": 1.1}, "rules[1].quality_floor"),
        (["rules", 1], {**AUTO, "check_answers": "yes"}, "rules[1].check_answers"),
    ],
)
def test_each_mistake_is_an_error_at_its_place(path: list[str | int], value: object, place: str) -> None:
    problems = check(changed(path, value))
    assert has_errors(problems)
    assert place in [problem.path for problem in problems if problem.severity == "error"]


def test_a_condition_error_points_into_the_text_as_it_was_typed() -> None:
    problems = check(changed(["rules", 0, "when"], "  turn > 1 && nope"))
    assert [(problem.path, problem.column) for problem in problems] == [("rules[0].when", 15)]


def test_what_may_surprise_is_a_warning() -> None:
    unreachable = changed(["rules", 0, "when"], "true")
    gap = changed(["rules", 1, "when"], "has_tools")
    for document, place in ((unreachable, "rules[1]"), (gap, "rules")):
        assert [(p.path, p.severity) for p in check(document)] == [(place, "warning")]
    assert [(p.path, p.severity) for p in check(SOUND, disabled=("c",))] == [
        ("rules[0].fallbacks[0]", "warning")
    ]


def test_a_rule_that_an_earlier_one_takes_everything_from_is_a_warning() -> None:
    document = changed(["rules", 1, "when"], "input_tokens > 8000")
    assert [(p.path, p.severity) for p in check(document)] == [("rules[1]", "warning"), ("rules", "warning")]
    assert "'long' before it takes all that it would" in check(document)[0].message


def test_rules_that_take_everything_between_them_leave_nothing_to_refuse() -> None:
    document = changed(["rules", 1, "when"], "input_tokens <= 4000")
    assert check(document) == []
    document["rules"].append({"name": "last", "deployments": ["a"]})
    assert [(p.path, p.message) for p in check(document)] == [
        ("rules[2]", "never reached: 'long' and 'rest' before it take all that it would")
    ]


@pytest.mark.parametrize(
    ("name", "part"),
    [("acme/auto", "is a policy"), ("m", "is a model"), ("b", "named twice"), ("x", "no deployment")],
)
def test_a_fallback_that_leads_nowhere_or_back_says_so(name: str, part: str) -> None:
    document = changed(["rules", 0, "fallbacks"], [name])
    (problem,) = check_document(
        document, deployment_names=DEPLOYMENTS, model_names=["m"], policy_names=["acme/auto"]
    )
    assert (problem.path, problem.severity) == ("rules[0].fallbacks[0]", "error")
    assert part in problem.message


def test_a_switched_off_rule_neither_catches_nor_is_missed() -> None:
    document = changed(["rules", 0], {"name": "off", "deployments": ["a"], "is_enabled": False})
    assert check(document) == []


def test_normal_form_writes_everything_out_and_is_stable() -> None:
    normal = normalise_document(SOUND)
    assert normal["rules"][0]["deployments"] == [{"name": "a", "weight": 2}, {"name": "b", "weight": 1}]
    assert normal["rules"][1]["strategy"] == "priority"
    assert normalise_document(normal) == normal
    assert check(normal) == []
    json.dumps(normal, allow_nan=False)


def test_rules_are_built_with_what_is_there_and_the_rest_is_named_missing() -> None:
    present = {name: row for name, row in DEPLOYMENTS.items() if name == "b"}
    long, rest = build_rules(SOUND, present)
    assert [choice.deployment.name for choice in long.choices] == ["b"]
    assert (long.missing, long.fallbacks) == (("a", "c"), ())
    assert (rest.missing, rest.choices) == (("a",), ())
    assert long.feature_names == {"input_tokens"}
    assert (long.max_attempts, long.timeout_s, rest.condition) == (2, 30, None)


def test_the_automatic_router_has_settings_of_its_own() -> None:
    plain = changed(["rules", 1], AUTO)
    assert check(plain) == []
    assert build_rules(plain, DEPLOYMENTS)[1].auto == AutoSettings(5.0, None, False)
    full = changed(["rules", 1], {**AUTO, "slider": 0, "quality_floor": 0.6, "check_answers": True})
    assert check(full) == []
    long, rest = build_rules(full, DEPLOYMENTS)
    assert (long.auto, rest.auto) == (None, AutoSettings(0.0, 0.6, True))
    normal = normalise_document(full)
    assert "slider" not in normal["rules"][0]
    assert normalise_document(normal) == normal
    assert check(normal) == []


_json = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(["a", "fixed"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["name", "when", "rules", "deployments", "weight", "fallbacks", "strategy", "x"]),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=12,
)


@given(
    st.one_of(
        _json,
        st.builds(lambda rules: {"rules": rules}, st.lists(_json, max_size=3)),
        st.tuples(
            st.sampled_from(
                ["name", "when", "strategy", "deployments", "fallbacks", "timeout_s", "is_enabled"]
            ),
            _json,
        ).map(lambda pair: changed(["rules", 0, pair[0]], pair[1])),
    )
)
def test_any_json_is_checked_without_failing_and_what_is_sound_builds(document: Any) -> None:
    problems = check(document)
    if not has_errors(problems):
        normal = normalise_document(document)
        assert not has_errors(check(normal))
        assert len(build_rules(normal, DEPLOYMENTS)) == len(document["rules"])
