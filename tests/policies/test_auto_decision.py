"""What does the automatic router make of a request inside a decision: order, wishes, presets, pins, canaries?"""

from __future__ import annotations

from typing import Any

import pytest

from policies.asks import Ask
from policies.autorouter.tables import Rating, RouterTables
from policies.decision import Decision, ModelNotFound, decide
from policies.explaining import decision_record, sentences
from policies.features import Features
from policies.score_columns import read_rows
from policies.snapshot import ModelSnapshot, PolicySnapshot
from tests.make_routing import FakeHealth, make_deployments, make_grant, make_policy, make_snapshot


def _deployment(name: str, usd_per_mtok: float | None) -> dict[str, Any]:
    rate = None if usd_per_mtok is None else int(usd_per_mtok * 1e9)
    return make_deployments(
        f"{name}@x",
        model=ModelSnapshot(len(name), name, 100_000),
        input_nanousd_per_mtok=rate,
        output_nanousd_per_mtok=rate,
    )


CATALOG = {**_deployment("best", 10), **_deployment("good", 1), **_deployment("cheap", 0.1)}
TABLES = RouterTables(
    version=7,
    ratings={"best": Rating(0.9), "good": Rating(0.89), "cheap": Rating(0.8)},
    pins={"w" * 16: "cheap"},
)
RULE = {"name": "auto", "strategy": "auto", "deployments": ["best@x", "good@x", "cheap@x"]}


def route(
    name: str = "acme/auto",
    *,
    rule: dict[str, Any] | None = None,
    features: Features = Features(input_tokens=1000),  # noqa: B008
    policy: PolicySnapshot | None = None,
    health: FakeHealth | None = None,
    **ask: Any,
) -> Decision:
    policy = policy or make_policy(CATALOG, {**RULE, **(rule or {})})
    return decide(
        Ask(name, **ask),
        features,
        make_snapshot(CATALOG, policy, router=TABLES),
        make_grant(policies=["acme/auto", "pointsman/auto"]),
        health or FakeHealth(),
        draw=0.5,
    )


def names(decision: Decision) -> list[str]:
    return [deployment.name.removesuffix("@x") for deployment in decision.candidates]


def test_the_default_takes_what_is_nearly_as_good_and_much_cheaper_and_ranks_the_rest_as_fallbacks() -> None:
    decision = route()
    assert names(decision)[0] == "good"
    assert sorted(names(decision)) == ["best", "cheap", "good"]
    assert (decision.tables_version, decision.slider, decision.revision) == (7, 5.0, 1)


@pytest.mark.parametrize(
    ("name", "ask", "first"),
    [
        ("acme/auto", {"slider": 0.0}, "best"),
        ("acme/auto", {"slider": 10.0}, "cheap"),
        ("acme/auto:quality", {}, "best"),
        ("acme/auto:cost", {}, "cheap"),
        ("acme/auto:cost", {"slider": 0.0}, "best"),
        ("acme/auto", {"allowed_models": ("ch*",)}, "cheap"),
        ("acme/auto", {"excluded_models": ("good", "best@*")}, "cheap"),
        ("acme/auto", {"max_input_price": 0.5}, "cheap"),
    ],
)
def test_presets_and_wishes_move_the_choice(name: str, ask: dict[str, Any], first: str) -> None:
    assert names(route(name, **ask))[0] == first


def test_fast_prefers_what_answers_sooner_at_once() -> None:
    ids = {name: CATALOG[f"{name}@x"].id for name in ("best", "good", "cheap")}
    slow_but_good = FakeHealth(latencies={ids["best"]: 3000.0, ids["good"]: 2500.0, ids["cheap"]: 100.0})
    assert names(route("acme/auto", health=slow_but_good))[0] == "good"
    all_alike = FakeHealth(latencies={ids["best"]: 6000.0, ids["good"]: 6000.0, ids["cheap"]: 100.0})
    assert names(route("acme/auto:fast", health=all_alike)) != names(
        route("acme/auto:quality", health=all_alike)
    )


def test_a_preset_of_a_policy_without_automatic_rule_or_of_another_tenant_does_not_exist() -> None:
    plain = make_policy(CATALOG, {"deployments": ["best@x"]})
    for name, policy in (("acme/auto:cost", plain), ("other/auto:cost", None), ("acme/auto:cheap", None)):
        with pytest.raises(ModelNotFound):
            route(name, policy=policy)


def test_the_short_name_of_a_preset_is_that_of_the_shipped_policy() -> None:
    policy = make_policy(CATALOG, RULE, public_id="pointsman/auto")
    assert names(route("auto:cost", policy=policy))[0] == "cheap"


def test_scores_of_another_strategy_are_never_read_as_the_routers() -> None:
    # The automatic rule is left without a candidate; a further name brings one, with costs for scores.
    decision = route(
        rule={"deployments": ["best@x"]},
        features=Features(input_tokens=1000, conversation="0123456789abcdef"),
        excluded_models=("best",),
        models=("good",),
        provider_sort="least_cost",
        conversation_deployment="cheap@x",
    )
    assert (names(decision), decision.scores) == (["good"], ())
    assert sentences(decision_record(decision))


def test_what_the_caller_does_not_want_is_left_out_with_its_reason() -> None:
    decision = route(allowed_models=("good",), excluded_models=("nothing",))
    assert names(decision) == ["good"]
    assert {tuple(found) for found in decision.dropped} == {
        ("best@x", "not_allowed"),
        ("cheap@x", "not_allowed"),
    }
    assert route(allowed_models=("nothing",)).is_never_possible
    assert ("best@x", "price_cap") in route(max_output_price=5.0).dropped


def test_a_floor_keeps_weak_models_behind_all_others() -> None:
    assert names(route(rule={"slider": 10, "quality_floor": 0.85}))[0] == "good"


def test_a_workload_that_an_operator_pinned_goes_to_its_model() -> None:
    assert names(route(features=Features(workload="w" * 16)))[0] == "cheap"


def test_a_conversation_stays_with_its_deployment_and_says_so() -> None:
    talk = Features(conversation="c" * 16, turn=2, input_tokens=50_000)
    assert route(features=talk).pin == ("new", "", "")
    kept = route(features=talk, conversation_deployment="cheap@x")
    assert (names(kept)[0], kept.pin) == ("cheap", ("kept", "cheap@x", ""))
    left = route(features=talk, conversation_deployment="cheap@x", excluded_models=("cheap",))
    assert (names(left)[0], left.pin) == ("good", ("broken", "cheap@x", "excluded"))
    saving = route(features=talk._replace(turn=1), conversation_deployment="best@x")
    assert (names(saving)[0], saving.pin) == ("good", ("broken", "best@x", "saving"))


def test_other_strategies_hold_conversations_where_the_policy_says_so() -> None:
    talk = Features(conversation="c" * 16)
    rule = {"strategy": "priority", "deployments": ["best@x", "cheap@x"]}
    loose = make_policy(CATALOG, rule)
    assert names(route(features=talk, policy=loose, conversation_deployment="cheap@x"))[0] == "best"
    sticky = make_policy(CATALOG, rule, session_stickiness=True)
    assert names(route(features=talk, policy=sticky, conversation_deployment="cheap@x"))[0] == "cheap"


def test_a_canary_takes_its_share_of_conversations_and_each_conversation_wholly() -> None:
    canary = make_policy(CATALOG, {"deployments": ["cheap@x"]}, number=2)
    live = make_policy(CATALOG, {"deployments": ["best@x"]}, canary=canary, canary_percent=25.0)
    decisions = [
        route(policy=live, features=Features(conversation=f"{number * 2654435761 % 2**64:016x}"))
        for number in range(400)
    ]
    served = [decision.is_canary for decision in decisions]
    assert 60 < sum(served) < 140
    assert all((names(d)[0] == "cheap") == d.is_canary for d in decisions)
    assert {d.policy.version_number for d in decisions if d.policy and d.is_canary} == {2}


def test_the_record_explains_an_automatic_decision_in_under_a_kilobyte() -> None:
    record = decision_record(route(features=Features(conversation="c" * 16), conversation_deployment="gone"))
    assert record["tables"] == 7 and record["slider"] == 5.0
    assert record["pin"] == ["broken", "gone", "not_listed"]
    assert [len(row) for row in read_rows(record)] == [6, 6, 6]
    told = " ".join(sentences(record))
    assert "quality 0.89" in told and "leaves gone" in told
    assert len(str(record)) < 1000
