"""Streams pass through byte for byte but for the four named cases, however the bytes arrive."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.openai_stream import OpenAIStream, StreamGarbageError
from tests.recorded_traffic import load_openai_records, needs_recorded_traffic


def chunk(**fields):
    return (
        b"data: " + json.dumps({"id": "c", "model": "m", **fields}, separators=(",", ":")).encode() + b"\n\n"
    )


HELLO = chunk(
    choices=[{"index": 0, "delta": {"role": "assistant", "content": "hello"}, "finish_reason": None}]
)
STOP = chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
USAGE = chunk(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})
DONE = b"data: [DONE]\n\n"


def make_stream(*, is_usage_wanted=True, cost=None, secret=None):
    return OpenAIStream(is_usage_wanted=is_usage_wanted, cost_of=lambda stream: cost, secret=secret)


def pass_through(stream, data, cuts=()):
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    out = b"".join(stream.feed(data[a:b]) for a, b in itertools.pairwise(edges) if b > a)
    return out + stream.finish()


def test_a_stream_passes_untouched_and_its_facts_are_read():
    stream = make_stream()
    assert pass_through(stream, HELLO + STOP + USAGE + DONE) == HELLO + STOP + USAGE + DONE
    assert (stream.model, stream.finish_reason, stream.is_done) == ("m", "stop", True)
    assert stream.answer_id == "c"
    assert stream.usage == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert stream.output_characters == 5


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_what_follows_the_end_spoils_no_answer_that_is_whole(line_end):
    stream = make_stream()
    answer = (HELLO + STOP + DONE).replace(b"\n", line_end)
    assert (
        stream.feed(answer + b"data: upstream timed out" + line_end * 2 + b"data: 7" + line_end * 2) == answer
    )
    assert (stream.is_done, stream.finish_reason) == (True, "stop")


def test_the_first_id_that_is_a_text_is_the_answers():
    stream = make_stream()
    pass_through(
        stream, chunk(id="", choices=[]) + chunk(id=7) + chunk(id="gen-1") + chunk(id="gen-2") + DONE
    )
    assert stream.answer_id == "gen-1"


def test_usage_nobody_asked_for_is_left_out_and_still_read():
    stream = make_stream(is_usage_wanted=False)
    assert pass_through(stream, HELLO + STOP + USAGE + DONE) == HELLO + STOP + DONE
    assert stream.usage["completion_tokens"] == 2


def test_the_final_usage_gets_our_cost_when_it_was_asked_for():
    out = pass_through(make_stream(cost=0.25), HELLO + STOP + USAGE + DONE)
    event = json.loads(out.split(b"\n\n")[2][6:])
    assert event["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "cost": 0.25}
    assert out.startswith(HELLO + STOP)
    assert out.endswith(DONE)


def test_a_cost_that_the_provider_states_is_not_overwritten():
    usage = chunk(choices=[], usage={"prompt_tokens": 1, "cost": 0.5})
    assert pass_through(make_stream(cost=0.25), usage) == usage


def test_cumulative_usage_on_every_chunk_is_replaced_not_added():
    stream = make_stream()
    events = b"".join(
        chunk(
            choices=[{"index": 0, "delta": {"content": "x"}, "finish_reason": None}],
            usage={"prompt_tokens": 1, "completion_tokens": n},
        )
        for n in (1, 2, 3)
    )
    assert pass_through(stream, events) == events
    assert stream.usage["completion_tokens"] == 3


def test_comments_pass_and_are_not_events():
    stream = make_stream()
    assert stream.feed(b": OPENROUTER PROCESSING\n\n") == b": OPENROUTER PROCESSING\n\n"
    assert stream.event_count == 0


def test_an_error_in_the_stream_is_noted_and_loses_the_credential():
    stream = make_stream(secret="sk-upstream-credential-1")
    out = stream.feed(
        b'event: error\ndata: {"error":{"message":"bad key sk-upstream-credential-1","status_code":500}}\n\n'
    )
    assert out.startswith(b"event: error\ndata: ")
    assert b"upstream-credential" not in out
    error = json.loads(out.split(b"data: ")[1])["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert stream.error is not None


@pytest.mark.parametrize(
    "garbage", [b"data: {not json\n\n", b"data: 7\n\n", b"data: [1]\n\n", b"data: \xff\n\n"]
)
def test_what_is_no_event_is_refused(garbage):
    with pytest.raises(StreamGarbageError):
        make_stream().feed(garbage)


def test_an_event_without_end_is_refused_before_it_fills_the_memory():
    stream = make_stream()
    with pytest.raises(StreamGarbageError):
        for _ in range(100):
            stream.feed(b"data: " + b"x" * 1_000_000)


@given(st.lists(st.integers(0, 10_000), max_size=12), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_cuts_and_line_ends_change_nothing(cuts, line_end):
    data = (b": hi\n\n" + HELLO + STOP + USAGE + DONE).replace(b"\n", line_end)
    stream = make_stream()
    assert pass_through(stream, data, cuts).rstrip(b"\r\n") == data.rstrip(b"\r\n")
    assert (stream.finish_reason, stream.is_done, stream.event_count) == ("stop", True, 3)


@needs_recorded_traffic
def test_every_recorded_stream_passes_byte_for_byte_in_small_pieces():
    streams = [r for r in load_openai_records() if "stream" in r["features"] and r["status"] < 400]
    assert len(streams) > 100
    for record in streams:
        data = record["response"]["body"].encode()
        whole, pieces = make_stream(), make_stream()
        expected = pass_through(whole, data)
        assert pass_through(pieces, data, range(0, len(data), 97)).rstrip() == expected.rstrip(), record["id"]
        if whole.error is None:
            assert expected.rstrip() == data.rstrip(), record["id"]
        expect = record["expect"]
        assert whole.finish_reason == (expect["finish_reason"][-1] if expect.get("finish_reason") else ""), (
            record["id"]
        )
        assert (whole.usage or None) == expect.get("usage_raw"), record["id"]
