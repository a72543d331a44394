"""Is a policy document sound?

Pure. The document's form: policies/README.md. What it is checked against is handed in: see `draft_checks`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

from policies.conditions import ConditionError, check_readable, compile_condition
from policies.impossible_conditions import is_impossible
from policies.reachability import list_shadowed
from policies.snapshot import Strategy

STRATEGIES: tuple[Strategy, ...] = ("fixed", "priority", "weighted", "least_cost", "least_latency", "auto")
MAX_RULES = 200
MAX_DEPLOYMENTS = 50
MAX_NAME_CHARACTERS = 200
MAX_ATTEMPTS = 10
MAX_TIMEOUT_S = 600.0
MAX_WEIGHT = 1e9
MAX_SLIDER = 10
# Settings of the automatic router: only a rule of the strategy `auto` carries them.
AUTO_MEMBERS = ("slider", "quality_floor", "check_answers")
# Letters and symbols that are drawn as nothing: Hangul fillers and the empty Braille cell.
_BLANK_LETTERS = frozenset("\u115f\u1160\u3164\uffa0\u2800")
_DOCUMENT_MEMBERS = frozenset({"baseline", "session_stickiness", "rules"})
_RULE_MEMBERS = frozenset(
    {
        "name",
        "when",
        "strategy",
        "deployments",
        "fallbacks",
        "max_attempts",
        "timeout_s",
        "is_enabled",
        *AUTO_MEMBERS,
    }
)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong at a place. `path` is like `rules[2].when`, "" for the whole; `column` is 1-based."""

    path: str
    message: str
    severity: Literal["error", "warning"] = "error"
    column: int | None = None


def check_document(
    document: object,
    *,
    deployment_names: Collection[str],
    model_names: Collection[str],
    disabled_names: Collection[str] = (),
    policy_names: Collection[str] = (),
) -> list[Problem]:
    """Find everything wrong with a document. Errors forbid publishing, warnings do not.

    `deployment_names` and `model_names` are those of the catalog; `disabled_names` are the deployments among them
    that are switched off. `policy_names` are public ids, to say what is wrong with one in the place of a deployment.
    """
    if not isinstance(document, Mapping):
        return [Problem("", "a policy document is an object")]
    problems = [
        Problem(str(name), "there is no such setting") for name in document if name not in _DOCUMENT_MEMBERS
    ]
    baseline = document.get("baseline")
    if baseline is not None and not isinstance(baseline, str):
        problems.append(Problem("baseline", "the baseline is the name of a model"))
    elif baseline and baseline not in model_names:
        problems.append(Problem("baseline", f"there is no model named {baseline!r}"))
    if not isinstance(document.get("session_stickiness", False), bool):
        problems.append(Problem("session_stickiness", "true or false"))
    rules = document.get("rules")
    if not isinstance(rules, list) or not rules:
        return [*problems, Problem("rules", "a policy has at least one rule")]
    if len(rules) > MAX_RULES:
        problems.append(Problem("rules", f"a policy has at most {MAX_RULES} rules"))
    catalog = _Catalog(
        frozenset(deployment_names),
        frozenset(disabled_names),
        frozenset(model_names),
        frozenset(policy_names),
    )
    for index, rule in enumerate(rules[:MAX_RULES]):
        problems.extend(_check_rule(f"rules[{index}]", rule, catalog))
    problems.extend(_check_order(rules[:MAX_RULES]))
    return problems


def looks_of(name: str) -> str:
    """A name as people tell it from others: letters composed one way, blanks as one, "" where nothing is seen."""
    # What is longer is refused for that.
    composed = " ".join(unicodedata.normalize("NFC", name[: MAX_NAME_CHARACTERS + 1]).split())
    is_seen = any(unicodedata.category(c)[0] not in "MZC" and c not in _BLANK_LETTERS for c in composed)
    return composed if is_seen else ""


def has_errors(problems: list[Problem]) -> bool:
    """Say whether any of the problems forbids publishing."""
    return any(problem.severity == "error" for problem in problems)


class _Catalog(NamedTuple):
    """Names that a document may hold, and those that it may be confused about."""

    deployments: frozenset[str]
    disabled: frozenset[str]
    models: frozenset[str]
    policies: frozenset[str]


def _check_rule(path: str, rule: object, catalog: _Catalog) -> list[Problem]:
    if not isinstance(rule, Mapping):
        return [Problem(path, "a rule is an object")]
    problems = [
        Problem(f"{path}.{name}", "there is no such setting") for name in rule if name not in _RULE_MEMBERS
    ]
    name = rule.get("name")
    if not isinstance(name, str) or not looks_of(name):
        problems.append(Problem(f"{path}.name", "a rule has a name that can be seen"))
    elif len(name.strip()) > MAX_NAME_CHARACTERS or not _is_storable(name):
        problems.append(
            Problem(f"{path}.name", f"a name is printable and has at most {MAX_NAME_CHARACTERS} characters")
        )
    strategy = rule.get("strategy", "priority")
    if strategy not in STRATEGIES:
        problems.append(Problem(f"{path}.strategy", f"one of {', '.join(STRATEGIES)}"))
    problems.extend(_check_condition(f"{path}.when", rule.get("when")))
    problems.extend(_check_choices(path, rule, cast(str, strategy), catalog))
    problems.extend(_check_limits(path, rule))
    problems.extend(_check_auto(path, rule, strategy))
    return problems


def _check_condition(path: str, when: object) -> list[Problem]:
    if when is None or (isinstance(when, str) and not when.strip()):
        return []
    if not isinstance(when, str):
        return [Problem(path, "a condition is a text")]
    try:
        check_readable(when.strip())
        compile_condition(when.strip())
    except ConditionError as error:
        # The editor shows the text as it was typed, with the leading white space that is not compiled.
        lead = len(when) - len(when.lstrip())
        column = None if error.column is None else error.column + lead
        return [Problem(path, error.message, column=column)]
    return []


def _check_choices(path: str, rule: Mapping[str, Any], strategy: str, catalog: _Catalog) -> list[Problem]:
    problems: list[Problem] = []
    entries = rule.get("deployments")
    if not isinstance(entries, list) or not entries:
        problems.append(Problem(f"{path}.deployments", "a rule has at least one deployment"))
        entries = []
    seen: set[str] = set()
    weights: list[float] = []
    for index, entry in enumerate(entries):
        place = f"{path}.deployments[{index}]"
        if isinstance(entry, Mapping):
            problems.extend(
                Problem(f"{place}.{name}", "there is no such setting")
                for name in entry
                if name not in ("name", "weight")
            )
            weight = entry.get("weight", 1)
            if _is_number(weight, minimum=0, maximum=MAX_WEIGHT):
                weights.append(weight)
            else:
                problems.append(Problem(f"{place}.weight", f"a number from 0 to {MAX_WEIGHT:.0f}"))
            entry = entry.get("name")
        else:
            weights.append(1)
        problems.extend(_check_name(place, entry, seen, catalog))
    fallbacks = rule.get("fallbacks")
    if fallbacks is None:
        fallbacks = []
    if not isinstance(fallbacks, list):
        problems.append(Problem(f"{path}.fallbacks", "a list of deployment names"))
        fallbacks = []
    for index, name in enumerate(fallbacks):
        problems.extend(_check_name(f"{path}.fallbacks[{index}]", name, seen, catalog))
    if max(len(entries), len(fallbacks)) > MAX_DEPLOYMENTS:
        problems.append(Problem(f"{path}.deployments", f"a rule names at most {MAX_DEPLOYMENTS} deployments"))
    if strategy == "weighted" and entries and len(weights) == len(entries) and sum(weights) == 0:
        problems.append(Problem(f"{path}.deployments", "at least one weight is more than 0"))
    if strategy == "fixed" and len(entries) > 1:
        problems.append(
            Problem(
                f"{path}.deployments", "the strategy fixed takes one deployment; use priority for several"
            )
        )
    return problems


def _check_name(path: str, name: object, seen: set[str], catalog: _Catalog) -> list[Problem]:
    if not isinstance(name, str) or not name:
        return [Problem(path, "the name of a deployment is needed")]
    problems = []
    if name not in catalog.deployments:
        if name in catalog.policies:
            message = (
                f"{name} is a policy: only deployments stand here, so that no policy leads back to itself"
            )
        elif name in catalog.models:
            message = f"{name} is a model: name one of its deployments"
        else:
            message = f"there is no deployment named {name!r}"
        problems.append(Problem(path, message))
    elif name in catalog.disabled:
        problems.append(Problem(path, f"{name} is disabled and is passed over", "warning"))
    if name in seen:
        problems.append(
            Problem(path, f"{name} is named twice in this rule: a fallback is another deployment")
        )
    seen.add(name)
    return problems


def _check_limits(path: str, rule: Mapping[str, Any]) -> list[Problem]:
    problems = []
    attempts = rule.get("max_attempts")
    if attempts is not None and not (
        isinstance(attempts, int) and _is_number(attempts, minimum=1, maximum=MAX_ATTEMPTS)
    ):
        problems.append(Problem(f"{path}.max_attempts", f"a whole number from 1 to {MAX_ATTEMPTS}"))
    timeout_s = rule.get("timeout_s")
    if timeout_s is not None and not _is_number(timeout_s, minimum=0.1, maximum=MAX_TIMEOUT_S):
        problems.append(Problem(f"{path}.timeout_s", f"a number of seconds from 0.1 to {MAX_TIMEOUT_S:.0f}"))
    if not isinstance(rule.get("is_enabled", True), bool):
        problems.append(Problem(f"{path}.is_enabled", "true or false"))
    return problems


def _check_auto(path: str, rule: Mapping[str, Any], strategy: object) -> list[Problem]:
    if strategy != "auto":
        return [
            Problem(f"{path}.{name}", "only a rule of the strategy auto has this setting")
            for name in AUTO_MEMBERS
            if name in rule
        ]
    problems = []
    slider, floor = rule.get("slider"), rule.get("quality_floor")
    if slider is not None and not _is_number(slider, minimum=0, maximum=MAX_SLIDER):
        message = f"a number from 0 (quality alone) to {MAX_SLIDER} (the cheapest)"
        problems.append(Problem(f"{path}.slider", message))
    if floor is not None and not _is_number(floor, minimum=0, maximum=1):
        problems.append(Problem(f"{path}.quality_floor", "a number from 0 to 1, or nothing"))
    if not isinstance(rule.get("check_answers", False), bool):
        problems.append(Problem(f"{path}.check_answers", "true or false"))
    return problems


def _check_order(rules: list[Any]) -> list[Problem]:
    """Names that repeat, rules that nothing reaches, and requests that no rule takes."""
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    for index, rule in enumerate(rules):
        if not isinstance(rule, Mapping) or not isinstance(rule.get("name"), str):
            continue
        name = looks_of(rule["name"])
        if name in seen:
            problems.append(
                Problem(f"rules[{index}].name", f"rule {seen[name] + 1} has the same name {name!r}")
            )
        seen.setdefault(name, index)
        when = rule.get("when")
        if rule.get("is_enabled", True) is not False and isinstance(when, str) and is_impossible(when):
            message = "no request meets this: its parts contradict each other, or no value is like that"
            problems.append(Problem(f"rules[{index}].when", message, "warning"))
    is_caught = False
    # A last rule that matches always would be reached by what no rule takes.
    for index, by in list_shadowed([*rules, {}]):
        if index == len(rules):
            is_caught = True
            continue
        takers = [rules[place] for place in by]
        names = " and ".join(
            repr(rule.get("name") or f"rule {place + 1}") for rule, place in zip(takers, by, strict=True)
        )
        if len(by) > 1:
            reason = "take all that it would"
        else:
            reason = "matches always" if _matches_always(takers[0].get("when")) else "takes all that it would"
        problems.append(Problem(f"rules[{index}]", f"never reached: {names} before it {reason}", "warning"))
    if not is_caught:
        message = "no rule matches always: a request that none takes is refused"
        problems.append(Problem("rules", message, "warning"))
    return problems


def _matches_always(when: object) -> bool:
    return when is None or (isinstance(when, str) and when.strip() in ("", "true"))


def _is_number(value: object, *, minimum: float, maximum: float) -> bool:
    # Not a number fails both comparisons; math.isfinite would fail on whole numbers of hundreds of digits.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and minimum <= value <= maximum


def _is_storable(text: str) -> bool:
    return text.isprintable() and not any("\ud800" <= char <= "\udfff" for char in text)
