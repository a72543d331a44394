"""Did a whole answer fail in a way that anybody can see?"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.openai_answer_check import check_answer

TOOLS = {"tools": [{"type": "function", "function": {"name": "add"}}]}
SCHEMA = {
    "response_format": {
        "type": "json_schema",
        "json_schema": {
            "name": "person",
            "schema": {
                "type": "object",
                "properties": {
                    "age": {"type": "integer"},
                    "pattern": {"type": "string", "pattern": "(a+)+$"},
                },
                "required": ["age"],
            },
        },
    }
}


def wanting(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}


def answer(finish: str = "stop", **message: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", **message}}]}


def call(name: Any, arguments: Any) -> dict[str, Any]:
    return {
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}]
    }


@pytest.mark.parametrize(
    ("given", "request_body", "code"),
    [
        (answer(content="hello"), {}, ""),
        ({}, {}, "empty"),
        ({"choices": []}, {}, "empty"),
        (answer(content=""), {}, "empty"),
        (answer(content=None), {}, "empty"),
        (answer(content=None, audio={"id": "a"}), {}, ""),
        (answer(content=None, refusal="I cannot."), {}, "refused"),
        (answer("content_filter", content="…"), {}, "refused"),
        (answer("length", content="so far"), {}, "cut_off"),
        (answer("length", content="so far"), {"max_tokens": 5}, ""),
        (answer("length", content=""), {}, "cut_off"),
        (answer("length", content=""), {"max_completion_tokens": 5}, "empty"),
        (answer("tool_calls", **call("add", '{"a":1}')), TOOLS, ""),
        (answer(content="5"), wanting({"$ref": "#"}), ""),
        (answer(content="5"), wanting({"$ref": "#/nowhere"}), ""),
        (answer(content="5"), wanting({"$ref": "http://127.0.0.1:1/schema"}), ""),
        (answer(content="5"), wanting({"type": "string"}), "schema_invalid"),
        (answer("tool_calls", **call("add", "")), TOOLS, ""),
        (answer("tool_calls", **call("add", "{a:1}")), TOOLS, "bad_tool_call"),
        (answer("tool_calls", **call("add", "[1]")), TOOLS, "bad_tool_call"),
        (answer("tool_calls", **call("sub", "{}")), TOOLS, "bad_tool_call"),
        (answer("tool_calls", **call(["add"], "{}")), TOOLS, "bad_tool_call"),
        (answer("tool_calls", **call("add", "{}")), {"tools": [{"function": {"name": ["add"]}}]}, ""),
        (answer(content='{"age":3}'), SCHEMA, ""),
        (answer(content='{"age":"3"}'), SCHEMA, "schema_invalid"),
        (answer(content="{}"), SCHEMA, "schema_invalid"),
        (answer(content="three"), SCHEMA, "schema_invalid"),
        (answer(content='{"age":3,"pattern":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"}'), SCHEMA, ""),
        (answer(content="[]"), {"response_format": {"type": "json_object"}}, "schema_invalid"),
        (answer(content="{}"), {"response_format": {"type": "json_object"}}, ""),
        (
            answer(content="5"),
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": 7}}}},
            "",
        ),
    ],
)
def test_faults_that_anybody_can_see(given: dict[str, Any], request_body: dict[str, Any], code: str) -> None:
    assert check_answer(given, request_body) == code


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {}, optional={"choices": _JSON | st.lists(st.fixed_dictionaries({"message": _JSON}))}
    ),
    st.fixed_dictionaries({}, optional={"tools": _JSON, "response_format": _JSON, "max_tokens": _JSON}),
)
def test_whatever_a_provider_sends_there_is_a_code_and_no_error(
    given: dict[str, Any], request_body: dict[str, Any]
) -> None:
    assert check_answer(given, request_body) in {
        "", "empty", "refused", "cut_off", "bad_tool_call", "schema_invalid",
    }  # fmt: skip
