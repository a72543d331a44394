"""Which conditions does no request meet, so that their rule never serves?

Pure. Sound and not complete: what it names never holds; a condition that it does not name may still never hold. What
rests on time and yes/no facts alone is tried out whole; the rest is compared as rows (`policies.condition_rows`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice, product
from math import prod
from typing import Any, Final

from policies.condition_fields import Row
from policies.condition_rows import Group, read_cel
from policies.conditions import RUN_TIME_ERRORS, ConditionError, compile_condition, prepare
from policies.features import Features
from policies.reachability import interval_of, takes, values_of

# An hour, a weekday and two yes/no facts; each try takes some microseconds.
MAX_TRIED: Final = 7 * 24 * 4
# Alternatives of one condition: each `or` inside an `and` multiplies them.
MAX_ALTERNATIVES: Final = 64
MAX_KEPT: Final = 1024
# No request is outside these.
LARGEST: Final[Mapping[str, float]] = {"hour": 23, "difficulty": 1}
_WHOLE: Final[Mapping[str, Sequence[Any]]] = {
    "hour": tuple(range(24)),
    "weekday": tuple(range(1, 8)),
    **{name: (False, True) for name, value in Features()._asdict().items() if isinstance(value, bool)},
}


@lru_cache(maxsize=MAX_KEPT)
def is_impossible(text: str) -> bool:
    """Say whether a condition certainly holds for no request. One that does not compile is none of this."""
    if not text.strip():
        return False
    try:
        condition = compile_condition(text.strip())
    except ConditionError:
        return False
    names = sorted(condition.feature_names)
    if all(name in _WHOLE for name in names) and prod(len(_WHOLE[name]) for name in names) <= MAX_TRIED:
        return not any(
            _holds(
                condition.program, Features(**dict(zip(names, values, strict=True))), condition.feature_names
            )
            for values in product(*(_WHOLE[name] for name in names))
        )
    group = read_cel(text)
    if group is None:
        return False
    alternatives = list(islice(_alternatives(group), MAX_ALTERNATIVES + 1))
    return len(alternatives) <= MAX_ALTERNATIVES and all(_contradicts_itself(rows) for rows in alternatives)


def _holds(program: Any, features: Features, names: frozenset[str]) -> bool:
    try:
        return program(prepare(features, names)) is True
    except RUN_TIME_ERRORS:
        return False


def _alternatives(condition: Group | Row) -> Iterator[tuple[Row, ...]]:
    """The rows that hold together, in each of the ways in which a condition can hold."""
    if isinstance(condition, Row):
        yield (condition,)
    elif condition.join == "or" and condition.rows:
        for row in condition.rows:
            yield from _alternatives(row)
    else:
        yield from _joined(condition.rows)


def _joined(rows: Sequence[Group | Row]) -> Iterator[tuple[Row, ...]]:
    if not rows:
        yield ()
        return
    for first in _alternatives(rows[0]):
        for others in _joined(rows[1:]):
            yield (*first, *others)


def _contradicts_itself(rows: Sequence[Row]) -> bool:
    subjects = {(row.field, row.tag) for row in rows}
    return any(_contradict([row for row in rows if (row.field, row.tag) == subject]) for subject in subjects)


def _contradict(rows: Sequence[Row]) -> bool:
    """Whether rows about one field or tag never hold together."""
    field = rows[0].field
    if field.kind == "number":
        bounds = [interval_of(row) for row in rows]
        low, is_low_open = max((bound.low, bound.is_low_open) for bound in bounds)
        high, is_high_closed = min((bound.high, not bound.is_high_open) for bound in bounds)
        if (largest := LARGEST.get(field.name, high)) < high:
            high, is_high_closed = largest, True
        return low > high or (low == high and (is_low_open or not is_high_closed))
    operators = {row.operator for row in rows}
    if "has_not" in operators:
        return operators != {"has_not"}
    # Of a pattern only CEL knows what it takes, and "is there" takes every value.
    telling = [row for row in rows if row.operator not in ("matches", "has")]
    counted = next((values for row in telling if (values := values_of(row)) is not None), None)
    return counted is not None and not any(all(takes(row, value) for row in telling) for value in counted)
