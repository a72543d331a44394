"""How is an issued invoice corrected? By a credit note over all of its lines, or some; never by a change.

Writes: invoice, invoice_line, issued_pdf, invoice_counter, ledger postings, credit given back, change_event. A line is
credited once, so credit notes are never more than the invoice; their taxes are rounded together and give back its tax
exactly. What the tenant still owes shrinks first; beyond that, credit that the invoice drew goes back.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from decimal import Decimal
from fractions import Fraction

from django.db import transaction

from billing import credits
from billing.billing_profiles import profile_of
from billing.drafting import NO_ISSUER, party_of
from billing.invoicing import (
    StepRefusedError,
    book,
    draw_reference,
    find_open_minor,
    lock,
    record,
    set_document,
    take_number,
    write_lines,
)
from billing.issued_pdfs import keep_pdf
from billing.ledger import Kind
from billing.minor_units import nano_of_minor, round_half_up
from billing.models import Invoice, InvoiceKind, InvoiceLine, InvoiceState
from billing.statement_document import (
    CreditDrawn,
    Note,
    StatementDocument,
    StatementLine,
    TaxLine,
    build_line,
    build_statement,
    from_json,
    sum_taxes,
)
from policies.errors import InvalidValueError


@transaction.atomic
def write_credit_note(
    *,
    invoice: Invoice,
    actor: str,
    now: dt.datetime,
    reason: str,
    positions: Collection[int] | None = None,
) -> Invoice:
    """Credit the lines at these positions; None: all that are left. It is issued at once, with its own number.

    Raises InvalidValueError, and StepRefusedError when there is nothing to correct.
    """
    if not reason.strip():
        raise InvalidValueError({"reason": ["say why: it stands on the credit note"]})
    corrected = lock(invoice)
    if corrected.kind != InvoiceKind.INVOICE or corrected.state not in (
        InvoiceState.ISSUED,
        InvoiceState.PAID,
    ):
        raise StepRefusedError(
            f"{corrected} is {corrected.get_state_display()}: issued invoices are corrected"
        )
    lines = _choose(corrected, positions)
    row = Invoice(
        tenant=corrected.tenant,
        kind=InvoiceKind.CREDIT_NOTE,
        month=corrected.month,
        corrects=corrected,
        reason=reason.strip()[:300],
        drafted_at=now,
        drafted_by=actor[:150],
        reviewed_at=now,
        reviewed_by=actor[:150],
    )
    document = _build(corrected, lines, row.reason, now=now)
    set_document(row, document)
    row.save()
    write_lines(row, document, [line.deployment_id for line in lines], [line.pk for line in lines])
    given = _give_back(row, corrected, document, actor=actor, now=now)
    row.number = take_number(InvoiceKind.CREDIT_NOTE)
    document = _build(corrected, lines, row.reason, now=now, number=row.number_text, given=given)
    set_document(row, document)
    row.state, row.issued_at, row.issued_by = InvoiceState.ISSUED, now, actor[:150]
    keep_pdf(row, document)
    book(row, kind=Kind.CREDIT_NOTE, reference=row.number_text, sign=1, actor=actor, now=now)
    after = {"number": row.number_text, "corrects": corrected.number_text, "total": row.total_minor}
    record(row, actor=actor, action="issue", after={**after, "reason": row.reason})
    return row


def list_open_lines(invoice: Invoice) -> list[InvoiceLine]:
    """The lines of an invoice that no credit note has credited."""
    return list(invoice.lines.filter(credited__isnull=True).order_by("position"))


def _choose(corrected: Invoice, positions: Collection[int] | None) -> list[InvoiceLine]:
    left = {line.position: line for line in list_open_lines(corrected)}
    if not left:
        raise StepRefusedError(f"all of {corrected} is credited already")
    if positions is None:
        return list(left.values())
    if not positions:
        raise InvalidValueError({"lines": ["choose at least one line"]})
    if gone := sorted(set(positions) - set(left)):
        raise InvalidValueError({"lines": [f"line {gone[0]} is not there, or credited already"]})
    return [left[position] for position in sorted(set(positions))]


def _build(
    corrected: Invoice,
    lines: Sequence[InvoiceLine],
    reason: str,
    *,
    now: dt.datetime,
    number: str = "",
    given: Sequence[CreditDrawn] = (),
) -> StatementDocument:
    original = from_json(corrected.document)
    by_position = {line.position: line for line in original.lines}
    credited = [
        _negate(position, by_position[line.position], original)
        for position, line in enumerate(lines, start=1)
    ]
    profile = profile_of(corrected.tenant)
    return build_statement(
        kind="credit_note",
        state="issued" if number else "draft",
        number=number,
        tenant_id=corrected.tenant_id,
        tenant_name=corrected.tenant.name,
        issuer=party_of(profile_of(None), NO_ISSUER),
        recipient=party_of(profile, corrected.tenant.name),
        first_day=original.first_day,
        last_day=original.last_day,
        # At the invoice's own rate: what was billed is what is given back.
        currency=original.currency,
        exchange_rate=original.exchange_rate,
        exchange_rate_on=original.exchange_rate_on,
        lines=credited,
        credits_drawn=given,
        taxes=_taxes(corrected, original, credited),
        issued_on=now.astimezone(dt.UTC).date() if number else None,
        corrects_number=corrected.number_text,
        tax_name=original.tax_name,
        notes=(Note("correction", f"Corrects {corrected.number_text}: {reason}"),),
    )


def _negate(position: int, line: StatementLine, original: StatementDocument) -> StatementLine:
    return build_line(
        position=position,
        description=line.description,
        amount_nanousd=-line.amount_nanousd,
        exchange_rate=original.exchange_rate,
        currency=original.currency,
        kind="credit",
        model=line.model,
        provider=line.provider,
        deployment=line.deployment,
        meter=line.meter,
        service_tier=line.service_tier,
        price_id=line.price_id,
        priced_by=line.priced_by,
        sale_term_id=line.sale_term_id,
        sale_price_id=line.sale_price_id,
        quantity=None if line.quantity is None else -line.quantity,
        unit_usd=line.unit_usd,
        unit_size=line.unit_size,
        tax_ratio=line.tax_ratio,
        late_of=line.late_of,
        corrects_position=line.position,
    )


def _taxes(
    corrected: Invoice, original: StatementDocument, credited: Sequence[StatementLine]
) -> tuple[TaxLine, ...]:
    """The tax of all lines credited so far, rounded once, less what earlier credit notes gave back of it."""
    done_base: dict[Decimal, int] = {}
    done_tax: dict[Decimal, int] = {}
    for written in corrected.credit_notes.filter(number__isnull=False).values_list("document", flat=True):
        for tax in from_json(written).taxes:
            done_base[tax.tax_ratio] = done_base.get(tax.tax_ratio, 0) + tax.base_minor
            done_tax[tax.tax_ratio] = done_tax.get(tax.tax_ratio, 0) + tax.amount_minor
    return tuple(
        TaxLine(
            own.tax_ratio,
            own.base_minor,
            round_half_up((done_base.get(own.tax_ratio, 0) + own.base_minor) * Fraction(own.tax_ratio))
            - done_tax.get(own.tax_ratio, 0),
        )
        for own in sum_taxes(credited)
    )


def _give_back(
    row: Invoice, corrected: Invoice, document: StatementDocument, *, actor: str, now: dt.datetime
) -> list[CreditDrawn]:
    """Credit that pays nothing any more, once this note has taken away what is still owed."""
    # The note's own draft stands among them, with its whole total: without it, that is what was owed before.
    owed = find_open_minor(corrected)
    owed_before = owed - row.due_minor if corrected.state == InvoiceState.ISSUED else 0
    beyond = -document.total_minor - max(0, owed_before)
    if beyond <= 0 or not corrected.credits_minor:
        return []
    backs = credits.give_back(
        draw_reference=draw_reference(corrected),
        reference=f"credit note {row.pk}",
        at=now,
        actor=actor,
        amount_nano=nano_of_minor(beyond, document.minor_digits),
    )
    unit = nano_of_minor(1, document.minor_digits)
    return [
        CreditDrawn(f"Given back: {_name_of(one)} (credit {one.grant.pk})", -one.amount_nano // unit)
        for one in backs
    ]


def _name_of(one: credits.Draw) -> str:
    return str(one.grant.get_kind_display())
