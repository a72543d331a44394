"""What is written, called and sent for a request, and in which order? In process, over fakes."""

from __future__ import annotations

import asyncio
import random

import pytest

from gateway.dataplane.limits import LARGE_BODY_BYTES, MAX_HELD_BYTES
from gateway.dataplane.upstream_errors import UpstreamError
from tests.gateway.dataplane.in_process import (
    CHUNK,
    DONE,
    LAST_CHUNK,
    USAGE_CHUNK,
    Answer,
    Client,
    Plane,
    chat,
    refusal,
    stream,
)
from tests.make_routing import make_policy

BROKEN = UpstreamError("broken", "scripted")


def fallback_plane(*names: str, **options: object) -> Plane:
    """A plane whose policy `acme/auto` tries the deployments in this order."""
    plane = Plane(*names, **options)  # type: ignore[arg-type]
    policy = make_policy(
        plane.deployments, {"strategy": "priority", "deployments": [{"name": name} for name in names]}
    )
    return Plane(*names, policies=(policy,), **options)  # type: ignore[arg-type]


async def test_the_intent_is_written_before_the_call_and_the_outcome_before_the_answer():
    plane = Plane("a")
    plane.upstream.answers["a"] = [chat()]
    client = await plane.ask("a")
    assert (client.status, plane.kinds()) == (200, ["intent", "call", "outcome", "sent"])
    assert plane.lines("outcome")[0]["cost"] == 10 * 1000 + 5 * 2000


async def test_the_outcome_of_a_stream_is_written_before_its_last_byte():
    plane = Plane("a")
    plane.upstream.answers["a"] = [stream()]
    client = await plane.ask("a", is_stream=True)
    assert client.body == CHUNK * 2 + LAST_CHUNK + DONE
    assert plane.kinds()[-2:] == ["outcome", "sent"]
    assert plane.happened[-1] == ("sent", DONE, False)
    assert plane.upstream.responses[0].is_closed


async def test_nothing_is_sent_before_the_first_event_and_no_fallback_follows_it():
    plane = fallback_plane("a", "b")
    plane.upstream.answers = {"a": [stream(b": wait\n\n", BROKEN)], "b": [stream(CHUNK, BROKEN)]}
    client = await plane.ask("acme/auto", is_stream=True)
    assert plane.kinds() == ["intent", "call", "call", "sent", "outcome", "sent"]
    assert client.body.startswith(CHUNK + b'data: {"error":')
    assert b"[DONE]" not in client.body
    assert client.headers["x-pointsman-deployment"] == "b"
    outcome = plane.lines("outcome")[0]
    assert (outcome["status"], outcome["usage"]["kind"]) == ("error", "estimated")


async def test_a_full_journal_refuses_before_any_call():
    plane = Plane("a")
    plane.is_journal_full = True
    client = await plane.ask("a")
    assert (client.status, client.error()["code"]) == (503, "journal_unavailable")
    assert client.headers["retry-after"] == "1"
    assert plane.calls() == []


async def test_a_journal_that_fills_up_in_between_costs_no_answer():
    plane = Plane("a")
    plane.upstream.answers["a"] = [stream(CHUNK, 0.01, LAST_CHUNK, DONE)]
    client = Client(plane, "a", is_stream=True)
    task = asyncio.create_task(client.run())
    while "sent" not in plane.kinds():
        await asyncio.sleep(0)
    plane.is_journal_full = True
    await task
    assert client.body.endswith(DONE)
    assert plane.gateway.stats.journal_errors == 1


async def test_an_outcome_that_a_full_disk_refused_is_written_later_and_once():
    plane = Plane("a")
    plane.upstream.answers["a"] = [chat()]
    client = Client(plane, "a")
    task = asyncio.create_task(client.run())
    while "call" not in plane.kinds():
        await asyncio.sleep(0)
    plane.is_journal_full = True
    await task
    assert client.status == 200
    plane.gateway.write_unwritten()
    assert plane.lines("outcome") == []
    plane.is_journal_full = False
    plane.gateway.write_unwritten()
    plane.gateway.write_unwritten()
    assert [line["status"] for line in plane.lines("outcome")] == ["ok"]
    assert plane.lines("outcome")[0]["cost"] > 0


async def test_a_provider_that_does_not_stream_is_replaced_before_the_client_reads_nothing():
    plane = fallback_plane("a", "b")
    plane.upstream.answers = {"a": [chat()], "b": [stream()]}
    client = await plane.ask("acme/auto", is_stream=True)
    assert client.status == 200
    assert b"[DONE]" in client.body
    attempts = plane.lines("outcome")[0]["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["bad_answer", "ok"]
    assert attempts[0]["cost"] > 0


async def test_a_request_has_three_attempts_and_the_pinned_one_a_single_deployment():
    plane = fallback_plane("a", "b", "c", "d")
    plane.upstream.answers = {name: [refusal(500)] for name in "abcd"}
    client = await plane.ask("acme/auto")
    assert (client.status, plane.calls()) == (500, ["a", "b", "c"])
    plane.happened.clear()
    pinned = await plane.ask("a", headers={"x-pointsman-pin": "1"})
    assert (pinned.status, plane.calls()) == (500, ["a", "a", "a"])


async def test_two_deployments_share_three_attempts():
    plane = fallback_plane("a", "b")
    plane.upstream.answers = {"a": [BROKEN, chat()], "b": [refusal(503)]}
    client = await plane.ask("acme/auto")
    assert (client.status, plane.calls()) == (200, ["a", "b", "a"])


async def test_a_pause_of_more_than_twenty_seconds_is_not_waited_for():
    plane = Plane("a")
    plane.upstream.answers["a"] = [refusal(429, retry_after="21")]
    client = await plane.ask("a")
    assert (client.status, client.headers["retry-after"], plane.calls()) == (429, "21", ["a"])


async def test_a_pause_asked_for_by_one_does_not_hold_up_the_other():
    plane = fallback_plane("a", "b")
    plane.upstream.answers = {"a": [refusal(503), chat()], "b": [refusal(429, retry_after="300")]}
    client = await plane.ask("acme/auto")
    assert (client.status, plane.calls()) == (200, ["a", "b", "a"])


async def test_nobody_notices_when_a_provider_dies_under_many_requests():
    plane = fallback_plane("a", "b")
    plane.upstream.answers = {"a": [BROKEN], "b": [chat()]}
    clients = await asyncio.gather(*(plane.ask("acme/auto") for _ in range(200)))
    assert {client.status for client in clients} == {200}


async def test_retries_of_one_deployment_stay_within_their_budget():
    plane = Plane("a")
    plane.upstream.answers["a"] = [refusal(500)]
    await asyncio.gather(*(plane.ask("a") for _ in range(100)))
    assert 100 <= len(plane.calls()) <= 110  # a bucket of ten tokens, and no success that would fill it


async def test_one_request_at_a_time_probes_what_comes_back():
    plane = fallback_plane("a", "b")
    plane.upstream.answers = {"a": [BROKEN], "b": [chat()]}
    for _ in range(5):
        await plane.ask("acme/auto")
    plane.happened.clear()
    await plane.ask("acme/auto")
    assert plane.calls() == ["b"]
    plane.now_s += 31
    plane.upstream.answers["a"] = [refusal(400), chat()]
    plane.happened.clear()
    answers = await asyncio.gather(*(plane.ask("acme/auto") for _ in range(4)))
    assert plane.calls().count("a") == 1
    assert sorted(client.status for client in answers) == [200, 200, 200, 400]
    # A probe that the request itself spoilt leaves room for the next.
    plane.happened.clear()
    await plane.ask("acme/auto")
    assert plane.calls() == ["a"]


async def test_an_overflow_falls_back_only_to_a_larger_context():
    contexts = {"a": 1000, "b": 500, "c": 5000}
    plane = fallback_plane("a", "b", "c", contexts=contexts)
    plane.upstream.answers = {name: [chat()] for name in "bc"}
    plane.upstream.answers["a"] = [refusal(400, "This model's maximum context length is 1000 tokens")]
    client = await plane.ask("acme/auto")
    assert (client.status, plane.calls()) == (200, ["a", "c"])
    lone = await plane.ask("a")
    assert (lone.status, lone.error()["code"]) == (400, "context_length_exceeded")


async def test_further_names_and_forbidden_fallbacks_are_obeyed():
    plane = Plane("a", "b")
    plane.upstream.answers = {"a": [refusal(500)], "b": [chat()]}
    client = await plane.ask("a", models=["a", "b"])
    assert (client.status, plane.calls()) == (200, ["a", "b"])
    plane.happened.clear()
    alone = await plane.ask("a", models=["b"], provider={"allow_fallbacks": False})
    assert (alone.status, set(plane.calls())) == (500, {"a"})


@pytest.mark.parametrize(
    ("answer", "status", "code", "calls"),
    [
        (refusal(402), 502, "provider_account_exhausted", "ab"),
        (refusal(400, "Incorrect API key provided: xa***"), 502, "provider_credential_rejected", "ab"),
        (refusal(403, "forbidden"), 502, "provider_credential_rejected", "ab"),
        (refusal(404, "no such model"), 404, None, "ab"),
        (refusal(999, "odd"), 502, None, "ab"),
        (refusal(422, "unprocessable"), 422, None, "a"),
    ],
)
async def test_refusals_of_our_account_go_to_the_next_deployment_and_those_of_the_request_do_not(
    answer, status, code, calls
):
    alone = Plane("a")
    alone.upstream.answers["a"] = [answer]
    client = await alone.ask("a")
    assert (client.status, client.error()["code"]) == (status, code)
    plane = fallback_plane("a", "b")
    plane.upstream.answers = {"a": [answer], "b": [chat()]}
    client = await plane.ask("acme/auto")
    assert "".join(plane.calls()) == calls


async def test_a_missing_credential_is_not_called_refused():
    plane = Plane("a")
    plane.upstream.answers["a"] = [refusal(401)]
    client = await plane.ask("a")
    assert client.error()["message"] == (
        "The provider 'a' wants a credential, and this gateway has none that it can read; an operator must set it."
    )


async def test_a_refusal_counts_though_the_words_after_its_status_do_not_come():
    plane = Plane("a")
    plane.upstream.answers["a"] = [Answer(b'{"err', BROKEN, status=400)]
    client = await plane.ask("a")
    assert (client.status, client.error()["type"]) == (400, "invalid_request_error")
    (outcome,) = plane.lines("outcome")
    assert [attempt["outcome"] for attempt in outcome["attempts"]] == ["refused"]


async def test_an_answer_that_cannot_be_read_is_not_called_a_broken_connection():
    plane = Plane("a")
    plane.upstream.answers["a"] = [UpstreamError("bad_answer", "It is compressed.")]
    client = await plane.ask("a")
    assert (client.status, client.error()["code"]) == (502, "provider_bad_answer")
    attempt = plane.lines("outcome")[0]["attempts"][0]
    assert (attempt["outcome"], attempt["usage"]["kind"]) == ("bad_answer", "unknown")
    assert attempt["message"].endswith("cannot be read. It is compressed.")


async def test_a_stream_is_one_however_its_content_type_is_written():
    plane = Plane("a")
    events = (CHUNK, LAST_CHUNK, DONE)
    plane.upstream.answers["a"] = [Answer(*events, headers=(("content-type", "Text/Event-Stream"),))]
    assert (await plane.ask("a", is_stream=True)).body == b"".join(events)


async def test_a_stream_that_only_comments_times_out():
    plane = Plane("a", first_event_s=0.1, between_events_s=0.1)
    comments = [b": still here\n\n", 0.004] * 200
    plane.upstream.answers["a"] = [stream(*comments), stream(CHUNK, *comments)]
    client = await plane.ask("a", is_stream=True)
    assert b"provider_timeout" in client.body
    assert [attempt["outcome"] for attempt in plane.lines("outcome")[0]["attempts"]] == ["timeout", "timeout"]


async def test_the_rules_time_limit_ends_a_stream():
    plane = Plane("a")
    rule = {"strategy": "priority", "deployments": [{"name": "a"}], "timeout_s": 0.1}
    plane = Plane("a", policies=(make_policy(plane.deployments, rule),))
    plane.upstream.answers["a"] = [stream(*[CHUNK, 0.004] * 200)]
    client = await plane.ask("acme/auto", is_stream=True)
    assert b"provider_timeout" in client.body


async def test_a_silent_stream_is_kept_alive_with_comments():
    plane = Plane("a", keepalive_comment_s=0.02)
    plane.upstream.answers["a"] = [stream(CHUNK, 0.1, LAST_CHUNK, USAGE_CHUNK, DONE)]
    client = await plane.ask("a", is_stream=True)
    assert client.body.count(b": keepalive\n\n") >= 2
    assert client.body.replace(b": keepalive\n\n", b"") == CHUNK + LAST_CHUNK + DONE


async def test_the_latency_of_a_fallback_is_its_own():
    plane = fallback_plane("a", "b")
    plane.upstream.answers = {"a": [stream(0.1, BROKEN)], "b": [stream()]}
    await plane.ask("acme/auto", is_stream=True)
    latency_ms = plane.gateway.health.latency_ms(plane.deployments["b"].id)
    assert latency_ms is not None and latency_ms < 90


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_request_that_outlives_the_drain_gets_last_words(is_stream):
    plane = Plane("a")
    plane.upstream.answers["a"] = [stream(CHUNK, 5.0) if is_stream else chat()]
    if not is_stream:
        plane.upstream.answers["a"][0].pieces = (5.0,)
    client = Client(plane, "a", is_stream=is_stream)
    task = asyncio.create_task(client.run())
    await asyncio.sleep(0.02)
    task.cancel()
    await task
    assert b"gateway_stopping" in client.body
    assert client.is_complete
    assert client.status == (200 if is_stream else 503)
    assert [line["status"] for line in plane.lines("outcome")] == ["error"]


async def test_a_hangup_watch_leaves_the_next_request_of_its_connection_alone():
    plane = Plane("a")
    plane.upstream.answers["a"] = [stream(CHUNK, LAST_CHUNK, DONE, 0.05)]
    client = Client(plane, "a", is_stream=True)
    task = asyncio.create_task(client.run())
    while not client.is_complete:
        await asyncio.sleep(0)
    watch_of_the_next = client.connection.on_hangup = lambda: None
    await task
    assert client.connection.on_hangup is watch_of_the_next


async def test_a_failure_of_our_own_is_answered_recorded_and_settled(caplog):
    plane = Plane("a")
    plane.upstream.answers["a"] = [ZeroDivisionError()]  # type: ignore[list-item]
    client = await plane.ask("a")
    assert (client.status, client.error()["code"]) == (500, "internal_error")
    assert [line["error"] for line in plane.lines("outcome")] == ["internal_error"]
    assert "failed inside the gateway" in caplog.text


async def test_usage_worth_more_than_a_million_dollars_is_not_believed():
    plane = Plane("a")
    plane.upstream.answers["a"] = [chat()]
    plane.upstream.answers["a"][0].pieces = (
        b'{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":1000000000000,"completion_tokens":1}}',
    )
    client = await plane.ask("a")
    assert client.status == 200
    assert plane.lines("outcome")[0]["usage"]["kind"] == "unknown"


@pytest.mark.parametrize("garbage", [b"data: {\n\n", b"data: []\n\n"])
@pytest.mark.parametrize(("stated", "cost"), [(b"5", 20_000), (b"-5", None), (b"1000000000000", None)])
async def test_an_attempt_has_the_cost_of_the_usage_that_it_has_whatever_follows_in_its_stream(
    garbage, stated, cost
):
    plane = Plane("a")
    again = USAGE_CHUNK.replace(b'tokens":5', b'tokens":' + stated)
    plane.upstream.answers["a"] = [stream(USAGE_CHUNK + again + garbage)]
    client = await plane.ask("a", is_stream=True, stream_options={"include_usage": True})
    assert client.error()["code"] == "provider_bad_answer"
    for attempt in plane.lines("outcome")[0]["attempts"]:
        assert (attempt["usage"]["kind"], attempt["cost"]) == ("reported" if cost else "unknown", cost)
        assert (attempt["price"] is None) == (cost is None)


async def test_ten_thousand_cancellations_leave_nothing_behind():
    plane = fallback_plane("a", "b")
    dice = random.Random(5)
    script = [stream(), chat(), refusal(500), refusal(400), BROKEN, stream(CHUNK, BROKEN)]

    async def cancel_somewhere() -> None:
        for name in "ab":
            plane.upstream.answers[name] = [dice.choice(script)]
        client = Client(plane, "acme/auto", is_stream=dice.random() < 0.7)
        task = asyncio.create_task(client.run())
        await asyncio.sleep(0)
        for _ in range(dice.randrange(14)):
            await asyncio.sleep(0)
        if dice.random() < 0.5:
            task.cancel()
        elif client.connection.on_hangup is not None:
            client.connection.on_hangup()
        await task

    for _ in range(10_000):
        plane.gateway.health._tokens.clear()
        await cancel_somewhere()
    assert plane.gateway.stats.in_flight == 0
    assert plane.gateway.health._retries_in_flight == 0
    assert all(response.is_closed for response in plane.upstream.responses)
    intents = [line["id"] for line in plane.lines("intent")]
    outcomes = [line["id"] for line in plane.lines("outcome")]
    assert len(intents) == 10_000
    assert sorted(intents) == sorted(outcomes)
    assert len(set(outcomes)) == 10_000
    assert {line["status"] for line in plane.lines("outcome")} == {"ok", "error", "cancelled"}


async def test_what_a_broken_attempt_used_stays_unknown_beside_the_known_cost():
    plane = fallback_plane("a", "b")
    plane.upstream.answers = {"a": [UpstreamError("timeout", "scripted")], "b": [chat()]}
    await plane.ask("acme/auto")
    line = plane.lines("outcome")[0]
    broken, answered = line["attempts"]
    assert (broken["usage"]["kind"], broken["cost"]) == ("unknown", None)
    assert line["cost"] == answered["cost"] > 0
    plane = fallback_plane("a")
    plane.upstream.answers = {"a": [UpstreamError("timeout", "scripted")]}
    await plane.ask("acme/auto")
    line = plane.lines("outcome")[0]
    assert (line["usage"]["kind"], line["cost"], line["unpriced"]) == ("unknown", None, False)


async def test_large_bodies_are_turned_away_while_too_many_are_held_and_small_ones_never():
    plane = Plane("a")
    plane.upstream.answers["a"] = [chat()]
    plane.gateway.stats.held_bytes = MAX_HELD_BYTES - 2 * LARGE_BODY_BYTES + 1
    large = {"headers": {"content-length": str(2 * LARGE_BODY_BYTES)}}
    client = await plane.ask("a", **large)
    assert (client.status, client.error()["code"]) == (503, "too_many_large_requests")
    assert client.headers["retry-after"] == "2"
    assert (await plane.ask("a", headers={"content-length": "500"})).status == 200
    plane.gateway.stats.held_bytes = 0
    assert (await plane.ask("a", **large)).status == 200
    assert plane.gateway.stats.held_bytes == 0


async def test_why_nothing_can_serve_a_request_is_said_in_words_each_reason_once():
    client = await fallback_plane("a", "b").ask("acme/auto", provider={"only": ["nobody"]})
    assert client.status == 400
    assert (
        b"can serve this request. a, b: the caller asked for other providers only (provider_only)."
        in client.body
    )
