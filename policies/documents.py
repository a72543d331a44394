"""What does a sound policy document become in a worker?

Pure. The document's form: policies/README.md. Whether it is sound: `document_checks`. `normalise_document` writes every
setting out, `build_rules` turns it into rules for `policies.decision`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from policies.conditions import compile_condition
from policies.features import TEXT_FEATURE_NAMES
from policies.snapshot import AutoSettings, Choice, DeploymentSnapshot, PolicySnapshot, RuleSnapshot

DEFAULT_SLIDER = 5


def normalise_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """Write every setting of a sound document out, so that equal policies are equal documents."""
    return {
        "baseline": document.get("baseline") or "",
        "session_stickiness": bool(document.get("session_stickiness", False)),
        "rules": [_normalise_rule(rule) for rule in document["rules"]],
    }


def _normalise_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    normal = {
        "name": rule["name"].strip(),
        "when": (rule.get("when") or "").strip(),
        "strategy": rule.get("strategy", "priority"),
        "deployments": [{"name": name, "weight": weight} for name, weight in _named(rule["deployments"])],
        "fallbacks": list(rule.get("fallbacks") or []),
        "max_attempts": rule.get("max_attempts"),
        "timeout_s": rule.get("timeout_s"),
        "is_enabled": rule.get("is_enabled", True),
    }
    if normal["strategy"] == "auto":
        slider = rule.get("slider")
        normal["slider"] = DEFAULT_SLIDER if slider is None else slider
        normal["quality_floor"] = rule.get("quality_floor")
        normal["check_answers"] = rule.get("check_answers") or False
    return normal


def build_rules(
    document: Mapping[str, Any], deployments: Mapping[str, DeploymentSnapshot]
) -> tuple[RuleSnapshot, ...]:
    """Build the rules of a published document. Deployments that are not among `deployments` become `missing`.

    Raises ConditionError when a condition no longer compiles.
    """
    rules = []
    for rule in normalise_document(document)["rules"]:
        condition = compile_condition(rule["when"]) if rule["when"] else None
        named = [choice["name"] for choice in rule["deployments"]]
        missing = (name for name in [*named, *rule["fallbacks"]] if name not in deployments)
        rules.append(
            RuleSnapshot(
                name=rule["name"],
                strategy=rule["strategy"],
                choices=tuple(
                    Choice(deployments[choice["name"]], float(choice["weight"]))
                    for choice in rule["deployments"]
                    if choice["name"] in deployments
                ),
                when=rule["when"],
                condition=None if condition is None else condition.program,
                feature_names=frozenset() if condition is None else condition.feature_names,
                fallbacks=tuple(deployments[name] for name in rule["fallbacks"] if name in deployments),
                max_attempts=rule["max_attempts"],
                timeout_s=rule["timeout_s"],
                is_enabled=rule["is_enabled"],
                missing=tuple(dict.fromkeys(missing)),
                auto=_auto_settings(rule),
            )
        )
    return tuple(rules)


def build_policy(
    document: Mapping[str, Any],
    deployments: Mapping[str, DeploymentSnapshot],
    *,
    policy_id: int,
    public_id: str,
    version_id: int = 0,
    version_number: int = 0,
    created_unix_s: int = 0,
    canary: PolicySnapshot | None = None,
    canary_percent: float = 0.0,
) -> PolicySnapshot:
    """Build what a worker routes by from a sound document. Raises ConditionError as `build_rules` does."""
    rules = build_rules(document, deployments)
    enabled = [rule for rule in rules if rule.is_enabled]
    feature_names = frozenset[str]().union(*(rule.feature_names for rule in enabled))
    has_auto = any(rule.strategy == "auto" for rule in enabled)
    is_sticky = bool(document.get("session_stickiness"))
    return PolicySnapshot(
        id=policy_id,
        public_id=public_id,
        version_id=version_id,
        version_number=version_number,
        rules=rules,
        # Which version serves is decided before its rules are looked at: what either reads must be there.
        feature_names=feature_names if canary is None else feature_names | canary.feature_names,
        baseline_model=document.get("baseline") or "",
        created_unix_s=created_unix_s,
        session_stickiness=is_sticky,
        needs_text=has_auto
        or is_sticky
        or canary is not None
        or not TEXT_FEATURE_NAMES.isdisjoint(feature_names),
        has_auto=has_auto or (canary is not None and canary.has_auto),
        canary=canary,
        canary_percent=canary_percent,
    )


def _auto_settings(rule: Mapping[str, Any]) -> AutoSettings | None:
    if rule["strategy"] != "auto":
        return None
    floor = rule["quality_floor"]
    return AutoSettings(float(rule["slider"]), None if floor is None else float(floor), rule["check_answers"])


def _named(entries: list[Any]) -> Iterator[tuple[str, float]]:
    """Deployments with weights, from either form: a name alone, or an object."""
    for entry in entries:
        if isinstance(entry, str):
            yield entry, 1
        else:
            yield entry["name"], entry.get("weight", 1)
