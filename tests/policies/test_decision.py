"""Which deployments are tried for a request, in which order, and why were others not?"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.asks import Ask
from policies.decision import Decision, ModelNotFound, PinNeedsDeployment, decide
from policies.explaining import decision_record, sentences
from policies.features import Features
from policies.snapshot import DeploymentSnapshot, KeyGrant, ModelSnapshot, PolicySnapshot
from tests.make_routing import FakeHealth, make_deployments, make_grant, make_policy, make_snapshot

SMALL = ModelSnapshot(1, "small", 1000, capabilities=frozenset({"tools"}))
LARGE = ModelSnapshot(2, "large", 100_000, capabilities=frozenset({"tools", "vision"}))
CATALOG = {
    **make_deployments("small@a", model=SMALL, provider="A", region="eu"),
    **make_deployments("small@b", model=SMALL, provider="B", region="us"),
    **make_deployments("large@a", model=LARGE, provider="A", region="us"),
}


def route(
    name: str = "acme/auto",
    *rules: dict[str, Any],
    features: Features = Features(),  # noqa: B008
    catalog: dict[str, DeploymentSnapshot] = CATALOG,
    policies: tuple[PolicySnapshot, ...] = (),
    grant: KeyGrant | None = None,
    problems: dict[str, str] | None = None,
    draw: float = 0.5,
    **ask: Any,
) -> Decision:
    if rules:
        policies = (make_policy(catalog, *rules), *policies)
    return decide(
        Ask(name, **ask),
        features,
        make_snapshot(catalog, *policies),
        grant or make_grant(),
        FakeHealth(problems),
        draw=draw,
    )


def names(decision: Decision) -> list[str]:
    return [deployment.name for deployment in decision.candidates]


def test_a_model_name_is_the_fixed_path_over_all_its_deployments() -> None:
    decision = route("small")
    assert (decision.path, names(decision), decision.policy) == ("fixed", ["small@a", "small@b"], None)


def test_a_deployment_name_is_exactly_that_deployment() -> None:
    assert names(route("small@b")) == ["small@b"]


def test_the_first_rule_whose_condition_holds_decides() -> None:
    rules = (
        {"name": "off", "deployments": ["large@a"], "is_enabled": False},
        {"name": "tagged", "when": "tags['team'] == 'x'", "deployments": ["large@a"]},
        {"name": "broken", "when": "10 / turn > 5", "deployments": ["large@a"]},
        {"name": "long", "when": "input_tokens > 10", "deployments": ["small@b"], "fallbacks": ["small@a"]},
        {"name": "rest", "deployments": ["large@a"]},
    )
    decision = route("acme/auto", *rules, features=Features(input_tokens=11))
    assert decision.path == "routed"
    assert decision.rule is not None and decision.rule.name == "long"
    assert names(decision) == ["small@b", "small@a"]
    assert [trace[:2] for trace in decision.trace] == [
        ("off", "disabled"),
        ("tagged", "skipped"),
        ("broken", "failed"),
        ("long", "matched"),
    ]
    assert decision.trace[1].detail == "no tag team"
    assert "division" in decision.trace[2].detail


def test_no_rule_that_holds_means_no_candidates_and_says_so() -> None:
    decision = route("acme/auto", {"when": "turn > 5", "deployments": ["small@a"]})
    assert decision.candidates == ()
    assert decision.is_never_possible
    assert decision.policy is not None and decision.rule is None


def test_what_cannot_serve_is_dropped_with_its_reason_before_the_strategy_chooses() -> None:
    rule = {
        "strategy": "weighted",
        "deployments": [{"name": "small@a", "weight": 1}, {"name": "large@a", "weight": 1}],
        "fallbacks": ["small@b"],
    }
    for draw in (0.0, 0.99):
        decision = route("acme/auto", rule, features=Features(has_images=True), draw=draw)
        assert names(decision) == ["large@a"]
        assert decision.dropped == (("small@a", "vision"), ("small@b", "vision"))


def test_a_deployment_that_was_switched_off_is_dropped_as_disabled() -> None:
    catalog = {name: row for name, row in CATALOG.items() if name != "small@a"}
    decision = route(
        "acme/auto", {"deployments": ["small@a", "small@b"], "fallbacks": ["gone"]}, catalog=catalog
    )
    assert names(decision) == ["small@b"]
    assert decision.dropped == (("small@a", "disabled"), ("gone", "disabled"))
    decision = route("acme/auto", {"deployments": ["small@a"]}, catalog=catalog)
    assert not decision.candidates
    assert not decision.is_never_possible


def test_the_region_that_a_tenant_allows_is_a_hard_filter() -> None:
    decision = route("small", grant=make_grant(regions=["eu"]))
    assert names(decision) == ["small@a"]
    assert decision.dropped == (("small@b", "region"),)


def test_nobody_can_ever_serve_what_no_model_can_do() -> None:
    decision = route("small", features=Features(has_images=True))
    assert decision.candidates == ()
    assert decision.is_never_possible


@pytest.mark.parametrize("problem", ["ejected", "cooling", "credential_rejected"])
def test_an_unfit_deployment_is_left_out_while_another_is_fit(problem: str) -> None:
    decision = route("small", problems={"small@a": problem})
    assert names(decision) == ["small@b"]
    assert decision.dropped == (("small@a", problem),)


def test_the_last_usable_deployments_are_never_left_out_for_being_ejected() -> None:
    decision = route("small", problems={"small@a": "ejected", "small@b": "cooling"})
    assert names(decision) == ["small@a", "small@b"]
    decision = route("small", problems={"small@a": "ejected", "small@b": "credential_rejected"})
    assert names(decision) == ["small@a"]
    decision = route("small", problems={"small@a": "credential_rejected", "small@b": "credential_rejected"})
    assert decision.candidates == ()
    assert not decision.is_never_possible


def test_a_fit_fallback_counts_as_usable() -> None:
    decision = route(
        "acme/auto",
        {"deployments": ["small@a"], "fallbacks": ["large@a"]},
        problems={"small@a": "ejected"},
    )
    assert names(decision) == ["large@a"]


@pytest.mark.parametrize("name", ["nothing", "", "acme/auto"])
def test_an_unknown_name_is_not_found(name: str) -> None:
    with pytest.raises(ModelNotFound) as refused:
        route(name)
    assert (refused.value.status, refused.value.code, refused.value.param) == (
        404,
        "model_not_found",
        "model",
    )


def test_what_a_key_may_not_use_looks_as_if_it_did_not_exist() -> None:
    policy = make_policy(CATALOG, {"deployments": ["small@a"]})
    messages = set()
    for grant in (
        make_grant(policies=[]),
        make_grant(allowed_models=frozenset({"large"})),
        make_grant(policies=["other"]),
    ):
        with pytest.raises(ModelNotFound) as refused:
            route("acme/auto", policies=(policy,), grant=grant)
        messages.add(str(refused.value))
    with pytest.raises(ModelNotFound) as refused:
        route("acme/auto")
    assert messages == {str(refused.value)}
    for name in ("small", "small@a"):
        with pytest.raises(ModelNotFound):
            route(name, grant=make_grant(allowed_models=frozenset({"large"})))


def test_a_key_for_one_model_may_name_its_deployments_and_a_key_for_a_policy_gets_all_of_it() -> None:
    assert names(route("small@b", grant=make_grant(allowed_models=frozenset({"small"})))) == ["small@b"]
    grant = make_grant(allowed_models=frozenset({"acme/auto"}))
    assert names(route("acme/auto", {"deployments": ["large@a"]}, grant=grant)) == ["large@a"]


def test_further_models_follow_in_order_each_deployment_once() -> None:
    policy = make_policy(CATALOG, {"deployments": ["large@a", "small@b"]})
    decision = route("small@b", models=("small@b", "nothing", "acme/auto", "small"), policies=(policy,))
    assert names(decision) == ["small@b", "large@a", "small@a"]
    assert decision.path == "fixed"
    assert decision.dropped == (("nothing", "model_not_found"),)


def test_models_alone_are_enough() -> None:
    assert names(route("", models=("large", "small@a"))) == ["large@a", "small@a"]
    with pytest.raises(ModelNotFound):
        route("", models=("no", "neither"))


def test_the_callers_provider_preferences() -> None:
    assert names(route("small", provider_order=("b", "a"))) == ["small@b", "small@a"]
    assert names(route("small", provider_order=("x", "B"))) == ["small@b", "small@a"]
    only = route("small", provider_only=("b",))
    assert (names(only), only.dropped) == (["small@b"], (("small@a", "provider_only"),))
    ignoring = route("small", provider_ignore=("B",))
    assert (names(ignoring), ignoring.dropped) == (["small@a"], (("small@b", "provider_ignored"),))


def test_the_caller_may_sort_the_deployments_of_a_model_but_not_those_of_a_policy() -> None:
    catalog = make_deployments(
        "small@a", model=SMALL, provider="a", input_nanousd_per_mtok=9, output_nanousd_per_mtok=9 * 10**9
    ) | make_deployments(
        "small@b", model=SMALL, provider="b", input_nanousd_per_mtok=1, output_nanousd_per_mtok=10**9
    )
    cheapest = route("small", catalog=catalog, provider_sort="least_cost")
    assert names(cheapest) == ["small@b", "small@a"]
    record = decision_record(cheapest)
    assert (record["path"], record["strategy"]) == ("fixed", "least_cost")
    assert "To be tried, the cheapest first" in " ".join(sentences(record))
    rule = {"name": "all", "deployments": [{"name": "small@a"}, {"name": "small@b"}]}
    assert names(route("acme/auto", rule, catalog=catalog, provider_sort="least_cost")) == [
        "small@a",
        "small@b",
    ]
    fastest = route("small", catalog=catalog, provider_sort="least_latency")
    assert decision_record(fastest)["strategy"] == "least_latency"
    assert [name for name, _ in fastest.scores] == names(fastest)


def test_without_fallbacks_the_first_candidate_alone_is_tried() -> None:
    decision = route("small", models=("large",), allow_fallbacks=False)
    assert names(decision) == ["small@a"]
    assert decision.dropped == (("small@b", "no_fallbacks"), ("large@a", "no_fallbacks"))


def test_a_pinned_request_gets_exactly_one_deployment_whatever_its_health() -> None:
    for problem in ("ejected", "cooling"):
        decision = route("small@b", is_pinned=True, models=("large",), problems={"small@b": problem})
        assert (decision.path, names(decision)) == ("pinned", ["small@b"])
        assert decision.dropped == (("large", "pinned"),)
    assert names(route("large", is_pinned=True)) == ["large@a"]


def test_a_pinned_request_names_one_deployment() -> None:
    policy = make_policy(CATALOG, {"deployments": ["small@a"]})
    with pytest.raises(PinNeedsDeployment) as refused:
        route("small", is_pinned=True)
    assert "small@a, small@b" in str(refused.value)
    assert (refused.value.status, refused.value.code) == (400, "pin_needs_deployment")
    with pytest.raises(PinNeedsDeployment):
        route("acme/auto", is_pinned=True, policies=(policy,))
    with pytest.raises(ModelNotFound):
        route("acme/auto", is_pinned=True, policies=(policy,), grant=make_grant(policies=[]))
    with pytest.raises(ModelNotFound):
        route("nothing", is_pinned=True)


def test_a_pinned_deployment_that_cannot_serve_is_not_replaced() -> None:
    decision = route("small@a", is_pinned=True, features=Features(has_images=True))
    assert (decision.candidates, decision.is_never_possible) == ((), True)
    decision = route("small@a", is_pinned=True, problems={"small@a": "credential_rejected"})
    assert (decision.candidates, decision.is_never_possible) == ((), False)


def test_limits_of_the_rule_come_along() -> None:
    assert route("acme/auto", {"deployments": ["small@a"], "max_attempts": 2}).max_attempts == 2


_conditions = st.sampled_from(["", "input_tokens > 500", "has_tools", "tags.team == 'x'", "10 / turn > 5"])
_rules = st.fixed_dictionaries(
    {
        "when": _conditions,
        "strategy": st.sampled_from(["priority", "weighted", "least_cost", "least_latency"]),
        "deployments": st.lists(
            st.fixed_dictionaries(
                {"name": st.sampled_from([*CATALOG, "gone"]), "weight": st.floats(0.1, 10)}
            ),
            min_size=1,
            max_size=3,
            unique_by=lambda choice: choice["name"],
        ),
        "fallbacks": st.lists(st.sampled_from([*CATALOG, "lost"]), max_size=2),
        "is_enabled": st.booleans(),
    }
)
_asks = st.builds(
    Ask,
    st.sampled_from(["acme/auto", "small", "large", "small@a"]),
    models=st.lists(st.sampled_from(["acme/auto", "small", "large@a", "nothing"]), max_size=3).map(tuple),
    provider_order=st.lists(st.sampled_from(["a", "B"]), max_size=2).map(tuple),
    provider_only=st.lists(st.sampled_from(["a", "B"]), max_size=1).map(tuple),
    allow_fallbacks=st.booleans(),
    is_pinned=st.just(False),
    endpoint=st.just("chat"),
    provider_ignore=st.lists(st.sampled_from(["A", "b"]), max_size=1).map(tuple),
)
_features = st.builds(
    Features,
    input_tokens=st.sampled_from([0, 600, 5000]),
    turn=st.integers(0, 3),
    has_tools=st.booleans(),
    has_images=st.booleans(),
    tags=st.sampled_from([{}, {"team": "x"}]),
)


@given(
    st.lists(_rules, min_size=1, max_size=4),
    _asks,
    _features,
    st.dictionaries(
        st.sampled_from(list(CATALOG)), st.sampled_from(["ejected", "cooling", "credential_rejected"])
    ),
    st.floats(0, 1, exclude_max=True),
)
def test_the_same_inputs_decide_the_same_and_every_deployment_is_tried_or_dropped_with_a_reason(
    rules: list[dict[str, Any]], ask: Ask, features: Features, problems: dict[str, str], draw: float
) -> None:
    policy = make_policy(CATALOG, *rules)
    snapshot, grant, health = make_snapshot(CATALOG, policy), make_grant(), FakeHealth(problems)
    decision = decide(ask, features, snapshot, grant, health, draw=draw)
    assert decide(ask, features, snapshot, grant, health, draw=draw) == decision
    tried = names(decision)
    dropped = [name for name, _ in decision.dropped]
    assert len(set(tried)) == len(tried)
    assert not set(tried) & set(dropped)
    concerned: set[str] = set()
    for name in dict.fromkeys((ask.requested_model, *ask.models)):
        if name in ("small", "large"):
            concerned |= {d for d in CATALOG if d.startswith(name)}
        elif name == "acme/auto":
            outcomes = {trace.rule: trace.outcome for trace in decision.trace}
            matched = next((rule for rule in policy.rules if outcomes.get(rule.name) == "matched"), None)
            if matched is not None:
                concerned |= {choice.deployment.name for choice in matched.choices}
                concerned |= {deployment.name for deployment in matched.fallbacks} | set(matched.missing)
        else:
            concerned.add(name)
    assert set(tried) | set(dropped) == concerned
    assert decision.is_never_possible is (
        not tried
        and all(
            reason not in ("disabled", "ejected", "cooling", "credential_rejected")
            for _, reason in decision.dropped
        )
    )
    if not ask.allow_fallbacks:
        assert len(tried) <= 1
