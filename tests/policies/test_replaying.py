"""Does a recorded request, decided again, get the decision that was recorded?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dataplane.recording import features_as_line
from policies.asks import Ask
from policies.autorouter.tables import Estimate, Latency, Rating, RouterTables, Workload
from policies.decision import RoutingError, decide
from policies.explaining import MAX_DROPPED, decision_record
from policies.features import Features
from policies.replaying import (
    HEALTH_REASONS,
    RecordedHealth,
    StoredRequest,
    differing_members,
    explain_mismatch,
    recompute,
    replay,
)
from policies.score_columns import read_rows, with_rows
from policies.snapshot import KeyGrant, ModelSnapshot, RoutingSnapshot
from tests.make_routing import FakeHealth, make_deployments, make_grant, make_policy, make_snapshot

SMALL = ModelSnapshot(1, "small", 1000, capabilities=frozenset({"tools"}))
LARGE = ModelSnapshot(2, "large", 100_000, capabilities=frozenset({"tools", "vision"}))
RATES = {"input_nanousd_per_mtok": 50_000_000, "output_nanousd_per_mtok": 200_000_000}
CATALOG = {
    **make_deployments("small@a", model=SMALL, provider="A", region="eu", **RATES),
    **make_deployments("small@b", model=SMALL, provider="B", region="us", **RATES),
    **make_deployments("large@a", "large@a2", model=LARGE, provider="A", region="us"),
}
CONDITIONS = (
    "", "input_tokens > 500", "has_tools && turn > 2", "tags.team == 'x'", "10 / turn > 3", "weekday == 6 || hour < 6",
    "difficulty < 0.3", "workload == 'ab'", "task == 'code' || is_stream", "budget_used_ratio > 0.5",
)  # fmt: skip
names = st.sampled_from(sorted(CATALOG))
some = st.sampled_from


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    chosen = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    strategy = draw(st.sampled_from(("priority", "weighted", "least_cost", "least_latency", "auto", "auto")))
    auto = {"slider": draw(some((0, 5, 9.5))), "quality_floor": draw(some((None, 0.5)))}
    return {
        **(auto if strategy == "auto" else {}),
        "when": draw(st.sampled_from(CONDITIONS)),
        "strategy": strategy,
        "deployments": [{"name": name, "weight": draw(st.integers(0, 3))} for name in chosen],
        "fallbacks": draw(st.lists(names, max_size=2, unique=True).map(lambda f: [n for n in f if n not in chosen])),
        "max_attempts": draw(st.sampled_from((None, 2))),
        "is_enabled": draw(st.booleans()),
    }  # fmt: skip


features = st.fixed_dictionaries({
    "tags": some(({}, {"team": "x"})), "input_tokens": some((0, 400, 600, 2000)), "max_output_tokens": some((0, 500)),
    "turn": st.integers(0, 4), "choice_count": some((1, 2)), "has_images": st.booleans(), "has_tools": st.booleans(),
    "is_stream": st.booleans(), "hour": some((0, 5, 12)), "weekday": some((1, 6)), "task": some(("", "code")),
    "budget_used_ratio": some((0.0, 0.1 + 0.2, 0.9)), "difficulty": some((0.0, 0.123456789, 0.5)),
    "workload": some(("", "ab")), "conversation": some(("", "0123456789abcdef")), "is_tool_result": st.booleans(),
    "max_latency_ms": some((0, 200)),
}).map(lambda given: Features(tenant="acme", project="web", key="dev", **given))  # fmt: skip
asks = st.fixed_dictionaries({
    "requested_model": some(("acme/auto", "small", "small@a", "nobody", "acme/auto:cost")),
    "models": some(((), ("large",), ("nobody", "small@b"), ("acme/other",))), "slider": some((None, 2.5)),
    "conversation_deployment": some(("", "small@a", "large@a", "gone")), "max_output_price": some((None, 0.1)),
    "allowed_models": some(((), ("small*",))), "excluded_models": some(((), ("small@a", "large"))),
    "is_pinned": some((False, False, True)),
    "provider_order": some(((), ("B",), ("b", "A"))), "provider_only": some(((), ("A",))),
    "provider_ignore": some(((), ("a",))), "provider_sort": some(("", "least_cost", "least_latency")),
    "allow_fallbacks": some((True, True, False)),
}).map(lambda given: Ask(**given))  # fmt: skip
health = st.builds(
    FakeHealth,
    st.dictionaries(names, st.sampled_from(sorted(HEALTH_REASONS))),
    st.dictionaries(
        st.sampled_from([d.id for d in CATALOG.values()]),
        st.floats(0, 9000),
    ),
)
policies = st.lists(rules(), min_size=1, max_size=4)
grants = some(((), ("us",))).map(lambda r: make_grant(policies=("acme/auto", "acme/other"), regions=r))
# A site that has learnt: qualities that are near each other, latencies with more digits than a record keeps.
TABLES = RouterTables(
    version=3,
    ratings={"small": Rating(0.61), "large": Rating(0.6100001)},
    workloads={
        "ab": Workload(90, 0.7, {"small": Estimate(40, 0.02, 0.01), "large": Estimate(50, 0.03, 0.01)})
    },
    latencies={("all", "small"): Latency(123.4567, 900.0, 50), ("ab", "large"): Latency(122.98765, 901.0, 9)},
)


def store(ask: Ask, asked: Features, decision: dict[str, Any]) -> StoredRequest:
    """What a record keeps: names, and JSON that went out and came back."""
    return StoredRequest(
        requested_model=ask.requested_model,
        endpoint=ask.endpoint,
        is_stream=asked.is_stream,
        is_pinned=ask.is_pinned,
        tenant=asked.tenant,
        project=asked.project,
        key=asked.key,
        tags=dict(asked.tags),
        features=orjson.loads(orjson.dumps(features_as_line(asked, ask))),
        decision=orjson.loads(orjson.dumps(decision)),
    )


@settings(max_examples=150, deadline=None)
@given(
    policies,
    asks,
    features,
    health,
    grants,
    st.floats(0, 1, exclude_max=True),
    st.booleans(),
    some((0.0, 50.0, 100.0)),
)
def test_deciding_again_from_the_record_gives_the_recorded_decision(
    listed: list[dict[str, Any]],
    ask: Ask,
    asked: Features,
    view: FakeHealth,
    grant: KeyGrant,
    draw: float,
    is_sticky: bool,
    canary_percent: float,
) -> None:
    asked = asked._replace(requested_model=ask.requested_model, endpoint=ask.endpoint)
    other = make_policy(CATALOG, *reversed(listed), public_id="acme/other", number=2)
    canary = make_policy(CATALOG, *reversed(listed), number=8)
    policy = make_policy(
        CATALOG, *listed, number=7, session_stickiness=is_sticky, canary=canary, canary_percent=canary_percent
    )
    snapshot = replace(make_snapshot(CATALOG, policy, other), router=TABLES)
    try:
        recorded = decision_record(decide(ask, asked, snapshot, grant, view, draw=draw))
    except RoutingError:
        return  # refused before anything was decided: its record holds no decision
    assert len(recorded.get("dropped", [])) <= MAX_DROPPED
    stored = store(ask, asked, recorded)
    ids = {deployment.id: name for name, deployment in CATALOG.items()}
    restored = replay(stored, names=ids)
    assert (restored.ask, restored.features, restored.draw) == (ask, asked, draw)
    again = recompute(stored, snapshot=snapshot, grant=grant)
    assert differing_members(stored.decision, again) == []
    assert orjson.dumps(again) == orjson.dumps(stored.decision)
    # A record that an earlier release wrote.
    earlier = stored._replace(decision=with_rows(stored.decision))
    assert differing_members(earlier.decision, recompute(earlier, snapshot=snapshot, grant=grant)) == []


def decided(view: FakeHealth, *listed: dict[str, Any]) -> tuple[StoredRequest, RoutingSnapshot]:
    snapshot = make_snapshot(CATALOG, make_policy(CATALOG, *listed))
    asked = Features(requested_model="acme/auto", tenant="acme", project="web", key="dev")
    ask = Ask("acme/auto")
    return store(
        ask, asked, decision_record(decide(ask, asked, snapshot, make_grant(), view, draw=0.5))
    ), snapshot


def test_what_was_used_although_it_was_ejected_comes_out_again() -> None:
    rule = {"strategy": "weighted", "deployments": [{"name": "small@a", "weight": 1}, "small@b"]}
    view = FakeHealth({"small@a": "ejected", "small@b": "cooling"})
    stored, snapshot = decided(view, rule)
    assert stored.decision["candidates"] == ["small@b", "small@a"]  # nothing healthy was left
    assert recompute(stored, snapshot=snapshot, grant=make_grant()) == stored.decision


def test_a_latency_is_judged_by_as_many_digits_as_are_recorded() -> None:
    """One was measured, the other's is the tables': a hair between them may not decide."""
    rule = {"strategy": "auto", "slider": 5, "deployments": ["small@a", "small@b"]}
    snapshot = replace(make_snapshot(CATALOG, make_policy(CATALOG, rule)), router=TABLES)
    ask, asked = (
        Ask("acme/auto"),
        Features(requested_model="acme/auto", tenant="acme", project="web", key="dev"),
    )
    view = FakeHealth({}, {CATALOG["small@a"].id: 123.48})
    stored = store(ask, asked, decision_record(decide(ask, asked, snapshot, make_grant(), view, draw=0.5)))
    assert [score[4] for score in read_rows(stored.decision)] == [123.5, 123.5]
    assert recompute(stored, snapshot=snapshot, grant=make_grant()) == stored.decision


def test_a_changed_rule_gives_another_decision_and_says_in_what() -> None:
    stored, _ = decided(FakeHealth({"small@a": "ejected"}), {"deployments": ["small@a", "small@b"]})
    changed = make_snapshot(CATALOG, make_policy(CATALOG, {"deployments": ["large@a", "small@b"]}))
    again = recompute(stored, snapshot=changed, grant=make_grant())
    assert differing_members(stored.decision, again) == ["candidates", "dropped"]


def test_unrecorded_latencies_come_from_elsewhere_and_costs_are_not_latencies() -> None:
    a, b = CATALOG["small@a"].id, CATALOG["small@b"].id
    ids = {a: "small@a", b: "small@b"}
    measured = RecordedHealth(
        {"strategy": "least_latency", "scores": [["small@a", None]]}, ids, lambda _: 70.0
    )
    assert (measured.latency_ms(a), measured.latency_ms(b)) == (None, 70.0)
    priced = RecordedHealth({"strategy": "least_cost", "scores": [["small@a", 1200]]}, ids)
    assert priced.latency_ms(a) is None


@pytest.mark.parametrize(
    ("recorded", "lacks", "reason"),
    [
        ({"version": 2, "rev": 9}, False, "other_version"),
        ({"version": 3}, False, "older_release"),
        ({"version": 3, "rev": 9, "dropped_more": 1}, False, "truncated"),
        ({"version": 3, "rev": 9}, True, "feature_missing"),
        ({"version": 3, "rev": 9, "tables": 1}, False, "tables_changed"),
        ({"version": 3, "rev": 4, "tables": 2}, False, "catalog_changed"),
        ({"version": 3, "rev": 9, "tables": 2}, False, "unexplained"),
    ],
)
def test_a_mismatch_is_explained(recorded: dict[str, Any], lacks: bool, reason: str) -> None:
    assert explain_mismatch(recorded, versions={3}, last_change=5, tables=2, lacks_features=lacks) == reason


def test_features_of_another_release_are_left_out() -> None:
    stored, snapshot = decided(FakeHealth(), {"deployments": ["small@a"]})
    odd = stored._replace(features={**stored.features, "mood": "good"})
    assert recompute(odd, snapshot=snapshot, grant=make_grant()) == stored.decision
