"""May pages of listed origins, and no others, call the endpoint from a browser?"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.dataplane.app import DataPlane
from gateway.dataplane.client_connection import ClientLimits
from gateway.dataplane.cross_origin import open_to
from gateway.dataplane.server import WorkerServer, bind_listener, build_config
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


REFUSED = (
    (b"a: b\r\n" * 101 + b"\r\n", 431),
    (b"a: b\r\nno header\r\n\r\n", 400),
    (b"x-unfinished: ", 408),
    (b"transfer-encoding: chunked\r\n\r\nzz\r\n", 400),
)


@pytest.mark.parametrize(
    ("origins", "said"), [((LISTED,), LISTED), (("*",), "*"), ((OTHER,), None), ((), None)]
)
async def test_what_the_server_refuses_itself_can_be_read_by_listed_origins_alone(
    origins: tuple[str, ...], said: str | None
) -> None:
    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        while (message := await receive())["type"] not in ("lifespan.shutdown", "http.disconnect"):
            if scope["type"] == "lifespan":
                await send({"type": message["type"] + ".complete"})
        if scope["type"] == "lifespan":
            await send({"type": "lifespan.shutdown.complete"})

    listener = bind_listener("127.0.0.1", 0)
    config = build_config(application, limits=ClientLimits(head_s=0.05), origins=origins)
    worker = WorkerServer(config, drain_s=0.1, sweep_interval_s=0.1)
    serving = asyncio.create_task(worker._serve([listener]))
    begun = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\norigin: {LISTED}\r\n".encode()
    async with asyncio.timeout(30):
        while not worker.started:
            await asyncio.sleep(0.005)
        for rest, status in REFUSED:
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
            writer.write(begun + rest)
            head = (await reader.read(-1)).partition(b"\r\n\r\n")[0].decode().split("\r\n")
            writer.close()
            headers = dict(line.split(": ", 1) for line in head[1:])
            assert head[0].startswith(f"HTTP/1.1 {status} ")
            assert headers.get("access-control-allow-origin") == said
            assert headers.get("access-control-expose-headers") == (said and "*")
            assert headers.get("vary") == ("origin" if origins and origins != ("*",) else None)
    worker.should_exit = True
    await serving
