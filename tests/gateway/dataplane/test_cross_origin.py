"""May pages of listed origins, and no others, call the endpoint from a browser?"""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dataplane.app import DataPlane
from gateway.dataplane.cross_origin import open_to
from tests.gateway.dataplane.in_process import SECRET, Client, Plane, chat, stream

LISTED, OTHER = "https://app.example.com", "https://evil.example.com"
KEY = {"authorization": f"Bearer {SECRET}"}
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-lang",
}


async def ask(
    plane: Plane,
    origins: tuple[str, ...],
    method: str = "POST",
    path: str = "chat/completions",
    **options: Any,
) -> Client:
    """One request through the plane as a worker builds it."""
    headers = options.pop("headers", {})
    client = Client(plane, "one", **options)
    lines = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {**client.scope, "method": method, "path": f"/v1/{path}", "headers": lines}
    await open_to(DataPlane(plane.gateway), origins)(scope, client.receive, client.send, path)
    return client


@pytest.fixture
def plane() -> Plane:
    made = Plane("one")
    made.upstream.answers["one"] = [chat()]
    return made


async def test_nothing_is_wrapped_and_nothing_is_allowed_where_no_origin_is_set(plane: Plane) -> None:
    bare = DataPlane(plane.gateway)
    assert open_to(bare, ()) is bare
    answer = await ask(plane, (), headers={**KEY, "origin": LISTED})
    assert (answer.status, [name for name in answer.headers if "access-control" in name]) == (200, [])
    assert "vary" not in answer.headers


async def test_a_preflight_of_a_listed_origin_is_answered_without_a_key(plane: Plane) -> None:
    answer = await ask(plane, (LISTED,), "OPTIONS", headers={"origin": LISTED, **PREFLIGHT})
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == LISTED
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == PREFLIGHT["access-control-request-headers"]
    assert "origin" in answer.headers["vary"]
    assert "access-control-allow-credentials" not in answer.headers
    refused = await ask(plane, (LISTED,), "OPTIONS", headers={"origin": OTHER, **PREFLIGHT})
    assert [name for name in refused.headers if "access-control" in name] == []


@pytest.mark.parametrize("is_stream", [False, True])
async def test_an_answer_can_be_read_by_listed_origins_alone(plane: Plane, *, is_stream: bool) -> None:
    if is_stream:
        plane.upstream.answers["one"] = [stream()]
    answer = await ask(plane, (LISTED,), is_stream=is_stream, headers={**KEY, "origin": LISTED})
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, LISTED)
    assert (answer.headers["access-control-expose-headers"], answer.headers["vary"]) == ("*", "origin")
    assert "x-pointsman-deployment" in answer.headers
    assert answer.is_complete
    plane.upstream.answers["one"] = [chat()]
    for headers in (KEY, {**KEY, "origin": OTHER}, {**KEY, "origin": LISTED + ".evil.com"}):
        answer = await ask(plane, (LISTED,), headers=headers)
        assert (answer.status, answer.headers["vary"]) == (200, "origin")
        assert "access-control-allow-origin" not in answer.headers


async def test_errors_can_be_read_too(plane: Plane) -> None:
    for path, method in (("chat/completions", "POST"), ("nowhere", "GET"), ("chat/completions", "GET")):
        answer = await ask(plane, (LISTED,), method, path, headers={"origin": LISTED})
        assert answer.status in (401, 404, 405)
        assert answer.headers["access-control-allow-origin"] == LISTED


async def test_a_star_opens_the_endpoint_to_every_page(plane: Plane) -> None:
    answer = await ask(plane, ("*",), headers={**KEY, "origin": OTHER})
    assert (answer.headers["access-control-allow-origin"], "vary" in answer.headers) == ("*", False)
    answer = await ask(plane, ("*",), "OPTIONS", headers={"origin": OTHER, **PREFLIGHT})
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (204, "*")
