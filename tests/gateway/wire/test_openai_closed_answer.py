"""Are answers taken for the same only where they say exactly the same, and free text never?"""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.wire.openai_closed_answer import closed_form

JSON = {"response_format": {"type": "json_object"}}


def said(content: Any, *, finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": content, **message}, "finish_reason": finish}]}


def called(*calls: tuple[str, str]) -> dict[str, Any]:
    listed = [
        {"id": str(n), "type": "function", "function": {"name": name, "arguments": arguments}}
        for n, (name, arguments) in enumerate(calls)
    ]
    return said(None, finish="tool_calls", tool_calls=listed)


@pytest.mark.parametrize(
    ("one", "other", "request_body"),
    [
        (said("Positive."), said(" positive\n"), {}),
        (said("New  York"), said("new york", finish=None), {}),
        (said('{"a": 1, "b": ["X", true]}'), said('{ "b": ["x.", true], "a": 1.0 }'), JSON),
        (called(("find", '{"id": 7}')), called(("find", '{ "id": 7.0 }')), {}),
        (called(("a", "{}"), ("b", "")), called(("b", "{}"), ("a", "")), {}),
    ],
)
def test_the_same_in_another_form_is_the_same(
    one: dict[str, Any], other: dict[str, Any], request_body: dict[str, Any]
) -> None:
    assert closed_form(one, request_body) is not None
    assert closed_form(one, request_body) == closed_form(other, request_body)


@pytest.mark.parametrize(
    ("one", "other", "request_body"),
    [
        (said("positive"), said("negative"), {}),
        (said("7"), said("-7"), {}),
        (said('{"a": 1}'), said('{"a": true}'), JSON),
        (said('{"a": [1, 2]}'), said('{"a": [2, 1]}'), JSON),
        (said('{"a": null}'), said("{}"), JSON),
        (said('{"a": "1"}'), said('{"a": 1}'), JSON),
        (called(("find", '{"id": 7}')), called(("find", '{"id": 8}')), {}),
        (called(("find", "{}")), called(("seek", "{}")), {}),
        (called(("find", "{}")), said("find"), {}),
    ],
)
def test_what_says_something_else_is_not_the_same(
    one: dict[str, Any], other: dict[str, Any], request_body: dict[str, Any]
) -> None:
    forms = [closed_form(answer, request_body) for answer in (one, other)]
    assert None not in forms
    assert forms[0] != forms[1]


@pytest.mark.parametrize(
    ("answer", "request_body"),
    [
        (said("The answer is 42."), {}),
        (said("x" * 41), {}),
        (said("cut", finish="length"), {}),
        (said("no", finish="content_filter"), {}),
        (said(None), {}),
        (said([{"type": "text", "text": "7"}]), {}),
        (said('{"why": "because it was the better one"}'), JSON),
        (said(orjson.dumps(list(range(60))).decode()), JSON),
        (said("[" * 20 + "]" * 20), JSON),
        (said("not JSON"), JSON),
        (called(("find", '{"text": "all about the great war"}')), {}),
        (called(("find", "{")), {}),
        (said(None, tool_calls=[{"type": "custom", "custom": {"name": "x"}}]), {}),
        ({"choices": []}, {}),
        ({"choices": [{"message": {"content": "a"}}, {"message": {"content": "a"}}]}, {}),
        ({}, {}),
    ],
)
def test_what_has_many_wordings_has_no_closed_form(
    answer: dict[str, Any], request_body: dict[str, Any]
) -> None:
    assert closed_form(answer, request_body) is None
