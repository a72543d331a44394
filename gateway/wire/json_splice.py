"""How is a JSON object changed at its top level without touching any other byte?

Pure. Clients' bodies reach providers byte for byte but for the members that the gateway must set; parsing and
writing again would cost twice as much and lose what a parser cannot hold (numbers, spacing, key order).
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping

import orjson

# How far from the beginning a member is looked for first.
NEAR_BYTES = 4096
_QUOTE = ord('"')
# A JSON string, or one structural character. The body has been parsed before: it is known to be valid. Possessive all
# the same (++, *+): a text without its end would else be tried in 2^n ways.
_TEXT_VALUE = re.compile(rb'\s*:\s*("(?:[^"\\]++|\\.)*+")', re.DOTALL)
_END_OF_OBJECT = re.compile(rb"\s*}")
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\],:]', re.DOTALL)


def replace_members(body: bytes, changes: Mapping[str, bytes | None], *, present: Container[str]) -> bytes:
    """Return `body` with top-level members set to raw JSON, or removed where the value is None.

    `body` is a valid JSON object whose top-level names are `present`. A member that stands twice is set in all
    places. New members come first.
    """
    return b"".join(replace_in_pieces(body, changes, present=present))


def replace_in_pieces(
    body: bytes, changes: Mapping[str, bytes | None], *, present: Container[str]
) -> tuple[bytes | memoryview, ...]:
    """Return what `replace_members` does as pieces that follow one another: most of a large body is not copied."""
    added = [
        b'"%s":%s' % (name.encode(), value)
        for name, value in changes.items()
        if value is not None and name not in present
    ]
    old = {name: value for name, value in changes.items() if name in present}
    if len(old) == 1:
        ((name, value),) = old.items()
        spot = _only_place_of_model(body) if value is not None and name == "model" else None
        if spot and value is not None:
            pieces = _put(body, spot, value)
            if not added:
                return pieces
            body = b"".join(pieces)
        else:
            body = _rebuild(body, old)
    elif old:
        body = _rebuild(body, old)
    if not added:
        return (body,)
    start = body.index(b"{") + 1
    is_empty = _END_OF_OBJECT.match(body, start)
    return _put(body, (start, start), b",".join(added) + (b"" if is_empty else b","))


def _put(body: bytes, span: tuple[int, int], value: bytes) -> tuple[bytes | memoryview, ...]:
    """Put `value` in the place of `span`."""
    view = memoryview(body)
    return view[: span[0]], value, view[span[1] :]


def _only_place_of_model(body: bytes) -> tuple[int, int] | None:
    """Where the text value of the top-level member "model" begins and ends, when that can be told without a scan.

    One single `"model"` in the whole body, followed by a colon, is a member's name, and as no name is written
    with escapes of its letters (all five are \\u006…) and the object has this member, it is that one.
    """
    quoted = b'"model"'
    # Members stand before or after a long conversation, not in its midst. Over a megabyte rfind is CPython's fastest
    # search, and twice as fast without the frequent quote in front.
    at = body.find(quoted, 0, NEAR_BYTES)
    if at >= 0:
        is_alone = body.rfind(quoted[1:], at + len(quoted)) < 0
    else:
        at = body.rfind(quoted[1:]) - 1
        is_alone = at >= 0 and body[at] == _QUOTE and body.rfind(quoted[1:], 0, at) < 0
    # Looking for one byte is five times as fast as looking for five, and the usual end of it.
    if not is_alone or (b"\\" in body and body.rfind(b"\\u006") >= 0):
        return None
    colon = _TEXT_VALUE.match(body, at + len(quoted))
    return colon.span(1) if colon else None


def _rebuild(body: bytes, changes: Mapping[str, bytes | None]) -> bytes:
    kept: list[bytes] = []
    for name, start, value_start, end in top_level_members(body):
        if name not in changes:
            kept.append(body[start:end])
            continue
        value = changes[name]
        if value is not None:
            kept.append(body[start:value_start] + value)
    return b"{" + b",".join(kept) + b"}"


def top_level_members(body: bytes) -> list[tuple[str, int, int, int]]:
    """(name, start of the name, start of the value, end of the value) of each member, in order."""
    members: list[tuple[str, int, int, int]] = []
    depth = 0
    name: str | None = None
    name_start = value_start = -1
    for token in _TOKEN.finditer(body):
        text = token.group()
        first = text[:1]
        if first == b'"':
            if depth == 1 and name is None:
                name, name_start = orjson.loads(text), token.start()
        elif first in b"{[":
            depth += 1
        elif first in b"}]":
            depth -= 1
            if depth == 0 and name is not None:
                members.append((name, name_start, value_start, _trim(body, value_start, token.start())))
        elif first == b":" and depth == 1 and value_start < name_start:
            value_start = token.end()
            while body[value_start] in b" \t\r\n":
                value_start += 1
        elif first == b"," and depth == 1 and name is not None:
            members.append((name, name_start, value_start, _trim(body, value_start, token.start())))
            name = None
    return members


def _trim(body: bytes, start: int, end: int) -> int:
    while end > start and body[end - 1] in b" \t\r\n":
        end -= 1
    return end
