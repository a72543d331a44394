"""Does a JSON value fit a schema that a caller sent? Only as far as that can be told safely and soon.

Pure, but for the clock of the thread. A caller writes the schema, and a model whatever the caller asks it to, so both
may be made to take hours: what is not told within MAX_CPU_S is taken at its word. Parts that are not looked at (regular
expressions, references to elsewhere) must not turn an answer that fits into one that does not: with any of them,
what denies or counts (`not`, `oneOf`, …) is not looked at either.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import orjson

MAX_SCHEMA_BYTES = 32 * 1024
# The checker indexes all parts of a schema before its first step, at about 0.2 ms each.
MAX_SCHEMA_PARTS = 1000
# For a schema when it is first seen, and again for each value.
MAX_CPU_S = 0.2
# Values that cannot be sorted are compared each with each, in one step that nothing interrupts.
MAX_UNIQUE_ITEMS = 200
# A caller's regular expressions, and what follows references by itself, past the clock.
_UNCHECKED = frozenset(
    {"pattern", "patternProperties", "unevaluatedItems", "unevaluatedProperties", "$dynamicRef"}
)
# With less to fit, more fits: what these keywords make of that is that less does.
_DENYING = frozenset({"not", "if", "then", "else", "oneOf", "maxContains"})
# What stands in these is no schema.
_VALUES = frozenset({"const", "enum", "default", "examples"})
# Under these every name is a name, also one that is called like a keyword.
_NAMED = frozenset({"properties", "$defs", "definitions", "dependentSchemas", "dependentRequired"})


class _TookTooLong(Exception):
    """The value is not known to fit, nor not to."""


class _Clock(threading.local):
    until_s = 0.0


_clock = _Clock()


def fits_schema(value: Any, schema: dict[str, Any]) -> bool:
    """Say whether a value fits; True also where that cannot be told, or the schema is none."""
    text = orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)
    if len(text) > MAX_SCHEMA_BYTES or text.count(b"{") > MAX_SCHEMA_PARTS:
        return True
    validator = _validator(text)
    return validator is None or _is_valid(validator, value)


def _is_valid(validator: Any, value: Any) -> bool:
    _clock.until_s = time.thread_time() + MAX_CPU_S
    try:
        return bool(validator.is_valid(value))
    except Exception:  # noqa: BLE001  (whatever a caller's schema provokes is the schema's fault, not the answer's)
        return True


@lru_cache(maxsize=128)
def _validator(text: bytes) -> Any:
    """A checker for one schema, None for a schema that is none."""
    checker = _checker()
    schema = _cut(orjson.loads(text), _UNCHECKED)
    if text != orjson.dumps(schema, option=orjson.OPT_SORT_KEYS):
        schema = _cut(_without_additional(orjson.loads(text)), _UNCHECKED | _DENYING)
    return checker(schema) if _is_valid(checker(checker.META_SCHEMA), schema) else None


@lru_cache(maxsize=1)
def _checker() -> Any:
    """The class of checkers, whose every step looks at the clock."""
    # Imported when the first schema comes: most workers never need it, and it takes 30 ms.
    from jsonschema import Draft202012Validator, validators

    extend: Callable[..., Any] = validators.extend  # it has no types
    keywords = {name: _timed(check) for name, check in Draft202012Validator.VALIDATORS.items()}
    keywords["uniqueItems"] = _if_short(keywords["uniqueItems"])
    return extend(Draft202012Validator, keywords)


def _timed(check: Callable[..., Any]) -> Callable[..., Any]:
    def timed(validator: Any, keyword: Any, value: Any, schema: Any) -> Any:
        if time.thread_time() > _clock.until_s:
            raise _TookTooLong
        return check(validator, keyword, value, schema)

    return timed


def _if_short(check: Callable[..., Any]) -> Callable[..., Any]:
    def checked(validator: Any, keyword: Any, value: Any, schema: Any) -> Any:
        if isinstance(value, list) and len(value) > MAX_UNIQUE_ITEMS:
            raise _TookTooLong
        return check(validator, keyword, value, schema)

    return checked


def _cut(schema: Any, keywords: frozenset[str]) -> Any:
    """The schema without these keywords, and without references out of it."""
    if isinstance(schema, list):
        return [_cut(part, keywords) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept: dict[str, Any] = {}
    for name, part in schema.items():
        if name in keywords or (name == "$ref" and not str(part).startswith("#")):
            continue
        if name in _VALUES:
            kept[name] = part
        elif name in _NAMED and isinstance(part, dict):
            kept[name] = {key: _cut(entry, keywords) for key, entry in part.items()}
        else:
            kept[name] = _cut(part, keywords)
    return kept


def _without_additional(schema: Any) -> Any:
    """Without `additionalProperties` where patterns would have named what is not additional."""
    if isinstance(schema, list):
        return [_without_additional(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    is_open = isinstance(schema.get("patternProperties"), dict)
    return {
        name: _without_additional(part)
        for name, part in schema.items()
        if not (is_open and name == "additionalProperties")
    }
