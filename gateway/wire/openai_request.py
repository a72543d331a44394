"""What does an OpenAI-format client ask for? Chat, completions and embeddings bodies -> model names and features.

Pure. Reads only what routing, limits and money need; everything else goes to the provider untouched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from gateway.dataplane.errors import BadRequest
from gateway.wire.json_splice import replace_in_pieces
from gateway.wire.openai_wishes import Wishes, read_wishes, wrong_type

Endpoint = Literal["chat", "completions", "embeddings"]

MAX_DEPTH = 64
CHARACTERS_PER_TOKEN = 4
MESSAGE_OVERHEAD_TOKENS = 4
# What an image, a minute of audio or a file costs before a provider has counted: only to choose a context window.
IMAGE_TOKENS = 800
AUDIO_TOKENS = 1000
MAX_N = 128
SMALL_BODY_BYTES = 4096
# Copying a body larger than this once more costs more than sending it in pieces.
IN_PIECES_ABOVE_BYTES = 64 * 1024
# Members that are ours and that providers refuse or misread.
GATEWAY_MEMBERS = frozenset({"models", "route", "provider", "plugins", "session_id", "pointsman"})


@dataclass(slots=True)
class ParsedRequest:
    """One request body, read. `payload` is the parsed object; `body` the bytes as they came."""

    endpoint: Endpoint
    body: bytes
    payload: dict[str, Any]
    model: str
    wishes: Wishes
    is_stream: bool
    wants_usage: bool
    facts: dict[str, Any]
    tags: dict[str, str]


def parse_request(body: bytes, endpoint: Endpoint) -> ParsedRequest:
    """Parse and read a body. Raises BadRequest naming the field."""
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(
            f"The request body is not valid JSON: {str(error).split(':')[0]}.", code="invalid_json"
        ) from None
    if not isinstance(payload, dict):
        raise BadRequest("The request body must be a JSON object.", code="invalid_json")
    # Nesting needs brackets: counting them is cheaper than walking, as long as the body is small.
    if len(body) > SMALL_BODY_BYTES or body.count(b"{") + body.count(b"[") > MAX_DEPTH:
        _check_depth(payload)
    get = payload.get
    wishes = read_wishes(payload)
    model = get("model")
    if model is None and wishes.models:
        model = wishes.models[0]
    if not isinstance(model, str) or not model:
        raise BadRequest(
            "you must provide a model parameter", code="missing_required_parameter", param="model"
        )
    stream = get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise wrong_type("stream", "true or false")
    options = get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise wrong_type("stream_options", "an object")
    metadata = get("metadata")
    if endpoint == "chat":
        facts = _chat_facts(payload)
    elif endpoint == "completions":
        facts = _completion_facts(payload)
    else:
        facts = _embedding_facts(payload)
    return ParsedRequest(
        endpoint,
        body,
        payload,
        model,
        wishes,
        bool(stream) and endpoint != "embeddings",
        bool(options and options.get("include_usage")),
        facts,
        _tags(metadata) if metadata else {},
    )


def upstream_body(
    request: ParsedRequest,
    *,
    upstream_model: str,
    output_limit_parameter: str,
    takes_stream_options: bool = True,
    output_limit: int | None = None,
) -> bytes | tuple[bytes | memoryview, ...]:
    """The body for one deployment: its model name, our own members gone, usage asked for on streams.

    Bytes, or for a large body pieces that follow one another.

    A server that does not take `stream_options` never gets it, not even the caller's own: an answer without a usage
    chunk is worth more than a refusal. `output_limit` is set for a request that came without one.
    """
    payload = request.payload
    changes: dict[str, bytes | None] = {}
    if payload.get("model") != upstream_model:
        changes["model"] = orjson.dumps(upstream_model)
    for name in payload.keys() & GATEWAY_MEMBERS:
        changes[name] = None
    if not takes_stream_options:
        if "stream_options" in payload:
            changes["stream_options"] = None
    elif request.is_stream and not request.wants_usage:
        options = {**(payload.get("stream_options") or {}), "include_usage": True}
        changes["stream_options"] = orjson.dumps(options)
    if output_limit_parameter:
        # Reasoning models refuse `max_tokens`, older servers do not know the new name; never send both.
        other = "max_tokens" if output_limit_parameter == "max_completion_tokens" else "max_completion_tokens"
        if payload.get(other) is not None:
            limit = payload.get(output_limit_parameter)
            changes[output_limit_parameter] = orjson.dumps(limit if limit is not None else payload[other])
            changes[other] = None
    elif payload.get("max_tokens") is not None and payload.get("max_completion_tokens") is not None:
        changes["max_tokens"] = None  # the old name gives way
    if output_limit is not None:
        name = output_limit_parameter or "max_tokens"
        for other in {"max_tokens", "max_completion_tokens"} & payload.keys():
            changes[other] = None
        changes[name] = b"%d" % output_limit
    if not changes:
        return request.body
    pieces = replace_in_pieces(request.body, changes, present=payload)
    return pieces if len(request.body) > IN_PIECES_ABOVE_BYTES else b"".join(pieces)


def _tags(metadata: object) -> dict[str, str]:
    """Caller's metadata as routing tags: at most 16 short texts, as OpenAI allows. Others are passed on, not used."""
    if not isinstance(metadata, dict):
        return {}
    return {key[:64]: value[:512] for key, value in list(metadata.items())[:16] if isinstance(value, str)}


def _check_depth(payload: dict[str, Any]) -> None:
    level: list[Any] = [payload]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for container in level
            for item in (container.values() if type(container) is dict else container)
            if type(item) is dict or type(item) is list
        ]
        if not level:
            return
    raise BadRequest(f"The request body is nested deeper than {MAX_DEPTH} levels.", code="json_too_deep")


def _count(payload: Mapping[str, Any], name: str, maximum: int = 10_000_000) -> int:
    value = payload.get(name)
    if value is None:
        return 0
    if type(value) is not int:
        if not isinstance(value, float) or not value.is_integer():
            raise wrong_type(name, "a whole number")
        value = int(value)
    if not 0 <= value <= maximum:
        raise BadRequest(f"'{name}' must be between 0 and {maximum}.", code="invalid_value", param=name)
    return value


def _choice_count(payload: Mapping[str, Any]) -> int:
    return max(1, _count(payload, "n", MAX_N))


def _chat_facts(payload: dict[str, Any]) -> dict[str, Any]:
    messages = payload.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest(
            "'messages' must be a list with at least one message.",
            code="missing_required_parameter" if messages is None else "invalid_type",
            param="messages",
        )
    characters = turns = images = audios = files = 0
    for index, message in enumerate(messages):
        if type(message) is not dict:
            raise wrong_type(f"messages[{index}]", "an object")
        if message.get("role") == "user":
            turns += 1
        content = message.get("content")
        if type(content) is str:
            characters += len(content)
        elif type(content) is list:
            for part in content:
                if type(part) is not dict:
                    continue
                kind = part.get("type")
                text = part.get("text")
                if type(text) is str:
                    characters += len(text)
                elif kind == "image_url":
                    images += 1
                elif kind == "input_audio":
                    audios += 1
                elif kind == "file":
                    files += 1
        elif content is not None:
            raise wrong_type(f"messages[{index}].content", "a text, a list of parts or null")
        if len(message) > 2:
            calls = message.get("tool_calls")
            if calls:
                characters += len(orjson.dumps(calls))
    tools = payload.get("tools") or payload.get("functions")
    response_format = payload.get("response_format")
    tool_choice = payload.get("tool_choice") or payload.get("function_call")
    modalities = payload.get("modalities")
    if tools:
        characters += len(orjson.dumps(tools))
    return {
        "input_tokens": characters // CHARACTERS_PER_TOKEN
        + MESSAGE_OVERHEAD_TOKENS * len(messages)
        + IMAGE_TOKENS * images
        + AUDIO_TOKENS * audios,
        # Both are checked, and the larger one counts: which of them is sent differs by model.
        "max_output_tokens": max(_count(payload, "max_completion_tokens"), _count(payload, "max_tokens")),
        "message_count": len(messages),
        "turn": turns,
        "choice_count": _choice_count(payload),
        "has_images": images > 0,
        "has_audio": audios > 0 or (isinstance(modalities, list) and "audio" in modalities),
        "has_files": files > 0,
        "has_tools": bool(tools),
        "has_schema": type(response_format) is dict and response_format.get("type") == "json_schema",
        "has_logprobs": bool(payload.get("logprobs")),
        "is_tool_forced": type(tool_choice) is dict or tool_choice == "required",
    }


def _completion_facts(payload: dict[str, Any]) -> dict[str, Any]:
    prompt = payload.get("prompt")
    if prompt is None:
        raise BadRequest("'prompt' is missing.", code="missing_required_parameter", param="prompt")
    return {
        "input_tokens": _token_estimate(prompt, "prompt"),
        "max_output_tokens": _count(payload, "max_tokens"),
        "message_count": 1,
        "turn": 1,
        "choice_count": _choice_count(payload),
        "has_logprobs": payload.get("logprobs") is not None,
    }


def _embedding_facts(payload: dict[str, Any]) -> dict[str, Any]:
    if payload.get("input") is None:
        raise BadRequest("'input' is missing.", code="missing_required_parameter", param="input")
    return {"input_tokens": _token_estimate(payload["input"], "input"), "message_count": 1, "turn": 1}


def _token_estimate(value: object, name: str) -> int:
    """Tokens in a text, a list of texts, a list of token ids or a list of such lists."""
    if isinstance(value, str):
        return len(value) // CHARACTERS_PER_TOKEN + 1
    if not isinstance(value, list) or not value:
        raise wrong_type(name, "a text or a list that is not empty")
    if isinstance(value[0], int):
        return len(value)
    total = 0
    for item in value:
        if isinstance(item, str):
            total += len(item) // CHARACTERS_PER_TOKEN + 1
        elif isinstance(item, (list, dict)):
            total += len(item)
        else:
            raise wrong_type(name, "texts or lists of token ids")
    return total
