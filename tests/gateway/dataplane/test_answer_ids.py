"""Does the outcome line say what the answer that the client got calls itself?"""

from __future__ import annotations

import orjson
import pytest

from tests.gateway.dataplane.in_process import DONE, LAST_CHUNK, Answer, Plane, chat, refusal, stream


def named(answer_id: object) -> Answer:
    (body,) = chat().pieces
    return Answer(orjson.dumps({**orjson.loads(body), "id": answer_id}))


@pytest.mark.parametrize("is_stream", [False, True])
async def test_the_id_in_the_body_stands_in_the_outcome(*, is_stream: bool) -> None:
    plane = Plane("one", "two")
    plane.upstream.answers["one"] = [refusal(500)]
    event = LAST_CHUNK.replace(b"{", b'{"id":"gen-2",', 1)
    plane.upstream.answers["two"] = [stream(event, DONE) if is_stream else named("gen-2")]
    client = await plane.ask("one", is_stream=is_stream, models=["two"])
    assert b'"gen-2"' in client.body
    (outcome,) = plane.lines("outcome")
    assert (outcome["status"], outcome["answer"], len(outcome["attempts"])) == ("ok", "gen-2", 2)


@pytest.mark.parametrize("answer_id", [None, 7, "", "x" * 300])
async def test_what_is_no_id_is_left_out_and_what_is_long_is_cut(answer_id: object) -> None:
    plane = Plane("one")
    plane.upstream.answers["one"] = [named(answer_id)]
    await plane.ask("one")
    (outcome,) = plane.lines("outcome")
    assert outcome.get("answer", "") == (answer_id[:200] if isinstance(answer_id, str) else "")
