"""How does a statement come about: drafted, reviewed, issued, then paid or void?

Writes: invoice, invoice_line, issued_pdf, invoice_counter, ledger postings, draws of credit, change_event. Calls:
billing.drafting for what it says. Credit notes: `billing.credit_notes`.

    draft       as often as wanted; nothing changes while the sums are the same, else it goes back to draft
    reviewed    somebody looked at it
    issued      its month is closed; number, credits drawn, document and the PDF's hash are frozen (triggers)
    paid, void  the only steps after that
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from django.db import connection, transaction

from billing import credits, ledger
from billing.billing_profiles import profile_of
from billing.drafting import Draft, build_draft, last_day_of
from billing.issued_pdfs import keep_pdf
from billing.ledger import Account, Entry, Kind
from billing.minor_units import nano_of_minor
from billing.models import Invoice, InvoiceKind, InvoiceLine, InvoiceState
from billing.periods import is_closed
from billing.statement_document import (
    CreditDrawn,
    State,
    StatementDocument,
    build_statement,
    from_json,
    to_json,
)
from billing.summing_meters import sum_meters
from policies import changes
from policies.errors import ConfigurationError, InUseError, InvalidValueError
from policies.models import Tenant

OBJECT_TYPE = "statement"
# Why a statement of 0.00 is paid as it is issued.
NOTHING_DUE = "nothing was due"


class StepRefusedError(ConfigurationError):
    """The statement is in a state in which this cannot be done; the text says what to do."""


def draft(*, tenant: Tenant, month: dt.date, actor: str, now: dt.datetime) -> Invoice | None:
    """Write the statement of a month, or bring it up to date. None when there is nothing to charge.

    A reviewed one whose sums changed is a draft again. Raises StepRefusedError when it is issued, RateMissingError.
    """
    if month.day != 1:
        raise InvalidValueError({"month": ["a month is named by its first day"]})
    sum_meters(first_day=month, last_day=last_day_of(month), tenant_id=tenant.pk)
    with transaction.atomic():
        # Two who draft at once come one after the other.
        Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)
        kept = find_invoice(tenant=tenant, month=month)
        if kept is not None:
            kept = lock(kept)  # somebody may be reviewing or issuing it
        if kept is not None and kept.is_issued:
            raise StepRefusedError(f"{kept} is issued: what changed since then is on the next statement")
        drafted = build_draft(tenant=tenant, month=month)
        if drafted is None:
            if kept is not None:
                record(kept, actor=actor, action="delete", after={"total": kept.total_minor})
                kept.delete()
            return None
        if kept is not None and kept.document == to_json(drafted.document):
            return kept
        return _write(kept, tenant, month, drafted, actor=actor, now=now)


def find_invoice(*, tenant: Tenant, month: dt.date) -> Invoice | None:
    """The invoice of a month that is not void."""
    rows = Invoice.objects.filter(tenant=tenant, month=month, kind=InvoiceKind.INVOICE)
    return rows.exclude(state=InvoiceState.VOID).first()


def _write(
    kept: Invoice | None, tenant: Tenant, month: dt.date, drafted: Draft, *, actor: str, now: dt.datetime
) -> Invoice:
    row = kept or Invoice(tenant=tenant, month=month)
    was_reviewed = row.state == InvoiceState.REVIEWED
    row.state, row.reviewed_at, row.reviewed_by = InvoiceState.DRAFT, None, ""
    row.drafted_at, row.drafted_by = now, actor[:150]
    set_document(row, drafted.document)
    row.save()
    row.lines.all().delete()
    write_lines(row, drafted.document, drafted.deployment_ids)
    record(row, actor=actor, action="draft", after={"total": row.total_minor, "was_reviewed": was_reviewed})
    return row


def set_document(row: Invoice, document: StatementDocument) -> None:
    """Let a row say what its document says."""
    row.document = to_json(document)
    row.currency, row.minor_digits = document.currency, document.minor_digits
    row.exchange_rate = document.exchange_rate
    row.tax_ratio = max((line.tax_ratio for line in document.lines), default=row.tax_ratio)
    row.amount_nanousd = document.amount_nanousd
    row.amount_nano = sum(line.amount_nano for line in document.lines)
    row.subtotal_minor, row.tax_minor = document.subtotal_minor, document.tax_minor
    row.total_minor, row.credits_minor = document.total_minor, document.credits_minor
    row.due_minor, row.due_on = document.due_minor, document.due_on


def write_lines(
    row: Invoice,
    document: StatementDocument,
    deployment_ids: Sequence[int | None],
    corrects: Sequence[int | None] | None = None,
) -> None:
    """Keep the document's lines as rows."""
    InvoiceLine.objects.bulk_create(
        InvoiceLine(
            invoice=row,
            position=line.position,
            kind=line.kind,
            text=line.description[:300],
            model=line.model[:300],
            provider=line.provider[:300],
            deployment_id=deployment_id,
            meter=line.meter,
            service_tier=line.service_tier,
            price_id=line.price_id,
            sale_term_id=line.sale_term_id,
            sale_price_id=line.sale_price_id,
            unit_usd="" if line.unit_usd is None else format(line.unit_usd, "f"),
            unit_size=line.unit_size,
            late_of=line.late_of,
            quantity=line.quantity or 0,
            amount_nanousd=line.amount_nanousd,
            amount_nano=line.amount_nano,
            amount_minor=line.amount_minor,
            rounding_nano=nano_of_minor(line.amount_minor, document.minor_digits) - line.amount_nano,
            corrects_id=corrects[index] if corrects else None,
        )
        for index, (line, deployment_id) in enumerate(zip(document.lines, deployment_ids, strict=True))
    )


@transaction.atomic
def review(*, invoice: Invoice, actor: str, now: dt.datetime) -> Invoice:
    """Say that somebody looked at a draft and found it right."""
    row = lock(invoice)
    if row.state == InvoiceState.REVIEWED:
        return row
    _need(row, InvoiceState.DRAFT, "only drafts are reviewed")
    row.state, row.reviewed_at, row.reviewed_by = InvoiceState.REVIEWED, now, actor[:150]
    row.save(update_fields=["state", "reviewed_at", "reviewed_by"])
    record(row, actor=actor, action="review", after={"total": row.total_minor})
    return row


@transaction.atomic
def issue(*, invoice: Invoice, actor: str, now: dt.datetime) -> Invoice:
    """Give it its number, draw credit, book it, and freeze it; one of 0.00 is paid at once.

    Raises StepRefusedError when it was not reviewed, its month is not closed, or its sums changed since.
    """
    row = lock(invoice)
    _need(row, InvoiceState.REVIEWED, "review it first")
    if not is_closed(row.month):
        raise StepRefusedError(f"{row.month:%Y-%m} is not closed: what still comes in would not be billed")
    fresh = build_draft(tenant=row.tenant, month=row.month)
    if fresh is None or to_json(fresh.document) != row.document:
        raise StepRefusedError("its sums or the billing profile changed since it was drafted: draft it again")
    document = fresh.document
    drawn = _draw(row, document, actor=actor, now=now)
    row.number = take_number(InvoiceKind.INVOICE)
    profile = profile_of(row.tenant)
    issued_on = now.astimezone(dt.UTC).date()
    document = build_statement(
        **{**_members(document), "state": "issued", "number": row.number_text},
        credits_drawn=drawn,
        issued_on=issued_on,
        due_on=issued_on + dt.timedelta(days=profile.payment_days),
    )
    set_document(row, document)
    row.state, row.issued_at, row.issued_by = InvoiceState.ISSUED, now, actor[:150]
    keep_pdf(row, document)
    book(row, kind=Kind.ISSUE, reference=row.number_text, sign=1, actor=actor, now=now)
    record(row, actor=actor, action="issue", after={"number": row.number_text, "total": row.total_minor})
    if not row.total_minor:  # nobody will ever pay it
        return mark_paid(invoice=row, actor=actor, now=now, reference=NOTHING_DUE)
    return row


def draw_reference(row: Invoice) -> str:
    """The name under which an invoice draws credit. It draws before it has its number."""
    return f"statement {row.pk}"


def _draw(row: Invoice, document: StatementDocument, *, actor: str, now: dt.datetime) -> list[CreditDrawn]:
    """Credit pays after tax, so nothing that was sold with tax is untaxed."""
    digits = document.minor_digits
    if document.total_minor <= 0:
        return []
    by_model: dict[str, int] = defaultdict(int)
    for line in document.lines:
        by_model[line.model] += nano_of_minor(line.amount_minor, digits)
    draws = credits.draw(
        tenant=row.tenant,
        currency=row.currency,
        wanted_nano=nano_of_minor(document.total_minor, digits),
        reference=draw_reference(row),
        at=now,
        actor=actor,
        models=dict(by_model),
    )
    unit = nano_of_minor(1, digits)
    return [
        CreditDrawn(
            f"{one.grant.get_kind_display().capitalize()} (credit {one.grant.pk})", one.amount_nano // unit
        )
        for one in draws
    ]


def take_number(kind: str) -> int:
    """The next number of its kind. Whoever takes one keeps others waiting until it is written, or given back."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO billing_invoicecounter AS kept (kind, last_number) VALUES (%s, 1)"
            " ON CONFLICT (kind) DO UPDATE SET last_number = kept.last_number + 1 RETURNING last_number",
            [kind],
        )
        (number,) = cursor.fetchone()
        return int(number)


@transaction.atomic
def mark_paid(*, invoice: Invoice, actor: str, now: dt.datetime, reference: str = "") -> Invoice:
    """Book the payment of what is still due. Raises StepRefusedError."""
    row = lock(invoice)
    if row.kind != InvoiceKind.INVOICE:
        raise StepRefusedError("a credit note is not paid")
    _need(row, InvoiceState.ISSUED, "only issued invoices are paid")
    open_nano = nano_of_minor(find_open_minor(row), row.minor_digits)
    row.state, row.paid_at, row.paid_by = InvoiceState.PAID, now, actor[:150]
    row.payment_reference = reference.strip()[:200]
    row.save(update_fields=["state", "paid_at", "paid_by", "payment_reference"])
    if open_nano > 0:
        ledger.post(
            tenant=row.tenant,
            kind=Kind.PAY,
            reference=row.number_text,
            currency=row.currency,
            entries=[Entry(Account.CASH, open_nano), Entry(Account.RECEIVABLE, -open_nano)],
            at=now,
            actor=actor,
            note=row.payment_reference,
        )
    record(row, actor=actor, action="pay", after={"reference": row.payment_reference})
    return row


@transaction.atomic
def void(*, invoice: Invoice, actor: str, now: dt.datetime, reason: str) -> Invoice:
    """Take an issued invoice back as a whole: credit is given back, and its month can be drafted anew.

    Raises StepRefusedError when it is paid, or partly credited.
    """
    if not reason.strip():
        raise InvalidValueError({"reason": ["say why: it stands with the statement for good"]})
    row = lock(invoice)
    if row.kind != InvoiceKind.INVOICE:
        raise StepRefusedError("a credit note stays: it is corrected by the next invoice")
    _need(row, InvoiceState.ISSUED, "only issued invoices that are not paid can be void")
    if row.credit_notes.exists():
        raise InUseError(f"{row} has credit notes: write one over the rest instead")
    credits.give_back(
        draw_reference=draw_reference(row), reference=f"void of {row.number_text}", at=now, actor=actor
    )
    book(row, kind=Kind.VOID, reference=row.number_text, sign=-1, actor=actor, now=now)
    row.state, row.voided_at, row.voided_by = InvoiceState.VOID, now, actor[:150]
    row.void_reason = reason.strip()[:300]
    row.save(update_fields=["state", "voided_at", "voided_by", "void_reason"])
    record(row, actor=actor, action="void", after={"reason": row.void_reason})
    return row


def find_open_minor(row: Invoice) -> int:
    """What a tenant still owes of an invoice, after credit and credit notes; 0 once it is paid or void."""
    if row.state != InvoiceState.ISSUED:
        return 0
    return int(row.due_minor) + sum(row.credit_notes.values_list("due_minor", flat=True))


def document_of(row: Invoice) -> StatementDocument:
    """What the statement says, with the state in which it is now. Raises StatementError."""
    return replace(from_json(row.document), state=cast("State", row.state))


def book(row: Invoice, *, kind: str, reference: str, sign: int, actor: str, now: dt.datetime) -> None:
    """Post a statement (or, with -1, take it back): the tenant owes the total, of which the exact net is revenue."""
    total, tax = (nano_of_minor(amount, row.minor_digits) for amount in (row.total_minor, row.tax_minor))
    rounding = total - tax - row.amount_nano
    entries = [
        Entry(Account.RECEIVABLE, sign * total),
        Entry(Account.REVENUE, -sign * row.amount_nano),
        Entry(Account.TAX, -sign * tax),
        Entry(Account.ROUNDING, -sign * rounding),
    ]
    if any(entry.amount_nano for entry in entries):
        ledger.post(
            tenant=row.tenant,
            kind=kind,
            reference=reference,
            currency=row.currency,
            entries=entries,
            at=now,
            actor=actor,
        )


def lock(invoice: Invoice) -> Invoice:
    """The row as it is now, until the end of the transaction."""
    return (
        Invoice.objects.select_for_update(no_key=True, of=("self",))
        .select_related("tenant")
        .get(pk=invoice.pk)
    )


def record(row: Invoice, *, actor: str, action: str, after: dict[str, Any]) -> None:
    """The step's entry in the audit log."""
    changes.record_change(
        actor=actor,
        action=action,
        object_type=OBJECT_TYPE,
        object_id=row.pk,
        object_name=f"{row} of {row.tenant}",
        after={**after, "currency": row.currency, "month": f"{row.month:%Y-%m}"},
    )


def _need(row: Invoice, state: str, otherwise: str) -> None:
    if row.state != state:
        raise StepRefusedError(f"{row} is {row.get_state_display()}: {otherwise}")


def _members(document: StatementDocument) -> dict[str, Any]:
    """What `build_statement` takes, of a document that it made."""
    derived = {
        "minor_digits",
        "subtotal_minor",
        "taxes",
        "total_minor",
        "credits",
        "due_minor",
        "schema_version",
    }
    names = set(document.__dataclass_fields__) - derived - {"issued_on", "due_on"}
    return {name: getattr(document, name) for name in names}
