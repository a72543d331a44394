"""Are the client's own ids of a request recorded, bounded, and without any part in its decision?"""

from __future__ import annotations

import pytest

from gateway.dataplane.client_ids import read_client_ids
from policies.replaying import StoredRequest, restore_ask, restore_features
from tests.gateway.dataplane.in_process import Plane, chat


async def test_what_the_client_sent_stands_in_the_intent_and_changes_no_decision() -> None:
    plane = Plane("a")
    plane.upstream.answers["a"] = [chat()]
    sent = {"x-request-id": "req-7", "idempotency-key": "order 9", "x-stainless-retry-count": "2"}
    client = await plane.ask("a", headers=sent)
    await plane.ask("a")
    with_ids, without = plane.lines("intent")
    ids = {"request_id": "req-7", "idempotency_key": "order 9", "retry_count": "2"}
    assert with_ids["features"] == {**without["features"], "client": ids}
    assert with_ids["decision"] | {"draw": 0} == without["decision"] | {"draw": 0}
    assert with_ids["id"] not in ids.values()
    assert client.headers["x-pointsman-request-id"] == with_ids["id"]

    def stored(line: dict[str, dict[str, object]]) -> StoredRequest:
        return StoredRequest("a", "chat", False, False, "t", "p", "k", {}, line["features"], {})

    assert restore_features(stored(with_ids)) == restore_features(stored(without))
    assert restore_ask(stored(with_ids)) == restore_ask(stored(without))


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (b"x-stainless-retry-count", b"0"),
        (b"x-request-id", b""),
        (b"x-request-id", b"x" * 129),
        (b"x-request-id", b"a\x00b"),
        (b"idempotency-key", b"caf\xe9"),
        (b"idempotency-key", b"a\x7fb"),
        (b"x-other-id", b"1"),
    ],
)
def test_nothing_else_is_recorded(header: bytes, value: bytes) -> None:
    assert read_client_ids({header: value}) == {}


async def test_a_refused_request_has_them_too() -> None:
    plane = Plane("a")
    client = await plane.ask("unknown", headers={"x-request-id": "req-8"})
    assert client.status == 404
    assert plane.lines("intent")[0]["features"]["client"] == {"request_id": "req-8"}
