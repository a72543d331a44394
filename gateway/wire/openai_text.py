"""Which words of an OpenAI-format request may the router look at, and for how long? While it is being decided.

Pure. Cuts a body's texts into the parts that `policies.autorouter.request_facts` reads its facts from; nothing here
is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.wire.openai_request import ParsedRequest
from policies.autorouter.request_facts import RequestText

SYSTEM_ROLES = ("system", "developer")
# Tools beyond this many say no more about what kind of work it is.
MAX_TOOLS = 64
# A session is named by one of these; the first that is there counts.
SESSION_MEMBERS = ("session_id", "prompt_cache_key")


def read_text(
    parsed: ParsedRequest, *, app: str, key_id: int, tenant_id: int, session: str = ""
) -> RequestText:
    """The parts of a request's text. `session`: what a header named, before the body's own names for it."""
    payload, facts = parsed.payload, parsed.facts
    get = payload.get
    if not session:
        for name in SESSION_MEMBERS:
            value = get(name)
            if isinstance(value, str) and value:
                session = value
                break
    if parsed.endpoint != "chat":
        text = _plain(get("prompt") if parsed.endpoint == "completions" else get("input"))
        return RequestText(
            first_user=text,
            last_user=text,
            app=app,
            key_id=key_id,
            session=session,
            input_tokens=facts["input_tokens"],
            tenant_id=tenant_id,
        )
    messages: list[dict[str, Any]] = payload["messages"]
    system = first_user = last_user = ""
    for message in messages:
        role = message.get("role")
        if role == "user":
            first_user = _content(message)
            break
        if role in SYSTEM_ROLES:
            system = f"{system}\n{_content(message)}" if system else _content(message)
    for message in messages[::-1]:
        if message.get("role") == "user":
            last_user = _content(message)
            break
    response_format = get("response_format")
    return RequestText(
        system,
        first_user,
        last_user,
        _tool_names(get("tools") or get("functions")),
        _schema(response_format) if facts.get("has_schema") else "",
        app,
        key_id,
        session,
        facts.get("has_images", False),
        facts.get("has_audio", False),
        facts.get("has_files", False),
        messages[-1].get("role") in ("tool", "function"),
        len(messages),
        facts["input_tokens"],
        tenant_id,
    )


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join(
        part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
    )


def _plain(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and isinstance(value[0], str):
        return value[0]
    return ""


def _tool_names(tools: object) -> tuple[str, ...]:
    if not isinstance(tools, list):
        return ()
    names = []
    for tool in tools[:MAX_TOOLS]:
        if not isinstance(tool, dict):
            continue
        function = tool.get("function")
        name = function.get("name") if isinstance(function, dict) else tool.get("name")
        if isinstance(name, str):
            names.append(name)
    return tuple(names)


def _schema(response_format: object) -> str:
    return orjson.dumps(response_format, option=orjson.OPT_SORT_KEYS).decode("utf-8", "replace")
