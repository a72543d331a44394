"""Which rules of a policy can no request reach, because an earlier one takes all of theirs?

Pure. Sound and not complete: what it names is never reached; a rule that it does not name may still be unreachable.
Conditions are compared as rows (`policies.condition_rows`); those that rows cannot say only by their text. A row about
a tag that is missing does not hold, and rows are joined by and/or alone, so failing is the same as not holding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import ge, gt, le, lt
from typing import Any, NamedTuple

from policies.condition_fields import Row
from policies.condition_rows import Group, read_cel

MAX_COMPARED = 5_000  # pairs of rules: 100 rules are compared each with each

Condition = Group | Row


class Shadowed(NamedTuple):
    """Rule `place` is never reached: rule `by` stands before it (both 0-based) and takes all that it would."""

    place: int
    by: int


def list_shadowed(rules: Sequence[Any]) -> list[Shadowed]:
    """Find unreachable rules of a document's rules, sound or not. Rules that are off neither take nor are named."""
    earlier: list[tuple[int, str, Group | None]] = []
    found: list[Shadowed] = []
    compared = 0
    for index, rule in enumerate(rules):
        if not isinstance(rule, Mapping) or rule.get("is_enabled", True) is False:
            continue
        when = rule.get("when")
        text = when.strip() if isinstance(when, str) else ""
        if when is not None and not isinstance(when, str):
            continue
        group = read_cel(text)
        taker = None
        for by, other_text, other in earlier:
            compared += 1
            if text == other_text or (
                group is not None and other is not None and compared <= MAX_COMPARED and implies(group, other)
            ):
                taker = by
                break
            if other is not None and not other.rows:
                taker = by  # matches always
                break
        if taker is None:
            earlier.append((index, text, group))
        else:
            found.append(Shadowed(index, taker))
    return found


def implies(narrow: Condition, wide: Condition) -> bool:
    """Whether `wide` certainly holds wherever `narrow` holds."""
    if isinstance(wide, Group) and not wide.rows:
        return True
    if isinstance(narrow, Group) and not narrow.rows:
        return False
    if isinstance(narrow, Row) and isinstance(wide, Row):
        return _row_implies(narrow, wide)
    if isinstance(narrow, Group) and (narrow.join == "or" or len(narrow.rows) == 1):
        return all(implies(row, wide) for row in narrow.rows)
    if isinstance(wide, Group) and (wide.join == "and" or len(wide.rows) == 1):
        return all(implies(narrow, row) for row in wide.rows)
    if isinstance(narrow, Group) and any(implies(row, wide) for row in narrow.rows):
        return True
    if isinstance(wide, Group):
        return any(implies(narrow, row) for row in wide.rows)
    assert isinstance(narrow, Group)
    return _bounds_imply(narrow, wide)


def _row_implies(narrow: Row, wide: Row) -> bool:
    if narrow.field is not wide.field or narrow.tag != wide.tag:
        return False
    if narrow == wide:
        return True
    if wide.operator == "has":
        return narrow.operator != "has_not"  # a comparison with a tag holds only where the tag is
    if narrow.field.kind == "number":
        return _covers(_interval(wide), _interval(narrow))
    values = _values(narrow)
    if values is not None:
        return all(takes(wide, value) for value in values)
    if wide.operator == "is_not":
        return _excludes(narrow, wide.value)
    if narrow.operator == "starts_with" and wide.operator == "starts_with":
        return bool(narrow.value.startswith(wide.value))
    if narrow.operator in ("starts_with", "contains") and wide.operator == "contains":
        return wide.value in narrow.value
    # Every text starts with and contains the empty one.
    return wide.operator in ("starts_with", "contains") and wide.value == ""


def _values(row: Row) -> tuple[Any, ...] | None:
    """All values with which a row holds, where they can be counted."""
    if row.operator == "is":
        return (row.value,)
    if row.operator == "is_one_of":
        return tuple(row.value)
    if row.field.kind == "weekday":
        if row.operator == "between":
            return tuple(range(row.value[0], row.value[1] + 1))
        return tuple(day for day in range(1, 8) if day != row.value)
    return None


def takes(row: Row, value: Any) -> bool:
    """Whether a row holds for a value of its field; False where only CEL knows (patterns)."""
    operator = row.operator
    if operator in ("is", "eq"):
        return bool(value == row.value)
    if operator == "is_not":
        return bool(value != row.value)
    if operator == "is_one_of":
        return value in row.value
    if operator == "between":
        return bool(row.value[0] <= value <= row.value[1])
    if operator in _ORDERS:
        return bool(_ORDERS[operator](value, row.value))
    if operator == "starts_with":
        return bool(value.startswith(row.value))
    return operator == "contains" and row.value in value


_ORDERS = {"lt": lt, "le": le, "ge": ge, "gt": gt}


def _excludes(narrow: Row, value: Any) -> bool:
    """Whether a row about a text certainly does not hold for this value."""
    if narrow.operator == "starts_with":
        return not value.startswith(narrow.value)
    return narrow.operator == "contains" and narrow.value not in value


class _Interval(NamedTuple):
    """Numbers from `low` to `high`; open ends leave the bound itself out."""

    low: float
    high: float
    is_low_open: bool = False
    is_high_open: bool = False


_HIGHEST = float("inf")


def _interval(row: Row) -> _Interval:
    operator, value = row.operator, row.value
    if operator == "between":
        return _Interval(*value)
    if operator == "eq":
        return _Interval(value, value)
    is_open = operator in ("lt", "gt")
    if is_open and not row.field.is_fraction:
        # Whole numbers: more than 4 is at least 5.
        value, is_open = (value - 1 if operator == "lt" else value + 1), False
    if operator in ("lt", "le"):
        return _Interval(0, value, False, is_open)
    return _Interval(value, _HIGHEST, is_open, False)


def _covers(wide: _Interval, narrow: _Interval) -> bool:
    is_low_in = narrow.low > wide.low or (
        narrow.low == wide.low and (narrow.is_low_open or not wide.is_low_open)
    )
    is_high_in = narrow.high < wide.high or (
        narrow.high == wide.high and (narrow.is_high_open or not wide.is_high_open)
    )
    return is_low_in and is_high_in


def _bounds_imply(narrow: Group, wide: Row) -> bool:
    """Several bounds on one number, joined by and, against one row: `turn > 2 && turn < 5` against between 3 and 4."""
    if wide.field.kind != "number":
        return False
    bounds = [_interval(row) for row in narrow.rows if isinstance(row, Row) and row.field is wide.field]
    if len(bounds) < 2:
        return False
    low = max((bound.low, bound.is_low_open) for bound in bounds)
    high = min((bound.high, not bound.is_high_open) for bound in bounds)
    return _covers(_interval(wide), _Interval(low[0], high[0], low[1], not high[1]))
