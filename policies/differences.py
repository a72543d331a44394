"""What did somebody change in a policy, in sentences that an operator reads?

Pure. Compares two documents (policies/README.md), sound or not: a draft may be half written. Rules are the same rule
when they have the same name; one that was renamed is recognised by what it does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from policies.documents import DEFAULT_SLIDER

DifferenceKind = Literal["added", "removed", "moved", "changed", "setting"]

_KNOWN_SETTINGS = frozenset({"baseline", "session_stickiness", "rules"})
_RULE_DEFAULTS: Mapping[str, Any] = {
    "when": "",
    "strategy": "priority",
    "deployments": [],
    "fallbacks": [],
    "max_attempts": None,
    "timeout_s": None,
    "is_enabled": True,
    "slider": DEFAULT_SLIDER,
    "quality_floor": None,
    "check_answers": False,
}


class Difference(NamedTuple):
    """One thing that differs. `rule` is the rule's name in the newer document, "" for a setting of the policy."""

    kind: DifferenceKind
    rule: str
    sentences: tuple[str, ...]


class _Rule(NamedTuple):
    """A rule with every setting written out, at its place (0-based) among the rules."""

    name: str
    place: int
    settings: Mapping[str, Any]
    choices: tuple[tuple[str, Any], ...]
    fallbacks: tuple[str, ...]


def list_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Say what differs: settings first, then removed rules, then the others as they now stand. Equal: nothing."""
    return [*_setting_differences(before, after), *_rule_differences(_rules(before), _rules(after))]


def _setting_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
    old, new = before.get("baseline") or "", after.get("baseline") or ""
    if old != new:
        said = f"The baseline for savings is {_named(new)}; it was {_named(old)}."
        yield Difference("setting", "", (said,))
    old_sticky, new_sticky = (
        before.get("session_stickiness") or False,
        after.get("session_stickiness") or False,
    )
    if old_sticky != new_sticky:
        said = (
            "A conversation keeps its deployment (session stickiness is on)."
            if new_sticky
            else "A conversation no longer keeps its deployment (session stickiness is off)."
        )
        yield Difference("setting", "", (said,))
    others = sorted({str(name) for name in (*before, *after) if name not in _KNOWN_SETTINGS})
    for name in others:
        if before.get(name) != after.get(name):
            yield Difference("setting", "", (f"The setting {name} changed.",))
    old_rules, new_rules = before.get("rules"), after.get("rules")
    if old_rules != new_rules and (_is_odd(old_rules) or _is_odd(new_rules)):
        yield Difference("setting", "", ("What stands for the rules changed.",))


def _is_odd(rules: object) -> bool:
    """Whether this is no list of objects: only a draft from elsewhere can hold such."""
    return not (rules is None or (isinstance(rules, list) and all(isinstance(r, Mapping) for r in rules)))


def _rules(document: Mapping[str, Any]) -> list[_Rule]:
    rules = document.get("rules")
    if not isinstance(rules, list):
        return []
    return [_read(rule, place) for place, rule in enumerate(rules) if isinstance(rule, Mapping)]


def _read(rule: Mapping[str, Any], place: int) -> _Rule:
    settings = {**_RULE_DEFAULTS, **{name: value for name, value in rule.items() if value is not None}}
    settings["when"] = str(settings["when"]).strip()
    return _Rule(
        name=str(settings.pop("name", "") or "").strip() or f"(rule {place + 1})",
        place=place,
        settings=settings,
        choices=tuple(_choices(settings.pop("deployments"))),
        fallbacks=tuple(name for name, _ in _choices(settings.pop("fallbacks"))),
    )


def _choices(entries: Any) -> Iterator[tuple[str, Any]]:
    for entry in entries if isinstance(entries, list) else [entries]:
        if isinstance(entry, Mapping):
            yield str(entry.get("name", "")), entry.get("weight", 1)
        else:
            yield str(entry), 1


def _rule_differences(before: Sequence[_Rule], after: Sequence[_Rule]) -> Iterator[Difference]:
    pairs = _pairs(before, after)
    partner = {new.place: old for old, new in pairs}
    kept = {old.place for old, _ in pairs}
    moved = _moved(pairs)
    for old in before:
        if old.place not in kept:
            yield Difference("removed", old.name, (f"The {_ordinal(old.place)} rule was removed.",))
    for new in after:
        found = partner.get(new.place)
        if found is None:
            yield Difference("added", new.name, (f"New as the {_ordinal(new.place)} rule.", *_described(new)))
            continue
        if new.place in moved:
            said = f"Moved from {_ordinal(found.place)} to {_ordinal(new.place)}."
            yield Difference("moved", new.name, (said,))
        sentences = tuple(_changes(found, new))
        if not sentences and not _does_the_same(found, new):
            # What only an unsound draft can hold: a deployment named twice, a slider on another strategy than auto.
            sentences = ("What the rule holds without using it changed.",)
        if sentences:
            yield Difference("changed", new.name, sentences)


def _pairs(before: Sequence[_Rule], after: Sequence[_Rule]) -> list[tuple[_Rule, _Rule]]:
    """The rules that are the same rule, in the newer order."""
    left = list(before)
    pairs: list[tuple[_Rule, _Rule]] = []
    unknown: list[_Rule] = []
    for new in after:
        old = next((rule for rule in left if rule.name == new.name), None)
        if old is None:
            unknown.append(new)
        else:
            left.remove(old)
            pairs.append((old, new))
    for is_same in (_does_the_same, _has_the_same_condition_and_names, _has_the_same_place_and_choices):
        for new in list(unknown):
            old = next((rule for rule in left if is_same(rule, new)), None)
            if old is not None:
                left.remove(old)
                unknown.remove(new)
                pairs.append((old, new))
    return sorted(pairs, key=lambda pair: pair[1].place)


def _does_the_same(old: _Rule, new: _Rule) -> bool:
    return (old.settings, old.choices, old.fallbacks) == (new.settings, new.choices, new.fallbacks)


def _has_the_same_condition_and_names(old: _Rule, new: _Rule) -> bool:
    is_same = {name for name, _ in old.choices} == {name for name, _ in new.choices}
    return is_same and bool(new.settings["when"]) and old.settings["when"] == new.settings["when"]


def _has_the_same_place_and_choices(old: _Rule, new: _Rule) -> bool:
    return old.place == new.place and old.choices == new.choices


def _moved(pairs: Sequence[tuple[_Rule, _Rule]]) -> set[int]:
    """Places (in the newer document) of as few rules as explain the new order: those off the longest rising run."""
    runs: list[list[tuple[_Rule, _Rule]]] = []
    for pair in pairs:
        best = max((run for run in runs if run[-1][0].place < pair[0].place), key=len, default=[])
        runs.append([*best, pair])
    staying = {new.place for _, new in max(runs, key=len, default=[])}
    return {new.place for _, new in pairs} - staying


def _changes(old: _Rule, new: _Rule) -> Iterator[str]:
    if old.name != new.name:
        yield f"Renamed from “{old.name}”."
    before, after = old.settings, new.settings
    if before["is_enabled"] != after["is_enabled"]:
        yield "Switched on." if after["is_enabled"] else "Switched off."
    if before["when"] != after["when"]:
        yield f"The condition is {_condition(after['when'])}; it was {_condition(before['when'])}."
    if before["strategy"] != after["strategy"]:
        yield f"The strategy is {_words(after['strategy'])}; it was {_words(before['strategy'])}."
    yield from _choice_changes(old, new)
    yield from _fallback_changes(old.fallbacks, new.fallbacks)
    yield from _limit_changes(before, after)
    yield from _auto_changes(before, after)
    told = {*_RULE_DEFAULTS, "name"}
    for name in sorted({str(name) for name in (*before, *after)} - told):
        if before.get(name) != after.get(name):
            yield f"The setting {name} changed."


def _choice_changes(old: _Rule, new: _Rule) -> Iterator[str]:
    before, after = dict(old.choices), dict(new.choices)
    is_weighted = "weighted" in (old.settings["strategy"], new.settings["strategy"])
    for name in after:
        if name not in before:
            yield f"{name} was added{f' with weight {after[name]}' if is_weighted else ''}."
    for name in before:
        if name not in after:
            yield f"{name} was removed."
    for name, weight in after.items():
        if name in before and before[name] != weight:
            yield f"The weight of {name} is {weight}; it was {before[name]}{_share(new, name)}."
    names_before = [name for name, _ in old.choices if name in after]
    names_after = [name for name, _ in new.choices if name in before]
    if names_before != names_after:
        yield f"The order is now {', '.join(name for name, _ in new.choices)}."


def _share(rule: _Rule, name: str) -> str:
    weights = [weight for _, weight in rule.choices]
    if not all(isinstance(weight, (int, float)) for weight in weights) or not 0 < sum(weights) < float("inf"):
        return ""
    share = dict(rule.choices)[name] / sum(weights)
    return f" (now drawn for {share:.0%})" if rule.settings["strategy"] == "weighted" else ""


def _fallback_changes(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    for name in new:
        if name not in old:
            yield f"{name} was added as a fallback."
    for name in old:
        if name not in new:
            yield f"{name} is no longer a fallback."
    if [name for name in old if name in new] != [name for name in new if name in old]:
        yield f"The order of fallbacks is now {', '.join(new)}."


def _limit_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    if before["max_attempts"] != after["max_attempts"]:
        yield (
            f"Attempts at most: {_or_default(after['max_attempts'])}; before: {_or_default(before['max_attempts'])}."
        )
    if before["timeout_s"] != after["timeout_s"]:
        yield (
            f"Time limit: {_or_default(after['timeout_s'], ' s')}; before: {_or_default(before['timeout_s'], ' s')}."
        )


def _auto_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    if after["strategy"] != "auto":
        return
    # Under another strategy there was no slider, whatever stood there.
    was_auto = before["strategy"] == "auto"
    old = before if was_auto else _RULE_DEFAULTS
    if old["slider"] != after["slider"]:
        was = f"; it was at {old['slider']}" if was_auto else ""
        yield f"The slider from quality (0) to cheapest (10) is at {after['slider']}{was}."
    if old["quality_floor"] != after["quality_floor"]:
        was = f"; it was {_or_none(old['quality_floor'])}" if was_auto else ""
        yield f"The quality floor is {_or_none(after['quality_floor'])}{was}."
    if old["check_answers"] != after["check_answers"]:
        yield (
            "Answers are checked, and the next model is tried after a bad one."
            if after["check_answers"]
            else "Answers are no longer checked."
        )


def _described(rule: _Rule) -> Iterator[str]:
    """What a new rule does, in two sentences."""
    when = f"when {rule.settings['when']}" if rule.settings["when"] else "always"
    is_weighted = rule.settings["strategy"] == "weighted"
    names = [f"{name} ({weight})" if is_weighted else name for name, weight in rule.choices]
    off = " It is switched off." if not rule.settings["is_enabled"] else ""
    yield f"Matches {when}.{off}"
    yield f"Strategy {_words(rule.settings['strategy'])} over {', '.join(names) or 'no deployment'}."
    if rule.fallbacks:
        yield f"Fallbacks: {', '.join(rule.fallbacks)}."


def _named(value: object) -> str:
    return str(value) if value else "not set"


def _words(strategy: str) -> str:
    return strategy.replace("_", " ")


def _condition(text: str) -> str:
    return f"“{text}”" if text else "always"


def _or_default(value: object, unit: str = "") -> str:
    return "the default" if value is None else f"{value}{unit}"


def _or_none(value: object) -> str:
    return "not set" if value is None else str(value)


def _ordinal(place: int) -> str:
    number = place + 1
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
