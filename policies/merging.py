"""What becomes of somebody's edits when another person saved the draft first?

Pure. Three documents: `base` was read, `mine` was made of it, `theirs` is what stands there now. Nothing is lost: an
edit is applied on top of theirs when it is chosen, and each can be chosen for itself. Of a rule that both changed,
each member is taken from whom changed it; from mine where both did.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, NamedTuple

SETTINGS = ("baseline", "session_stickiness")

Rule = Mapping[str, Any]
RuleId = tuple[str, int]  # its name, and which of those with this name it is


class Edit(NamedTuple):
    """One thing that was done. `key` names it for choosing; `rule` is "" for a setting and for the order."""

    key: str
    kind: Literal["added", "removed", "changed", "order", "setting"]
    rule: str


def list_edits(base: Mapping[str, Any], mine: Mapping[str, Any]) -> list[Edit]:
    """What was done between two documents: settings, then rules as they stand, then what is gone."""
    edits = [Edit(f"setting:{name}", "setting", "") for name in SETTINGS if base.get(name) != mine.get(name)]
    before, after = _by_id(base), _by_id(mine)
    for rule_id, rule in after.items():
        if rule_id not in before:
            edits.append(_edit("added", rule_id))
        elif before[rule_id] != rule:
            edits.append(_edit("changed", rule_id))
    edits += [_edit("removed", rule_id) for rule_id in before if rule_id not in after]
    if [i for i in before if i in after] != [i for i in after if i in before]:
        edits.append(Edit("order", "order", ""))
    return edits


def apply_edits(
    *, base: Mapping[str, Any], mine: Mapping[str, Any], theirs: Mapping[str, Any], chosen: Collection[str]
) -> dict[str, Any]:
    """Return theirs with the chosen edits of mine on top."""
    merged = dict(theirs)
    old, own, rules = _by_id(base), _by_id(mine), _by_id(theirs)
    order = list(rules)
    for edit in list_edits(base, mine):
        if edit.key not in chosen:
            continue
        if edit.kind == "setting":
            name = edit.key.partition(":")[2]
            merged[name] = mine.get(name)
        elif edit.kind == "order":
            order = _in_order_of(list(own), order)
        else:
            rule_id = _id_of(edit)
            if edit.kind == "removed":
                rules.pop(rule_id, None)
                order = [other for other in order if other != rule_id]
                continue
            if edit.kind == "changed" and rule_id in rules:
                rules[rule_id] = _on_top(old[rule_id], own[rule_id], rules[rule_id])
            else:
                rules[rule_id] = own[rule_id]
            if rule_id not in order:
                order.insert(_place(rule_id, list(own), order), rule_id)
    merged["rules"] = [rules[rule_id] for rule_id in order]
    return merged


def list_overlaps(base: Mapping[str, Any], mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> set[str]:
    """Keys of the edits of mine that would replace something of theirs."""
    old, own, other = _by_id(base), _by_id(mine), _by_id(theirs)
    theirs_done = {edit.key for edit in list_edits(base, theirs)}
    found = set()
    for edit in list_edits(base, mine):
        if edit.kind in ("setting", "order"):
            name = edit.key.partition(":")[2]
            is_same = edit.kind == "setting" and mine.get(name) == theirs.get(name)
            if edit.key in theirs_done and not is_same:
                found.add(edit.key)
            continue
        rule_id = _id_of(edit)
        their_rule = other.get(rule_id)
        if edit.kind == "removed":
            is_overlap = their_rule is not None and their_rule != old[rule_id]
        elif edit.kind == "added":
            is_overlap = their_rule is not None and their_rule != own[rule_id]
        else:
            is_overlap = their_rule is None or bool(_contested(old[rule_id], own[rule_id], their_rule))
        if is_overlap:
            found.add(edit.key)
    return found


def _on_top(base: Rule, mine: Rule, theirs: Rule) -> dict[str, Any]:
    """One rule with both people's members."""
    changed = _changed_members(base, mine)
    kept = {name: value for name, value in theirs.items() if name not in changed}
    return kept | {name: mine[name] for name in mine if name in changed}


def _contested(base: Rule, mine: Rule, theirs: Rule) -> set[str]:
    both = _changed_members(base, mine) & _changed_members(base, theirs)
    return {name for name in both if mine.get(name) != theirs.get(name)}


def _changed_members(before: Rule, after: Rule) -> set[str]:
    missing = object()
    names = before.keys() | after.keys()
    return {name for name in names if before.get(name, missing) != after.get(name, missing)}


def _by_id(document: Mapping[str, Any]) -> dict[RuleId, Rule]:
    found: dict[RuleId, Rule] = {}
    rules = document.get("rules")
    for rule in rules if isinstance(rules, list) else []:
        if isinstance(rule, Mapping):
            name = str(rule.get("name", "")).strip()
            number = next(number for number in range(len(found) + 1) if (name, number) not in found)
            found[name, number] = rule
    return found


def _edit(kind: Literal["added", "removed", "changed"], rule_id: RuleId) -> Edit:
    name, number = rule_id
    return Edit(f"{kind}:{number}:{name}", kind, name)


def _id_of(edit: Edit) -> RuleId:
    return edit.rule, int(edit.key.split(":", 2)[1])


def _place(rule_id: RuleId, own: list[RuleId], order: list[RuleId]) -> int:
    """After the nearest rule before it that is there too, else at the front."""
    before = reversed(own[: own.index(rule_id)])
    return next((order.index(other) + 1 for other in before if other in order), 0)


def _in_order_of(own: list[RuleId], order: Iterable[RuleId]) -> list[RuleId]:
    """Rules that both have, in own order, at the places that such rules have; the others stay where they are."""
    listed = list(order)
    shared = iter([rule_id for rule_id in own if rule_id in listed])
    return [next(shared) if rule_id in own else rule_id for rule_id in listed]
