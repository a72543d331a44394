"""Which comparisons of a condition does a request not meet? In words, for people and callers.

Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

from policies.condition_rows import OPERATORS, Group, Row, read_cel, row_to_cel
from policies.conditions import compile_condition, prepare
from policies.features import Features
from policies.reachability import takes

MAX_REASONS: Final = 10
_DENIED: Final = {
    "is_one_of": "not one of",
    "starts_with": "which does not start with",
    "contains": "which does not contain",
    "matches": "which does not match",
}


def list_unmet(when: str, features: Features, *, hidden: Collection[str] = ()) -> list[str]:
    """Which comparisons of a condition do not hold for a request, in words; [] when rows cannot say the condition.

    Those about the fields `hidden` are left out.
    """
    group = read_cel(when)
    return [] if group is None else list(_unmet(group, features, hidden))[:MAX_REASONS]


def _unmet(group: Group, features: Features, hidden: Collection[str]) -> Iterator[str]:
    held = [holds(row, features) for row in group.rows]
    if not group.rows or (any(held) if group.join == "or" else all(held)):
        return
    for row, is_held in zip(group.rows, held, strict=True):
        if is_held:
            continue
        if isinstance(row, Group):
            yield from _unmet(row, features, hidden)
        elif row.field.name not in hidden:
            yield _unmet_row(row, features)


def holds(row: Row | Group, features: Features) -> bool:
    """Whether rows hold for a request, as their CEL would say."""
    if isinstance(row, Group):
        held = (holds(inner, features) for inner in row.rows)
        return all(held) if row.join == "and" else any(held)
    if row.field.kind == "tag":
        if row.operator in ("has", "has_not"):
            return (row.tag in features.tags) is (row.operator == "has")
        if row.tag not in features.tags:
            return False
        return takes(row, features.tags[row.tag])
    if row.operator == "matches":
        condition = compile_condition(row_to_cel(row))
        return condition.program(prepare(features, condition.feature_names)) is True
    return takes(row, getattr(features, row.field.name))


def _unmet_row(row: Row, features: Features) -> str:
    field, tag, operator, value = row
    if field.kind == "tag":
        if tag not in features.tags:
            return f"The tag {tag} is not there"
        name, actual = f"The tag {tag}", features.tags[tag]
    else:
        name, actual = field.label, getattr(features, field.name)
    if operator == "has_not":
        return f"{name} is there"
    if field.kind == "yes/no":
        return f"{name}: {_shown(row, actual)}, not {_shown(row, value)}"
    if operator == "is":
        return f"{name} is {_shown(row, actual)}, not {_shown(row, value)}"
    if operator == "is_not":
        return f"{name} is {_shown(row, actual)}"
    wanted = (
        " and ".join(str(item) for item in value)
        if operator == "between" and field.kind == "number"
        else _shown(row, value)
    )
    denied = _DENIED.get(operator) or f"not {OPERATORS[operator]}"
    return f"{name} is {_shown(row, actual)}, {denied} {wanted}"


def _shown(row: Row, value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(_shown(row, item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    labels = dict(row.field.choices) if row.field.kind in ("choice", "weekday") else {}
    if value in labels:
        return labels[value]
    return f"“{value[:100]}”" if isinstance(value, str) else str(value)
