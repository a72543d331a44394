"""Is what is shown of a request what would happen to it?"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.asks import Ask
from policies.condition_rows import read_group, rows_to_cel
from policies.decision import ModelNotFound, decide
from policies.features import Features
from policies.naming import PRESETS
from policies.snapshot import ModelSnapshot
from policies.trying import Explanation, UnsoundDraftError, explain_request
from policies.unmet_conditions import holds, list_unmet
from tests.make_routing import FakeHealth, make_deployments, make_grant, make_policy, make_snapshot
from tests.policies.test_condition_rows import FEATURES, GROUPS, cel_holds

SMALL = ModelSnapshot(1, "small", 1000, capabilities=frozenset({"tools"}))
LARGE = ModelSnapshot(2, "large", 100_000, capabilities=frozenset({"tools", "vision"}))
CATALOG = {
    **make_deployments(
        "small@a", model=SMALL, region="eu", input_nanousd_per_mtok=10**8, output_nanousd_per_mtok=10**9
    ),
    **make_deployments("small@b", model=SMALL, region="us"),
    **make_deployments("large@a", model=LARGE, input_nanousd_per_mtok=10**9, output_nanousd_per_mtok=10**10),
}
RULES: list[dict[str, Any]] = [
    {"name": "off", "deployments": ["large@a"], "is_enabled": False},
    {"name": "tagged", "when": "tags.team == 'x' && input_tokens > 10", "deployments": ["large@a"]},
    {"name": "broken", "when": "10 / turn > 5", "deployments": ["large@a"]},
    {"name": "cheap", "strategy": "least_cost", "deployments": ["large@a", "small@a"], "fallbacks": ["gone"]},
    {"name": "later", "when": "has_tools", "deployments": ["small@b"]},
    {"name": "rest", "deployments": ["small@b"]},
]


def explain(
    *rules: dict[str, Any],
    features: Features = Features(input_tokens=5),  # noqa: B008
    **changes: Any,
) -> Explanation:
    return explain_request(
        **{
            "ask": Ask("acme/auto"),
            "features": features,
            "snapshot": make_snapshot(CATALOG),
            "grant": make_grant(),
            "health": FakeHealth(),
            "draw": 0.5,
            "document": {"rules": list(rules or RULES)},
            "public_id": "acme/auto",
            **changes,
        }
    )


def test_every_rule_is_told_also_those_behind_the_match() -> None:
    rules = explain(features=Features(input_tokens=5, has_tools=True)).rules
    assert [(rule.name, rule.outcome, rule.is_reached) for rule in rules] == [
        ("off", "disabled", True),
        ("tagged", "skipped", True),
        ("broken", "failed", True),
        ("cheap", "matched", True),
        ("later", "matched", False),
        ("rest", "matched", False),
    ]
    assert rules[1].reasons == ("The tag team is not there", "Input tokens (estimate) is 5, not > 10")
    assert "division" in rules[2].detail


def test_every_candidate_has_its_place_cost_and_reason() -> None:
    found = explain(features=Features(input_tokens=1000, max_output_tokens=100))
    assert found.order == ("large@a",)
    assert [
        (row.deployment, row.place, row.role, row.reason, row.expected_cost_nanousd)
        for row in found.candidates
    ] == [
        ("large@a", 1, "choice", None, 2_000_000),
        ("gone", None, "missing", "disabled", None),
        ("small@a", None, "choice", "context_window", 200_000),
    ]
    assert found.candidates[0].score == 2_000_000
    assert "context window" in found.candidates[2].why


def test_the_form_for_machines_is_json_and_holds_what_is_shown() -> None:
    shown = json.loads(json.dumps(explain(features=Features(input_tokens=5, tags={"team": "y"})).as_json()))
    assert shown["policy"] == {"id": "acme/auto", "version": None, "is_draft": True}
    assert (shown["rule"], shown["order"]) == ("cheap", ["small@a", "large@a"])
    assert shown["features"] == {"requested_model": "acme/auto", "input_tokens": 5, "tags": {"team": "y"}}
    assert shown["rules"][1]["reasons"][0] == "The tag team is “y”, not “x”"
    assert shown["sentences"][0].startswith("Policy acme/auto")
    assert shown["error"] is None


def test_a_tenant_that_may_not_use_the_policy_yet_is_noted() -> None:
    found = explain(grant=make_grant(policies=[]), ask=Ask("gpt-4"))
    assert found.order
    assert len(found.notes) == 2
    assert "acme may not use this policy yet" in found.notes[0]
    assert "asked for gpt-4" in found.notes[1]
    assert not explain().notes


def test_a_preset_is_tried_as_one_where_the_draft_has_it() -> None:
    auto = {"name": "rest", "strategy": "auto", "deployments": ["small@a", "large@a"], "slider": 2}
    asked, other = Ask("acme/auto:cost"), Ask("acme/other:cost")
    found = explain(auto, ask=asked)
    assert found.decision is not None
    assert (found.decision.slider, found.notes, found.ask) == (PRESETS["cost"], (), asked)
    for document, ask in ((auto, other), (RULES[-1], asked)):
        found = explain(document, ask=ask)
        assert found.ask.requested_model == found.features.requested_model == "acme/auto"
        assert "taken to ask for acme/auto." in found.notes[0]
    short = explain(auto, ask=Ask("auto:quality"), public_id="pointsman/auto")
    assert short.decision is not None and short.decision.slider == PRESETS["quality"]


def test_a_request_that_would_be_refused_says_how() -> None:
    found = explain(document=None, ask=Ask("nothing"))
    assert isinstance(found.error, ModelNotFound)
    assert found.as_json()["error"]["code"] == "model_not_found"
    pinned = explain(ask=Ask("acme/auto", is_pinned=True))
    assert pinned.as_json()["error"]["code"] == "pin_needs_deployment"
    assert (pinned.order, pinned.rules) == ((), ())


def test_a_model_asked_for_by_name_has_candidates_and_no_rules() -> None:
    found = explain(document=None, ask=Ask("small"), grant=make_grant(regions=["eu"]))
    assert (found.rules, found.order) == ((), ("small@a",))
    assert [(row.role, row.reason) for row in found.candidates] == [("named", None), ("named", "region")]


def test_an_unsound_draft_is_refused_with_its_problems() -> None:
    with pytest.raises(UnsoundDraftError) as refused:
        explain({"name": "bad", "when": "nope > 1", "deployments": ["small@a"]})
    assert [problem.path for problem in refused.value.problems] == ["rules[0].when"]


@pytest.mark.parametrize(
    ("when", "features", "reasons"),
    [
        ("has_tools", Features(), ["Has tools: no, not yes"]),
        ("task in ['a', 'b']", Features(task="c"), ["Task label is “c”, not one of “a”, “b”"]),
        ("9 <= hour && hour <= 17", Features(hour=20), ["Hour of day (0 to 23) is 20, not between 9 and 17"]),
        ("weekday in [6, 7]", Features(weekday=1), ["Weekday is Monday, not one of Saturday, Sunday"]),
        ("!('team' in tags)", Features(tags={"team": ""}), ["The tag team is there"]),
        ("tags.team != 'x'", Features(tags={"team": "x"}), ["The tag team is “x”"]),
        ("turn > 3 || app == 'a'", Features(turn=2), ["Turn of the conversation is 2, not > 3", "App is “”, not “a”"]),
        ("turn > 3 && app == ''", Features(turn=2), ["Turn of the conversation is 2, not > 3"]),
        ("task.startsWith('a')", Features(task="b"), ["Task label is “b”, which does not start with “a”"]),
        ("turn + 1 > 3", Features(), []),
    ],
)  # fmt: skip
def test_what_did_not_hold_is_named(when: str, features: Features, reasons: list[str]) -> None:
    assert list_unmet(when, features) == reasons


@settings(max_examples=40, deadline=None)
@given(GROUPS, FEATURES)
def test_reasons_are_found_by_the_same_meaning_as_the_condition_s(
    group: dict[str, Any], features: Features
) -> None:
    is_held = cel_holds(rows_to_cel(group), features)
    assert holds(read_group(group), features) is is_held
    assert bool(list_unmet(rows_to_cel(group), features)) is not is_held


def test_a_caller_learns_nothing_about_other_callers() -> None:
    rule = {"name": "r", "when": "tenant == 'secret' && turn > 3", "deployments": ["small@a"]}
    (shown,) = explain(rule, features=Features(tenant="acme"), is_for_caller=True).rules
    assert (shown.when, shown.reasons) == ("", ("Turn of the conversation is 0, not > 3",))
    (shown,) = explain(rule, features=Features(tenant="acme")).rules
    assert len(shown.reasons) == 2


_rules = st.lists(
    st.fixed_dictionaries(
        {
            "deployments": st.lists(st.sampled_from([*CATALOG, "gone"]), min_size=1, max_size=3, unique=True),
            "strategy": st.sampled_from(["priority", "weighted", "least_cost", "least_latency", "auto"]),
        },
        optional={
            "when": st.sampled_from(
                ["has_tools", "tags.team == 'x'", "1 / turn > 0", "turn > 1 || has_images"]
            ),
            "is_enabled": st.booleans(),
        },
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=40, deadline=None)
@given(
    rules=_rules,
    features=st.builds(
        Features,
        input_tokens=st.integers(0, 2000),
        turn=st.integers(0, 2),
        has_tools=st.booleans(),
        has_images=st.booleans(),
        tags=st.dictionaries(st.just("team"), st.sampled_from(["x", "y"])),
        difficulty=st.floats(0, 1),
        budget_used_ratio=st.just(0.0),
    ),
    problems=st.dictionaries(
        st.sampled_from(list(CATALOG)), st.sampled_from(["ejected", "credential_rejected"])
    ),
    draw=st.floats(0, 0.999),
    fallbacks=st.booleans(),
)
def test_the_order_shown_is_the_order_that_would_be_tried(
    rules: list[dict[str, Any]], features: Features, problems: dict[str, str], draw: float, fallbacks: bool
) -> None:
    ask = Ask("acme/auto", models=("small",), allow_fallbacks=fallbacks)
    health = FakeHealth(problems)
    named = [{"name": f"rule {i}", **rule} for i, rule in enumerate(rules)]
    live = make_snapshot(CATALOG, make_policy(CATALOG, *named))
    features = features._replace(requested_model="acme/auto")
    decision = decide(ask, features, live, make_grant(), health, draw=draw)
    for document in (None, {"rules": named}):
        found = explain(
            ask=ask, features=features, snapshot=live, health=health, draw=draw, document=document
        )
        assert found.order == tuple(deployment.name for deployment in decision.candidates)
        shown = [(rule.name, rule.outcome, rule.detail) for rule in found.rules if rule.is_reached]
        assert shown == list(map(tuple, decision.trace))
        tried = [row.deployment for row in found.candidates if row.place]
        dropped = [(row.deployment, row.reason) for row in found.candidates if not row.place]
        assert (tuple(tried), dropped) == (found.order, list(map(tuple, decision.dropped)))
        json.dumps(found.as_json(), allow_nan=False)
