"""What becomes of usage that no provider can mean? The answer goes on untouched; usage is estimated and marked so."""

from __future__ import annotations

import pytest

from gateway.dataplane.upstream_errors import UpstreamError
from tests.gateway.dataplane.in_process import CHUNK, DONE, LAST_CHUNK, Answer, Plane, stream

LIES = [
    b'{"prompt_tokens":-10,"completion_tokens":5}',
    b'{"prompt_tokens":"10","completion_tokens":5}',
    b'{"prompt_tokens":10.5,"completion_tokens":5}',
    b'{"prompt_tokens":1e300,"completion_tokens":5}',
    b'{"prompt_tokens":99999999999999999999,"completion_tokens":5}',
    b'{"prompt_tokens":10,"completion_tokens":5,"total_tokens":-1}',
    b'{"prompt_tokens":10,"completion_tokens":5,"completion_tokens_details":{"reasoning_tokens":-7}}',
    b'{"prompt_tokens":10,"completion_tokens":5,"server_tool_use":{"web_search_requests":"many"}}',
    b'{"prompt_tokens":10,"completion_tokens":5,"num_sources_used":1e13}',
    b'{"prompt_tokens":10,"completion_tokens":5,"prompt_audio_seconds":-4}',
    b'{"prompt_tokens":10,"completion_tokens":5,"completion_tokens_details":{"image_tokens":1e300}}',
    b'{"prompt_tokens":true,"completion_tokens":5}',
    b'{"prompt_tokens":[10],"completion_tokens":5}',
]


@pytest.mark.parametrize("usage", LIES, ids=bytes.decode)
async def test_an_answer_with_such_usage_goes_through_and_is_estimated(usage: bytes) -> None:
    plane = Plane("a")
    body = b'{"model":"served","choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}],"usage":%b}'
    plane.upstream.answers["a"] = [Answer(body % usage)]
    client = await plane.ask("a")
    assert client.status == 200
    assert usage in client.body
    (line,) = plane.lines("outcome")
    # Estimated from what went over the wire, and marked so: two characters came back.
    assert (line["usage"]["kind"], line["usage"]["output"]) == ("estimated", 1)
    assert 0 < line["cost"] < 1_000_000
    assert line["unpriced"] is False


@pytest.mark.parametrize("usage", LIES[:6], ids=bytes.decode)
async def test_a_stream_with_such_usage_goes_through_too(usage: bytes) -> None:
    plane = Plane("a")
    event = b'data: {"model":"served","choices":[],"usage":%b}\n\n' % usage
    plane.upstream.answers["a"] = [stream(CHUNK, LAST_CHUNK, event, DONE)]
    client = await plane.ask("a", stream=True, stream_options={"include_usage": True})
    assert client.status == 200
    assert usage in client.body
    assert client.body.endswith(b"data: [DONE]\n\n")
    (line,) = plane.lines("outcome")
    assert line["usage"]["kind"] == "estimated"


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        (b'{"prompt_tokens":100}', (100, 5)),
        (b'{"prompt_tokens":100,"completion_tokens":null}', (100, 5)),
        (b'{"prompt_tokens":100,"total_tokens":100}', (100, 5)),
        (b'{"total_tokens":100}', (95, 5)),  # the answer is in the total
        (b'{"total_tokens":2}', (0, 2)),
        (b'{"completion_tokens":100}', ()),  # nothing is said of the input, which is not nothing
    ],
    ids=str,
)
@pytest.mark.parametrize("is_stream", [False, True])
async def test_what_no_count_holds_is_estimated_and_not_free(
    usage: bytes, counted: tuple[int, ...], is_stream: bool
) -> None:
    plane = Plane("a")
    if is_stream:
        event = b'data: {"model":"served","choices":[],"usage":%b}\n\n' % usage
        plane.upstream.answers["a"] = [stream(*[CHUNK] * 5, LAST_CHUNK, event, DONE)]
    else:
        body = b'{"choices":[{"index":0,"message":{"content":"%b"},"finish_reason":"stop"}],"usage":%b}'
        plane.upstream.answers["a"] = [Answer(body % (b"word" * 5, usage))]
    await plane.ask("a", stream=is_stream)
    (line,) = plane.lines("outcome")
    found = line["usage"]
    assert found["kind"] == "estimated"
    if counted:
        assert (found["input"], found["output"]) == counted
    else:
        assert found["input"] > 0


async def test_a_stream_that_breaks_off_is_not_free_after_the_providers_last_count() -> None:
    plane = Plane("a")
    first = (
        b'data: {"model":"served","choices":[{"index":0,"delta":{"content":"word"},"finish_reason":null}],'
        b'"usage":{"prompt_tokens":10,"completion_tokens":1,"total_tokens":11}}\n\n'
    )
    plane.upstream.answers["a"] = [stream(first, CHUNK, CHUNK, UpstreamError("broken", "gone"))]
    await plane.ask("a", stream=True)
    (line,) = plane.lines("outcome")
    assert line["status"] == "error"
    # One as counted, and two for the eight characters that came afterwards.
    assert [line["usage"][name] for name in ("kind", "input", "output")] == ["estimated", 10, 3]


async def test_a_provider_that_counts_as_it_goes_is_believed() -> None:
    plane = Plane("a")
    events = [
        b'data: {"choices":[{"index":0,"delta":{"content":"word"},"finish_reason":null}],'
        b'"usage":{"prompt_tokens":10,"completion_tokens":%d,"total_tokens":%d}}\n\n' % (count, 10 + count)
        for count in (1, 2, 3)
    ]
    plane.upstream.answers["a"] = [stream(*events, UpstreamError("broken", "gone"))]
    await plane.ask("a", stream=True)
    (line,) = plane.lines("outcome")
    assert [line["usage"][name] for name in ("kind", "input", "output")] == ["reported", 10, 3]


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
async def test_an_answer_that_is_no_json_for_its_numbers_is_a_failure_of_the_provider(number: bytes) -> None:
    plane = Plane("a")
    plane.upstream.answers["a"] = [Answer(b'{"choices":[],"usage":{"prompt_tokens":%b}}' % number)]
    client = await plane.ask("a")
    assert (client.status, client.error()["code"]) == (502, "provider_bad_answer")
    (line,) = plane.lines("outcome")
    assert (line["usage"]["kind"], line["cost"]) == ("unknown", None)
