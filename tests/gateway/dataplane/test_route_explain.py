"""Does asking what would be tried say what would be tried, and nothing else? In process, over fakes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.dataplane.app import DataPlane, endpoint_path
from gateway.dataplane.limits import LARGE_BODY_BYTES, MAX_HELD_BYTES
from tests.gateway.dataplane.in_process import SECRET, Client, Plane, chat
from tests.make_routing import make_policy

RULES: tuple[dict[str, Any], ...] = (
    {"name": "long", "when": "input_tokens > 4000 && tenant != 'rival'", "deployments": ["b"]},
    {"name": "rest", "deployments": ["a"], "fallbacks": ["b"]},
    {"name": "never", "when": "has_tools", "deployments": ["b"]},
)


def make_plane() -> Plane:
    plane = Plane("a", "b")
    return Plane("a", "b", policies=(make_policy(plane.deployments, *RULES),))


async def explain(
    plane: Plane, payload: Any, *, secret: str = SECRET, method: str = "POST", **headers: str
) -> Client:
    client = Client(plane, "a")
    client._payload = payload if isinstance(payload, bytes) else orjson.dumps(payload)
    scope = {
        "method": method,
        "path": "/v1/route/explain",
        "headers": [
            (b"authorization", f"Bearer {secret}".encode()),
            *((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()),
        ],
    }
    await DataPlane(plane.gateway)(scope, client.receive, client.send, "route/explain")
    return client


def hello(model: str = "acme/auto", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "a secret text"}], **fields}


async def test_what_is_explained_is_what_is_then_tried_and_nothing_is_called_or_written():
    plane = make_plane()
    client = await explain(plane, hello())
    assert client.status == 200
    assert plane.kinds() == ["sent"]
    shown = orjson.loads(client.body)
    assert (shown["order"], shown["rule"], shown["policy"]["id"]) == (["a", "b"], "rest", "acme/auto")
    assert shown["policy"]["is_draft"] is False
    assert [(rule["name"], rule["outcome"], rule["is_reached"]) for rule in shown["rules"]] == [
        ("long", "skipped", True),
        ("rest", "matched", True),
        ("never", "skipped", False),
    ]
    assert b"secret" not in client.body
    plane.upstream.answers["a"] = [chat()]
    await plane.ask("acme/auto")
    assert plane.calls() == shown["order"][:1]


async def test_a_caller_is_not_shown_the_conditions_of_a_policy_that_others_use_too():
    client = await explain(make_plane(), hello())
    assert b"rival" not in client.body
    assert orjson.loads(client.body)["rules"][0]["reasons"][0].startswith("Input tokens (estimate) is ")


async def test_an_ejected_deployment_is_left_out_with_its_reason():
    plane = make_plane()
    for _ in range(5):
        plane.gateway.health.on_failure(plane.deployments["a"], "http_5xx")
    shown = orjson.loads((await explain(plane, hello())).body)
    assert shown["order"] == ["b"]
    assert [(row["deployment"], row["reason"]) for row in shown["candidates"]] == [
        ("b", None),
        ("a", "ejected"),
    ]


@pytest.mark.parametrize(
    ("payload", "headers", "expected"),
    [
        ({"model": "a", "input": "x"}, {}, "embeddings"),
        ({"model": "a", "prompt": "x"}, {}, "completions"),
        ({"model": "a", "input": "x", "pointsman": {"endpoint": "embeddings"}}, {}, "embeddings"),
        ({"model": "a", "input": "x"}, {"x_pointsman_endpoint": "Embeddings"}, "embeddings"),
        (hello("a"), {}, None),
    ],
)
async def test_the_endpoint_is_named_or_seen(payload: Any, headers: dict[str, str], expected: str | None):
    client = await explain(make_plane(), payload, **headers)
    shown = orjson.loads(client.body)
    assert (client.status, shown["path"]) == (200, "fixed")
    assert shown["features"].get("endpoint") == expected


@pytest.mark.parametrize(
    ("payload", "headers", "status", "code"),
    [
        (b"{", {}, 400, "invalid_json"),
        (b"[]", {}, 400, "invalid_json"),
        (hello("nothing"), {}, 404, "model_not_found"),
        (hello(), {"x_pointsman_pin": "1"}, 400, "pin_needs_deployment"),
        (hello(pointsman={"endpoint": "images"}), {}, 400, "invalid_value"),
        ({"messages": []}, {}, 400, "missing_required_parameter"),
        (hello(), {"content_type": "text/plain"}, 415, "unsupported_content_type"),
        (hello(), {"content_length": "99999999999"}, 413, "request_too_large"),
    ],
)
async def test_what_would_be_refused_is_refused_in_the_same_way(
    payload: Any, headers: dict[str, str], status: int, code: str
):
    plane = make_plane()
    client = await explain(plane, payload, **headers)
    assert (client.status, client.error()["code"]) == (status, code)
    assert plane.kinds() == ["sent"]


async def test_only_a_key_may_ask_and_only_by_post():
    plane = make_plane()
    assert (await explain(plane, hello(), secret="pm-wrong")).status == 401
    assert (await explain(plane, hello(), method="GET")).status == 405
    assert endpoint_path({"path": "/v1/route/explain", "headers": []}) == "route/explain"


async def test_large_bodies_take_their_place_among_those_that_are_held():
    plane = make_plane()
    plane.gateway.stats.held_bytes = MAX_HELD_BYTES - LARGE_BODY_BYTES + 1
    large = {"content_length": str(LARGE_BODY_BYTES)}
    refused = await explain(plane, hello(), **large)
    assert (refused.status, refused.error()["code"]) == (503, "too_many_large_requests")
    plane.gateway.stats.held_bytes = 0
    assert (await explain(plane, hello(), **large)).status == 200
    assert plane.gateway.stats.held_bytes == 0
