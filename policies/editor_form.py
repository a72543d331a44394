"""What does the policy editor's page get and send, and which document is it?

Pure. The page edits a document whose rules may carry `group`: their condition as rows. A rule with a group is a rule
whose `when` is compiled from it here; a rule without is edited as CEL text. Drafts may be unsound (a program stored
them): what the page could not show is mended, unknown members stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policies.condition_rows import RowError, cel_to_rows, rows_to_cel
from policies.document_checks import Problem

Form = dict[str, Any]


def form_of(document: Mapping[str, Any]) -> Form:
    """The document as the page edits it: every member there, conditions as rows where rows can say them."""
    rules = document.get("rules")
    return {
        **document,
        "baseline": _text(document.get("baseline")),
        "session_stickiness": document.get("session_stickiness") is True,
        "rules": [
            _form_of_rule(rule)
            for rule in (rules if isinstance(rules, list) else [])
            if isinstance(rule, Mapping)
        ],
    }


def document_of(form: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """The document that a form stands for, and rows that say nothing yet."""
    document = dict(form)
    problems: list[Problem] = []
    rules = form.get("rules")
    if not isinstance(rules, list):
        return document, problems
    document["rules"] = listed = []
    for index, entry in enumerate(rules):
        if not isinstance(entry, Mapping):
            listed.append(entry)
            continue
        rule = dict(entry)
        group = rule.pop("group", None)
        if group is not None:
            try:
                rule["when"] = rows_to_cel(group)
            except RowError as error:
                place = f"rules[{index}].when" + (f".{error.path}" if error.path else "")
                problems.append(Problem(place, error.message))
        if rule.get("strategy") != "auto":
            for name in ("slider", "quality_floor", "check_answers"):
                rule.pop(name, None)
        listed.append(rule)
    return document, problems


def _form_of_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    when = _text(rule.get("when")).strip()
    deployments = rule.get("deployments")
    fallbacks = rule.get("fallbacks")
    return {
        "strategy": "priority",
        "max_attempts": None,
        "timeout_s": None,
        "is_enabled": True,
        **rule,
        "name": _text(rule.get("name")),
        "when": when,
        "group": cel_to_rows(when),
        "deployments": [_choice(entry) for entry in (deployments if isinstance(deployments, list) else [])],
        "fallbacks": [_text(name) for name in (fallbacks if isinstance(fallbacks, list) else [])],
    }


def _choice(entry: object) -> dict[str, Any]:
    return (
        {"name": "", "weight": 1, **entry}
        if isinstance(entry, Mapping)
        else {"name": _text(entry), "weight": 1}
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
