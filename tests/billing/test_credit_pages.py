"""Can finance grant, pay back and end credit, set rates and billing details in the browser?"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from billing import credits, invoicing
from billing.billing_profiles import change_profile, profile_of
from billing.exchange_rates import add_rate, find_rate
from billing.models import CreditGrant, ExchangeRate
from billing.views import credits as credit_pages
from policies.permissions import Role
from tests.billing import test_invoicing
from tests.console_people import client_of, finance
from tests.make import ingest, request_lines, world

pytestmark = pytest.mark.django_db

USD = 10**9


def sent(whose: object, **fields: Any) -> dict[str, Any]:
    given = {
        "tenant": str(whose),
        "kind": "paid",
        "amount": "$1,200.50",
        "currency": "USD",
        "priority": "100",
    }
    return {**given, **fields}


def test_credit_is_granted_and_shown_with_what_is_not_billed_yet(tmp_path: Path) -> None:
    made = world()
    ingest(tmp_path, request_lines(made, cost=USD // 2))
    change_profile(tenant=made.tenant, actor="fin", tax_ratio="0.2")
    browser = finance()
    assert "Grant the first credit" in browser.get("/credits").text
    fields = sent(made.tenant, expires_on="2999-12-31", reference="transfer 7", note="yearly")
    page = browser.post("/credits/new", fields, follow=True).text
    for text in ("$1,200.50 more credit", "$0.60", "$1,199.90", "transfer 7", "yearly", "Credit granted"):
        assert text in page
    grant = CreditGrant.objects.get()
    assert grant.expires_at == dt.datetime(3000, 1, 1, tzinfo=dt.UTC)
    assert made.tenant.name in browser.get("/credits").text
    again = browser.post("/credits/new", fields)
    assert again.status_code == 422
    assert "has credit for transfer 7 already" in again.text


def test_what_credit_will_not_cover_is_said_and_so_is_a_currency_that_is_not_billed(tmp_path: Path) -> None:
    made = world()
    ingest(tmp_path, request_lines(made, cost=3 * USD))
    for currency in ("USD", "EUR"):
        credits.grant_credit(
            tenant=made.tenant, kind="promotional", amount_nano=USD, currency=currency, actor="fin"
        )
    page = finance().get(f"/credits/tenants/{made.tenant.pk}").text
    assert "$2.00 would be to pay" in page
    assert "Statements to " + made.tenant.name + " are in USD: this credit pays none" in page
    change_profile(tenant=made.tenant, actor="fin", currency="EUR")
    page = finance().get(f"/credits/tenants/{made.tenant.pk}").text
    assert "no exchange rate of EUR for today" in page
    add_rate(currency="EUR", rate="0.5", first_day=timezone.now().date(), source="test", actor="fin")
    assert "0.50 EUR would be to pay" in finance().get(f"/credits/tenants/{made.tenant.pk}").text


def test_the_ledger_shows_the_balance_after_every_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credit_pages, "LINES_SHOWN", 5)
    made = world()
    grant = credits.grant_credit(
        tenant=made.tenant, kind="paid", amount_nano=100 * USD, currency="USD", actor="fin"
    )
    now = timezone.now()
    for number in range(6):
        credits.draw(
            tenant=made.tenant, currency="USD", wanted_nano=USD, reference=f"x{number}", at=now, actor="fin"
        )
    credits.give_back(draw_reference="x0", reference="void", at=now, actor="fin")
    page = finance().get(f"/credits/tenants/{made.tenant.pk}").text
    assert (page.count("Credit drawn"), page.count("Credit given back")) == (4, 1)
    oldest_shown = grant.entries.order_by("-pk")[4].pk
    assert f"?currency=USD&amp;before={oldest_shown}" in page
    older = finance().get(f"/credits/tenants/{made.tenant.pk}", {"before": str(oldest_shown)}).text
    assert older.count("Credit drawn") == 2
    for text in ("Credit granted", "$100.00", "$99.00", "$98.00", "Newest"):
        assert text in older
    assert finance().get(f"/credits/tenants/{made.tenant.pk}?before=x&currency=QQQ").status_code == 200


def test_credit_is_paid_back_and_ended_when_the_tenants_name_is_typed() -> None:
    made = world()
    grant = credits.grant_credit(
        tenant=made.tenant, kind="paid", amount_nano=10 * USD, currency="USD", actor="fin"
    )
    browser = finance()
    address = f"/credits/grants/{grant.pk}/refund"
    assert 'value="10"' in browser.get(address).text
    fields = {"amount": "4", "note": "asked for it", "confirm_name": made.tenant.name}
    for wrong in (
        {"confirm_name": "x"},
        {"amount": "11"},
        {"amount": "much"},
        {"amount": "0.001"},
        {"note": ""},
    ):
        assert browser.post(address, {**fields, **wrong}).status_code == 422
    assert credits.find_left(grant) == 10 * USD
    assert "$4.00 is booked as paid back" in browser.post(address, fields, follow=True).text
    ended = browser.post(
        f"/credits/grants/{grant.pk}/expire", {"note": "over", "confirm_name": made.tenant.name}, follow=True
    )
    assert "$6.00 of credit is ended" in ended.text
    assert "used up" in ended.text
    assert credits.find_left(grant) == 0


@pytest.mark.parametrize(
    ("field", "text", "said"),
    [
        ("tenant", "nobody", "There is no tenant nobody"),
        ("amount", "much", "An amount of USD, for example 250."),
        ("amount", "1.001", "USD has 2 digits after the point"),
        ("amount", "-5", "more than 0"),
        ("expires_on", "2020-01-01", "This time has passed"),
        ("expires_on", "9999-12-31", "too far away"),
        ("model_names", "none", "no model none"),
        ("currency", "XXX", "Select a valid choice"),
    ],
)
def test_what_is_wrong_is_said_at_its_field(field: str, text: str, said: str) -> None:
    answer = finance().post("/credits/new", sent(world().tenant, **{field: text}))
    assert answer.status_code == 422
    assert said in answer.text


def test_billing_details_are_saved_and_warn_of_a_missing_rate() -> None:
    made = world()
    fields = {
        "legal_name": "Acme GmbH", "address": "Weg 1\n10115 Berlin", "email": "money@acme.example",
        "tax_id": "DE123", "currency": "EUR", "tax_name": "USt", "tax_percent": "19", "payment_days": "14",
    }  # fmt: skip
    browser = finance()
    page = browser.post(f"/tenants/{made.tenant.pk}/billing", fields, follow=True).text
    for text in ("no exchange rate of EUR", "Acme GmbH", "10115 Berlin", "USt 19", "14 days"):
        assert text in page
    profile = profile_of(made.tenant)
    assert (profile.tax_ratio, profile.currency) == (Decimal("0.19"), "EUR")
    assert 'value="19"' in browser.get(f"/tenants/{made.tenant.pk}/billing").text
    assert "1 tenant is billed in it" in browser.get("/credits/rates").text
    browser.post("/credits/issuer", {"legal_name": "Us Ltd"})
    assert profile_of(None).legal_name == "Us Ltd"


def test_rates_are_added_corrected_and_doubted() -> None:
    browser, today = finance(), timezone.now().date()
    assert "Add the first rate" in browser.get("/credits/rates").text
    fields = {"currency": "EUR", "rate": "0.92", "first_day": today.isoformat(), "source": "ECB"}
    assert "holds from" in browser.post("/credits/rates/new", fields, follow=True).text
    doubted = browser.post("/credits/rates/new", {**fields, "rate": "9.2"})
    assert "say that you are sure" in doubted.text
    old = {**fields, "first_day": (today - dt.timedelta(days=9)).isoformat(), "rate": "0.9"}
    browser.post("/credits/rates/new", old)
    browser.post("/credits/rates/new", {**fields, "rate": "0.93"})
    page = browser.get("/credits/rates").text
    for text in ("in force", "corrected", "euro", "ECB"):
        assert text in page
    assert find_rate(currency="EUR", on=today) == Decimal("0.93")
    for rate in ("NaN", "0", "-1"):
        assert browser.post("/credits/rates/new", {**fields, "rate": rate}).status_code == 422
    assert ExchangeRate.objects.count() == 3


def test_viewers_see_credit_and_change_none() -> None:
    made, browser = world(), client_of(Role.VIEWER)
    assert "Finance or an operator grants it" in browser.get("/credits").text
    page = browser.get(f"/credits/tenants/{made.tenant.pk}").text
    assert "Edit" not in page
    assert "Grant credit" not in page
    for address in (
        "/credits/new",
        "/credits/rates/new",
        "/credits/issuer",
        f"/tenants/{made.tenant.pk}/billing",
    ):
        assert browser.get(address).status_code == 403


def test_the_ledger_names_the_statements_that_drew_credit_and_gave_it_back(tmp_path: Path) -> None:
    made = test_invoicing.spend(tmp_path)
    credits.grant_credit(
        tenant=made.tenant, kind="paid", amount_nano=USD, currency="USD", at=test_invoicing.NOON, actor="fin"
    )
    test_invoicing.close()
    invoice = test_invoicing.issued(made)
    link = f'href="/statements/{invoice.pk}">{invoice.number_text}</a>'
    assert finance().get(f"/credits/tenants/{made.tenant.pk}").text.count(link) == 1
    invoicing.void(invoice=invoice, actor="fin", now=test_invoicing.NOW, reason="wrong address")
    assert finance().get(f"/credits/tenants/{made.tenant.pk}").text.count(link) == 2
