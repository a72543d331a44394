"""How is an issued invoice corrected? By a credit note over its lines, some, or parts of them; never by a change.

Writes: invoice, invoice_line, issued_pdf, invoice_counter, ledger postings, credit given back, change_event. No more
is credited of a line than is left, so credit notes are never more than the invoice; their taxes are rounded together
and give back its tax exactly. What the tenant still owes shrinks first; beyond that, credit that the invoice drew goes
back.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from django.db import transaction
from django.db.models import Count, Q, Sum

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
from billing.minor_units import minor_of, minor_text, nano_of_minor, round_half_up
from billing.models import Invoice, InvoiceKind, InvoiceLine, InvoiceState
from billing.rating import NANOUSD_PER_USD
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


class Left(NamedTuple):
    """What no credit note has taken of a line yet, or what one takes of it. `is_all`: nothing was taken before.

    `units`: those that are left, or taken; None where an amount is taken, and nobody said of which units. `note_count`:
    credit notes that took some of it, `amount_count` those of them that took an amount.
    """

    line: InvoiceLine
    amount_minor: int
    amount_nanousd: int
    is_all: bool = True
    units: int | None = None
    note_count: int = 0
    amount_count: int = 0


@transaction.atomic
def write_credit_note(
    *,
    invoice: Invoice,
    actor: str,
    now: dt.datetime,
    reason: str,
    positions: Collection[int] | None = None,
    amounts_minor: Mapping[int, int] | None = None,
    units: Mapping[int, int] | None = None,
) -> Invoice:
    """Credit what is left of the lines at these positions; None: of all. It is issued at once, with its own number.

    `amounts_minor`: of some of them only so much, in the smallest unit of the currency, before tax. `units`: of some
    only so many of what they count, at their unit price, rounded once.
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
    taken = choose_parts(corrected, positions, amounts_minor or {}, units or {})
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
    document = _build(corrected, taken, row.reason, now=now)
    set_document(row, document)
    row.save()
    write_lines(row, document, [one.line.deployment_id for one in taken], [one.line.pk for one in taken])
    given = _give_back(row, corrected, document, actor=actor, now=now)
    row.number = take_number(InvoiceKind.CREDIT_NOTE)
    document = _build(corrected, taken, row.reason, now=now, number=row.number_text, given=given)
    set_document(row, document)
    row.state, row.issued_at, row.issued_by = InvoiceState.ISSUED, now, actor[:150]
    keep_pdf(row, document)
    book(row, kind=Kind.CREDIT_NOTE, reference=row.number_text, sign=1, actor=actor, now=now)
    after = {"number": row.number_text, "corrects": corrected.number_text, "total": row.total_minor}
    record(row, actor=actor, action="issue", after={**after, "reason": row.reason})
    return row


def list_open_lines(invoice: Invoice) -> list[InvoiceLine]:
    """The lines of an invoice of which something is left to credit."""
    return [one.line for one in list_left(invoice)]


def list_left(invoice: Invoice) -> list[Left]:
    """What no credit note has taken yet, line by line. One query."""
    lines = invoice.lines.annotate(
        notes=Count("credited"),
        taken_minor=Sum("credited__amount_minor", default=0),
        taken_nanousd=Sum("credited__amount_nanousd", default=0),
        taken_units=Sum("credited__quantity", default=0),
        amounts=Count("credited", filter=Q(credited__quantity=0)),
    )
    left = []
    for line in lines.order_by("position"):
        # Amounts of credit notes are negative.
        minor = line.amount_minor + line.taken_minor
        if minor or not line.notes:
            exact = _exact(invoice, minor, line.amount_nanousd + line.taken_nanousd)
            units = line.quantity + line.taken_units
            left.append(Left(line, minor, exact, not line.notes, units, line.notes, line.amounts))
    return left


def choose_parts(
    corrected: Invoice,
    positions: Collection[int] | None,
    amounts_minor: Mapping[int, int],
    units: Mapping[int, int],
) -> list[Left]:
    """What a credit note over these lines, amounts and units takes of each. Raises as `write_credit_note` does."""
    left = {one.line.position: one for one in list_left(corrected)}
    if not left:
        raise StepRefusedError(f"all of {corrected} is credited already")
    chosen = set(left) if positions is None else set(positions)
    if not chosen:
        raise InvalidValueError({"lines": ["choose at least one line"]})
    if gone := sorted((chosen | set(amounts_minor) | set(units)) - set(left)):
        raise InvalidValueError({"lines": [f"line {gone[0]} is not there, or credited already"]})
    if strays := sorted((set(amounts_minor) | set(units)) - chosen):
        raise InvalidValueError({"lines": [f"line {strays[0]} has an amount and is not chosen"]})
    if both := sorted(set(amounts_minor) & set(units)):
        raise InvalidValueError({"lines": [f"line {both[0]}: write an amount or a quantity, not both"]})
    return [
        _part_of_units(corrected, left[position], units[position])
        if position in units
        else _part(corrected, left[position], amounts_minor.get(position))
        for position in sorted(chosen)
    ]


def _part(invoice: Invoice, left: Left, wanted_minor: int | None) -> Left:
    if wanted_minor is None or wanted_minor == left.amount_minor:
        return left._replace(units=None) if left.amount_count else left
    # Of a line that gives something back (a correction) the part is negative too.
    sign = -1 if left.amount_minor < 0 else 1
    if not 0 < sign * wanted_minor < sign * left.amount_minor:
        most = minor_text(left.amount_minor, invoice.minor_digits)
        raise InvalidValueError(
            {"lines": [f"of line {left.line.position} at most {most} is left, and more than 0"]}
        )
    return Left(left.line, wanted_minor, _exact(invoice, wanted_minor, None), is_all=False)


def _part_of_units(invoice: Invoice, left: Left, units: int) -> Left:
    """So many units at the line's price, rounded once. All that are left take what is left, down to the last cent."""
    line, digits = left.line, invoice.minor_digits
    sign = -1 if line.quantity < 0 else 1
    if not line.unit_usd or not left.units:
        raise InvalidValueError(
            {"lines": [f"line {line.position} has no units left to credit: write an amount"]}
        )
    if not 0 < sign * units <= sign * left.units:
        raise InvalidValueError(
            {"lines": [f"of line {line.position} at most {left.units:,} units are left, and more than 0"]}
        )
    if left.is_all and units == left.units:
        return left
    usd = Fraction(line.unit_usd) * units / line.unit_size
    minor = round_half_up(usd * Fraction(invoice.exchange_rate) * 10**digits)
    if units == left.units and abs(minor - left.amount_minor) <= left.note_count + 1:
        minor = left.amount_minor  # each note before was rounded by itself
    if not 0 < sign * minor <= sign * left.amount_minor:
        text = (
            f"{units:,} units of line {line.position} come to {minor_text(minor, digits)}:"
            f" at most {minor_text(left.amount_minor, digits)} is left, and more than 0"
        )
        raise InvalidValueError({"lines": [text]})
    exact = _exact(invoice, minor, round_half_up(usd * NANOUSD_PER_USD))
    return Left(line, minor, exact, is_all=False, units=units)


def _exact(invoice: Invoice, amount_minor: int, exact_nanousd: int | None) -> int:
    """Nano-USD that round to this amount at the invoice's rate: the exact ones where they do, else the nearest."""
    rate, digits = invoice.exchange_rate, invoice.minor_digits
    if exact_nanousd is not None and minor_of(exact_nanousd, rate, digits) == amount_minor:
        return exact_nanousd
    return round_half_up(Fraction(nano_of_minor(amount_minor, digits)) / Fraction(rate))


def _build(
    corrected: Invoice,
    taken: Sequence[Left],
    reason: str,
    *,
    now: dt.datetime,
    number: str = "",
    given: Sequence[CreditDrawn] = (),
) -> StatementDocument:
    original = from_json(corrected.document)
    by_position = {line.position: line for line in original.lines}
    credited = [
        _negate(position, by_position[one.line.position], one, original)
        for position, one in enumerate(taken, start=1)
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


def _negate(position: int, line: StatementLine, taken: Left, original: StatementDocument) -> StatementLine:
    return build_line(
        position=position,
        description=line.description if taken.is_all else f"{line.description}, a part",
        amount_nanousd=-taken.amount_nanousd,
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
        # A part that is an amount has none: nobody said which of the units it is for.
        quantity=None if line.quantity is None or taken.units is None else -taken.units,
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
