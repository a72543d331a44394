"""Does a record of a decision say all of it, and do people understand it?"""

from __future__ import annotations

import json
from typing import Any

import pytest

from policies.asks import Ask
from policies.decision import decide
from policies.explaining import decision_record, sentences
from policies.features import Features
from policies.snapshot import ModelSnapshot
from tests.make_routing import FakeHealth, make_deployments, make_grant, make_policy, make_snapshot

BLIND = ModelSnapshot(1, "blind", capabilities=frozenset({"tools"}))
CATALOG = {
    **make_deployments("a", "b", input_nanousd_per_mtok=50_000_000, output_nanousd_per_mtok=200_000_000),
    **make_deployments("blind", model=BLIND),
}


def record_of(*rules: dict[str, Any], name: str = "acme/auto", **features: Any) -> dict[str, Any]:
    snapshot = make_snapshot(CATALOG, make_policy(CATALOG, *rules)) if rules else make_snapshot(CATALOG)
    ids = CATALOG["a"].id
    decision = decide(
        Ask(name), Features(**features), snapshot, make_grant(), FakeHealth({}, {ids: 120.0}), draw=0.25
    )
    return decision_record(decision)


def test_the_record_holds_everything_that_led_to_the_decision() -> None:
    record = record_of(
        {"name": "tagged", "when": "tags.team == 'x'", "deployments": ["a"]},
        {"name": "long", "when": "turn > 3", "deployments": ["a"]},
        {"name": "off", "deployments": ["a"], "is_enabled": False},
        {"name": "rest", "strategy": "weighted", "deployments": ["a", "blind"], "fallbacks": ["b"], "max_attempts": 2},
        has_images=True,
    )  # fmt: skip
    assert record == {
        "path": "routed",
        "draw": 0.25,
        "policy": "acme/auto",
        "version": 1,
        "rule": "rest",
        "strategy": "weighted",
        "candidates": ["a", "b"],
        "dropped": [["blind", "vision"]],
        "trace": [["tagged", "skipped", "no tag team"], "long", ["off", "disabled"], ["rest", "matched"]],
        "max_attempts": 2,
        "rev": 1,
    }


def test_a_usual_record_of_ten_rules_and_five_candidates_is_under_a_kilobyte() -> None:
    catalog = make_deployments(*(f"claude-sonnet-4@provider-{n}" for n in range(5)))
    rules = [
        {"name": f"a rule with a usual name {n}", "when": "turn > 9", "deployments": [*catalog]}
        for n in range(9)
    ]
    policy = make_policy(
        catalog, *rules, {"name": "rest", "strategy": "least_cost", "deployments": [*catalog]}
    )
    decision = decide(
        Ask("acme/auto"),
        Features(),
        make_snapshot(catalog, policy),
        make_grant(),
        FakeHealth(),
        draw=0.123456789,
    )
    assert len(json.dumps(decision_record(decision))) < 1000


def test_a_hostile_list_of_models_does_not_swell_the_record() -> None:
    snapshot = make_snapshot(CATALOG)
    ask = Ask("blind", models=tuple(f"{n}" + "x" * 5000 for n in range(1000)))
    decision = decide(ask, Features(), snapshot, make_grant(), FakeHealth(), draw=0.0)
    record = decision_record(decision)
    assert record["dropped_more"] == 980
    assert len(json.dumps(record)) < 10_000
    assert "980 more were left out." in sentences(record)


def test_people_read_sentences() -> None:
    told = sentences(
        record_of(
            {"name": "tagged", "when": "tags.team == 'x'", "deployments": ["a"]},
            {"name": "long", "when": "turn > 3", "deployments": ["a"]},
            {"name": "odd", "when": "1 / turn > 3", "deployments": ["a"]},
            {"name": "off", "deployments": ["a"], "is_enabled": False},
            {"name": "rest", "strategy": "least_cost", "deployments": ["a", "blind"], "fallbacks": ["b"]},
            has_images=True,
            input_tokens=1000,
        )
    )
    assert told == [
        "Policy acme/auto, version 1, decided.",
        "Rule “tagged”: its condition did not hold (no tag team).",
        "Rule “long”: its condition did not hold.",
        "Rule “odd”: its condition failed and so did not hold (division by zero in CEL expression).",
        "Rule “off” is switched off.",
        "Rule “rest” matched.",
        "blind was left out: the request holds images, which its model is not listed to read (vision).",
        "To be tried, the cheapest first, then the fallbacks as listed: a, then b.",
        "Expected cost: a 0.000150 USD.",
    ]


@pytest.mark.parametrize(
    ("record", "part"),
    [
        ({}, "refused before it was routed"),
        (record_of(name="blind"), "asked for by name"),
        (record_of(name="blind", has_images=True), "No deployment could ever serve this request as it is."),
        (record_of({"when": "turn > 1", "deployments": ["a"]}), "No rule took the request."),
        (record_of({"strategy": "least_latency", "deployments": ["a", "b"]}), "b not measured yet, a 120 ms"),
        (record_of({"strategy": "weighted", "deployments": ["a", "b"]}), "The number drawn was 0.2500."),
        ({"path": "pinned", "draw": 0.1, "candidates": ["a"]}, "The request was pinned"),
        (
            {"path": "fixed", "draw": 0.1, "candidates": [], "never_possible": False},
            "could be called at that moment",
        ),
        ({"path": "fixed", "draw": 0.1, "candidates": ["a"], "dropped": [["b", "new_code"]]}, "(new_code)"),
        (
            record_of(name="blind") | {"pin": ["broken", "b", "saving"]},
            "leaves b: another is better, and saves more",
        ),
        (
            record_of(name="blind") | {"pin": ["broken", "b", "simulated"]},
            "leaves b, where no model answers.",
        ),
    ],
)
def test_each_kind_of_decision_has_its_sentence(record: dict[str, Any], part: str) -> None:
    assert part in " ".join(sentences(json.loads(json.dumps(record))))
