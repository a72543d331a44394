"""Did a whole answer fail in a way that anybody can see? Free checks, before it is sent.

Pure. Codes, in the order in which they are looked at; "" for an answer that shows no fault (it may still be wrong):

    empty            no text, no tool call, nothing
    refused          the model declined, or a content filter did
    cut_off          it ended at an output limit that the caller had not set
    bad_tool_call    a call of a tool that was not offered, or whose arguments are not a JSON object
    schema_invalid   not the JSON that the requested schema describes
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import orjson

from gateway.wire.schema_check import fits_schema

MAX_CHECKED_BYTES = 256 * 1024


def check_answer(answer: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    """Check the first choice of a chat answer against its request. Slow where a schema is asked for: `needs_time`."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return "empty"
    choice = choices[0]
    message = choice.get("message")
    if not isinstance(message, dict):
        return "empty"
    finish = choice.get("finish_reason")
    if message.get("refusal") or finish == "content_filter":
        return "refused"
    calls = message.get("tool_calls")
    content = message.get("content")
    others = (message.get(kind) for kind in ("audio", "images", "function_call"))
    if not calls and not content and not any(others):
        return "cut_off" if finish == "length" and not _has_limit(request) else "empty"
    if finish == "length":
        # With a limit of its own the caller asked for that; without one, the model ran out.
        return "" if _has_limit(request) else "cut_off"
    if isinstance(calls, list) and calls:
        names = _tool_names(request.get("tools"))
        return "" if all(_is_sound_call(call, names) for call in calls) else "bad_tool_call"
    if isinstance(content, str) and not _fits_format(content, request.get("response_format")):
        return "schema_invalid"
    return ""


def needs_time(request: Mapping[str, Any]) -> bool:
    """Say whether checking may take so long that it does not belong on the event loop."""
    wanted = request.get("response_format")
    return isinstance(wanted, dict) and wanted.get("type") == "json_schema"


def _has_limit(request: Mapping[str, Any]) -> bool:
    return request.get("max_tokens") is not None or request.get("max_completion_tokens") is not None


def _is_sound_call(call: object, names: Collection[str]) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        # Custom tools and what comes after them: not ours to judge.
        return isinstance(call, dict) and call.get("type") not in (None, "function")
    name = function.get("name")
    if names and not (isinstance(name, str) and name in names):
        return False
    arguments = function.get("arguments")
    if arguments == "":  # some providers say "" for no arguments
        return True
    try:
        return isinstance(arguments, str) and isinstance(orjson.loads(arguments), dict)
    except orjson.JSONDecodeError:
        return False


def _tool_names(tools: object) -> frozenset[str]:
    if not isinstance(tools, list):
        return frozenset()
    functions = (tool.get("function") for tool in tools if isinstance(tool, dict))
    names = (function.get("name") for function in functions if isinstance(function, dict))
    return frozenset(name for name in names if isinstance(name, str))


def _fits_format(content: str, wanted: object) -> bool:
    if not isinstance(wanted, dict) or wanted.get("type") not in ("json_object", "json_schema"):
        return True
    if len(content) > MAX_CHECKED_BYTES:
        return True
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        return False
    described = wanted.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    if not isinstance(schema, dict):
        return isinstance(value, dict) or wanted["type"] == "json_schema"
    return fits_schema(value, schema)
