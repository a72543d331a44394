"""Are rate limits added, changed and lifted over HTTP, and is nonsense refused with its place?"""

from __future__ import annotations

import pytest

from policies.models import ChangeEvent, RateLimit, RateWindow
from tests.make_configuration import make_deployment, make_key
from tests.policies.api.callers import Caller, caller_with

pytestmark = pytest.mark.django_db


@pytest.fixture
def caller() -> Caller:
    return caller_with()


def test_a_limit_is_added_changed_and_lifted(caller: Caller) -> None:
    key, _ = make_key()
    added = caller.send("POST", "rate-limits", {"api_key_id": key.pk, "requests_per_minute": 60})
    assert added.status_code == 201
    place = added["Location"]
    assert caller.read(place) == added.json()
    assert (added.json()["owner"], added.json()["concurrent"]) == (str(key), None)
    assert RateWindow.objects.count() == 1
    changed = caller.send("PATCH", place, {"requests_per_minute": None, "concurrent": 5})
    assert (changed.json()["requests_per_minute"], changed.json()["concurrent"]) == (None, 5)
    assert caller.send("POST", "rate-limits", {"api_key_id": key.pk, "concurrent": 9}).status_code == 422
    assert caller.send("PATCH", place, {"concurrent": None}).status_code == 422
    assert caller.send("DELETE", place).status_code == 204
    assert not RateLimit.objects.exists()
    events = ChangeEvent.objects.filter(object_type="rate_limit").values_list("action", flat=True)
    assert list(events.order_by("id")) == ["create", "change", "delete"]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"concurrent": 1}, ""),
        ({"deployment_id": 1, "tenant_id": 1, "concurrent": 1}, "deployment_id"),
        ({"tenant_id": 987_654, "concurrent": 1}, "tenant_id"),
        ({"tenant_id": 1, "concurrent": 0}, "concurrent"),
        ({"tenant_id": 1, "requests_per_minute": 10**12}, "requests_per_minute"),
        ({"tenant_id": 1, "rpm": 5}, "rpm"),
    ],
)
def test_nonsense_is_refused_with_its_place(caller: Caller, fields: dict[str, int], path: str) -> None:
    refused = caller.send("POST", "rate-limits", fields)
    assert refused.status_code == 422
    assert [error["path"] for error in refused.json()["errors"]] == [path]


def test_lists_are_narrowed_by_owner(caller: Caller) -> None:
    key, _ = make_key()
    deployment = make_deployment(name="d")
    for fields in ({"api_key_id": key.pk}, {"deployment_id": deployment.pk}):
        assert caller.send("POST", "rate-limits", {**fields, "concurrent": 1}).status_code == 201
    found = caller.read(f"/api/v1/rate-limits?deployment_id={deployment.pk}")
    assert [row["owner"] for row in found["items"]] == ["d"]
