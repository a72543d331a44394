"""Do all sums agree with books kept beside them, whatever happens to money in whatever order?

Each seed is a world of three months: see `random_world`. After everything that is done, `verify_usage` must find
nothing, and spend by tenant, key and day, balances and what is left of credit must be those of `oracle_books`.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import pytest
from django.db.models import Sum
from django.utils import timezone

from billing.export_tables import open_table
from billing.models import Invoice, InvoiceState, LedgerEntry, UsageByDay, UsageByKeyDay
from billing.verifying import verify
from tests.billing.audited_files import Auditor
from tests.billing.random_world import MONTHS, RandomWorld

pytestmark = pytest.mark.django_db
IN_FORCE = (InvoiceState.ISSUED, InvoiceState.PAID)
MEASURES = ("request_count", "unpriced_count", "unknown_count", "cost_nanousd", "charge_nanousd")


def live(
    seed: int,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    step_hours: int,
    deeds_a_step: int,
    verify_each: int = 1,
) -> None:
    world = RandomWorld(seed, data_dir, step_hours=step_hours, deeds_a_step=deeds_a_step)
    monkeypatch.setattr(timezone, "now", lambda: world.now)
    done: list[str] = []
    for step in world.live():
        done.append(step)
        if len(done) % verify_each == 0:
            assert verify(now=world.now).differences == (), done
        compare_sums(world, done)
        compare_ledger(world, done)
    assert verify(now=world.now).differences == ()
    for month in MONTHS:
        compare_focus(world, month)
    compare_files(world)


def compare_sums(world: RandomWorld, done: list[str]) -> None:
    expected = world.books.sums()
    for rollup in (UsageByDay, UsageByKeyDay):
        rows = rollup._default_manager.order_by().values_list("tenant", "api_key", "day")
        rows = rows.annotate(*(Sum(name) for name in MEASURES))
        found = {row[:3]: list(row[3:]) for row in rows if any(row[3:])}
        assert found == expected, (rollup, done)


def compare_ledger(world: RandomWorld, done: list[str]) -> None:
    entries = LedgerEntry.objects.filter(tenant__in=world.tenants).order_by().values_list("tenant", "account")
    found = {row[:2]: int(row[2]) for row in entries.annotate(Sum("amount_nano")) if row[2]}
    assert found == {place: amount for place, amount in world.books.accounts.items() if amount}, done
    grants = LedgerEntry.objects.filter(grant__in=world.books.grants).order_by().values_list("grant")
    left = {row[0]: -int(row[1]) for row in grants.annotate(Sum("amount_nano"))}
    assert left == {
        grant.id: grant.left * world.books.unit_nano(grant.tenant) for grant in world.books.grants.values()
    }


def compare_focus(world: RandomWorld, month: dt.date) -> None:
    table = open_table("focus", f"month={month:%Y-%m}&version=1.4&tenant=", "csv", now=world.now)
    table.count()
    names = [column.name for column in table.columns]
    by_invoice: dict[str, Decimal] = defaultdict(Decimal)
    by_key_day: dict[tuple[int, int, dt.date], int] = defaultdict(int)
    for values in table.rows:
        row = dict(zip(names, values, strict=True))
        assert "Difference" not in row["ChargeDescription"]
        by_invoice[row["InvoiceId"]] += Decimal(row["BilledCost"])
        if row["ChargeCategory"] == "Usage":
            tenant, key = (int(row[name].rpartition("-")[2]) for name in ("BillingAccountId", "ResourceId"))
            by_key_day[tenant, key, row["ChargePeriodStart"].date()] += int(row["x_ChargeNanoUsd"])
    sums = world.books.sums().items()
    expected = {place: sums[4] for place, sums in sums if place[2].replace(day=1) == month and sums[4]}
    assert {place: charge for place, charge in by_key_day.items() if charge} == expected
    invoices = list(Invoice.objects.filter(month=month, state__in=IN_FORCE))
    for invoice in invoices:
        assert by_invoice[invoice.number_text] == Decimal(invoice.total_minor).scaleb(-invoice.minor_digits)
    assert by_invoice.keys() - {None} == {invoice.number_text for invoice in invoices}


def compare_files(world: RandomWorld) -> None:
    auditor = Auditor(world.books.prices, world.books.terms, world.books.models)
    auditor.read_requests()
    assert len(auditor.read) >= len(world.books.sums())
    auditor.check_spend(now=world.now)


@pytest.mark.parametrize("seed", range(1))
def test_money_of_a_random_world(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live(seed, tmp_path, monkeypatch, step_hours=400, deeds_a_step=6, verify_each=6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 130))
def test_money_of_more_random_worlds(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live(seed, tmp_path, monkeypatch, step_hours=100, deeds_a_step=6, verify_each=3)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(1000, 1300))
def test_money_of_many_random_worlds(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live(seed, tmp_path, monkeypatch, step_hours=50, deeds_a_step=3)
