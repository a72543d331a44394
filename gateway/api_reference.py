"""What can be asked of the management API, written for people? openapi.yaml -> groups of operations.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

# Members of members of members; what lies deeper stands in openapi.yaml.
MAX_DEPTH: Final = 3
_WORDS: Final = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
_FORMATS: Final = {"date-time": "time", "date": "day", "uuid": "UUID", "email": "mail address", "uri": "URL"}
# The ends of the columns' types say nothing to a reader; ids alone go to the end of the widest.
MAX_ID: Final = 2**63 - 1
_WIDE: Final = (2**31 - 1, MAX_ID)

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Member:
    """One parameter, or one member of a body: `budgets[].limit_usd` lies in the objects of a list."""

    name: str
    kind: str
    about: str
    is_required: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one address. `paragraphs` end with who may call it."""

    name: str
    method: str
    path: str
    title: str
    paragraphs: tuple[str, ...]
    parameters: tuple[Member, ...]
    sent: tuple[Member, ...]
    status: str
    answered: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """The operations about one thing."""

    slug: str
    title: str
    operations: tuple[Operation, ...]


def read_reference(document: Schema) -> tuple[Group, ...]:
    """The operations of an OpenAPI 3.0 document by their tags, tags in order of the alphabet."""
    groups: dict[str, list[Operation]] = {}
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            operation = _operation(document, method.upper(), path, described)
            groups.setdefault(described["tags"][0], []).append(operation)
    return tuple(
        Group(tag.replace(" ", "-"), tag[:1].upper() + tag[1:], tuple(operations))
        for tag, operations in sorted(groups.items())
    )


def _operation(document: Schema, method: str, path: str, described: Schema) -> Operation:
    parameters = tuple(
        Member(
            one["name"] if one["in"] != "header" else f"{one['name']} (header)",
            _kind(document, one["schema"]),
            one.get("description", ""),
            one.get("required", False),
            _choices(document, one["schema"]),
        )
        for one in described.get("parameters", ())
    )
    status, answer = next(
        (found for found in described["responses"].items() if found[0] != "default"), ("", {})
    )
    return Operation(
        name=described["operationId"],
        method=method,
        path=path,
        title=described.get("summary", ""),
        paragraphs=tuple(" ".join(part.split()) for part in described.get("description", "").split("\n\n")),
        parameters=parameters,
        sent=_body(document, described.get("requestBody", {}), is_sent=True),
        status=status,
        answered=_body(document, answer, is_sent=False),
    )


def _body(document: Schema, described: Schema, *, is_sent: bool) -> tuple[Member, ...]:
    content = described.get("content", {})
    schema = content.get("application/json", {}).get("schema")
    if schema is None:
        return ()
    members = _members(document, schema, "", MAX_DEPTH)
    # Of an answer everybody knows that its members are there.
    return tuple(members if is_sent else (replace(member, is_required=False) for member in members))


def _members(document: Schema, schema: Schema, prefix: str, depth: int) -> Iterator[Member]:
    schema = _resolved(document, schema)
    if schema.get("type") == "array":
        yield from _members(document, schema["items"], f"{prefix}[]", depth)
        return
    required = schema.get("required", ())
    for name, given in schema.get("properties", {}).items():
        member = _resolved(document, given)
        place = f"{prefix}.{name}" if prefix else name
        yield Member(
            place,
            _kind(document, member),
            _about(given, member),
            name in required and not member.get("readOnly", False),
            _choices(document, member),
        )
        if depth > 1:
            yield from _members(document, member, place, depth - 1)


def _resolved(document: Schema, schema: Schema) -> Schema:
    """The schema itself, for a reference; what stands beside a reference goes before what is in it."""
    parts = [schema, *schema.get("allOf", ())]
    found: dict[str, Any] = {}
    for part in parts:
        if "$ref" in part:
            name = part["$ref"].rpartition("/")[2]
            found = {**_resolved(document, document["components"]["schemas"][name]), **found}
        else:
            found = {**part, **found}
    return found


def _kind(document: Schema, schema: Schema) -> str:
    schema = _resolved(document, schema)
    words = _FORMATS.get(
        schema.get("format", ""), _WORDS.get(schema.get("type", ""), "text" if "enum" in schema else "JSON")
    )
    if schema.get("maximum") == MAX_ID and schema.get("minimum") == 1:
        words = "id"
    elif "oneOf" in schema:
        words = " or ".join(dict.fromkeys(_kind(document, one) for one in schema["oneOf"]))
    elif schema.get("type") == "array":
        words = f"list of {_kind(document, schema.get('items', {}))}"
    elif schema.get("additionalProperties"):  # {}: of anything
        words = f"object of {_kind(document, schema['additionalProperties'])}"
    elif schema.get("type") == "object" or "properties" in schema:
        words = "object"
    limits = "" if words == "id" else _limits(schema)
    return f"{words}{limits}" + (" or null" if schema.get("nullable") else "")


def _limits(schema: Schema) -> str:
    if schema.get("maxLength"):
        return f", at most {schema['maxLength']:,} characters"
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is None or schema.get("type") == "string":
        return ""
    return f" from {least:,}" + ("" if most is None or most in _WIDE else f" to {most:,}")


def _choices(document: Schema, schema: Schema) -> tuple[str, ...]:
    schema = _resolved(document, schema)
    if schema.get("type") == "array":
        return _choices(document, schema.get("items", {}))
    listed = [
        *schema.get("enum", ()),
        *(value for one in schema.get("oneOf", ()) for value in _choices(document, one)),
    ]
    return tuple("empty" if value == "" else str(value) for value in listed if value is not None)


def _about(given: Schema, member: Schema) -> str:
    """What the document says of a member. The generated lists of what each choice is called say it twice."""
    text = given.get("description") or member.get("description", "")
    return "" if text.startswith("* `") else " ".join(text.partition("\n\n* `")[0].split())
