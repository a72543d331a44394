"""What is the smallest value that a JSON schema accepts?

Pure. Knows what structured output and tool parameters use: types, enum, const, required, nested objects, arrays,
anyOf/oneOf (the first), allOf (merged), $ref, formats, and bounds of numbers and lengths. Not `pattern`, `not`, `if`.
Bounded in depth and size: a hostile schema gets a value that may not fit it, never a long computation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

TEXT = "simulated"
MAX_DEPTH = 32
MAX_NODES = 2_000
MAX_ITEMS = 200
MAX_TEXT_CHARACTERS = 10_000
MAX_MAGNITUDE = 10**18

FORMATS = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "duration": "PT1S",
    "email": "simulated@example.com",
    "idn-email": "simulated@example.com",
    "hostname": "simulated.example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "uri": "https://example.com/simulated",
    "uri-reference": "/simulated",
    "iri": "https://example.com/simulated",
    "json-pointer": "/simulated",
    "regex": "simulated",
    "byte": "c2ltdWxhdGVk",
}

Schema = Mapping[str, Any]


def build_instance(schema: object) -> Any:
    """Return a small value that fits the schema; `None` for what is no schema."""
    return _Maker(schema).make(schema, depth=0, variant=0)


class _Maker:
    """One schema document while a value is made from it. `variant` numbers the items of an array of unique items."""

    def __init__(self, root: object) -> None:
        self._root = root
        self._nodes_left = MAX_NODES

    def make(self, schema: object, *, depth: int, variant: int) -> Any:
        self._nodes_left -= 1
        if schema is True:
            return TEXT
        if not isinstance(schema, Mapping) or depth > MAX_DEPTH or self._nodes_left < 0:
            return None
        if isinstance(schema.get("$ref"), str):
            target = self._find(schema["$ref"])
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            merged = {**target, **rest} if isinstance(target, Mapping) else rest
            return self.make(merged, depth=depth + 1, variant=variant)
        if "const" in schema:
            return schema["const"]
        if isinstance(schema.get("enum"), list) and schema["enum"]:
            return schema["enum"][variant % len(schema["enum"])]
        if isinstance(schema.get("allOf"), list):
            return self.make(self._merge_all(schema, depth), depth=depth + 1, variant=variant)
        for name in ("anyOf", "oneOf"):
            if isinstance(schema.get(name), list) and schema[name]:
                return self._first_of(schema, name, depth=depth, variant=variant)
        return self._of_type(schema, depth=depth, variant=variant)

    def _of_type(self, schema: Schema, *, depth: int, variant: int) -> Any:
        kind = _type_of(schema)
        if kind == "object":
            return self._object(schema, depth=depth, variant=variant)
        if kind == "array":
            return self._array(schema, depth=depth)
        if kind in ("integer", "number"):
            return _number(schema, is_integer=kind == "integer", variant=variant)
        if kind == "boolean":
            return bool(variant % 2)
        return None if kind == "null" else _text(schema, variant=variant)

    def _object(self, schema: Schema, *, depth: int, variant: int) -> dict[str, Any]:
        properties = schema.get("properties")
        known: Schema = properties if isinstance(properties, Mapping) else {}
        required = schema.get("required")
        names = [n for n in required if isinstance(n, str)] if isinstance(required, list) else []
        fewest = min(_count(schema, "minProperties"), MAX_ITEMS)
        names += [n for n in known if n not in names][: max(0, fewest - len(names))]
        extra = schema.get("additionalProperties", True)
        names += [f"{TEXT}_{number}" for number in range(1, fewest - len(names) + 1)]
        return {
            name: self.make(known.get(name, extra), depth=depth + 1, variant=variant)
            for name in names[:MAX_NODES]
        }

    def _array(self, schema: Schema, *, depth: int) -> list[Any]:
        count = min(_count(schema, "minItems"), MAX_ITEMS)
        prefix = schema.get("prefixItems")
        first = prefix if isinstance(prefix, list) else []
        rest = schema.get("items", True)
        is_unique = schema.get("uniqueItems") is True
        return [
            self.make(first[i] if i < len(first) else rest, depth=depth + 1, variant=i if is_unique else 0)
            for i in range(count)
        ]

    def _first_of(self, schema: Schema, name: str, *, depth: int, variant: int) -> Any:
        rest = {key: value for key, value in schema.items() if key != name}
        branches = schema[name]
        branch = branches[variant % len(branches)] if variant else branches[0]
        merged = _merge(rest, branch) if isinstance(branch, Mapping) else rest
        return self.make(merged, depth=depth + 1, variant=variant // len(branches))

    def _merge_all(self, schema: Schema, depth: int) -> dict[str, Any]:
        merged = {key: value for key, value in schema.items() if key != "allOf"}
        for part in schema["allOf"]:
            for _ in range(MAX_DEPTH - depth):
                if not (isinstance(part, Mapping) and isinstance(part.get("$ref"), str)):
                    break
                part = self._find(part["$ref"])
            if isinstance(part, Mapping):
                merged = _merge(merged, part)
        return merged

    def _find(self, reference: str) -> object:
        """Follow a reference inside the document: `#`, `#/$defs/Name`. Others are not followed."""
        if not reference.startswith("#"):
            return None
        found: Any = self._root
        for step in reference[1:].split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            elif isinstance(found, Mapping):
                found = found.get(name)
            else:
                return None
        return found


def _merge(one: Schema, other: Schema) -> dict[str, Any]:
    """Both schemas at once, as far as objects need it."""
    merged = {**one, **other}
    for name in ("properties", "$defs"):
        if isinstance(one.get(name), Mapping) and isinstance(other.get(name), Mapping):
            merged[name] = {**one[name], **other[name]}
    if isinstance(one.get("required"), list) and isinstance(other.get("required"), list):
        merged["required"] = [
            *one["required"],
            *(name for name in other["required"] if name not in one["required"]),
        ]
    if isinstance(one.get("allOf"), list) and isinstance(other.get("allOf"), list):
        merged["allOf"] = [*one["allOf"], *other["allOf"]]
    return merged


def _type_of(schema: Schema) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((name for name in kind if isinstance(name, str)), None)
    if isinstance(kind, str):
        return kind
    if "properties" in schema or "required" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    return "number" if "minimum" in schema or "maximum" in schema else "string"


def _count(schema: Schema, name: str) -> int:
    value = schema.get(name)
    return int(value) if isinstance(value, (int, float)) and 0 <= value < MAX_MAGNITUDE else 0


def _bound(schema: Schema, name: str) -> Fraction | None:
    value = schema.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= MAX_MAGNITUDE:
        return None
    # A decimal like 0.1 means one tenth, not the double next to it.
    return Fraction(str(value)) if isinstance(value, float) else Fraction(value)


def _number(schema: Schema, *, is_integer: bool, variant: int) -> int | float:
    """Zero when the bounds allow it, else the number next to the bound that lies nearest to zero."""
    step = _bound(schema, "multipleOf")
    if step is None or step <= 0:
        step = Fraction(1)
        grid = 1 if is_integer else _grid(schema)
        step /= grid
    elif is_integer:
        step = Fraction(math.lcm(step.numerator, step.denominator), step.denominator)
    lowest, highest = _bound(schema, "minimum"), _bound(schema, "maximum")
    above, below = _bound(schema, "exclusiveMinimum"), _bound(schema, "exclusiveMaximum")
    lows = [math.ceil(lowest / step)] if lowest is not None else []
    lows += [math.floor(above / step) + 1] if above is not None else []
    highs = [math.floor(highest / step)] if highest is not None else []
    highs += [math.ceil(below / step) - 1] if below is not None else []
    start = 0
    if lows and max(lows) > 0:
        start = max(lows)
    elif highs and min(highs) < 0:
        start = min(highs) - variant
        variant = 0
    value = (start + variant) * step
    return int(value) if value.denominator == 1 else float(value)


def _grid(schema: Schema) -> int:
    """Into how many steps to divide one, so that bounds and the gap between them fall on steps."""
    bounds = [_bound(schema, n) for n in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")]
    return min(MAX_MAGNITUDE, 2 * math.lcm(1, *(bound.denominator for bound in bounds if bound is not None)))


def _text(schema: Schema, *, variant: int) -> str:
    form = schema.get("format")
    if isinstance(form, str) and form in FORMATS and not variant:
        return FORMATS[form]
    # The number stands in front, where a maximum length does not cut it off.
    text = f"{variant}-{TEXT}" if variant else TEXT
    text = text.ljust(min(_count(schema, "minLength"), MAX_TEXT_CHARACTERS), ".")
    return text[: _count(schema, "maxLength")] if "maxLength" in schema else text
