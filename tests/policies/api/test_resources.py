"""Do the resources of the management API read and change what the verbs do, page by page, within few queries?"""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from policies import issuing, publishing
from policies.api.schema import ProblemSerializer
from policies.models import ApiKey, Policy, Provider
from tests.make_configuration import make_deployment, make_key, make_model, make_project, make_tenant
from tests.policies.api.callers import Caller, caller_with

pytestmark = pytest.mark.django_db


@pytest.fixture
def caller() -> Caller:
    return caller_with()


def problem_of(response: Any, status: int, slug: str) -> dict[str, Any]:
    """The problem document, after what is true of all of them."""
    document: dict[str, Any] = response.json()
    assert response.status_code == status, document
    assert response["Content-Type"] == "application/problem+json"
    assert (document["type"], document["status"]) == (f"/api/v1/problems/{slug}", status)
    assert document["title"]
    assert document["detail"].endswith((".", "!", "?"))
    described = ProblemSerializer(data=document)
    assert described.is_valid(), described.errors
    explained = Client().get(document["type"]).json()
    assert explained["title"] == document["title"]
    assert explained["advice"]
    return document


def places(document: dict[str, Any]) -> list[str]:
    return [error["path"] for error in document["errors"]]


def test_a_tenant_is_added_read_changed_and_deleted(caller: Caller) -> None:
    publishing.create_policy(public_id="acme/chat", actor="a test")
    added = caller.send(
        "POST", "tenants", {"name": "acme", "time_zone": "Europe/Berlin", "policies": ["acme/chat"]}
    )
    assert added.status_code == 201
    place = added["Location"]
    assert caller.read(place) == added.json()
    assert added.json()["policies"] == ["acme/chat"]
    changed = caller.send(
        "PATCH",
        place,
        {
            "policies": [],
            "allowed_regions": ["eu"],
            "retention_limit": "none",
            "is_enabled": False,
            "shadow_percent": 5,
            "shadow_daily_budget_usd": "1.50",
        },
    ).json()
    assert (changed["policies"], changed["allowed_regions"], changed["is_enabled"]) == ([], ["eu"], False)
    assert (changed["time_zone"], changed["retention_limit"]) == ("Europe/Berlin", "none")
    assert (changed["shadow_percent"], changed["shadow_daily_budget_usd"]) == (5.0, "1.50")
    assert caller.send("DELETE", place).status_code == 204
    problem_of(caller.get(place), 404, "not-found")


def test_a_refused_member_leaves_nothing_behind(caller: Caller) -> None:
    refused = caller.send("POST", "tenants", {"name": "acme", "policies": ["no/such"]})
    problem_of(refused, 422, "invalid-value")
    assert caller.read("tenants")["items"] == []


def test_a_project_belongs_to_a_tenant_that_there_is(caller: Caller) -> None:
    tenant = make_tenant(name="acme")
    added = caller.send("POST", "projects", {"tenant_id": tenant.pk, "name": "web"}).json()
    assert (added["tenant"], added["name"], added["is_enabled"]) == ("acme", "web", True)
    problem = problem_of(
        caller.send("POST", "projects", {"tenant_id": 999_999, "name": "x"}), 422, "invalid-value"
    )
    assert places(problem) == ["tenant_id"]
    twice = caller.send("POST", "projects", {"tenant_id": tenant.pk, "name": "web"})
    problem_of(twice, 409, "name-taken")
    problem_of(caller.send("DELETE", f"tenants/{tenant.pk}"), 409, "in-use")
    path = f"projects/{added['id']}"
    assert caller.send("PATCH", path, {"name": "site"}).json()["name"] == "site"
    moved = caller.send("PATCH", path, {"tenant_id": make_tenant().pk})
    assert places(problem_of(moved, 422, "invalid-value")) == ["tenant_id"]
    assert caller.send("DELETE", path).status_code == 204


def test_a_key_shows_its_secret_once_is_rotated_and_revoked(caller: Caller) -> None:
    project = make_project()
    body = {"project_id": project.pk, "name": "web", "expires_at": "2099-01-01T00:00:00+02:00"}
    issued = caller.send("POST", "keys", body)
    assert issued.status_code == 201
    assert issued["Cache-Control"] == "no-store"
    key = ApiKey.objects.get()
    assert issuing.is_secret_of(key, issued.json()["secret"])
    assert "secret" not in caller.read(issued["Location"])
    assert key.created_by.startswith("token:")
    assert key.expires_at == dt.datetime(2098, 12, 31, 22, tzinfo=dt.UTC)
    rotated = caller.send("POST", f"keys/{key.pk}/rotate", {"overlap_s": 3600}).json()
    assert rotated["id"] != key.pk
    assert rotated["secret"] != issued.json()["secret"]
    key.refresh_from_db()
    assert key.replaced_by_id == rotated["id"]
    assert key.expires_at is not None
    assert key.expires_at < timezone.now() + dt.timedelta(hours=2)
    problem_of(caller.send("POST", f"keys/{key.pk}/rotate", {"overlap_s": 0}), 409, "in-use")
    revoked = caller.send("POST", f"keys/{rotated['id']}/revoke").json()
    assert revoked["revoked_at"]
    assert caller.send("POST", f"keys/{rotated['id']}/revoke").json() == revoked
    assert [row["id"] for row in caller.read("keys?is_revoked=true")["items"]] == [rotated["id"]]
    assert [row["id"] for row in caller.read("keys?is_revoked=false")["items"]] == [key.pk]
    problem_of(caller.send("PATCH", f"keys/{rotated['id']}", {"owner": "x"}), 409, "in-use")


def test_the_catalog_goes_in_and_comes_out_and_a_credential_only_in(caller: Caller) -> None:
    provider = caller.send(
        "POST",
        "providers",
        {"name": "openai", "base_url": "https://api.openai.com/v1/", "credential": "sk-123456789"},
    )
    assert provider.status_code == 201
    assert "sk-123456789" not in provider.content.decode()
    assert provider.json()["credential_state"] == "set"
    assert provider.json()["base_url"] == "https://api.openai.com/v1"
    place = provider["Location"]
    elsewhere = caller.send("PATCH", place, {"base_url": "https://evil.example.com/v1"})
    assert places(problem_of(elsewhere, 422, "invalid-value")) == ["base_url"]
    referred = caller.send("PATCH", place, {"credential_reference": "sk-pasted-into-the-wrong-field"})
    assert "sk-pasted" not in str(problem_of(referred, 422, "credential-refused"))
    removed = caller.send("PATCH", place, {"credential": ""}).json()
    assert removed["credential_state"] == "missing"
    model = caller.send("POST", "models", {"name": "gpt-5-mini", "capabilities": ["tools"]}).json()
    assert model["capabilities"] == ["tools"]
    deployment = caller.send(
        "POST",
        "deployments",
        {
            "name": "gpt-5-mini@openai",
            "model_id": model["id"],
            "provider_id": provider.json()["id"],
            "upstream_model": "gpt-5-mini",
        },
    ).json()
    assert (deployment["model"], deployment["provider"]) == ("gpt-5-mini", "openai")
    assert caller.read(f"deployments?model_id={model['id']}")["items"] == [deployment]
    problem_of(caller.send("DELETE", f"models/{model['id']}"), 409, "in-use")
    path = f"deployments/{deployment['id']}"
    assert caller.send("PATCH", path, {"region": "eu", "is_enabled": False}).json()["region"] == "eu"
    assert caller.send("PATCH", path, {"retention": "temporary"}).json()["retention"] == "temporary"
    problem_of(caller.send("PATCH", path, {"retention": "a while"}), 422, "invalid-value")
    for gone in (path, f"models/{model['id']}", place):
        assert caller.send("DELETE", gone).status_code == 204
    assert not Provider.objects.exists()


WRONG_VALUES: tuple[tuple[str, str, Any, str], ...] = (
    ("POST", "tenants", {"name": "no spaces please"}, "name"),
    ("POST", "tenants", {"name": "acme", "time_zone": "Mars/Base"}, "time_zone"),
    ("POST", "tenants", {"name": "acme", "colour": "red"}, "colour"),
    ("POST", "tenants", {"name": "acme", "id": 7}, "id"),
    ("POST", "tenants", {}, "name"),
    ("POST", "tenants", ["acme"], ""),
    ("POST", "tenants", {"name": "acme", "allowed_regions": ["eu", 7, None]}, "allowed_regions[2]"),
    ("POST", "models", {"name": "m", "capabilities": ["telepathy"]}, "capabilities[0]"),
    ("POST", "models", {"name": "m", "context_tokens": 10**12}, "context_tokens"),
    ("POST", "providers", {"name": "p", "base_url": "ftp://x"}, "base_url"),
    ("POST", "providers", {"name": "p", "base_url": "http://127.0.0.1/v1"}, "base_url"),
    ("POST", "keys", {"project_id": 10**30, "name": "k"}, "project_id"),
    ("GET", "tenants?colour=red", None, "colour"),
    ("GET", "tenants?name=%00", None, "name"),
    ("GET", "tenants?is_enabled=perhaps", None, "is_enabled"),
    ("GET", "tenants?limit=0", None, "limit"),
    ("GET", "tenants?limit=201", None, "limit"),
    ("GET", "tenants?after=-1", None, "after"),
    ("GET", "tenants?after=99999999999999999999", None, "after"),
)


def test_a_wrong_value_is_named_by_its_place(caller: Caller) -> None:
    for method, path, body, place in WRONG_VALUES:
        problem = problem_of(caller.send(method, path, body), 422, "invalid-value")
        assert places(problem) == [place], (method, path, body)


def test_a_time_without_its_zone_is_refused(caller: Caller) -> None:
    body = {"project_id": make_project().pk, "name": "k", "expires_at": "2099-01-01T00:00:00"}
    assert places(problem_of(caller.send("POST", "keys", body), 422, "invalid-value")) == ["expires_at"]


def test_what_is_no_json_is_told_so(caller: Caller) -> None:
    for body in (b"{", b'"\\ud800"', b"[" * 5000, b"\xff", b'{"name": NaN}', b'{"x": 1e999}'):
        response = caller.client.post(
            "/api/v1/tenants", body, content_type="application/json", headers=caller.headers
        )
        problem_of(response, 400, "malformed")


def test_other_forms_methods_and_addresses_are_problems_too(caller: Caller) -> None:
    form = caller.client.post("/api/v1/tenants", {"name": "acme"}, headers=caller.headers)
    problem_of(form, 415, "unsupported-media-type")
    problem_of(caller.send("PUT", "tenants", {}), 405, "method-not-allowed")
    problem_of(caller.get("tenants", Accept="text/html"), 406, "not-acceptable")
    problem_of(Caller().send("POST", "no/such/thing", {}), 404, "not-found")
    problem_of(caller.get("problems/no-such"), 404, "not-found")
    for number in ("0", "9" * 18, "9" * 19, "9" * 40):
        assert caller.get(f"tenants/{number}").status_code == 404
    assert caller.send("HEAD", "tenants").status_code == 200


def test_a_fault_of_ours_is_a_problem_and_is_logged(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**kwargs: Any) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr("policies.tenancy_changes.create_tenant", fail)
    caller.client.raise_request_exception = False
    document = problem_of(caller.send("POST", "tenants", {"name": "acme"}), 500, "failed")
    assert "secret detail" not in str(document)
    assert "secret detail" in caplog.text


def test_a_list_is_read_to_its_end_by_its_links(caller: Caller) -> None:
    for _ in range(5):
        make_model()
    seen: list[int] = []
    path: str | None = "/api/v1/models?limit=2&is_enabled=true"
    pages = 0
    while path:
        response = caller.get(path)
        page = response.json()
        seen += [row["id"] for row in page["items"]]
        path = page["next"]
        assert response.headers.get("Link") == (f'<{path}>; rel="next"' if path else None)
        pages += 1
        make_model(is_enabled=False)  # what is added meanwhile moves nothing
    assert pages == 3
    assert len(seen) == len(set(seen)) == 5


# Two of them for the token and, once, the note of its use.
CEILINGS = {
    "tenants": 4, "projects": 3, "keys": 3, "providers": 3, "models": 3, "deployments": 3, "policies": 3,
    "policies/{policy}/versions": 4,
}  # fmt: skip


def test_a_list_takes_as_many_queries_for_many_rows_as_for_one(caller: Caller) -> None:
    def add(number: int) -> Policy:
        make_key()
        make_deployment()
        tenant = make_tenant()
        policy = publishing.create_policy(public_id=f"acme/{number}", actor="a test")
        tenant.policies.add(policy)
        return policy

    def count() -> dict[str, int]:
        counted = {}
        for path in CEILINGS:
            with CaptureQueriesContext(connection) as queries:
                assert caller.read(path.format(policy=first.pk))["items"]
            counted[path] = len(queries)
        return counted

    first = add(0)
    deployment = make_deployment()
    for number in range(2):
        publishing.publish(policy=first, actor="a test", document=sound_document(deployment.name, number))
    few = count()
    for number in range(1, 5):
        add(number)
    publishing.publish(policy=first, actor="a test", document=sound_document(deployment.name, 9))
    many = count()
    assert {path: n for path, n in many.items() if n > CEILINGS[path]} == {}
    assert all(many[path] <= few[path] for path in few), (few, many)


def sound_document(deployment: str, timeout_s: int = 0) -> dict[str, Any]:
    """A document of one rule that publishes."""
    return {"rules": [{"name": "all", "deployments": [deployment], "timeout_s": timeout_s + 60}]}
