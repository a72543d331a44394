"""Do statements tie to their meters, keep their numbers, and never change once they are issued?"""

from __future__ import annotations

import datetime as dt
import hashlib
import threading
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.db.models import Sum

from billing import invoicing, issued_pdfs
from billing.billing_profiles import change_profile
from billing.credit_notes import list_left, list_open_lines, write_credit_note
from billing.credits import find_left, grant_credit
from billing.exchange_rates import RateMissingError, add_rate
from billing.invoicing import StepRefusedError
from billing.issued_pdfs import find_pdf
from billing.ledger import find_balance
from billing.models import (
    CreditGrant,
    Invoice,
    InvoiceCounter,
    InvoiceLine,
    InvoiceState,
    IssuedPdf,
    LedgerEntry,
    PeriodLock,
)
from billing.statement_document import from_json, list_faults
from billing.verifying import verify
from policies.errors import InUseError, InvalidValueError
from policies.models import ChangeEvent
from policies.tenancy_changes import delete_tenant
from tests import make

pytestmark = pytest.mark.django_db
OCTOBER, NOVEMBER = dt.date(2025, 10, 1), dt.date(2025, 11, 1)
NOON = dt.datetime(2025, 10, 7, 12, tzinfo=dt.UTC)
NOW = dt.datetime(2025, 11, 5, tzinfo=dt.UTC)
# 800 x 50 + 200 x 5 + 500 x 200 dollars, thousandfold dearer than `make.RATES`: $141 a request.
RATES = {"input_usd_per_mtok": "50000", "cache_read_usd_per_mtok": "5000", "output_usd_per_mtok": "200000"}
COST = 141_000_000_000


def spend(
    tmp_path: Path, *, count: int = 1, at: dt.datetime = NOON, world: make.World | None = None
) -> make.World:
    world = world or make.world()
    world.price.pk, world.price.rates = None, RATES
    world.price.effective_from += dt.timedelta(days=1 + world.price.effective_from.microsecond)
    world.price.save()
    add_requests(tmp_path, world, count=count, at=at)
    return world


_workers = iter(range(1, 10_000))


def add_requests(
    tmp_path: Path, world: make.World, *, count: int = 1, at: dt.datetime = NOON, **outcome: Any
) -> None:
    lines = [
        line
        for _ in range(count)
        for line in make.request_lines(world, make.request_id_at(at), **{"cost": COST, **outcome})
    ]
    make.ingest(tmp_path, lines, worker=f"worker-{next(_workers)}")


def close(month: dt.date = NOVEMBER) -> None:
    PeriodLock.objects.update_or_create(id=1, defaults={"closed_until": month})


def drafted(world: make.World, month: dt.date = OCTOBER) -> Invoice:
    invoice = invoicing.draft(tenant=world.tenant, month=month, actor="fiona", now=NOW)
    assert invoice is not None
    return invoice


def issued(world: make.World, month: dt.date = OCTOBER) -> Invoice:
    invoice = invoicing.review(invoice=drafted(world, month), actor="fiona", now=NOW)
    return invoicing.issue(invoice=invoice, actor="fiona", now=NOW)


def owed(world: make.World, currency: str = "USD") -> int:
    return find_balance(tenant=world.tenant, account="receivable", currency=currency)


def test_a_draft_has_a_line_for_each_meter_and_is_the_same_until_something_is_posted(tmp_path: Path) -> None:
    world = spend(tmp_path, count=2)
    first = drafted(world)
    lines = first.lines.values_list("meter", "quantity", "amount_nanousd", "amount_minor", "unit_usd")
    assert list(lines.order_by("position")) == [
        ("input", 1_600, 80_000_000_000, 8_000, "50000"),
        ("cache_read", 400, 2_000_000_000, 200, "5000"),
        ("output", 1_000, 200_000_000_000, 20_000, "200000"),
    ]
    assert (first.amount_nanousd, first.total_minor, first.number_text) == (2 * COST, 28_200, "")
    again = drafted(world)
    assert (again.pk, again.drafted_at, again.document) == (first.pk, first.drafted_at, first.document)
    invoicing.review(invoice=first, actor="bob", now=NOW)
    add_requests(tmp_path, world)
    newer = drafted(world)
    assert (newer.pk, newer.state, newer.total_minor) == (first.pk, InvoiceState.DRAFT, 42_300)
    assert newer.reviewed_by == ""
    assert invoicing.draft(tenant=make.world().tenant, month=OCTOBER, actor="fiona", now=NOW) is None


def test_issuing_needs_a_review_a_closed_month_and_sums_that_did_not_change(tmp_path: Path) -> None:
    world = spend(tmp_path)
    invoice = drafted(world)
    with pytest.raises(StepRefusedError, match="review it first"):
        invoicing.issue(invoice=invoice, actor="fiona", now=NOW)
    invoicing.review(invoice=invoice, actor="fiona", now=NOW)
    with pytest.raises(StepRefusedError, match="2025-10 is not closed"):
        invoicing.issue(invoice=invoice, actor="fiona", now=NOW)
    close()
    change_profile(tenant=world.tenant, actor="fiona", tax_ratio=Decimal("0.19"))
    with pytest.raises(StepRefusedError, match="draft it again"):
        invoicing.issue(invoice=invoice, actor="fiona", now=NOW)
    assert not InvoiceCounter.objects.filter(kind="invoice", last_number__gt=0).exists()
    invoice = issued(world)
    assert (invoice.number_text, invoice.total_minor, invoice.tax_minor) == ("INV-000001", 16_779, 2_679)
    assert len(invoice.pdf_sha256) == 64
    assert list_faults(from_json(invoice.document)) == []
    assert owed(world) == 167_790_000_000
    with pytest.raises(StepRefusedError, match="is issued"):
        drafted(world)
    actions = ChangeEvent.objects.filter(object_type="statement").values_list("action", flat=True)
    assert list(actions.order_by("id")) == ["draft", "review", "draft", "review", "issue"]


def test_a_statement_of_nothing_has_a_number_and_is_paid_as_it_is_issued(tmp_path: Path) -> None:
    world = make.world()
    make.ingest(tmp_path, make.request_lines(world, make.request_id_at(NOON)))
    close()
    invoice = issued(world)
    assert (invoice.state, invoice.number_text, invoice.total_minor) == (InvoiceState.PAID, "INV-000001", 0)
    assert (invoice.paid_at, invoice.paid_by, invoice.payment_reference) == (NOW, "fiona", "nothing was due")
    # What rounding took stays in the books: revenue is exact, and no cash and no debt come of it.
    balances = {name: find_balance(tenant=world.tenant, account=name, currency="USD") for name in
                ("revenue", "rounding", "receivable", "cash")}  # fmt: skip
    exact = {"revenue": -make.COST_NANOUSD, "rounding": make.COST_NANOUSD, "receivable": 0, "cash": 0}
    assert balances == exact
    assert verify(now=NOW).differences == ()


def test_a_currency_needs_a_rate_which_is_frozen_and_lines_are_rounded_once(tmp_path: Path) -> None:
    world = spend(tmp_path)
    change_profile(tenant=world.tenant, actor="fiona", currency="EUR")
    with pytest.raises(RateMissingError, match="no exchange rate of EUR for 2025-10-31"):
        drafted(world)
    add_rate(currency="EUR", rate="0.91237", first_day=OCTOBER, source="ECB", actor="fiona")
    close()
    invoice = issued(world)
    assert (invoice.currency, invoice.exchange_rate, invoice.amount_nanousd) == (
        "EUR",
        Decimal("0.91237"),
        COST,
    )
    # 40 x 0.91237 = 36.4948, 1 x 0.91237 = 0.91237, 100 x 0.91237 = 91.237
    assert list(invoice.lines.order_by("position").values_list("amount_minor", flat=True)) == [
        3_649,
        91,
        9_124,
    ]
    rounding = invoice.lines.aggregate(Sum("rounding_nano"))["rounding_nano__sum"]
    assert rounding == invoice.subtotal_minor * 10_000_000 - invoice.amount_nano != 0
    entries = LedgerEntry.objects.filter(tenant=world.tenant)
    assert entries.aggregate(Sum("amount_nano"))["amount_nano__sum"] == 0
    assert -entries.get(account="rounding").amount_nano == rounding
    add_rate(currency="EUR", rate="0.95", first_day=OCTOBER, source="ECB, corrected", actor="fiona")
    invoice.refresh_from_db()
    assert from_json(invoice.document).exchange_rate == Decimal("0.91237")


def test_prepaid_credit_pays_first_and_comes_back_when_the_invoice_is_void(tmp_path: Path) -> None:
    world = spend(tmp_path)
    grant = grant_credit(
        tenant=world.tenant,
        kind=CreditGrant.Kind.PAID,
        amount_nano=100_000_000_000,
        currency="USD",
        actor="fiona",
        at=NOON,
    )
    close()
    invoice = issued(world)
    assert (invoice.credits_minor, invoice.due_minor) == (10_000, 4_100)
    assert (find_left(grant), owed(world)) == (0, 41_000_000_000)
    with pytest.raises(InvalidValueError, match="say why"):
        invoicing.void(invoice=invoice, actor="fiona", now=NOW, reason=" ")
    invoicing.void(invoice=invoice, actor="fiona", now=NOW, reason="wrong address")
    assert (find_left(grant), owed(world)) == (100_000_000_000, 0)
    second = issued(world)
    assert (second.number_text, second.due_minor, owed(world)) == ("INV-000002", 4_100, 41_000_000_000)
    invoicing.mark_paid(invoice=second, actor="fiona", now=NOW, reference="bank 17")
    assert owed(world) == 0
    with pytest.raises(StepRefusedError, match="is paid"):
        invoicing.void(invoice=second, actor="fiona", now=NOW, reason="x")


def test_credit_notes_take_lines_once_and_give_back_tax_and_credit_exactly(tmp_path: Path) -> None:
    world = spend(tmp_path)
    # Of three lines, 40.00, 1.00 and 100.00: at 19.5 % the tax of each alone is rounded up.
    change_profile(tenant=world.tenant, actor="fiona", tax_ratio=Decimal("0.195050"))
    grant = grant_credit(
        tenant=world.tenant,
        kind=CreditGrant.Kind.PROMOTIONAL,
        amount_nano=20_000_000_000,
        currency="USD",
        actor="f",
        at=NOON,
    )
    close()
    invoice = issued(world)
    notes = [
        write_credit_note(invoice=invoice, actor="fiona", now=NOW, reason="agreed", positions=[position])
        for position in (2, 1)
    ]
    assert [note.number_text for note in notes] == ["CN-000001", "CN-000002"]
    assert (notes[0].subtotal_minor, notes[1].subtotal_minor) == (-100, -4_000)
    assert find_left(grant) == 0
    with pytest.raises(InvalidValueError, match="credited already"):
        write_credit_note(invoice=invoice, actor="fiona", now=NOW, reason="again", positions=[2])
    with pytest.raises(InvalidValueError, match="at least one"):
        write_credit_note(invoice=invoice, actor="fiona", now=NOW, reason="again", positions=[])
    notes.append(write_credit_note(invoice=invoice, actor="fiona", now=NOW, reason="all of it"))
    assert sum(note.tax_minor for note in notes) == -invoice.tax_minor
    assert sum(note.total_minor for note in notes) == -invoice.total_minor
    assert (find_left(grant), owed(world), list_open_lines(invoice)) == (20_000_000_000, 0, [])
    assert find_balance(tenant=world.tenant, account="revenue", currency="USD") == 0
    for note in notes:
        assert list_faults(from_json(note.document)) == []
    with pytest.raises(StepRefusedError, match="is credited already"):
        write_credit_note(invoice=invoice, actor="fiona", now=NOW, reason="more")
    with pytest.raises(Exception, match="has credit notes"):
        invoicing.void(invoice=invoice, actor="fiona", now=NOW, reason="x")


@pytest.mark.parametrize(("currency", "rate"), [("USD", ""), ("JPY", "155.55"), ("EUR", "0.913700000001")])
def test_a_part_of_a_line_is_credited_and_never_more_than_is_left(
    tmp_path: Path, currency: str, rate: str
) -> None:
    world = spend(tmp_path)
    change_profile(tenant=world.tenant, actor="fiona", currency=currency, tax_ratio=Decimal("0.195050"))
    if rate:
        add_rate(currency=currency, rate=rate, first_day=OCTOBER, source="a test", actor="fiona")
    close()
    invoice = issued(world)

    def credit(position: int, amount_minor: int) -> Invoice:
        return write_credit_note(
            invoice=invoice,
            actor="fiona",
            now=NOW,
            reason="agreed",
            positions=[position],
            amounts_minor={position: amount_minor},
        )

    whole = invoice.lines.get(position=1).amount_minor
    notes = [credit(1, 333), credit(1, 7)]
    assert [note.subtotal_minor for note in notes] == [-333, -7]
    (line,) = from_json(notes[0].document).lines
    assert (line.quantity, line.description) == (None, "Input tokens, a part")
    for wrong in (whole - 339, 0, -5, 10**15):
        with pytest.raises(InvalidValueError, match="at most"):
            credit(1, wrong)
    with pytest.raises(InvalidValueError, match="not chosen"):
        write_credit_note(
            invoice=invoice, actor="f", now=NOW, reason="x", positions=[2], amounts_minor={1: 5}
        )
    assert next(one.amount_minor for one in list_left(invoice)) == whole - 340
    assert not [one for one in verify(now=NOW).differences if one.kind.startswith("credited")]
    notes.append(credit(2, invoice.lines.get(position=2).amount_minor))
    notes.append(write_credit_note(invoice=invoice, actor="fiona", now=NOW, reason="the rest"))
    assert sum(note.tax_minor for note in notes) == -invoice.tax_minor
    assert sum(note.total_minor for note in notes) == -invoice.total_minor
    assert (list_left(invoice), owed(world, currency)) == ([], 0)
    if currency == "USD":
        assert find_balance(tenant=world.tenant, account="revenue", currency="USD") == 0
    assert verify(now=NOW).differences == ()


@pytest.mark.parametrize(("currency", "rate"), [("USD", ""), ("JPY", "155.55"), ("EUR", "0.913700000001")])
def test_units_of_a_line_are_credited_at_its_price_and_all_of_them_are_the_line(
    tmp_path: Path, currency: str, rate: str
) -> None:
    world = spend(tmp_path, count=2)
    change_profile(tenant=world.tenant, actor="fiona", currency=currency, tax_ratio=Decimal("0.19"))
    if rate:
        add_rate(currency=currency, rate=rate, first_day=OCTOBER, source="a test", actor="fiona")
    close()
    invoice = issued(world)

    def credit(position: int, **more: dict[int, int]) -> Invoice:
        return write_credit_note(
            invoice=invoice, actor="fiona", now=NOW, reason="agreed", positions=[position], **more
        )

    fx = Fraction(rate or 1) * 10**invoice.minor_digits
    notes = []
    for units in (333, 700, 1, 566):  # of 1,600 at 50,000 USD a million
        notes.append(credit(1, units={1: units}))
        (line,) = from_json(notes[-1].document).lines
        assert (line.quantity, line.unit_usd, line.unit_size) == (-units, Decimal(50_000), 1_000_000)
        exact = Fraction(units, 20) * fx
        # Rounded once; the last one takes what is left, whatever the notes before were rounded by.
        assert abs(-line.amount_minor - exact) <= (Fraction(1, 2) if units != 566 else 4)
    assert -sum(note.subtotal_minor for note in notes) == invoice.lines.get(position=1).amount_minor
    (whole,) = from_json(credit(2, units={2: 400}).document).lines
    assert (whole.quantity, whole.description) == (-400, "Input tokens read from the cache")
    for wrong in (0, -1, 1_001, 10**18):
        with pytest.raises(InvalidValueError, match="at most 1,000 units"):
            credit(3, units={3: wrong})
    with pytest.raises(InvalidValueError, match="not both"):
        credit(3, units={3: 1}, amounts_minor={3: 1})
    # What an amount took is of no units: the rest is not theirs either, and more than is left is refused.
    credit(3, amounts_minor={3: 5_000})
    with pytest.raises(InvalidValueError, match=r"999 units of line 3 come to [0-9.]+: at most"):
        credit(3, units={3: 999})
    (rest,) = from_json(credit(3).document).lines
    assert (rest.quantity, rest.description) == (None, "Output tokens, a part")
    assert (list_left(invoice), owed(world, currency)) == ([], 0)
    assert verify(now=NOW).differences == ()


def test_a_line_that_is_credited_beyond_what_it_billed_is_found(tmp_path: Path) -> None:
    world = spend(tmp_path)
    close()
    invoice = issued(world)
    write_credit_note(
        invoice=invoice, actor="f", now=NOW, reason="x", positions=[1], amounts_minor={1: 3_999}
    )
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE billing_invoiceline DISABLE TRIGGER ALL")
        cursor.execute("UPDATE billing_invoiceline SET amount_minor = -4001 WHERE corrects_id IS NOT NULL")
    found = [(one.kind, one.stored, one.expected) for one in verify(now=NOW).differences]
    assert ("credited line", "4001", "at most 4000") in found


def test_nothing_that_is_issued_changes(tmp_path: Path) -> None:
    world = spend(tmp_path)
    close()
    invoice = issued(world)
    line = invoice.lines.first()
    assert line is not None
    statements = [
        "UPDATE billing_invoice SET total_minor = total_minor + 1, subtotal_minor = subtotal_minor + 1,"
        " due_minor = due_minor + 1",
        "UPDATE billing_invoice SET document = '{}'",
        "UPDATE billing_invoice SET state = 'draft', number = NULL",
        "UPDATE billing_invoice SET paid_by = 'me'",
        "UPDATE billing_invoice SET pdf_sha256 = 'other'",
        "DELETE FROM billing_invoice",
        "UPDATE billing_invoiceline SET amount_minor = 0",
        "DELETE FROM billing_invoiceline",
        'INSERT INTO billing_invoiceline SELECT (jsonb_populate_record(l, \'{"id": 999999, "position": 99}\')).*'
        " FROM billing_invoiceline l LIMIT 1",
        "UPDATE billing_invoicecounter SET last_number = 0",
        "UPDATE billing_invoicecounter SET last_number = last_number + 2",
        "DELETE FROM billing_invoicecounter",
        "UPDATE billing_periodlock SET closed_until = '2025-01-01'",
        "DELETE FROM billing_periodlock",
    ]
    for statement in statements:
        with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)
    with pytest.raises(InUseError, match="invoice"):
        delete_tenant(tenant=world.tenant, actor="fiona")
    invoicing.mark_paid(invoice=invoice, actor="fiona", now=NOW)
    with pytest.raises(DatabaseError, match="does not become"), transaction.atomic():
        Invoice.objects.update(state=InvoiceState.VOID)
    assert InvoiceLine.objects.count() == 3


@pytest.mark.django_db(transaction=True)
def test_numbers_have_no_gaps_when_two_issue_at_once_and_one_gives_up(tmp_path: Path) -> None:
    worlds = [spend(tmp_path) for _ in range(6)]
    PeriodLock.objects.update_or_create(id=1, defaults={"closed_until": NOVEMBER})
    reviewed = [invoicing.review(invoice=drafted(world), actor="fiona", now=NOW) for world in worlds]
    refused: list[int] = []

    def issue_all(invoices: list[Invoice]) -> None:
        try:
            for number, invoice in enumerate(invoices):
                try:
                    with transaction.atomic():
                        invoicing.issue(invoice=invoice, actor="fiona", now=NOW)
                        if number == 1:
                            raise KeyboardInterrupt
                except KeyboardInterrupt:
                    refused.append(invoice.pk)
        finally:
            connection.close()

    threads = [threading.Thread(target=issue_all, args=(reviewed[start::2],)) for start in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(refused) == 2
    numbered = Invoice.objects.filter(number__isnull=False).order_by("number")
    assert list(numbered.values_list("number", flat=True)) == [1, 2, 3, 4]


def test_a_million_dollars_are_billed_paid_and_credited_in_a_currency_that_is_worth_little(
    tmp_path: Path,
) -> None:
    world = spend(tmp_path)
    world.price.pk, world.price.rates = None, {"input_usd_per_mtok": "1000000"}
    world.price.effective_from += dt.timedelta(days=1)
    world.price.save()
    usage = make.usage_line(input=1_000_000, cache_read=0, output=0)
    add_requests(tmp_path, world, usage=usage, cost=10**15)
    change_profile(tenant=world.tenant, actor="fiona", currency="VND", tax_ratio=Decimal("0.08"))
    add_rate(currency="VND", rate="26000.5", first_day=OCTOBER, source="a bank", actor="fiona")
    close()
    invoice = issued(world)
    # 1,000,141 x 26,000.5: more billionths than 64 bits hold.
    assert invoice.amount_nano == 1_000_141 * 26_000_500_000_000 > 2**63
    assert (invoice.subtotal_minor, invoice.tax_minor) == (26_004_166_071, 2_080_333_286)
    assert owed(world, "VND") == invoice.total_minor * 10**9
    invoicing.mark_paid(invoice=invoice, actor="fiona", now=NOW)
    assert owed(world, "VND") == 0
    write_credit_note(invoice=invoice, actor="fiona", now=NOW, reason="agreed")
    assert owed(world, "VND") == -invoice.total_minor * 10**9
    assert verify(now=NOW).differences == ()


def test_drafting_while_somebody_else_issues_is_refused_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = spend(tmp_path)
    reviewed = invoicing.review(invoice=drafted(world), actor="fiona", now=NOW)
    close()

    def find_too_early(**of: Any) -> Invoice:
        invoicing.issue(invoice=reviewed, actor="bob", now=NOW)
        return reviewed

    monkeypatch.setattr(invoicing, "find_invoice", find_too_early)
    with pytest.raises(StepRefusedError, match="is issued"):
        drafted(world)


def test_a_pdf_stays_byte_for_byte_what_was_issued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = spend(tmp_path)
    close()
    invoice = issued(world)
    note = write_credit_note(invoice=invoice, actor="fiona", now=NOW, reason="agreed")
    monkeypatch.setattr(issued_pdfs, "write_pdf", lambda document: b"another release")
    for row in (invoice, note):
        content = find_pdf(row)
        assert content is not None and content.startswith(b"%PDF")
        assert hashlib.sha256(content).hexdigest() == row.pdf_sha256
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        IssuedPdf.objects.update(content=b"another release")
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        IssuedPdf.objects.filter(invoice=note).delete()
    call_command("statements", "write", "2025-10", "--format", "pdf", "--to", str(tmp_path))
    written = (tmp_path / "invoice-INV-000001.pdf").read_bytes()
    assert hashlib.sha256(written).hexdigest() == invoice.pdf_sha256
