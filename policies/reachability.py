"""Which rules of a policy can no request reach, because earlier ones take all of theirs?

Pure. Sound and not complete: what it names is never reached; a rule that it does not name may still be unreachable.
Conditions are compared as rows (`policies.condition_rows`); those that rows cannot say only by their text. A row about
a tag that is missing does not hold, and rows are joined by and/or alone, so failing is the same as not holding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import ge, gt, le, lt
from typing import Any, NamedTuple

from policies.condition_fields import Row
from policies.condition_rows import Group, read_cel

MAX_COMPARED = 2_000  # 45 rules are compared each with each; of more, each with the first ones
MAX_JOINT_RULES = 40
MAX_PARTS = 12
# What is left of a rule is split twice at most, and of a document's rules no more is compared in that than this.
MAX_SPLITS = 2
MAX_JOINT_COMPARED = 2_000

Condition = Group | Row


class Shadowed(NamedTuple):
    """Rule `place` is never reached: the rules `by` stand before it and take all that it would. All 0-based."""

    place: int
    by: tuple[int, ...]


class _Earlier(NamedTuple):
    """A rule that is on and that some request reaches; `group` None: rows cannot say its condition."""

    place: int
    text: str
    group: Group | None


def list_shadowed(rules: Sequence[Any]) -> list[Shadowed]:
    """Find unreachable rules of a document's rules, sound or not. Rules that are off neither take nor are named."""
    earlier: list[_Earlier] = []
    found: list[Shadowed] = []
    joint = _JointSearch()
    for place, rule in enumerate(rules):
        if not isinstance(rule, Mapping) or rule.get("is_enabled", True) is False:
            continue
        when = rule.get("when")
        if when is not None and not isinstance(when, str):
            continue
        text = (when or "").strip()
        group = read_cel(text)
        takers = _find_takers(text, group, earlier, joint)
        if takers:
            found.append(Shadowed(place, takers))
        else:
            earlier.append(_Earlier(place, text, group))
    return found


def _find_takers(
    text: str, group: Group | None, earlier: Sequence[_Earlier], joint: _JointSearch
) -> tuple[int, ...]:
    for number, other in enumerate(earlier):
        if text == other.text or (other.group is not None and not other.group.rows):
            return (other.place,)
        is_compared = number * len(earlier) <= MAX_COMPARED
        if is_compared and group is not None and other.group is not None and implies(group, other.group):
            return (other.place,)
    if group is None or not 1 <= len(earlier) <= MAX_JOINT_RULES:
        return ()
    named = [(other.place, other.group) for other in earlier if other.group is not None]
    return tuple(sorted(joint.find(group, named, MAX_SPLITS)))


class _JointSearch:
    """Finds rules that take all of a condition between them, in a bounded number of comparisons."""

    def __init__(self) -> None:
        self.left = MAX_JOINT_COMPARED

    def find(self, group: Group, earlier: Sequence[tuple[int, Group]], splits: int) -> set[int]:
        """The rules among `earlier` that do; none, when there are none or they are not found."""
        own = group.rows if group.join == "and" else (group,)
        for parts in _list_splits(own, [row for _, other in earlier for row in _all_rows(other)]):
            takers: set[int] = set()
            for part in parts:
                narrow = _narrowed(own, part)
                found = self._find_one(narrow, earlier) or (
                    self.find(narrow, earlier, splits - 1) if splits > 1 and self.left > 0 else set()
                )
                if not found:
                    break
                takers |= found
            else:
                if takers:
                    return takers
        return set()

    def _find_one(self, narrow: Group, earlier: Sequence[tuple[int, Group]]) -> set[int]:
        for place, other in earlier:
            self.left -= 1
            if implies(narrow, other):
                return {place}
        return set()


def _list_splits(own: Sequence[Condition], rows: Sequence[Row]) -> Iterator[list[Condition]]:
    """Ways to cut what `own` takes: into the branches of its `or`; by the values of one field of `rows`."""
    branches = next((one for one in own if isinstance(one, Group) and one.join == "or" and one.rows), None)
    if branches is not None and len(branches.rows) <= MAX_PARTS:
        yield list(branches.rows)
    for subject in dict.fromkeys((row.field, row.tag) for row in rows):
        parts = list(_parts([row for row in rows if (row.field, row.tag) == subject]))
        if len(parts) <= MAX_PARTS:
            yield parts


def _narrowed(own: Sequence[Condition], part: Condition) -> Group:
    """What of `own` lies in this part. An `or` that the part is a branch of says nothing more."""
    rest = [one for one in own if not (isinstance(one, Group) and one.join == "or" and part in one.rows)]
    return Group("and", (*rest, *(part.rows if isinstance(part, Group) and part.join == "and" else (part,))))


def _all_rows(group: Group) -> Iterator[Row]:
    for row in group.rows:
        if isinstance(row, Group):
            yield from _all_rows(row)
        else:
            yield row


def _parts(rows: Sequence[Row]) -> Iterator[Condition]:
    """Conditions about one field or tag of which exactly one holds for every request, split where `rows` divide it."""
    field, tag = rows[0].field, rows[0].tag
    if field.kind == "yes/no":
        yield from (Row(field, tag, "is", value) for value in (True, False))
    elif field.kind == "weekday":
        yield from (Row(field, tag, "is", day) for day in range(1, 8))
    elif field.kind == "number":
        yield from _number_parts(rows)
    else:
        values = dict.fromkeys(value for row in rows for value in _named_values(row))
        yield from (Row(field, tag, "is", value) for value in values)
        rest = [Row(field, tag, "is_not", value) for value in values]
        if field.kind == "tag":
            yield Row(field, tag, "has_not", None)
            rest.append(Row(field, tag, "has", None))
        yield Group("and", tuple(rest))


def _named_values(row: Row) -> tuple[str, ...]:
    if row.operator == "is_one_of":
        return tuple(row.value)
    return (row.value,) if row.operator in ("is", "is_not") else ()


def _number_parts(rows: Sequence[Row]) -> Iterator[Condition]:
    field = rows[0].field
    bounds = {bound for row in rows for bound in interval_of(row)[:2] if bound < _HIGHEST}
    points = sorted(bounds | ({bound + 1 for bound in bounds} if not field.is_fraction else set()))
    yield Row(field, "", "lt", points[0])
    for point, following in zip(points, [*points[1:], None], strict=True):
        yield Row(field, "", "eq", point)
        above = Row(field, "", "gt", point)
        yield above if following is None else Group("and", (above, Row(field, "", "lt", following)))


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
        return _covers(interval_of(wide), interval_of(narrow))
    values = values_of(narrow)
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


def values_of(row: Row) -> tuple[Any, ...] | None:
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


class Interval(NamedTuple):
    """Numbers from `low` to `high`; open ends leave the bound itself out."""

    low: float
    high: float
    is_low_open: bool = False
    is_high_open: bool = False


_HIGHEST = float("inf")


def interval_of(row: Row) -> Interval:
    """The numbers with which a row about a number holds."""
    operator, value = row.operator, row.value
    if operator == "between":
        return Interval(*value)
    if operator == "eq":
        return Interval(value, value)
    is_open = operator in ("lt", "gt")
    if is_open and not row.field.is_fraction:
        # Whole numbers: more than 4 is at least 5.
        value, is_open = (value - 1 if operator == "lt" else value + 1), False
    if operator in ("lt", "le"):
        return Interval(0, value, False, is_open)
    return Interval(value, _HIGHEST, is_open, False)


def _covers(wide: Interval, narrow: Interval) -> bool:
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
    bounds = [interval_of(row) for row in narrow.rows if isinstance(row, Row) and row.field is wide.field]
    if len(bounds) < 2:
        return False
    low = max((bound.low, bound.is_low_open) for bound in bounds)
    high = min((bound.high, not bound.is_high_open) for bound in bounds)
    return _covers(interval_of(wide), Interval(low[0], high[0], low[1], not high[1]))
