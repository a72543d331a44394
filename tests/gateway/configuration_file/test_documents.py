"""Do two policy documents say the same?"""

from __future__ import annotations

from gateway.configuration_file.documents import canonical_document, describe_difference

RULE = {"name": "rest", "strategy": "priority", "deployments": ["a"]}


def test_what_is_left_out_equals_its_default() -> None:
    written_out = {
        "baseline": "",
        "session_stickiness": False,
        "rules": [
            {
                "name": "rest",
                "when": "",
                "strategy": "priority",
                "deployments": [{"name": "a", "weight": 1.0}],
                "fallbacks": [],
                "max_attempts": None,
                "timeout_s": None,
                "is_enabled": True,
            }
        ],
    }
    assert canonical_document({"rules": [RULE]}) == canonical_document(written_out)


def test_differences_are_named_by_rule() -> None:
    before = canonical_document({"rules": [RULE, {**RULE, "name": "old"}, {**RULE, "name": "same"}]})
    after = canonical_document(
        {
            "baseline": "m",
            "rules": [{**RULE, "name": "same"}, {**RULE, "when": "has_tools"}, {**RULE, "name": "new"}],
        }
    )
    assert describe_difference(before, after) == "+new, -old, ~rest, order of rules, baseline"
    assert describe_difference(None, after) == "3 rules"
    assert describe_difference(before, before) == ""


def test_the_automatic_router_s_settings_are_compared() -> None:
    rule = {**RULE, "strategy": "auto"}
    default = {**rule, "slider": 5.0, "quality_floor": None, "check_answers": False}
    assert canonical_document({"rules": [rule]}) == canonical_document({"rules": [default]})
    changed = canonical_document({"rules": [{**rule, "slider": 7.0, "quality_floor": 0.5}]})
    assert changed["rules"][0]["slider"] == 7
    assert describe_difference(canonical_document({"rules": [rule]}), changed) == "~rest"
