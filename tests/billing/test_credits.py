"""Is credit drawn in its order, never twice, and given back where it came from?"""

from __future__ import annotations

import datetime as dt
import threading
from typing import Any

import pytest
from django.db import DatabaseError, close_old_connections, connection, transaction

from billing import credits, ledger
from billing.credit_order import Usable, share_out
from billing.ledger import Account
from billing.models import CreditGrant, LedgerEntry, LedgerPosting
from policies.errors import ConfigurationError
from policies.models import ChangeEvent, Tenant
from policies.tenancy_changes import delete_tenant
from tests.make import World, world

pytestmark = pytest.mark.django_db

NOW = dt.datetime(2026, 3, 1, 9, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
USD = 10**9


def grant(made: World, amount: int = 10, **fields: Any) -> CreditGrant:
    given: dict[str, Any] = {"kind": "paid", "currency": "USD", "at": NOW, "actor": "fin", **fields}
    return credits.grant_credit(tenant=made.tenant, amount_nano=amount * USD, **given)


def draw(made: World, wanted: int, reference: str = "invoice 1", **fields: Any) -> list[tuple[int, int]]:
    given: dict[str, Any] = {"currency": "USD", "at": NOW + DAY, "actor": "fin", **fields}
    drawn = credits.draw(tenant=made.tenant, wanted_nano=wanted * USD, reference=reference, **given)
    return [(one.grant.pk, one.amount_nano // USD) for one in drawn]


def back(reference: str, amount: int | None = None, of: str = "invoice 1") -> list[tuple[int, int]]:
    nano = None if amount is None else amount * USD
    given = credits.give_back(
        draw_reference=of, reference=reference, amount_nano=nano, at=NOW + 2 * DAY, actor="fin"
    )
    return [(one.grant.pk, one.amount_nano // USD) for one in given]


def left(*grants: CreditGrant) -> list[int]:
    return [credits.find_left(one) // USD for one in grants]


def test_credit_is_drawn_by_priority_then_expiry_then_age() -> None:
    made = world()
    old = grant(made)
    lasting = grant(made, at=NOW - DAY)
    ending = grant(made, expires_at=NOW + 9 * DAY)
    ending_soon = grant(made, expires_at=NOW + 5 * DAY)
    first = grant(made, kind="promotional", priority=1)
    order = [first, ending_soon, ending, lasting, old]
    assert draw(made, 45) == [
        (one.pk, amount) for one, amount in zip(order, [10, 10, 10, 10, 5], strict=True)
    ]
    assert left(*order) == [0, 0, 0, 0, 5]


def test_only_credit_that_counts_then_is_drawn() -> None:
    made, other = world(), world()
    grant(made, expires_at=NOW + DAY)
    grant(made, at=NOW + 2 * DAY)
    grant(made, currency="EUR")
    grant(other)
    assert draw(made, 5) == []
    assert not LedgerPosting.objects.filter(kind="draw").exists()


def test_a_repeated_draw_changes_nothing_and_another_tenants_is_refused() -> None:
    made = world()
    one = grant(made)
    assert draw(made, 4) == draw(made, 4) == [(one.pk, 4)]
    assert left(one) == [6]
    with pytest.raises(ledger.PostedOtherwiseError):
        draw(world(), 4)


def test_credit_for_models_pays_what_is_for_them() -> None:
    made = world()
    name = made.deployment.model.name
    scoped = grant(made, model_names=[name])
    anything = grant(made, 3)
    assert draw(made, 20) == [(anything.pk, 3)]
    assert draw(made, 20, "invoice 2", models={name: 4 * USD, "other": 16 * USD}) == [(scoped.pk, 4)]
    with pytest.raises(ConfigurationError, match="there is no model nothing"):
        grant(made, model_names=["nothing"])


def test_credit_of_any_kind_leaves_to_later_credit_what_only_that_can_pay() -> None:
    shares = share_out(
        [Usable(1, 10, frozenset()), Usable(2, 10, frozenset("a")), Usable(3, 10, frozenset("b"))],
        wanted_nano=25,
        by_model={"a": 10, "b": 9},
        unit_nano=1,
    )
    # 6 are tax: the first pays them and 4 of one model.
    assert shares == [(1, 10), (2, 6), (3, 9)]
    assert share_out([Usable(1, 25, frozenset("a"))], wanted_nano=30, by_model={"a": 29}, unit_nano=10) == [
        (1, 20)
    ]


def test_a_void_gives_all_back_and_credit_notes_give_parts() -> None:
    made = world()
    first, second = grant(made, 4, priority=1), grant(made, 6)
    draw(made, 9)
    assert back("credit note 1", 6) == back("credit note 1", 6) == [(second.pk, 5), (first.pk, 1)]
    assert left(first, second) == [1, 6]
    assert back("void 1") == [(first.pk, 3)]
    assert back("void 2") == []
    assert back("void 3", of="invoice 9") == []
    receivable = ledger.find_balance(tenant=made.tenant, account=Account.RECEIVABLE, currency="USD")
    assert (left(first, second), receivable) == ([4, 6], 0)


def test_what_is_left_expires_and_expires_again_after_it_was_given_back() -> None:
    made = world()
    paid = grant(made, expires_at=NOW + 2 * DAY)
    promotional = grant(made, kind="promotional", expires_at=NOW + 2 * DAY, priority=1)
    draw(made, 13)
    assert credits.expire_due(now=NOW + DAY) == 0
    assert credits.expire_due(now=NOW + 2 * DAY) == 1
    assert credits.expire_due(now=NOW + 2 * DAY) == 0
    back("void 1")
    assert left(paid, promotional) == [3, 10]
    assert credits.expire_due(now=NOW + 3 * DAY) == 2
    assert left(paid, promotional) == [0, 0]
    found = {
        name: ledger.find_balance(tenant=made.tenant, account=name, currency="USD") // USD
        for name in ("cash", "breakage", "promotion", "receivable")
    }
    assert found == {"cash": 10, "breakage": -10, "promotion": 0, "receivable": 0}


def test_paid_credit_is_refunded_in_parts_and_promotional_never() -> None:
    made = world()
    paid = grant(made)
    assert credits.refund(grant=paid, actor="fin", note="asked", amount_nano=4 * USD) == 4 * USD
    assert credits.refund(grant=paid, actor="fin", note="asked") == 6 * USD
    with pytest.raises(ConfigurationError, match="is left"):
        credits.refund(grant=paid, actor="fin", note="again")
    with pytest.raises(ConfigurationError, match="was not paid for"):
        credits.refund(grant=grant(made, kind="promotional"), actor="fin", note="asked")
    assert ledger.find_balance(tenant=made.tenant, account=Account.CASH, currency="USD") == 0
    assert ChangeEvent.objects.filter(object_type="credit", action="refund", object_id=paid.pk).count() == 2


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"amount": 0}, "more than 0"),
        ({"amount": -5}, "more than 0"),
        ({"amount": 10**10}, "at most 1,000,000,000"),
        ({"currency": "XXX"}, "not a currency"),
        ({"kind": "gift"}, "is not one of paid, promotional"),
        ({"expires_at": NOW}, "has passed"),
        ({"priority": 1001}, "priority is from 0"),
        ({"reference": "payment 1"}, "has credit for payment 1 already"),
    ],
)
def test_what_is_no_credit_is_refused(fields: dict[str, Any], said: str) -> None:
    made = world()
    grant(made, reference="payment 1")
    with pytest.raises(ConfigurationError, match=said):
        grant(made, **fields)
    assert CreditGrant.objects.count() == 1


def test_a_tenant_with_credit_is_not_deleted() -> None:
    tenant = Tenant.objects.create(name="short-lived")
    credits.grant_credit(tenant=tenant, kind="paid", amount_nano=USD, currency="USD", actor="fin")
    with pytest.raises(ConfigurationError, match="cannot be deleted"):
        delete_tenant(tenant=tenant, actor="fin")


def test_the_database_never_lets_a_grant_go_below_zero_or_above_what_was_granted() -> None:
    made = world()
    one = grant(made)
    for amount in (11 * USD, -1):
        entries = [ledger.Entry("credit_paid", amount, one), ledger.Entry("cash", -amount)]
        with pytest.raises(DatabaseError, match="left of"), transaction.atomic():
            ledger.post(
                tenant=made.tenant,
                kind="draw",
                reference="x",
                currency="USD",
                entries=entries,
                at=NOW,
                actor="x",
            )
            connection.check_constraints()


@pytest.mark.django_db(transaction=True)
def test_statements_issued_at_once_never_draw_the_same_credit() -> None:
    made = world()
    grants = [grant(made, 7, priority=number) for number in (3, 1, 2)]
    start, failures = threading.Barrier(4), list[BaseException]()

    def issue(number: int) -> None:
        try:
            start.wait(timeout=20)
            for step in range(4):
                draw(made, 2, f"invoice {number}-{step}")
        except BaseException as failure:
            failures.append(failure)
        finally:
            connection.close()
            close_old_connections()

    threads = [threading.Thread(target=issue, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert failures == []
    # 16 draws of 2 want 32, there are 21.
    assert left(*grants) == [0, 0, 0]
    entries = LedgerEntry.objects.filter(posting__kind="draw")
    assert sum(entry.amount_nano for entry in entries) == 0
    assert sum(entry.amount_nano for entry in entries if entry.grant_id) == 21 * USD
