"""Do two policy documents say the same, and if not, which rules differ?

Pure. Documents have the form of policies/README.md; what a document leaves out is filled in before comparing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_RULE_DEFAULTS: dict[str, Any] = {
    "name": "",
    "when": "",
    "strategy": "priority",
    "deployments": [],
    "fallbacks": [],
    "max_attempts": None,
    "timeout_s": None,
    "is_enabled": True,
    # Of the strategy `auto` alone.
    "slider": 5,
    "quality_floor": None,
    "check_answers": False,
}
_NUMBERS = ("timeout_s", "slider", "quality_floor")


def canonical_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with every choice as {name, weight} and without what equals a default."""
    canonical: dict[str, Any] = {"rules": [_canonical_rule(rule) for rule in document.get("rules") or []]}
    if document.get("baseline"):
        canonical["baseline"] = document["baseline"]
    if document.get("session_stickiness"):
        canonical["session_stickiness"] = True
    return canonical


def describe_difference(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> str:
    """Say in a few words how two canonical documents differ, by the names of rules."""
    if before is None:
        return f"{len(after['rules'])} rules"
    old = {rule["name"]: rule for rule in before["rules"]}
    new = {rule["name"]: rule for rule in after["rules"]}
    parts = [f"+{name}" for name in new if name not in old]
    parts += [f"-{name}" for name in old if name not in new]
    parts += [f"~{name}" for name in new if name in old and new[name] != old[name]]
    if [name for name in old if name in new] != [name for name in new if name in old]:
        parts.append("order of rules")
    for name in ("baseline", "session_stickiness"):
        if before.get(name) != after.get(name):
            parts.append(name)
    return ", ".join(parts)


def _canonical_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    choices = []
    for choice in rule.get("deployments") or []:
        named = {"name": choice} if isinstance(choice, str) else choice
        weight = float(named.get("weight", 1))
        choices.append({"name": named["name"], "weight": int(weight) if weight.is_integer() else weight})
    merged = {
        **_RULE_DEFAULTS,
        **rule,
        "deployments": choices,
        "fallbacks": list(rule.get("fallbacks") or []),
    }
    for name in _NUMBERS:
        if merged[name] is not None:
            number = float(merged[name])
            merged[name] = int(number) if number.is_integer() else number
    always = ("name", "strategy", "deployments")
    return {k: v for k, v in merged.items() if k in always or v != _RULE_DEFAULTS.get(k)}
