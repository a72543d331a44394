"""Are the meters what Spend says, and the statements what the meters say?

Reads: meter_by_day, meter_day, usage_by_day, invoice, invoice_line, issued_pdf, invoice_counter. What no statement
bills yet (open months, drafts, void ones) is no difference: a month of a tenant is billed as a whole, or not at all.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import Count, Max, Q, Sum

from billing.minor_units import round_half_up
from billing.models import Invoice, InvoiceCounter, InvoiceKind, InvoiceLine, InvoiceState, MeterByDay
from billing.partitions import add_months
from billing.statement_document import StatementError, from_json, list_faults


class WrongStatement(NamedTuple):
    """One thing of meters or statements that is not what it should be."""

    kind: str
    what: str
    stored: str
    expected: str


# Of days that are summed as they are now; the others will be summed again.
_COMPARE_METERS = """
WITH summed AS (
    SELECT m.day, m.tenant_id FROM billing_meterday m
    JOIN (
        SELECT day, tenant_id, sum(request_count) AS requests, sum(unpriced_count) AS unpriced,
            sum(cost_nanousd) AS cost, sum(charge_nanousd) AS charge
        FROM billing_usagebyday WHERE day >= %(first)s AND day < %(after)s GROUP BY 1, 2
    ) u ON (u.day, u.tenant_id, u.requests, u.unpriced, u.cost, u.charge)
        = (m.day, m.tenant_id, m.request_count, m.unpriced_count, m.cost_nanousd, m.charge_nanousd)
    WHERE m.day >= %(first)s AND m.day < %(after)s
), both_sides AS (
    SELECT 1 AS sign, day, tenant_id, api_key_id, deployment_id, cost_nanousd, charge_nanousd
    FROM billing_usagebyday WHERE day >= %(first)s AND day < %(after)s
    UNION ALL
    SELECT -1, day, tenant_id, api_key_id, deployment_id, cost_nanousd, charge_nanousd
    FROM billing_meterbyday WHERE day >= %(first)s AND day < %(after)s
)
SELECT day, api_key_id, deployment_id,
    coalesce(sum(cost_nanousd) FILTER (WHERE sign < 0), 0), coalesce(sum(cost_nanousd) FILTER (WHERE sign > 0), 0),
    coalesce(sum(charge_nanousd) FILTER (WHERE sign < 0), 0), coalesce(sum(charge_nanousd) FILTER (WHERE sign > 0), 0)
FROM both_sides JOIN summed USING (day, tenant_id)
GROUP BY 1, 2, 3 HAVING sum(sign * cost_nanousd) <> 0 OR sum(sign * charge_nanousd) <> 0
ORDER BY 1, 2, 3
"""
_LINE = ("deployment", "price", "meter", "service_tier", "late_of")


def find_wrong_statements(month: dt.date) -> Iterator[WrongStatement]:
    """What is wrong with the meters and statements of a month."""
    yield from _meters(month)
    yield from _pdfs(month)
    billed = Invoice.objects.filter(month=month, number__isnull=False).select_related("tenant")
    for invoice in billed.order_by("kind", "number"):
        yield from _totals(invoice)
        if invoice.kind == InvoiceKind.INVOICE and invoice.state != InvoiceState.VOID:
            yield from _lines(invoice)
            yield from _credited(invoice)


def find_wrong_numbers() -> Iterator[WrongStatement]:
    """Numbers of statements that are missing or stand twice."""
    counters = dict(InvoiceCounter.objects.values_list("kind", "last_number"))
    rows = Invoice.objects.filter(number__isnull=False).order_by().values_list("kind")
    found = {kind: (highest, count) for kind, highest, count in rows.annotate(Max("number"), Count("id"))}
    for kind in sorted(set(counters) | set(found)):
        last = counters.get(kind, 0)
        highest, count = found.get(kind, (0, 0))
        if (highest, count) != (last, last):
            yield WrongStatement(
                "statement numbers", kind, f"{count}, up to {highest}", f"{last}, up to {last}"
            )


def _pdfs(month: dt.date) -> Iterator[WrongStatement]:
    """PDFs that are not the ones whose hash stands with the statement. Those before they were kept have none."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT i.id, i.pdf_sha256, encode(sha256(p.content), 'hex') FROM billing_issuedpdf p"
            " JOIN billing_invoice i ON i.id = p.invoice_id"
            " WHERE i.month = %s AND i.pdf_sha256 <> encode(sha256(p.content), 'hex') ORDER BY 1",
            [month],
        )
        for pk, stored, expected in cursor.fetchall():
            yield WrongStatement("statement PDF", f"statement {pk}", stored, expected)


def _meters(month: dt.date) -> Iterator[WrongStatement]:
    with connection.cursor() as cursor:
        cursor.execute(_COMPARE_METERS, {"first": month, "after": add_months(month, 1)})
        for day, key, deployment, *amounts in cursor.fetchall():
            what = f"{day}, key {key}, deployment {deployment}"
            for name, stored, expected in (("cost", *amounts[:2]), ("charge", *amounts[2:])):
                if stored != expected:
                    yield WrongStatement(f"meter_by_day.{name}_nanousd", what, str(stored), str(expected))


def _totals(invoice: Invoice) -> Iterator[WrongStatement]:
    sums = invoice.lines.aggregate(
        nanousd=Sum("amount_nanousd", default=0),
        nano=Sum("amount_nano", default=0),
        minor=Sum("amount_minor", default=0),
    )
    stored = (invoice.amount_nanousd, invoice.amount_nano, invoice.subtotal_minor)
    if stored != (sums["nanousd"], sums["nano"], sums["minor"]):
        yield WrongStatement("statement total", str(invoice), str(stored), str(tuple(sums.values())))
    try:
        document = from_json(invoice.document)
        faults = list_faults(document)
    except (StatementError, KeyError, TypeError) as fault:
        yield WrongStatement("statement document", str(invoice), str(fault)[:200], "one that can be read")
        return
    if faults:
        yield WrongStatement("statement document", str(invoice), "; ".join(faults)[:200], "one that adds up")
    said = (document.amount_nanousd, document.total_minor, document.due_minor)
    kept = (invoice.amount_nanousd, invoice.total_minor, invoice.due_minor)
    if said != kept:
        yield WrongStatement("statement document", str(invoice), str(said), str(kept))


def _lines(invoice: Invoice) -> Iterator[WrongStatement]:
    """An invoice bills what its month's meters say, line by line."""
    lines = InvoiceLine.objects.filter(invoice=invoice).order_by()
    meters = MeterByDay.objects.filter(
        Q(day__gte=invoice.month, day__lt=add_months(invoice.month, 1)), tenant=invoice.tenant
    ).exclude(sale_rate="")
    stored = _sums(lines.values(*_LINE).annotate(units=Sum("quantity"), amount=Sum("amount_nanousd")))
    expected = _sums(
        meters.order_by().values(*_LINE).annotate(units=Sum("quantity"), amount=Sum("charge_nanousd"))
    )
    for key in sorted(set(stored) | set(expected), key=str):
        if stored.get(key, (0, 0)) != expected.get(key, (0, 0)):
            what = f"{invoice}: " + ", ".join(
                f"{name} {value}" for name, value in zip(_LINE, key, strict=True) if value not in (None, "")
            )
            yield WrongStatement("statement line", what, str(stored.get(key)), str(expected.get(key)))


def _credited(invoice: Invoice) -> Iterator[WrongStatement]:
    """No credit note takes more of a line than it billed, and the tax of all of them is rounded once."""
    lines = InvoiceLine.objects.filter(invoice=invoice).annotate(taken=Sum("credited__amount_minor"))
    for line in lines.filter(taken__isnull=False).order_by("position"):
        billed, left = line.amount_minor, line.amount_minor + line.taken
        if left * billed < 0 or abs(left) > abs(billed):
            what = f"{invoice}, line {line.position}"
            yield WrongStatement("credited line", what, str(-line.taken), f"at most {billed}")
    bases: dict[Decimal, int] = {}
    given: dict[Decimal, int] = {}
    for written in invoice.credit_notes.filter(number__isnull=False).values_list("document", flat=True):
        for tax in written.get("taxes", ()):
            ratio = Decimal(tax["tax_ratio"])
            bases[ratio] = bases.get(ratio, 0) + tax["base_minor"]
            given[ratio] = given.get(ratio, 0) + tax["amount_minor"]
    for ratio, base in bases.items():
        expected = round_half_up(base * Fraction(ratio))
        if given[ratio] != expected:
            yield WrongStatement("credited tax", f"{invoice}, {ratio}", str(-given[ratio]), str(-expected))


def _sums(rows: Any) -> Mapping[tuple[Any, ...], tuple[int, int]]:
    return {tuple(row[name] for name in _LINE): (row["units"], row["amount"]) for row in rows}
