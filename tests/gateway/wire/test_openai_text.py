"""Which words of a request does the router look at?"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.wire.openai_request import Endpoint, parse_request
from gateway.wire.openai_text import read_text
from policies.autorouter.request_facts import RequestText


def read(payload: dict[str, Any], endpoint: Endpoint = "chat", **fields: Any) -> RequestText:
    parsed = parse_request(orjson.dumps({"model": "m", **payload}), endpoint)
    return read_text(parsed, **{"app": "shop", "key_id": 3, "tenant_id": 2, **fields})


def test_a_conversation_with_tools_is_cut_into_its_parts() -> None:
    text = read(
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "developer", "content": [{"type": "text", "text": "Use tools."}]},
                {"role": "user", "content": "first"},
                {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]},
                {"role": "tool", "content": "42", "tool_call_id": "1"},
            ],
            "tools": [{"type": "function", "function": {"name": "add"}}, {"type": "web_search"}, 7],
            "response_format": {"type": "json_schema", "json_schema": {"name": "n"}},
            "session_id": "s-1",
        }
    )
    assert (text.system, text.first_user, text.last_user) == ("Be brief.\nUse tools.", "first", "first")
    assert (text.tool_names, text.is_tool_result, text.message_count) == (("add",), True, 5)
    assert (text.app, text.key_id, text.session) == ("shop", 3, "s-1")
    assert "json_schema" in text.schema


def test_the_last_user_message_is_taken_from_the_end() -> None:
    messages = [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
    ]
    text = read({"messages": messages})
    assert (text.first_user, text.last_user, text.has_images, text.is_tool_result) == (
        "",
        "one\ntwo",
        True,
        False,
    )


def test_a_header_names_the_session_before_the_body() -> None:
    payload = {"messages": [{"role": "user", "content": "x"}], "prompt_cache_key": "k"}
    assert read(payload).session == "k"
    assert read(payload, session="header").session == "header"


def test_completions_and_embeddings_have_one_text() -> None:
    assert read({"prompt": "Once"}, "completions").last_user == "Once"
    assert read({"input": ["a", "b"]}, "embeddings").first_user == "a"
    assert read({"input": [1, 2, 3]}, "embeddings").first_user == ""


def test_odd_shapes_are_passed_over() -> None:
    text = read({"messages": [{"role": 5, "content": [7, {"text": 9}]}, {"content": None}], "tools": "none"})
    assert text[:4] == ("", "", "", ())
