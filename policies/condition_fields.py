"""What can one row of a condition say? Fields, operators and the form of values.

Pure. A row is `{"field": name, "operator": code, "value": value}`. The field of a tag is `tags.NAME`. Values: a text, a
number, true or false, a list of them for `is_one_of`, two numbers for `between`, nothing for `has` and `has_not`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from policies.autorouter.languages import LANGUAGES
from policies.autorouter.request_types import TYPES
from policies.conditions import ConditionError

Kind = Literal["text", "choice", "weekday", "number", "yes/no", "tag"]

OPERATORS: Mapping[str, str] = {
    "is": "is",
    "is_not": "is not",
    "is_one_of": "is one of",
    "starts_with": "starts with",
    "contains": "contains",
    "matches": "matches (pattern)",
    "lt": "<",
    "le": "≤",
    "eq": "=",
    "ge": "≥",
    "gt": ">",
    "between": "between",
    "has": "is there",
    "has_not": "is not there",
}
_TEXT = ("is", "is_not", "is_one_of", "starts_with", "contains", "matches")
_NUMBER = ("lt", "le", "eq", "ge", "gt", "between")
OPERATORS_BY_KIND: Mapping[Kind, tuple[str, ...]] = {
    "text": _TEXT,
    "choice": ("is", "is_not", "is_one_of"),
    "weekday": ("is", "is_not", "is_one_of", "between"),
    "number": _NUMBER,
    "yes/no": ("is",),
    "tag": ("has", "has_not", "is", "is_not", "is_one_of"),
}
MAX_VALUES = 100
# Whole numbers stay exact in a browser and in CEL's 64 bits.
MAX_NUMBER = 2**53
TAG_PREFIX = "tags."
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")

Choices = tuple[tuple[str | int, str], ...]


class RowError(ConditionError):
    """A row that says nothing that can be compiled. `path` is like `rows[1].rows[0]`, "" for the whole."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


class Field(NamedTuple):
    """What the editor offers. `choices` are all values of a choice, and suggestions for a text."""

    name: str
    label: str
    kind: Kind
    choices: Choices = ()
    is_fraction: bool = False

    @property
    def operators(self) -> tuple[str, ...]:
        """Codes of OPERATORS, as offered."""
        return OPERATORS_BY_KIND[self.kind]


def _same(values: tuple[str, ...]) -> Choices:
    return tuple((value, value.replace("_", " ")) for value in values)


_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
FIELDS: tuple[Field, ...] = (
    Field("requested_model", "Requested model", "text"),
    Field("tenant", "Tenant", "text"),
    Field("project", "Project", "text"),
    Field("key", "API key", "text"),
    Field("app", "App", "text"),
    Field("tags", "Tag", "tag"),
    Field("task", "Task label", "text", _same(TYPES)),
    Field("task_type", "Task type", "text", _same(TYPES)),
    Field("language", "Language", "text", _same(LANGUAGES)),
    Field("workload", "Workload", "text"),
    Field("difficulty", "Difficulty (0 to 1)", "number", is_fraction=True),
    Field("input_tokens", "Input tokens (estimate)", "number"),
    Field("max_output_tokens", "Output limit in tokens", "number"),
    Field("message_count", "Messages", "number"),
    Field("turn", "Turn of the conversation", "number"),
    Field("choice_count", "Choices asked for", "number"),
    Field("has_images", "Has images", "yes/no"),
    Field("has_audio", "Has audio", "yes/no"),
    Field("has_files", "Has files", "yes/no"),
    Field("has_tools", "Has tools", "yes/no"),
    Field("has_schema", "Wants a JSON schema", "yes/no"),
    Field("has_logprobs", "Wants log probabilities", "yes/no"),
    Field("is_tool_forced", "A tool is forced", "yes/no"),
    Field("is_tool_result", "Brings a tool's result", "yes/no"),
    Field("is_stream", "Streamed", "yes/no"),
    Field("endpoint", "Endpoint", "choice", _same(("chat", "completions", "embeddings"))),
    Field("priority", "Priority", "text"),
    Field("quality", "Quality preference", "text"),
    Field("max_latency_ms", "Latency target in ms", "number"),
    Field("hour", "Hour of day (0 to 23)", "number"),
    Field("weekday", "Weekday", "weekday", tuple(enumerate(_WEEKDAYS, start=1))),
    Field("budget_used_ratio", "Used share of the budget (1 = all)", "number", is_fraction=True),
)
FIELD_BY_NAME: Mapping[str, Field] = {field.name: field for field in FIELDS}


class Row(NamedTuple):
    """One checked comparison. `tag` is the tag's name where the field is `tags`; `value` as in the docstring above."""

    field: Field
    tag: str
    operator: str
    value: Any

    def as_json(self) -> dict[str, Any]:
        """The row as the editor holds it."""
        name = f"{TAG_PREFIX}{self.tag}" if self.field.kind == "tag" else self.field.name
        value = list(self.value) if isinstance(self.value, tuple) else self.value
        return {"field": name, "operator": self.operator, "value": value}


def read_row(raw: Mapping[str, Any], path: str = "") -> Row:
    """Check one row. Raises RowError."""
    name, operator, value = raw.get("field"), raw.get("operator"), raw.get("value")
    if not isinstance(name, str):
        raise RowError(path, "a row names a field")
    tag = ""
    if name.startswith(TAG_PREFIX):
        name, tag = "tags", name[len(TAG_PREFIX) :]
    field = FIELD_BY_NAME.get(name)
    if field is None:
        raise RowError(path, f"there is no field named {name!r}")
    if field.kind == "tag" and (not tag or _UNSTORABLE.search(tag)):
        raise RowError(path, "a row about a tag names the tag")
    if not isinstance(operator, str) or operator not in field.operators:
        raise RowError(path, f"{field.label} is compared by one of: {', '.join(field.operators)}")
    return Row(field, tag, operator, _read_value(field, operator, value, path))


def _read_value(field: Field, operator: str, value: Any, path: str) -> Any:
    if operator in ("has", "has_not"):
        return None
    if operator == "is_one_of":
        if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= MAX_VALUES:
            raise RowError(path, f"{field.label} needs one to {MAX_VALUES} values")
        return tuple(dict.fromkeys(_read_one(field, item, path) for item in value))
    if operator == "between":
        if not isinstance(value, (list, tuple)) or len(value) != 2:
            raise RowError(path, f"{field.label} needs two numbers: from and to")
        low, high = _read_one(field, value[0], path), _read_one(field, value[1], path)
        if low > high:
            raise RowError(path, f"{field.label}: {low} is more than {high}")
        return (low, high)
    return _read_one(field, value, path)


def _read_one(field: Field, value: Any, path: str) -> Any:
    if field.kind == "yes/no":
        if not isinstance(value, bool):
            raise RowError(path, f"{field.label} is yes or no")
        return value
    if field.kind == "number":
        return _read_number(field, value, path)
    if field.kind == "weekday":
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 7:
            raise RowError(path, "a weekday is a number from 1 (Monday) to 7")
        return value
    if not isinstance(value, str):
        raise RowError(path, f"{field.label} needs a text")
    if _UNSTORABLE.search(value):
        raise RowError(path, f"{field.label} holds a NUL character or a lone surrogate")
    if field.kind == "choice" and value not in [choice for choice, _ in field.choices]:
        raise RowError(
            path, f"{field.label} is one of: {', '.join(str(choice) for choice, _ in field.choices)}"
        )
    return value


def _read_number(field: Field, value: Any, path: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX_NUMBER:
        raise RowError(path, f"{field.label} needs a number that is not negative")
    if field.is_fraction:
        return float(value)
    if value != int(value):
        raise RowError(path, f"{field.label} needs a whole number")
    return int(value)
