"""Can an operator configure everything in the browser, and is every change a verb's?"""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.urls import reverse

from policies import keys
from policies.credentials import decrypt_credential
from policies.models import ApiKey, ChangeEvent, Deployment, Model, Provider, Tenant
from policies.people import add_person
from policies.permissions import Role, role_of
from tests import make
from tests.console_people import client_of, operator, viewer

pytestmark = pytest.mark.django_db


def a_world() -> make.World:
    """A world whose provider the verbs accept as it is."""
    world = make.world()
    world.deployment.provider.allow_private_network = True
    world.deployment.provider.save()
    return world


PROVIDER = {
    "name": "openai",
    "base_url": "https://api.openai.com/v1",
    "wire_format": "openai_chat",
    "addressing": "openai",
    "auth_style": "bearer",
}


def said(response: Any) -> str:
    return " ".join(str(message) for message in response.context["messages"])


def test_a_provider_is_added_with_a_credential_that_no_page_shows_again() -> None:
    client = operator()
    response = client.post("/providers/new", {**PROVIDER, "credential": "sk-very-secret-text"}, follow=True)
    provider = Provider.objects.get(name="openai")
    assert "sk-very-secret-text" not in response.content.decode()
    assert "sk-very-secret-text" not in provider.credential_ciphertext
    for address in (f"/providers/{provider.pk}", f"/providers/{provider.pk}/credential", "/audit", "/admin/"):
        assert "sk-very-secret-text" not in client.get(address).content.decode()
    assert ChangeEvent.objects.get(object_type="provider").action == "create"


def test_a_deployment_leads_to_the_provider_and_the_model_that_it_needs() -> None:
    client = operator()
    response = client.get("/deployments/new", follow=True)
    assert response.redirect_chain[-1][0] == "/providers/new"
    assert "add a provider first" in said(response)
    client.post("/providers/new", PROVIDER)
    assert client.get("/deployments/new", follow=True).redirect_chain[-1][0] == "/models/new"
    Model.objects.create(name="gpt-5")
    assert client.get("/deployments/new").status_code == 200


def test_a_refusal_of_the_verb_stands_at_its_field() -> None:
    response = operator().post("/providers/new", {**PROVIDER, "base_url": "http://127.0.0.1:1/v1"})
    assert response.status_code == 422
    assert "private or local address" in str(response.context["form"].errors["base_url"])
    assert not Provider.objects.exists()


def test_another_host_asks_for_the_credential_again() -> None:
    client = operator()
    client.post("/providers/new", {**PROVIDER, "credential": "sk-very-secret-text"})
    provider = Provider.objects.get(name="openai")
    address = reverse("provider-edit", args=[provider.pk])
    moved = {**PROVIDER, "base_url": "https://elsewhere.example.com/v1"}
    refused = client.post(address, moved)
    assert refused.status_code == 422
    assert "another host" in str(refused.context["form"].errors["base_url"])
    assert client.post(address, {**moved, "credential": "sk-of-elsewhere"}).status_code == 302
    provider.refresh_from_db()
    assert decrypt_credential(provider.credential_ciphertext) == "sk-of-elsewhere"
    client.post(address, {**moved, "name": "renamed"})
    provider.refresh_from_db()
    assert decrypt_credential(provider.credential_ciphertext) == "sk-of-elsewhere"


def test_the_credential_is_replaced_by_a_reference_or_removed() -> None:
    provider = a_world().deployment.provider
    address = reverse("provider-credential", args=[provider.pk])
    operator().post(address, {"kind": "reference", "credential_reference": "env:OPENAI_API_KEY"})
    provider.refresh_from_db()
    assert provider.credential_reference == "env:OPENAI_API_KEY"
    operator().post(address, {"kind": "remove"})
    provider.refresh_from_db()
    assert provider.credential_reference == ""


def test_a_model_and_its_deployment_are_added_and_changed() -> None:
    world = a_world()
    client = operator()
    client.post("/models/new", {"name": "gpt-5", "context_tokens": "400000", "capabilities": ["tools"]})
    model = Model.objects.get(name="gpt-5")
    assert (model.context_tokens, model.capabilities) == (400000, ["tools"])
    fields = {"name": "gpt-5@local", "model": model.pk, "provider": world.deployment.provider_id}
    client.post("/deployments/new", {**fields, "upstream_model": "gpt-5-2026"})
    deployment = Deployment.objects.get(name="gpt-5@local")
    client.post(f"/deployments/{deployment.pk}/edit", {**fields, "upstream_model": "gpt-5", "region": "eu"})
    deployment.refresh_from_db()
    assert (deployment.upstream_model, deployment.region) == ("gpt-5", "eu")


@pytest.mark.parametrize("kind", ["provider", "model", "deployment", "tenant", "project"])
def test_what_stops_must_be_named_before_it_stops(kind: str) -> None:
    world = a_world()
    rows = {"provider": world.deployment.provider, "model": world.deployment.model,
            "deployment": world.deployment, "tenant": world.tenant, "project": world.project}  # fmt: skip
    row: Any = rows[kind]
    client = operator()
    address = reverse(f"{kind}-enabled", args=[row.pk])
    response = client.post(address, {"confirm_name": "another"}, follow=True)
    row.refresh_from_db()
    assert row.is_enabled
    assert "Nothing changed" in said(response)
    client.post(address, {"confirm_name": row.name})
    row.refresh_from_db()
    assert not row.is_enabled
    client.post(address, {"enabled": "1"})
    row.refresh_from_db()
    assert row.is_enabled


def test_deleting_what_history_needs_is_refused_with_the_reason() -> None:
    provider = a_world().deployment.provider
    address = reverse("provider-delete", args=[provider.pk])
    response = operator().post(address, {"confirm_name": provider.name}, follow=True)
    assert "cannot be deleted" in said(response)
    assert Provider.objects.filter(pk=provider.pk).exists()


def test_a_key_is_issued_and_its_secret_shown_once_and_not_cached() -> None:
    world = a_world()
    client = operator()
    response = client.post(
        "/keys/new", {"project": world.project.pk, "name": "web-backend", "owner": "team-a"}
    )
    html = response.content.decode()
    (secret,) = set(re.findall(r"pm-[\w-]{40,}", html))
    key = ApiKey.objects.get(name="web-backend")
    assert bytes(key.secret_hash) == keys.hash_secret(secret, pepper=settings.POINTSMAN_KEY_PEPPER)
    assert "no-store" in response["Cache-Control"]
    assert f"Bearer {secret}" in html
    for address in (f"/keys/{key.pk}", "/keys", "/audit", f"/admin/policies/apikey/{key.pk}/change/"):
        assert secret not in client.get(address).content.decode()


def test_a_key_is_rotated_with_an_overlap_and_revoked_by_name() -> None:
    world = a_world()
    client = operator()
    html = client.post(reverse("key-rotate", args=[world.key.pk]), {"overlap": "24"}).content.decode()
    assert re.search(r"pm-[\w-]{40,}", html)
    world.key.refresh_from_db()
    successor = world.key.replaced_by
    assert successor is not None
    assert world.key.expires_at is not None
    client.post(reverse("key-revoke", args=[successor.pk]), {"confirm_name": "wrong"})
    successor.refresh_from_db()
    assert successor.revoked_at is None
    client.post(reverse("key-revoke", args=[successor.pk]), {"confirm_name": "dev"})
    successor.refresh_from_db()
    assert successor.revoked_at is not None


def test_a_tenant_is_added_with_time_zone_regions_and_policies() -> None:
    world = a_world()
    fields = {
        "name": "globex",
        "time_zone": "Europe/Berlin",
        "allowed_regions": "eu, ch",
        "retention_limit": "none",
    }
    operator().post("/tenants/new", {**fields, "policies": [world.policy.public_id]})
    tenant = Tenant.objects.get(name="globex")
    assert (tenant.time_zone, tenant.allowed_regions) == ("Europe/Berlin", ["ch", "eu"])
    assert tenant.retention_limit == "none"
    assert list(tenant.policies.all()) == [world.policy]
    assert (
        "Shadow sampling</dt><dd>off" in operator().get(reverse("tenant", args=[tenant.pk])).content.decode()
    )
    operator().post(reverse("project-new", args=[tenant.pk]), {"name": "web"})
    assert tenant.projects.get().name == "web"


def test_shadow_sampling_is_switched_on_with_a_budget_and_the_page_says_what_happens() -> None:
    tenant, client = a_world().tenant, operator()
    address = reverse("tenant-edit", args=[tenant.pk])
    fields = {"name": tenant.name, "time_zone": "UTC", "shadow_percent": "2.5"}
    assert "needs a daily budget" in client.post(address, fields).content.decode()
    client.post(address, {**fields, "shadow_daily_budget_usd": "0.50"})
    page = client.get(reverse("tenant", args=[tenant.pk])).content.decode()
    assert "2.5 % of requests to automatic rules are sent a second time" in page
    assert "at most $0.50 a day" in page


def test_a_person_is_added_with_a_password_that_works_once_shown() -> None:
    html = operator().post("/people/new", {"username": "fiona", "role": "finance"}).content.decode()
    found = re.search(r'<code id="secret">([^<]+)</code>', html)
    assert found is not None
    person = User.objects.get(username="fiona")
    assert person.check_password(found[1])
    assert role_of(person) is Role.FINANCE
    assert not person.is_staff


def test_the_last_operator_keeps_the_role() -> None:
    client = operator()
    person = User.objects.get()
    response = client.post(reverse("person-role", args=[person.pk]), {"role": "viewer"}, follow=True)
    assert "last operator" in said(response)
    client.post(reverse("person-enabled", args=[person.pk]), {"confirm_name": person.username})
    person.refresh_from_db()
    assert role_of(person) is Role.OPERATOR
    assert person.is_active


def test_the_audit_log_shows_before_and_after_and_filters_by_object() -> None:
    world = a_world()
    client = operator()
    client.post(reverse("tenant-enabled", args=[world.tenant.pk]), {"confirm_name": world.tenant.name})
    client.post("/tenants/new", {"name": "other", "time_zone": "UTC"})
    page = client.get(f"/audit?type=tenant&object={world.tenant.pk}")
    (row,) = page.context["rows"]
    assert row["fields"] == [{"name": "is_enabled", "before": True, "after": False, "is_new": False}]
    assert len(client.get("/audit?type=tenant").context["rows"]) == 2
    assert client_of(Role.VIEWER).get("/audit").status_code == 403


def test_a_policy_shows_its_rules_shares_and_earlier_versions() -> None:
    world = a_world()
    choices = [{"name": world.deployment.name, "weight": 3}, {"name": "gone", "weight": 1}]
    rule = {"name": "rest", "strategy": "weighted", "deployments": choices}
    world.version.policy.versions.create(
        number=2,
        document={"rules": [rule]},
    )
    response = viewer().get(f"/policies/{world.policy.pk}?version=2")
    (shown,) = response.context["rules"]
    assert [(choice["id"], choice["share"]) for choice in shown["choices"]] == [
        (world.deployment.pk, 0.75),
        (None, 0.25),
    ]
    assert viewer().get(f"/policies/{world.policy.pk}?version=9").status_code == 404


def test_the_back_office_writes_by_the_verbs_and_its_refusals_change_nothing() -> None:
    world = a_world()
    client = operator()
    address = reverse("admin:policies_model_change", args=[world.deployment.model_id])
    fields = {
        "name": "renamed",
        "description": "",
        "capabilities": "tools",
        "endpoints": "",
        "is_enabled": "on",
    }
    client.post(address, fields)
    world.deployment.model.refresh_from_db()
    assert world.deployment.model.name == "renamed"
    assert ChangeEvent.objects.filter(object_type="model", action="change").exists()
    response = client.post(address, {**fields, "capabilities": "telepathy"}, follow=True)
    assert "telepathy" in said(response)
    world.deployment.model.refresh_from_db()
    assert world.deployment.model.capabilities == ["tools"]
    response = client.post(
        reverse("admin:policies_provider_delete", args=[world.deployment.provider_id]), {"post": "yes"}
    )
    assert Provider.objects.filter(pk=world.deployment.provider_id).exists()
    for name in ("apikey", "changeevent", "policyversion"):
        assert client.get(reverse(f"admin:policies_{name}_add")).status_code == 403


def test_too_many_wrong_passwords_make_a_name_wait() -> None:
    _, password = add_person(username="walter", role=Role.VIEWER, actor="test")
    client = client_of(None)
    client.logout()
    for _ in range(5):
        response = client.post("/sign-in", {"username": "walter", "password": "wrong"})
        assert "do not belong together" in response.content.decode()
    response = client.post("/sign-in", {"username": "walter", "password": password})
    assert response.status_code == 429
    assert "Wait five minutes" in response.content.decode()
    assert client.get("/").status_code == 302
