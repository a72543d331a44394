"""Does verify_usage find what is wrong in the ledger, and nothing where all is right?"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.db import connection

from billing import credits, invoicing, ledger
from billing.billing_profiles import change_profile
from billing.credit_notes import write_credit_note
from billing.exchange_rates import add_rate
from billing.ledger import Entry
from billing.models import CreditGrant, LedgerEntry, LedgerPosting
from billing.verifying import verify
from billing.verifying_ledger import find_wrong_bookings
from policies.models import Tenant
from tests.billing import test_invoicing

pytestmark = pytest.mark.django_db

NOW = dt.datetime(2026, 3, 1, 9, tzinfo=dt.UTC)
USD = 10**9


@contextmanager
def without_triggers() -> Iterator[None]:
    """As a superuser, or a restored dump, comes past them."""
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        yield
        cursor.execute("SET session_replication_role = DEFAULT")


@pytest.fixture
def grant() -> CreditGrant:
    tenant = Tenant.objects.create(name="acme")
    row = credits.grant_credit(
        tenant=tenant, kind="paid", amount_nano=10 * USD, currency="USD", at=NOW, actor="fin"
    )
    credits.refund(grant=row, amount_nano=USD, note="asked", at=NOW, actor="fin")
    # What the database checks when a transaction commits: now, while all is right.
    connection.check_constraints()
    return row


def found() -> list[tuple[str, str, str]]:
    return [(one.kind, one.stored, one.expected) for one in find_wrong_bookings()]


def test_a_ledger_that_is_right_is_found_right(grant: CreditGrant) -> None:
    credits.expire(grant=grant, actor="fin", at=NOW)
    assert found() == []


def test_an_entry_that_changed_is_found_in_its_posting_and_its_grant(grant: CreditGrant) -> None:
    with without_triggers():
        LedgerEntry.objects.filter(grant=grant, posting__kind="grant").update(amount_nano=-11 * USD)
    assert found() == [
        ("ledger posting", str(-USD), "0"),
        ("credit granted", str(11 * USD), str(10 * USD)),
    ]
    checked = verify(now=NOW)
    assert not checked.is_ok
    assert [one.kind for one in checked.differences] == ["ledger posting", "credit granted"]


def test_an_overdrawn_grant_and_an_empty_posting_are_found(grant: CreditGrant) -> None:
    with without_triggers():
        entries = [Entry("credit_paid", 20 * USD, grant), Entry("cash", -20 * USD)]
        ledger.post(
            tenant=grant.tenant,
            kind="draw",
            reference="x",
            currency="USD",
            entries=entries,
            at=NOW,
            actor="x",
        )
        LedgerPosting.objects.create(
            tenant=grant.tenant, kind="pay", reference="y", currency="USD", at=NOW, transaction_number=0
        )
    assert found() == [("ledger posting", "-", "0"), ("credit left", str(-11 * USD), f"0 to {10 * USD}")]


def test_entries_of_somebody_else_are_found(grant: CreditGrant) -> None:
    with without_triggers():
        entry = LedgerEntry.objects.filter(grant=grant, posting__kind="refund")
        entry.update(tenant=Tenant.objects.create(name="other"))
    assert found() == [
        ("ledger posting", "1 entries of another tenant or currency", "none"),
        ("credit entry", str(USD), "an entry of its grant"),
    ]


def test_revenue_that_no_statement_says_is_found(grant: CreditGrant) -> None:
    entries = [Entry("receivable", 119), Entry("revenue", -100), Entry("tax", -19)]
    ledger.post(
        tenant=grant.tenant, kind="issue", reference="x", currency="EUR", entries=entries, at=NOW, actor="fin"
    )
    assert found() == [
        ("ledger revenue", "-100", "0"),
        ("ledger tax", "-19", "0"),
        ("ledger receivable", "119", "0"),
    ]


@pytest.mark.parametrize(("currency", "rate"), [("JPY", "151.237"), ("KWD", "0.30667")])
def test_every_step_of_a_statement_is_found_right(tmp_path: Path, currency: str, rate: str) -> None:
    world, at = test_invoicing.spend(tmp_path), test_invoicing.NOW
    add_rate(currency=currency, rate=rate, first_day=test_invoicing.OCTOBER, source="test", actor="fin")
    change_profile(tenant=world.tenant, actor="fin", currency=currency, tax_ratio="0.19505")
    for kind in ("paid", "promotional"):
        credits.grant_credit(
            tenant=world.tenant,
            kind=kind,
            amount_nano=10 * USD,
            currency=currency,
            at=test_invoicing.NOON,
            actor="fin",
        )
    test_invoicing.close()
    first = test_invoicing.issued(world)
    assert first.credits_minor > 0
    assert found() == []
    invoicing.void(invoice=first, actor="fin", now=at, reason="wrong address")
    assert found() == []
    second = test_invoicing.issued(world)
    write_credit_note(invoice=second, actor="fin", now=at, reason="agreed", positions=[2])
    assert found() == []
    invoicing.mark_paid(invoice=second, actor="fin", now=at, reference="bank 17")
    assert found() == []
    write_credit_note(invoice=second, actor="fin", now=at, reason="all of it")
    assert found() == []
    revenue = ledger.find_balance(tenant=world.tenant, account="revenue", currency=currency)
    assert revenue == 0
    with without_triggers():
        second.lines.filter(position=1).update(amount_nano=1)
    assert [kind for kind, _, _ in found()] == ["ledger revenue"]
