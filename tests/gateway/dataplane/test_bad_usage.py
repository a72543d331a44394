"""What becomes of usage that no provider can mean? The answer goes on untouched; usage is estimated and marked so."""

from __future__ import annotations

import pytest

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


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
async def test_an_answer_that_is_no_json_for_its_numbers_is_a_failure_of_the_provider(number: bytes) -> None:
    plane = Plane("a")
    plane.upstream.answers["a"] = [Answer(b'{"choices":[],"usage":{"prompt_tokens":%b}}' % number)]
    client = await plane.ask("a")
    assert (client.status, client.error()["code"]) == (502, "provider_bad_answer")
    (line,) = plane.lines("outcome")
    assert (line["usage"]["kind"], line["cost"]) == ("unknown", None)
