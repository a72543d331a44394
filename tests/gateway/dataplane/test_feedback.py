"""What happens to a rating that a caller sends? In process, over fakes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.dataplane.app import DataPlane, endpoint_path
from gateway.dataplane.errors import BadRequest
from gateway.dataplane.feedback import read_rating
from gateway.dataplane.request_ids import make_request_id
from tests.gateway.dataplane.in_process import SECRET, Client, Plane

REQUEST_ID = make_request_id(1_760_000_000_000)


async def send(
    plane: Plane, payload: Any, *, secret: str = SECRET, method: str = "POST", raw: bytes = b""
) -> Client:
    client = Client(plane, "a")
    client._payload = raw or orjson.dumps(payload)
    scope = {
        "method": method,
        "path": "/v1/feedback",
        "headers": [
            (b"authorization", f"Bearer {secret}".encode()),
            (b"content-length", b"%d" % len(client._payload)),
        ],
    }
    await DataPlane(plane.gateway)(scope, client.receive, client.send, "feedback")
    return client


async def test_a_rating_is_in_the_journal_before_it_is_answered_and_no_record_is_looked_up():
    plane = Plane("a")
    client = await send(plane, {"request_id": REQUEST_ID, "rating": 1})
    assert client.status == 202
    assert plane.kinds() == ["feedback", "sent"]
    (line,) = plane.lines("feedback")
    answer = orjson.loads(client.body)
    assert line == {
        "k": "feedback",
        "v": 1,
        "id": answer["id"],
        "request": REQUEST_ID,
        "key": plane.gateway.configuration.grant.key_id,  # type: ignore[attr-defined]  # the fake's
        "quality": 1.0,
    }


async def test_a_full_journal_refuses_the_rating_so_that_it_is_sent_again():
    plane = Plane("a")
    plane.is_journal_full = True
    client = await send(plane, {"request_id": REQUEST_ID, "rating": 1})
    assert (client.status, client.error()["code"]) == (503, "journal_unavailable")


@pytest.mark.parametrize(
    ("fields", "quality"),
    [
        ({"rating": -1}, 0.0),
        ({"rating": 0}, None),
        ({"rating": 1}, 1.0),
        ({"rating": 0.25}, 0.25),
        ({"rating": 1.0}, 1.0),
        ({"quality": 0}, 0.0),
        ({"quality": 0.5, "rating": -1}, 0.5),
    ],
)
def test_thumbs_and_fractions_are_understood(fields: dict[str, float], quality: float | None) -> None:
    assert read_rating(orjson.dumps({"request_id": REQUEST_ID, **fields})) == (REQUEST_ID, quality)


@pytest.mark.parametrize(
    ("payload", "param"),
    [
        ({"rating": 1}, "request_id"),
        ({"request_id": "chatcmpl-1", "rating": 1}, "request_id"),
        ({"request_id": 7, "rating": 1}, "request_id"),
        ({"request_id": "123e4567-e89b-42d3-a456-426614174000", "rating": 1}, "request_id"),
        ({"request_id": REQUEST_ID}, "rating"),
        ({"request_id": REQUEST_ID, "rating": 2}, "rating"),
        ({"request_id": REQUEST_ID, "rating": -0.5}, "rating"),
        ({"request_id": REQUEST_ID, "rating": True}, "rating"),
        ({"request_id": REQUEST_ID, "rating": "good"}, "rating"),
        ({"request_id": REQUEST_ID, "quality": 1.5}, "quality"),
        ([], None),
    ],
)
def test_what_cannot_be_understood_names_the_parameter(payload: Any, param: str | None) -> None:
    with pytest.raises(BadRequest) as refused:
        read_rating(orjson.dumps(payload))
    assert refused.value.param == param


async def test_strangers_other_methods_and_large_bodies_are_refused():
    plane = Plane("a")
    assert (await send(plane, {"request_id": REQUEST_ID, "rating": 1}, secret="pm-x")).status == 401
    assert (await send(plane, {}, method="GET")).status == 405
    assert (await send(plane, {}, raw=b"{" + b" " * 20_000 + b"}")).status == 413
    assert (await send(plane, {}, raw=b"nonsense")).status == 400
    assert plane.lines("feedback") == []


def test_the_path_is_the_endpoints_with_a_key_only() -> None:
    assert endpoint_path({"path": "/v1/feedback", "headers": []}) == "feedback"
    assert endpoint_path({"path": "/feedback", "headers": []}) is None
