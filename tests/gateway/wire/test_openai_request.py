"""What is read out of a request, and what of it reaches a provider."""

import json
from typing import Any

import pytest

from gateway.dataplane.errors import BadRequest
from gateway.wire.openai_request import IN_PIECES_ABOVE_BYTES, parse_request, upstream_body

HELLO: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello world!"}]}


def parse(endpoint: Any = "chat", **fields: Any) -> Any:
    base = {
        "chat": HELLO,
        "completions": {"model": "m", "prompt": "x"},
        "embeddings": {"model": "m", "input": "x"},
    }
    return parse_request(json.dumps({**base[endpoint], **fields}).encode(), endpoint)


def sent(request: Any, parameter: str = "") -> dict[str, Any]:
    body = upstream_body(request, upstream_model="upstream", output_limit_parameter=parameter)
    document: dict[str, Any] = json.loads(b"".join(body) if isinstance(body, tuple) else body)
    return document


def test_a_body_that_needs_no_change_is_passed_on_as_the_same_bytes() -> None:
    request = parse()
    assert upstream_body(request, upstream_model="m", output_limit_parameter="") is request.body


@pytest.mark.parametrize("is_model_first", [True, False])
def test_a_large_body_is_sent_in_pieces_that_are_its_own_bytes(is_model_first: bool) -> None:
    messages = {"messages": [{"role": "user", "content": "x" * IN_PIECES_ABOVE_BYTES}]}
    document = {"model": "m", **messages} if is_model_first else {**messages, "model": "m"}
    request = parse_request(json.dumps(document).encode(), "chat")
    pieces = upstream_body(request, upstream_model="upstream", output_limit_parameter="")
    assert isinstance(pieces, tuple)
    assert b"".join(pieces) == request.body.replace(b'"m"', b'"upstream"')
    own = [piece for piece in pieces if isinstance(piece, memoryview)]
    assert [piece.obj for piece in own] == [request.body] * len(own)
    assert sum(len(piece) for piece in own) == len(request.body) - len(b'"m"')


def test_only_the_model_and_our_own_members_differ() -> None:
    request = parse(models=["other"], provider={"order": ["x"]}, plugins=[], future={"a": 1})
    assert sent(request) == {**HELLO, "model": "upstream", "future": {"a": 1}}


@pytest.mark.parametrize(
    ("given", "parameter", "expected"),
    [
        ({"max_tokens": 5}, "", {"max_tokens": 5}),
        ({"max_tokens": 5}, "max_completion_tokens", {"max_completion_tokens": 5}),
        ({"max_completion_tokens": 5}, "max_tokens", {"max_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 7}, "", {"max_completion_tokens": 7}),
        ({"max_tokens": 5, "max_completion_tokens": 7}, "max_tokens", {"max_tokens": 5}),
    ],
)
def test_one_output_limit_reaches_the_provider_under_the_name_it_knows(
    given: dict[str, int], parameter: str, expected: dict[str, int]
) -> None:
    body = sent(parse(**given), parameter)
    assert {name: body[name] for name in body if name.startswith("max_")} == expected


def test_a_stream_asks_for_usage_and_keeps_the_callers_options() -> None:
    assert sent(parse(stream=True))["stream_options"] == {"include_usage": True}
    options = {"include_obfuscation": False}
    asked = {"include_obfuscation": False, "include_usage": True}
    assert sent(parse(stream=True, stream_options=options))["stream_options"] == asked
    assert "stream_options" not in sent(parse())


def test_features_are_read_from_the_structure_of_a_conversation() -> None:
    facts = parse(
        messages=[
            {"role": "system", "content": "s" * 40},
            {
                "role": "user",
                "content": [{"type": "text", "text": "t" * 40}, {"type": "image_url", "image_url": {}}],
            },
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
            {"role": "user", "content": [{"type": "input_audio"}, {"type": "file"}]},
        ],
        tools=[{"type": "function"}],
        tool_choice="required",
        response_format={"type": "json_schema"},
        max_completion_tokens=9,
        n=2,
        logprobs=True,
    ).facts
    assert facts["message_count"] == 4
    assert facts["turn"] == 2
    assert facts["choice_count"] == 2
    assert facts["max_output_tokens"] == 9
    flags = (
        "has_images",
        "has_audio",
        "has_files",
        "has_tools",
        "has_schema",
        "has_logprobs",
        "is_tool_forced",
    )
    assert all(facts[flag] for flag in flags)
    assert facts["input_tokens"] > 1800


@pytest.mark.parametrize(
    ("value", "tokens"), [("x" * 40, 11), (["x" * 40, "y" * 8], 14), ([1, 2, 3], 3), ([[1, 2], [3]], 3)]
)
def test_embedding_inputs_of_every_form_are_measured(value: Any, tokens: int) -> None:
    assert parse("embeddings", input=value).facts["input_tokens"] == tokens


@pytest.mark.parametrize("depth", [60, 70])
@pytest.mark.parametrize("padding", ["", "x" * 10_000])
def test_nesting_is_bounded_in_small_and_large_bodies(depth: int, padding: str) -> None:
    nested: Any = 1
    for _ in range(depth):
        nested = [nested]
    if depth < 64:
        parse(extra=nested, padding=padding)
        return
    with pytest.raises(BadRequest) as refused:
        parse(extra=nested, padding=padding)
    assert refused.value.code == "json_too_deep"


def test_metadata_becomes_tags_and_only_texts_do() -> None:
    assert parse(metadata={"team": "blue", "n": 1, "x": None}).tags == {"team": "blue"}
