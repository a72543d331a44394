"""Does the database itself keep the ledger balanced and unchanged?"""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction

from billing import ledger
from billing.ledger import Account, Entry, Kind
from billing.models import LedgerEntry, LedgerPosting
from policies.errors import InvalidValueError
from tests.make import world

pytestmark = pytest.mark.django_db

NOW = dt.datetime(2026, 3, 1, 9, tzinfo=dt.UTC)
USD = 10**9


def issue(made: Any, *, reference: str = "invoice 1", total: int = 119 * USD, **fields: Any) -> LedgerPosting:
    entries = [
        Entry(Account.RECEIVABLE, total),
        Entry(Account.REVENUE, -100 * USD),
        Entry(Account.TAX, -19 * USD),
        Entry(Account.ROUNDING, 0),
    ]
    given: dict[str, Any] = {"currency": "EUR", "entries": entries, "kind": Kind.ISSUE, **fields}
    return ledger.post(tenant=made.tenant, reference=reference, at=NOW, actor="fin", **given)


def commit() -> None:
    """Check what the database checks when a transaction commits."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")


def test_a_balance_is_the_sum_of_the_entries_of_its_tenant_and_currency() -> None:
    made, other = world(), world()
    issue(made)
    issue(other, reference="invoice 2")
    issue(made, reference="invoice 3", currency="JPY")
    paid = [Entry(Account.CASH, 50 * USD), Entry(Account.RECEIVABLE, -50 * USD)]
    issue(made, kind=Kind.PAY, entries=paid)
    commit()

    def balance(account: str, **fields: Any) -> int:
        return ledger.find_balance(tenant=made.tenant, account=account, currency="EUR", **fields)

    assert balance(Account.RECEIVABLE) == 69 * USD
    assert balance(Account.REVENUE) == -100 * USD
    assert balance(Account.CASH, until=NOW) == 0
    assert balance(Account.WRITE_OFF) == 0


def test_the_same_again_changes_nothing_and_something_else_under_its_name_is_refused() -> None:
    made = world()
    first = issue(made)
    assert issue(made) == first
    assert LedgerEntry.objects.count() == 3
    with pytest.raises(ledger.PostedOtherwiseError, match="invoice 1 was booked already"):
        issue(made, entries=[Entry(Account.RECEIVABLE, 1), Entry(Account.REVENUE, -1)])
    with pytest.raises(ledger.PostedOtherwiseError):
        issue(made, currency="USD")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"total": 118 * USD}, "sum to zero"),
        ({"entries": []}, "not to be none"),
        ({"currency": "eur"}, "not a currency"),
        ({"kind": "gift"}, "is not one of"),
        ({"reference": ""}, "needs a name"),
        ({"entries": [Entry("pocket", 1), Entry("cash", -1)]}, "no account 'pocket'"),
        ({"entries": [Entry("credit_paid", 1), Entry("cash", -1)]}, "name their grant"),
        ({"entries": [Entry("cash", 2 * 10**27), Entry("revenue", -2 * 10**27)]}, "at most"),
    ],
)
def test_what_is_no_posting_is_refused_with_a_sentence(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        issue(world(), **fields)
    assert not LedgerPosting.objects.exists()


def insert(posting: LedgerPosting, **fields: Any) -> None:
    """Write an entry past `post`."""
    given = {"tenant": posting.tenant, "currency": posting.currency, "account": "cash", **fields}
    LedgerEntry.objects.create(posting=posting, **given)


def test_the_database_refuses_what_does_not_balance() -> None:
    made = world()
    for amounts in ([], [1], [1, -2]):
        with (
            pytest.raises(DatabaseError, match="no entries, or they do not sum to zero"),
            transaction.atomic(),
        ):
            posting = LedgerPosting.objects.create(
                tenant=made.tenant, kind="pay", reference="x", currency="EUR", at=NOW, transaction_number=0
            )
            for amount in amounts:
                insert(posting, amount_nano=amount)
            commit()


def test_the_database_refuses_entries_of_another_tenant_or_currency() -> None:
    made = world()
    for fields in ({"tenant": world().tenant}, {"currency": "USD"}):
        with pytest.raises(DatabaseError, match="another tenant or currency"), transaction.atomic():
            insert(issue(made), amount_nano=5, **fields)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE billing_ledgerentry SET amount_nano = amount_nano * 2",
        "DELETE FROM billing_ledgerentry",
        "UPDATE billing_ledgerposting SET reference = 'another'",
        "DELETE FROM billing_ledgerposting",
    ],
)
def test_nothing_that_is_booked_changes(statement: str) -> None:
    issue(world())
    with (
        pytest.raises(DatabaseError, match="append-only"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)


@pytest.mark.django_db(transaction=True)
def test_a_posting_is_closed_when_its_transaction_ends() -> None:
    posting = issue(world())
    with pytest.raises(DatabaseError, match="is closed"), transaction.atomic():
        insert(posting, amount_nano=5)
        insert(posting, amount_nano=-5)
