"""Structured output of the simulated provider must fit the schema: checked by pydantic, which made the schema."""

from __future__ import annotations

import datetime as dt
import json
import time
import uuid
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any, Literal, Optional, Union

import pytest
from annotated_types import Ge, Gt, Le, Len, Lt, MultipleOf
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AnyUrl, BaseModel, TypeAdapter, create_model

from gateway.dataplane.simulated_schema import MAX_NODES, build_instance

KEYWORDS = (
    *("type", "enum", "const", "required", "properties", "items", "prefixItems", "anyOf", "allOf", "$ref"),
    *("minimum", "maximum", "multipleOf", "minItems", "uniqueItems", "minLength", "maxLength", "format"),
    *("minProperties", "additionalProperties"),
)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Node(BaseModel):
    """Refers to itself."""

    name: str
    children: list[Node]
    next: Node | None = None


@st.composite
def numbers(draw: st.DrawFn) -> Any:
    low = draw(st.integers(-1000, 1000))
    width = draw(st.integers(2, 50))
    kind = draw(st.sampled_from([int, float]))
    return draw(
        st.sampled_from(
            [
                Annotated[kind, Ge(low), Le(low + width)],
                Annotated[kind, Gt(low), Lt(low + width)],
                Annotated[kind, Ge(low)],
                Annotated[kind, Lt(low)],
                Annotated[kind, Gt(low), MultipleOf(7)],
            ]
        )
    )


@st.composite
def texts(draw: st.DrawFn) -> Any:
    fewest = draw(st.integers(0, 60))
    return Annotated[str, Len(fewest, fewest + draw(st.integers(0, 5)))]


leaves = st.one_of(
    st.sampled_from(
        [
            str,
            int,
            float,
            bool,
            None,
            Any,
            Colour,
            Node,
            dt.datetime,
            dt.date,
            dt.time,
            dt.timedelta,
            uuid.UUID,
            AnyUrl,
            IPv4Address,
            IPv6Address,
            Literal["a", "b"],
            Literal[3],
        ]
    ),
    numbers(),
    texts(),
)


def compound(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    counts = st.integers(0, 3)
    return st.one_of(
        st.builds(lambda t, n: Annotated[list[t], Len(n)], inner, counts),
        st.builds(lambda t: dict[str, t], inner),
        st.builds(lambda t: Optional[t], inner),  # noqa: UP045  (`t` may be None itself)
        st.builds(lambda a, b: Union[a, b], inner, inner),  # noqa: UP007
        st.builds(lambda a, b: tuple[a, b], inner, inner),
        st.builds(lambda a, b: create_model("Made", a=(a, ...), b=(b, ...)), inner, inner),
    )


@settings(max_examples=150, deadline=None)
@given(st.recursive(leaves, compound, max_leaves=6))
def test_the_instance_is_valid_for_every_schema_that_pydantic_writes(kind: Any) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    instance = build_instance(adapter.json_schema())
    adapter.validate_json(json.dumps(instance))


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, "simulated"),
        ({"type": ["integer", "null"]}, 0),
        ({"type": "number", "minimum": 0.1, "multipleOf": 0.1}, 0.1),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.2}, 0.1),
        ({"enum": ["x", "y"]}, "x"),
        ({"const": None}, None),
        ({"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 2, "uniqueItems": True}, [1, 2]),
        ({"type": "array", "items": {"type": "string"}, "minItems": 2}, ["simulated", "simulated"]),
        (
            {
                "type": "array",
                "items": {"type": "string", "maxLength": 3},
                "minItems": 2,
                "uniqueItems": True,
            },
            ["sim", "1-s"],
        ),
        ({"properties": {"a": {"type": "boolean"}, "b": {}}, "required": ["a"]}, {"a": False}),
        ({"type": "object", "minProperties": 1, "additionalProperties": {"const": 1}}, {"simulated_1": 1}),
        (
            {
                "allOf": [
                    {"$ref": "#/definitions/a"},
                    {"properties": {"y": {"const": 2}}, "required": ["y"]},
                ],
                "definitions": {"a": {"properties": {"x": {"const": 1}}, "required": ["x"]}},
            },
            {"x": 1, "y": 2},
        ),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}], "minimum": 4}, 4),
        ({}, "simulated"),
        (True, "simulated"),
        (7, None),
    ],
)
def test_the_instance_is_the_smallest_plain_value(schema: Any, expected: Any) -> None:
    assert build_instance(schema) == expected


def test_the_instance_of_a_self_reference_ends() -> None:
    endless = {"$ref": "#"}
    assert build_instance(endless) is None
    needs_itself = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
    assert "a" in build_instance(needs_itself)


def test_a_hostile_schema_is_bounded_in_time_and_size() -> None:
    bomb = {
        "type": "array",
        "minItems": 10**9,
        "items": {"type": "array", "minItems": 10**9, "items": {"type": "string", "minLength": 10**12}},
    }
    many = {f"p{i}": {"$ref": "#"} for i in range(50)}
    wide = {"type": "object", "properties": many, "required": list(many)}
    begun_s = time.monotonic()
    built = build_instance(bomb)
    build_instance(wide)
    build_instance({"type": "number", "minimum": 1e308, "multipleOf": 5e-324})
    assert time.monotonic() - begun_s < 2.0
    assert sum(len(row) for row in built if row) <= MAX_NODES


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(KEYWORDS),
                inner | st.sampled_from(["object", "array", "integer", "number", "string", "#", "#/anyOf/0"]),
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_nonsense_instead_of_a_schema_never_raises(schema: Any) -> None:
    build_instance(schema)


def test_decimals_of_bounds_are_meant_as_written() -> None:
    value = build_instance({"type": "number", "minimum": 0.3, "maximum": 0.3})
    assert Decimal(str(value)) == Decimal("0.3")
