"""How do rows of (field, operator, value) become CEL, and which CEL can be shown as rows?

Pure. A group is `{"join": "and" | "or", "rows": [row | group, ...]}`, rows as in `policies.condition_fields`. No rows:
always. The two ways fit together: the text of a group reads back as the same group, but for groups of one, which
become what they hold. A row about a tag that a request lacks does not hold, but for `has_not`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from policies.condition_fields import (
    FIELD_BY_NAME,
    FIELDS,
    OPERATORS,
    OPERATORS_BY_KIND,
    TAG_PREFIX,
    Field,
    Row,
    RowError,
    read_row,
)

__all__ = [
    "FIELDS", "FIELD_BY_NAME", "MAX_DEPTH", "OPERATORS", "OPERATORS_BY_KIND", "Field", "Group", "Row", "RowError",
    "cel_to_rows", "group_to_cel", "read_cel", "read_group", "row_to_cel", "rows_to_cel",
]  # fmt: skip

MAX_DEPTH = 5
MAX_ROWS = 200
MAX_KEPT = 1024
Join = Literal["and", "or"]


class Group(NamedTuple):
    """Checked rows, joined. Without rows it holds always."""

    join: Join
    rows: tuple[Row | Group, ...]

    def as_json(self) -> dict[str, Any]:
        """The group as the editor holds it."""
        return {"join": self.join, "rows": [row.as_json() for row in self.rows]}


def rows_to_cel(group: Mapping[str, Any]) -> str:
    """Write a group as CEL, "" without rows. Raises RowError."""
    return group_to_cel(read_group(group))


def cel_to_rows(text: str) -> dict[str, Any] | None:
    """Read CEL as a group; None when rows cannot say it. The text may be anything."""
    group = read_cel(text)
    return None if group is None else group.as_json()


def read_group(raw: object, path: str = "", *, depth: int = 1) -> Group:
    """Check a group, and take what is needless out of it: groups of one and of none. Raises RowError."""
    if not isinstance(raw, Mapping) or not isinstance(raw.get("rows"), list):
        raise RowError(path, "a group holds rows")
    join = raw.get("join", "and")
    if join not in ("and", "or"):
        raise RowError(path, "rows are joined by and, or by or")
    if depth > MAX_DEPTH:
        raise RowError(path, f"groups are nested at most {MAX_DEPTH} deep")
    if len(raw["rows"]) > MAX_ROWS:
        raise RowError(path, f"a group has at most {MAX_ROWS} rows")
    rows: list[Row | Group] = []
    for index, item in enumerate(raw["rows"]):
        place = f"{path}.rows[{index}]" if path else f"rows[{index}]"
        if not isinstance(item, Mapping):
            raise RowError(place, "a row is an object")
        if "rows" not in item:
            rows.append(read_row(item, place))
            continue
        inner = read_group(item, place, depth=depth + 1)
        if inner.rows:
            rows.append(inner if len(inner.rows) > 1 else inner.rows[0])
    return _plain(Group(join, tuple(rows)))


def _plain(group: Group) -> Group:
    if len(group.rows) != 1:
        return group if group.rows else Group("and", ())
    only = group.rows[0]
    return only if isinstance(only, Group) else Group("and", (only,))


def group_to_cel(group: Group) -> str:
    """Write a checked group."""
    if len(group.rows) == 1:
        return _write(group.rows[0])
    sign = " && " if group.join == "and" else " || "
    return sign.join(
        f"({_write(row)})" if isinstance(row, Group) or row.operator == "between" else _write(row)
        for row in group.rows
    )


def _write(row: Row | Group) -> str:
    return group_to_cel(row) if isinstance(row, Group) else row_to_cel(row)


_SIGNS = {"is": "==", "is_not": "!=", "eq": "==", "lt": "<", "le": "<=", "ge": ">=", "gt": ">"}
_METHODS = {"starts_with": "startsWith", "contains": "contains", "matches": "matches"}


def row_to_cel(row: Row) -> str:
    """Write one row."""
    field, tag, operator, value = row
    if operator == "has":
        return f"{_literal(tag)} in tags"
    if operator == "has_not":
        return f"!({_literal(tag)} in tags)"
    name = f"tags[{_literal(tag)}]" if field.kind == "tag" else field.name
    if field.kind == "yes/no":
        return name if value else f"!{name}"
    if operator == "is_one_of":
        return f"{name} in [{', '.join(_literal(item) for item in value)}]"
    if operator == "between":
        # The number first: so it reads back as one row, and not as two.
        return f"{_literal(value[0])} <= {name} && {name} <= {_literal(value[1])}"
    if operator in _METHODS:
        return f"{name}.{_METHODS[operator]}({_literal(value)})"
    return f"{name} {_SIGNS[operator]} {_literal(value)}"


def _literal(value: str | int | float) -> str:
    if isinstance(value, str):
        # JSON's escapes are among CEL's, but for DEL, which needs none.
        return json.dumps(value, ensure_ascii=False)
    return repr(value)


class _NotRows(Exception):
    """CEL that rows cannot say."""


_TOKEN = re.compile(
    r"""\s*(?:(?P<name>[A-Za-z_]\w*)
    |(?P<number>\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?![\w.])
    |(?P<text>"(?!"")(?:[^"\\\n]|\\.)*"|'(?!'')(?:[^'\\\n]|\\.)*')
    |(?P<sign>&&|\|\||==|!=|<=|>=|[<>!()\[\].,]))""",
    re.VERBOSE,
)
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_OPERATOR_BY_METHOD = {method: operator for operator, method in _METHODS.items()}
_NUMBER_OPERATORS = {"==": "eq", "<": "lt", "<=": "le", ">=": "ge", ">": "gt"}
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "a": "\a", "v": "\v"}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|x[0-9a-fA-F]{2}|[^uUxX0-9])|(\\)")


@lru_cache(maxsize=MAX_KEPT)
def read_cel(text: str) -> Group | None:
    """Read CEL as checked rows; None when rows cannot say it. Kept, since the same conditions come again and again."""
    text = text.strip()
    if text in ("", "true"):
        return Group("and", ())
    try:
        reader = _Reader(_tokens(text))
        found = reader.either(0)
        if reader.position != len(reader.tokens):
            return None
        return read_group(found if "rows" in found else {"join": "and", "rows": [found]})
    except (_NotRows, RowError):
        return None


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    position, end = 0, len(text)
    while position < end:
        found = _TOKEN.match(text, position)
        if found is None or found.lastgroup is None:
            raise _NotRows
        tokens.append((found.lastgroup, found[found.lastgroup]))
        position = found.end()
    return tokens


class _Value(NamedTuple):
    """One side of a comparison: a feature (with the tag's name), or a literal."""

    name: str = ""
    literal: Any = None


class _Reader:
    """A recursive descent over the part of CEL that rows can say."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self.tokens = tokens
        self.position = 0

    def _peek(self) -> tuple[str, str]:
        return self.tokens[self.position] if self.position < len(self.tokens) else ("end", "")

    def _take(self, sign: str) -> bool:
        if self._peek() in (("sign", sign), ("name", sign)):
            self.position += 1
            return True
        return False

    def _need(self, sign: str) -> None:
        if not self._take(sign):
            raise _NotRows

    def either(self, depth: int) -> dict[str, Any]:
        return self._joined("or", "||", depth)

    def _both(self, depth: int) -> dict[str, Any]:
        return self._joined("and", "&&", depth)

    def _joined(self, join: Join, sign: str, depth: int) -> dict[str, Any]:
        if depth > MAX_DEPTH:
            raise _NotRows
        rows = [self._both(depth) if join == "or" else self._one(depth)]
        while self._take(sign):
            rows.append(self._both(depth) if join == "or" else self._one(depth))
        return rows[0] if len(rows) == 1 else {"join": join, "rows": rows}

    def _one(self, depth: int) -> dict[str, Any]:
        if self._take("!"):
            return self._denied(depth)
        if self._take("("):
            inner = self.either(depth + 1)
            self._need(")")
            return inner
        return self._comparison()

    def _denied(self, depth: int) -> dict[str, Any]:
        """Only a yes/no and the presence of a tag can be denied in a row."""
        if self._take("("):
            inner = self.either(depth + 1)
            self._need(")")
        else:
            inner = self._comparison(is_bare=True)
        if inner.get("operator") == "has":
            return {**inner, "operator": "has_not"}
        if isinstance(inner.get("value"), bool):
            return {**inner, "value": not inner["value"]}
        raise _NotRows

    def _comparison(self, *, is_bare: bool = False) -> dict[str, Any]:
        if self._take("has"):
            self._need("(")
            name = self._value().name
            self._need(")")
            if not name.startswith(TAG_PREFIX):
                raise _NotRows
            return {"field": name, "operator": "has", "value": None}
        left = self._value()
        if left.name and self._take("."):
            return self._method(left.name)
        if is_bare or self._peek()[1] not in ("==", "!=", "<", "<=", ">", ">=", "in"):
            return _yes_no(left)
        sign = self._peek()[1]
        self.position += 1
        if sign == "in":
            return self._membership(left)
        right = self._value()
        if left.name and not right.name:
            return _compared(left.name, sign, right.literal)
        if right.name and not left.name:
            if sign == "<=" and (between := self._rest_of_between(left.literal, right.name)):
                return between
            return _compared(right.name, _FLIPPED[sign], left.literal)
        raise _NotRows

    def _rest_of_between(self, low: Any, name: str) -> dict[str, Any] | None:
        """`low <= name` was read: with `&& name <= high` behind it, both are one row."""
        start = self.position
        try:
            if self._take("&&") and self._value().name == name and self._take("<="):
                high = self._value()
                # Not a row of its own when the numbers are the wrong way round: two rows can still say it.
                if not high.name and _is_number(low) and _is_number(high.literal) and low <= high.literal:
                    return {"field": name, "operator": "between", "value": [low, high.literal]}
        except _NotRows:
            pass
        self.position = start
        return None

    def _membership(self, left: _Value) -> dict[str, Any]:
        if not left.name:
            self._need("tags")
            if not isinstance(left.literal, str):
                raise _NotRows
            return {"field": TAG_PREFIX + left.literal, "operator": "has", "value": None}
        self._need("[")
        values = [self._literal()]
        while self._take(","):
            values.append(self._literal())
        self._need("]")
        return {"field": left.name, "operator": "is_one_of", "value": values}

    def _method(self, name: str) -> dict[str, Any]:
        kind, method = self._peek()
        operator = _OPERATOR_BY_METHOD.get(method)
        if kind != "name" or operator is None:
            raise _NotRows
        self.position += 1
        self._need("(")
        value = self._literal()
        self._need(")")
        return {"field": name, "operator": operator, "value": value}

    def _value(self) -> _Value:
        kind, text = self._peek()
        if kind != "name" or text in ("true", "false"):
            return _Value(literal=self._literal())
        self.position += 1
        if text != "tags":
            if text not in FIELD_BY_NAME:
                raise _NotRows
            return _Value(name=text)
        if self._take("["):
            tag = self._literal()
            self._need("]")
        else:
            self._need(".")
            kind, tag = self._peek()
            if kind != "name":
                raise _NotRows
            self.position += 1
        if not isinstance(tag, str):
            raise _NotRows
        return _Value(name=TAG_PREFIX + tag)

    def _literal(self) -> Any:
        kind, text = self._peek()
        self.position += 1
        if kind == "number":
            return int(text) if text.isdecimal() else float(text)
        if kind == "text":
            return _unquoted(text)
        if kind == "name" and text in ("true", "false"):
            return text == "true"
        raise _NotRows


def _compared(name: str, sign: str, literal: Any) -> dict[str, Any]:
    field = FIELD_BY_NAME.get(name)
    if field is not None and field.kind == "number":
        if sign not in _NUMBER_OPERATORS:
            raise _NotRows
        return {"field": name, "operator": _NUMBER_OPERATORS[sign], "value": literal}
    if sign not in ("==", "!="):
        raise _NotRows
    if isinstance(literal, bool):
        return {"field": name, "operator": "is", "value": literal if sign == "==" else not literal}
    return {"field": name, "operator": "is" if sign == "==" else "is_not", "value": literal}


def _yes_no(value: _Value) -> dict[str, Any]:
    field = FIELD_BY_NAME.get(value.name)
    if field is None or field.kind != "yes/no":
        raise _NotRows
    return {"field": value.name, "operator": "is", "value": True}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _unquoted(text: str) -> str:
    def replace(found: re.Match[str]) -> str:
        code = found[1]
        if code is None:
            raise _NotRows
        if code[0] in "uUx":
            return chr(int(code[1:], 16))
        if code in _ESCAPES:
            return _ESCAPES[code]
        if code in "\\\"'`?/":
            return code
        raise _NotRows

    try:
        return _ESCAPE.sub(replace, text[1:-1])
    except ValueError:
        raise _NotRows from None
