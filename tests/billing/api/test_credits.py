"""Is credit granted and ended over HTTP in exact amounts, and are rates and billing details set?"""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.utils import timezone

from billing import credits, tasks
from billing.models import CreditGrant, ExchangeRate
from policies.models import Tenant
from tests.policies.api.callers import caller_with
from tests.policies.api.test_resources import places, problem_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def tenant() -> Tenant:
    return Tenant.objects.create(name="acme")


def test_credit_is_granted_once_for_a_payment_then_paid_back_and_ended(tenant: Tenant) -> None:
    caller = caller_with("read", "billing")
    body = {
        "tenant_id": tenant.pk, "kind": "paid", "currency": "KWD", "amount": "1250.125",
        "expires_at": "2999-01-01T00:00:00Z", "reference": "transfer 7",
    }  # fmt: skip
    added = caller.send("POST", "credits", body)
    assert added.status_code == 201
    row = added.json()
    assert (row["amount"], row["left"], row["priority"]) == ("1250.125", "1250.125", 100)
    assert CreditGrant.objects.get().amount_nano == 1_250_125_000_000
    problem_of(caller.send("POST", "credits", body), 409, "name-taken")
    refunded = caller.send("POST", f"{added['Location']}/refund", {"amount": "50.1", "note": "asked"})
    assert refunded.json()["left"] == "1200.025"
    assert caller.send("POST", f"{added['Location']}/end", {"note": "over"}).json()["left"] == "0"
    problem_of(caller.send("POST", f"{added['Location']}/refund", {"note": "again"}), 422, "invalid-value")
    found = caller.read(f"credits?tenant_id={tenant.pk}&currency=KWD")["items"]
    assert found == [caller.read(added["Location"])]
    assert caller.read("credits?kind=promotional")["items"] == []


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"amount": 5}, "amount"),
        ({"amount": "1.001"}, "amount"),
        ({"amount": "NaN"}, "amount"),
        ({"currency": "XXX"}, "currency"),
        ({"priority": -1}, "priority"),
        ({"tenant_id": 999_999}, "tenant_id"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"model_names": ["none"]}, "model_names"),
        ({"left": "5"}, "left"),
    ],
)
def test_wrong_credit_is_refused_at_its_member(tenant: Tenant, wrong: dict[str, Any], place: str) -> None:
    body = {"tenant_id": tenant.pk, "kind": "paid", "currency": "USD", "amount": "5", **wrong}
    answer = caller_with("billing").send("POST", "credits", body)
    assert places(problem_of(answer, 422, "invalid-value")) == [place]
    assert not CreditGrant.objects.exists()


def test_billing_details_are_read_and_changed(tenant: Tenant) -> None:
    caller = caller_with("read", "billing")
    address = f"tenants/{tenant.pk}/billing"
    assert caller.read(address)["currency"] == "USD"
    sent = {"legal_name": "Acme GmbH", "currency": "EUR", "tax_ratio": "0.190", "payment_days": 14}
    changed = caller.send("PATCH", address, sent).json()
    assert changed == caller.read(address)
    assert {**sent, "tax_ratio": "0.19"}.items() <= changed.items()
    for wrong in ({"tax_ratio": 0.19}, {"tax_ratio": "19"}, {"tax_ratio": "NaN"}, {"email": "x"}):
        answer = caller.send("PATCH", address, wrong)
        assert places(problem_of(answer, 422, "invalid-value")) == list(wrong)
    assert caller.send("PATCH", "issuer", {"legal_name": "Us Ltd"}).json() == caller.read("issuer")
    assert caller.read("issuer")["legal_name"] == "Us Ltd"


def test_exchange_rates_are_added_as_texts(tenant: Tenant) -> None:
    caller = caller_with("read", "billing")
    body = {"currency": "EUR", "rate": "0.9210", "first_day": "2026-03-01", "source": "ECB"}
    added = caller.send("POST", "exchange-rates", body)
    assert (added.status_code, added.json()["rate"]) == (201, "0.921")
    assert caller.read("exchange-rates?currency=EUR")["items"] == [caller.read(added["Location"])]
    for wrong in ({"rate": 0.92}, {"rate": "NaN"}, {"rate": "0"}, {"rate": "9.2"}, {"currency": "USD"}):
        answer = caller.send("POST", "exchange-rates", {**body, **wrong})
        assert places(problem_of(answer, 422, "invalid-value")) == list(wrong)
    assert caller.send("POST", "exchange-rates", {**body, "rate": "9.2", "is_sure": True}).status_code == 201
    problem_of(caller.send("DELETE", added["Location"], {}), 405, "method-not-allowed")
    assert ExchangeRate.objects.count() == 2


def test_credit_expires_by_the_clock(tenant: Tenant) -> None:
    now = timezone.now()
    grant = credits.grant_credit(
        tenant=tenant, kind="paid", amount_nano=10**9, currency="USD", actor="fin",
        at=now - dt.timedelta(days=2), expires_at=now - dt.timedelta(days=1),
    )  # fmt: skip
    tasks.expire_credit()
    tasks.expire_credit()
    assert credits.find_left(grant) == 0
    assert grant.entries.filter(posting__kind="expire").count() == 1
