"""Does a JSON value fit a schema that a caller sent, and how long may a caller make that take?"""

from __future__ import annotations

import time
from typing import Any

import pytest

from gateway.wire.schema_check import MAX_CPU_S, MAX_SCHEMA_PARTS, fits_schema

X_NAMES = {"^x-": {"type": "string"}}


@pytest.mark.parametrize(
    ("value", "schema", "fits"),
    [
        ({"a": 1}, {"required": ["a"]}, True),
        ({}, {"required": ["a"]}, False),
        (5, {"oneOf": [{"type": "string"}, {"type": "null"}]}, False),
        (5, {"not": {"type": "integer"}}, False),
        ([1, 1], {"uniqueItems": True}, False),
        ({"pattern": 1}, {"const": {"pattern": 1}}, True),
        ({"pattern": 2}, {"const": {"pattern": 1}}, False),
        # What is not looked at must not make an answer wrong that is right.
        ("b", {"not": {"pattern": "^a"}}, True),
        ("a", {"oneOf": [{"pattern": "^a"}, {"pattern": "^b"}]}, True),
        (5, {"if": {"patternProperties": X_NAMES}, "then": {"type": "string"}}, True),
        ({"x-a": "1"}, {"patternProperties": X_NAMES, "additionalProperties": False}, True),
        (5, {"$defs": {"a": {"pattern": "^a"}}, "oneOf": [{"$ref": "#/$defs/a"}, {"type": "integer"}]}, True),
        (5, {"type": "string", "not": {"pattern": "^a"}}, False),
        # A schema that is none, or leads nowhere.
        (5, {"type": 7}, True),
        (5, {"$id": "http://[::1", "$ref": "#/$defs/b", "$defs": {"a": {"type": "string"}}}, True),
        (5, {"$dynamicRef": "#nowhere"}, True),
    ],
)
def test_only_what_is_seen_to_be_wrong_is_wrong(value: Any, schema: dict[str, Any], fits: bool) -> None:
    assert fits_schema(value, schema) is fits


def branching(levels: int, width: int, keyword: str = "$ref") -> dict[str, Any]:
    """A schema that asks the same thing width ** levels times."""
    place = "#/$defs/{}" if keyword == "$ref" else "#{}"
    parts = {
        f"l{level}": {
            "$dynamicAnchor": f"l{level}",
            "allOf": [{keyword: place.format(f"l{level + 1}")}] * width,
        }
        for level in range(levels)
    }
    last = {f"l{levels}": {"$dynamicAnchor": f"l{levels}", "type": "integer"}}
    return {"$defs": parts | last, "items": {keyword: place.format("l0")}}


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        ([0] * 100, branching(12, 3)),
        ([0] * 100, branching(20, 2, "$dynamicRef")),
        ([number if number % 2 else str(number) for number in range(20_000)], {"uniqueItems": True}),
        ([{"a": -1}] * 10_000, {"items": {"enum": [{"a": number} for number in range(2_000)]}}),
        (["x" * 200_000], {"items": {"anyOf": [{"const": number} for number in range(2_000)]}}),
        (5, {"not": {"anyOf": [{}] * (MAX_SCHEMA_PARTS - 3)}}),
    ],
    ids=["references", "dynamic references", "unique", "enum", "long values", "large schema"],
)
def test_no_caller_makes_it_take_long(value: Any, schema: dict[str, Any]) -> None:
    began_s = time.thread_time()
    fits_schema(value, schema)
    # The index of a schema and one long step come on top; without the clock each takes from seconds to hours.
    assert time.thread_time() - began_s < 2 * MAX_CPU_S + 1.0
