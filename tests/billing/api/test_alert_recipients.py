"""Are those who hear of budgets added, changed and removed over HTTP, without their secrets ever being read?"""

from __future__ import annotations

import base64
from typing import Any

import pytest
from django.utils import timezone

from billing.alert_deliveries import send_test
from billing.budgets import create_budget
from billing.models import AlertRecipient
from policies.credentials import decrypt_credential
from policies.models import ChangeEvent
from tests.make_configuration import make_deployment, make_tenant
from tests.policies.api.callers import caller_with
from tests.policies.api.test_resources import places, problem_of

pytestmark = pytest.mark.django_db

HOOK = "https://hooks.example.com/budgets"
OWN_SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()


def secret_of(row: dict[str, Any]) -> str:
    return decrypt_credential(AlertRecipient.objects.get(pk=row["id"]).secret_ciphertext)


def test_a_webhook_is_added_with_a_secret_that_is_shown_once_changed_and_removed() -> None:
    tenant, caller = make_tenant(), caller_with("read", "budgets")
    added = caller.send(
        "POST", "alert-recipients", {"tenant_id": tenant.pk, "channel": "webhook", "address": HOOK}
    )
    assert added.status_code == 201, added.json()
    row = added.json()
    secret = row.pop("secret")
    assert secret == secret_of(row)
    assert caller.read(added["Location"]) == row
    assert (row["tenant"], row["budget_id"], row["allow_private_network"]) == (tenant.name, None, False)
    etag = caller.get(added["Location"])["ETag"]
    changed = caller.send("PATCH", added["Location"], {"secret": OWN_SECRET})
    assert changed.json() == row
    assert secret_of(row) == OWN_SECRET
    assert changed["ETag"] != etag, "a new secret is a change"
    moved = caller.send("PATCH", added["Location"], {"address": f"{HOOK}/2"}).json()
    assert moved == {**row, "address": f"{HOOK}/2"}
    told = " ".join(str(event.before) + str(event.after) for event in ChangeEvent.objects.all())
    assert secret not in told
    assert OWN_SECRET not in told
    assert "another one" in told
    assert caller.send("DELETE", added["Location"]).status_code == 204
    assert not AlertRecipient.objects.exists()


def test_a_secret_that_its_receiver_brings_is_never_said_again() -> None:
    caller = caller_with("read", "budgets")
    body = {"tenant_id": make_tenant().pk, "channel": "webhook", "address": HOOK, "secret": OWN_SECRET}
    added = caller.send("POST", "alert-recipients", body)
    assert added.json()["secret"] is None
    assert secret_of(added.json()) == OWN_SECRET
    for path in (added["Location"], "alert-recipients"):
        assert OWN_SECRET not in caller.get(path).content.decode()


def test_recipients_are_of_one_budget_of_a_tenant_or_of_deployments() -> None:
    tenant, caller = make_tenant(), caller_with("read", "budgets")
    budget = create_budget(tenant=tenant, window="month", limit_nanousd=10**9, actor="a test")
    of_deployment = create_budget(
        deployment=make_deployment(), window="month", limit_nanousd=10**9, actor="a test"
    )
    mail = {"channel": "email", "address": "fin@example.com"}
    rows = [
        caller.send("POST", "alert-recipients", {**mail, **of}).json()
        for of in (
            {"tenant_id": tenant.pk},
            {"budget_id": budget.pk},
            {"tenant_id": None},
            {"budget_id": of_deployment.pk},
        )
    ]
    assert [(row["tenant_id"], row["budget_id"], row["secret"]) for row in rows] == [
        (tenant.pk, None, None),
        (tenant.pk, budget.pk, None),
        (None, None, None),
        (None, of_deployment.pk, None),
    ]
    for query, count in (
        (f"tenant_id={tenant.pk}", 2),
        (f"budget_id={budget.pk}", 1),
        ("channel=webhook", 0),
    ):
        assert len(caller.read(f"alert-recipients?{query}")["items"]) == count, query
    problem_of(caller.send("POST", "alert-recipients", {**mail, "tenant_id": tenant.pk}), 409, "name-taken")
    other = {**mail, "tenant_id": make_tenant().pk, "budget_id": budget.pk}
    refused = problem_of(caller.send("POST", "alert-recipients", other), 422, "invalid-value")
    assert places(refused) == ["tenant_id"]
    refused = problem_of(caller.send("POST", "alert-recipients", mail), 422, "invalid-value")
    assert places(refused) == ["tenant_id"]


def test_what_waits_goes_to_the_new_address_and_two_recipients_never_become_one() -> None:
    tenant, caller = make_tenant(), caller_with("read", "budgets")
    first, second = (
        caller.send(
            "POST", "alert-recipients", {"tenant_id": tenant.pk, "channel": "email", "address": address}
        ).json()
        for address in ("a@example.com", "b@example.com")
    )
    row = AlertRecipient.objects.get(pk=first["id"])
    waiting = send_test(recipient=row, actor="a test", now=timezone.now())
    path = f"alert-recipients/{first['id']}"
    problem_of(caller.send("PATCH", path, {"address": second["address"]}), 409, "name-taken")
    assert caller.send("PATCH", path, {"address": "c@example.com"}).status_code == 200
    waiting.refresh_from_db()
    assert waiting.recipient.address == "c@example.com"


@pytest.mark.parametrize(
    ("body", "member"),
    [
        ({"channel": "pigeon"}, "channel"),
        ({"address": "http://hooks.example.com"}, "address"),
        ({"channel": "email", "address": "nobody"}, "address"),
        ({"secret": "whsec_c2hvcnQ="}, "secret"),
        ({"secret": "topsecret" * 5}, "secret"),
        ({"secret": "whsec_" + "ö" * 40}, "secret"),
        ({"channel": "email", "address": "a@example.com", "secret": OWN_SECRET}, "secret"),
        ({"tenant_id": 10**9}, "tenant_id"),
        ({"budget_id": 10**9}, "budget_id"),
    ],
)
def test_what_is_wrong_is_told_at_its_member(body: dict[str, Any], member: str) -> None:
    said = {"tenant_id": make_tenant().pk, "channel": "webhook", "address": HOOK, **body}
    refused = problem_of(caller_with("budgets").send("POST", "alert-recipients", said), 422, "invalid-value")
    assert places(refused) == [member]
    assert "topsecret" not in str(refused)


def test_only_who_sets_up_providers_lets_a_webhook_into_the_private_network() -> None:
    body = {"tenant_id": make_tenant().pk, "channel": "webhook", "address": "http://127.0.0.1:9/x"}
    body |= {"allow_private_network": True}
    refused = caller_with("budgets").send("POST", "alert-recipients", body)
    assert problem_of(refused, 403, "forbidden")["scope"] == "catalog"
    added = caller_with("read", "budgets", "catalog").send("POST", "alert-recipients", body)
    assert added.status_code == 201, added.json()
    for change in ({"allow_private_network": True}, {"address": "http://127.0.0.1:10/x"}):
        problem_of(caller_with("budgets").send("PATCH", added["Location"], change), 403, "forbidden")
    refused = caller_with("budgets").send("PATCH", added["Location"], {"allow_private_network": False})
    assert places(problem_of(refused, 422, "invalid-value")) == ["address"]
