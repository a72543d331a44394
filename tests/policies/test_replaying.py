"""Does a recorded request, decided again, get the decision that was recorded?"""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dataplane.recording import features_as_line
from policies.decision import Ask, RoutingError, decide
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


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    chosen = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    return {
        "when": draw(st.sampled_from(CONDITIONS)),
        "strategy": draw(st.sampled_from(("priority", "weighted", "least_cost", "least_latency"))),
        "deployments": [{"name": name, "weight": draw(st.integers(0, 3))} for name in chosen],
        "fallbacks": draw(st.lists(names, max_size=2, unique=True).map(lambda f: [n for n in f if n not in chosen])),
        "max_attempts": draw(st.sampled_from((None, 2))),
        "is_enabled": draw(st.booleans()),
    }  # fmt: skip


some = st.sampled_from
features = st.fixed_dictionaries({
    "tags": some(({}, {"team": "x"})), "input_tokens": some((0, 400, 600, 2000)), "max_output_tokens": some((0, 500)),
    "turn": st.integers(0, 4), "choice_count": some((1, 2)), "has_images": st.booleans(), "has_tools": st.booleans(),
    "is_stream": st.booleans(), "hour": some((0, 5, 12)), "weekday": some((1, 6)), "task": some(("", "code")),
    "budget_used_ratio": some((0.0, 0.1 + 0.2, 0.9)), "difficulty": some((0.0, 0.123456789, 0.5)),
    "workload": some(("", "ab")),
}).map(lambda given: Features(tenant="acme", project="web", key="dev", **given))  # fmt: skip
asks = st.fixed_dictionaries({
    "requested_model": some(("acme/auto", "small", "small@a", "nobody")),
    "models": some(((), ("large",), ("nobody", "small@b"))), "is_pinned": some((False, False, True)),
    "provider_order": some(((), ("B",), ("b", "A"))), "provider_only": some(((), ("A",))),
    "provider_ignore": some(((), ("a",))),
    "allow_fallbacks": some((True, True, False)),
}).map(lambda given: Ask(**given))  # fmt: skip
health = st.builds(
    FakeHealth,
    st.dictionaries(names, st.sampled_from(sorted(HEALTH_REASONS))),
    st.dictionaries(st.sampled_from([d.id for d in CATALOG.values()]), st.floats(0, 9000)),
)
policies = st.lists(rules(), min_size=1, max_size=4)
grants = some(((), ("us",))).map(lambda regions: make_grant(regions=regions))


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


@settings(max_examples=120, deadline=None)
@given(policies, asks, features, health, grants, st.floats(0, 1, exclude_max=True))
def test_deciding_again_from_the_record_gives_the_recorded_decision(
    listed: list[dict[str, Any]],
    ask: Ask,
    asked: Features,
    view: FakeHealth,
    grant: KeyGrant,
    draw: float,
) -> None:
    asked = asked._replace(requested_model=ask.requested_model, endpoint=ask.endpoint)
    snapshot = make_snapshot(CATALOG, make_policy(CATALOG, *listed))
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
