"""Is no text of a prompt or an answer written down, whatever a provider says about it?"""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from tests.gateway.dataplane.in_process import CHUNK, Answer, Plane, stream

PROMPT = "my patient's diagnosis"


def error(**fields: object) -> bytes:
    return orjson.dumps({"error": {"message": f"Invalid content: '{PROMPT}'", **fields}})


@pytest.mark.parametrize(
    ("answer", "recorded"),
    [
        (Answer(error(type="invalid_request_error", param="messages[0].content"), status=400), "invalid_request_error"),
        (Answer(error(code=PROMPT, type=PROMPT, param=PROMPT), status=400), "provider_error"),
        (Answer(error(code=502)), "502"),
        (Answer(PROMPT.encode(), status=500), "server_error"),
        (stream(b"data: " + error(code="overloaded") + b"\n\n"), "overloaded"),
        (stream(CHUNK, b"data: " + error(code=PROMPT) + b"\n\n"), "server_error"),
    ],
)  # fmt: skip
async def test_a_provider_that_quotes_the_prompt_puts_it_in_no_record(answer, recorded):
    plane = Plane("a")
    plane.upstream.answers["a"] = [answer]
    await plane.ask("a", is_stream=True, messages=[{"role": "user", "content": PROMPT}])
    (outcome,) = plane.lines("outcome")
    assert outcome["attempts"][0]["error"] == recorded
    lines = orjson.dumps([plane.lines("intent"), outcome]).decode()
    assert "diagnosis" not in lines


async def test_the_client_still_reads_what_the_provider_said():
    plane = Plane("a")
    plane.upstream.answers["a"] = [Answer(error(param="messages[0].content"), status=400)]
    client = await plane.ask("a")
    assert PROMPT in client.error()["message"]
    attempt = plane.lines("outcome")[0]["attempts"][0]
    assert attempt["message"] == "The provider answered 400 about messages[0].content."


async def test_a_referring_page_is_recorded_without_its_query():
    plane = Plane("a")
    plane.upstream.answers["a"] = [stream()]
    await plane.ask("a", is_stream=True, headers={"referer": "https://app.example/chat?token=1234#5678"})
    assert plane.lines("intent")[0]["features"]["app"] == "https://app.example/chat"


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ({"user": "u-1"}, "u-1"),
        ({"user": "u-1", "safety_identifier": "hash-2"}, "hash-2"),
        ({"metadata": {"user_id": "u-3"}}, "u-3"),
        ({"user": "u" * 300}, "u" * 200),
        ({"metadata": {"team": "a"}}, None),
    ],
)
async def test_an_end_user_is_kept_only_where_the_tenant_wants_that(body, kept):
    plane = Plane("a")
    plane.upstream.answers["a"] = [stream(), stream()]
    await plane.ask("a", is_stream=True, **body)
    grant = plane.gateway.configuration.grant
    plane.gateway.configuration.grant = replace(grant, tenant=replace(grant.tenant, reports_end_users=True))
    await plane.ask("a", is_stream=True, **body)
    without, wanted = plane.lines("intent")
    assert "end_user" not in without["features"]
    assert wanted["features"].get("end_user") == kept
