"""Are the images of an answer in the outcome and its cost, streamed or not, with usage or without?"""

from __future__ import annotations

from decimal import Decimal

import orjson
import pytest

from tests.gateway.dataplane.in_process import DONE, LAST_CHUNK, Answer, Plane, stream

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
USAGE = {
    "prompt_tokens": 10, "completion_tokens": 1295, "total_tokens": 1305,
    "completion_tokens_details": {"image_tokens": 1290},
}  # fmt: skip


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("usage", [USAGE, None], ids=["usage", "no usage"])
async def test_each_image_is_charged(is_stream: bool, usage: dict[str, object] | None) -> None:
    plane = Plane("a")
    plane.gateway.configuration.rates = {"output_usd_per_mtok": Decimal(2), "usd_per_image": Decimal("0.04")}
    message = {"role": "assistant", "content": "Two.", "images": [IMAGE, IMAGE]}
    if is_stream:
        delta = {"model": "served", "choices": [{"index": 0, "delta": message, "finish_reason": None}]}
        last = b"data: " + orjson.dumps({"model": "served", "choices": [], "usage": usage}) + b"\n\n"
        events = [b"data: " + orjson.dumps(delta) + b"\n\n", LAST_CHUNK, *([last] if usage else []), DONE]
        plane.upstream.answers["a"] = [stream(*events)]
    else:
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = {"model": "served", "choices": [choice], **({"usage": usage} if usage else {})}
        plane.upstream.answers["a"] = [Answer(orjson.dumps(body))]
    client = await plane.ask(
        "a", stream=is_stream, stream_options={"include_usage": True} if is_stream else None
    )
    assert client.status == 200
    assert client.body.count(b"iVBORw0KGgo=") == 2
    (line,) = plane.lines("outcome")
    assert line["usage"]["images"] == 2
    # 5 tokens of text that were reported; 1 for the four characters, where nothing was.
    assert line["cost"] == 2 * 40_000_000 + (5 if usage else 1) * 2_000
    if is_stream and usage:
        assert orjson.loads(client.body.split(b"data: ")[-2])["usage"]["cost"] == 0.08001
