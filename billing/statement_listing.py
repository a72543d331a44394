"""Which statements are there, and how do the months stand: closed, to be closed, running?

Reads: invoice, period_lock, period_closing, the first day of usage_by_day.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple
from urllib.parse import urlencode

from django.db.models import Count, Q, QuerySet, Sum

from billing.minor_units import minor_for_people
from billing.models import Invoice, InvoiceKind, InvoiceState, PeriodClosing, UsageByDay
from billing.periods import find_closed_until

ROWS_A_PAGE: Final = 100
MONTHS_SHOWN: Final = 12
MonthState = Literal["closed", "closing", "failed", "open", "running"]


@dataclass(frozen=True, slots=True)
class Question:
    """Which statements a page asks for; None and "" are all."""

    month: dt.date | None = None
    tenant_id: int | None = None
    state: str = ""

    @property
    def query(self) -> str:
        """The address parameters that ask this."""
        asked = {
            "month": f"{self.month:%Y-%m}" if self.month else "",
            "tenant": str(self.tenant_id or ""),
            "state": self.state,
        }
        return urlencode({name: value for name, value in asked.items() if value})


class ListedStatement(NamedTuple):
    """One row of the list."""

    invoice: Invoice
    name: str
    total: str
    due: str
    is_overdue: bool


class CurrencySums(NamedTuple):
    """Sums of one currency over all statements that were asked for, without the void ones."""

    total: str
    due: str


class MonthStanding(NamedTuple):
    """A month with usage or statements. `open`: over, and not closed yet; `running`: not over."""

    month: dt.date
    state: MonthState
    closing: PeriodClosing | None
    statement_count: int
    draft_count: int


def read_question(query: Mapping[str, str]) -> Question:
    """Read an address; what makes no sense is not asked."""
    tenant, state = query.get("tenant", ""), query.get("state", "")
    return Question(
        read_month(query.get("month", "")),
        int(tenant[:18]) if tenant.isdecimal() and tenant.isascii() else None,
        state if state in InvoiceState.values else "",
    )


def read_month(text: str) -> dt.date | None:
    """Read "2026-10"; None when it is no month, or one of years that nothing here is of."""
    try:
        month = dt.datetime.strptime(text, "%Y-%m").replace(tzinfo=dt.UTC).date()
    except ValueError:
        return None
    return month if 2000 <= month.year <= 2999 else None


def filter_statements(question: Question) -> QuerySet[Invoice]:
    """The statements, newest month first, without their documents."""
    found = Invoice.objects.select_related("tenant").defer("document")
    if question.month:
        found = found.filter(month=question.month)
    if question.tenant_id:
        found = found.filter(tenant_id=question.tenant_id)
    return found.filter(state=question.state) if question.state else found


def sum_credited(invoices: Iterable[Invoice]) -> dict[int, int]:
    """What credit notes take off each statement (by id): below 0."""
    notes = Invoice.objects.filter(corrects__in=[invoice.pk for invoice in invoices])
    return dict(notes.order_by("corrects").values_list("corrects").annotate(Sum("due_minor")))


def list_rows(invoices: Sequence[Invoice], *, today: dt.date) -> list[ListedStatement]:
    """Statements as they stand in a list."""
    credited, rows = sum_credited(invoices), []
    for invoice in invoices:
        owed = owed_minor(invoice, credited.get(invoice.pk, 0))
        rows.append(
            ListedStatement(
                invoice,
                name_of(invoice),
                money(invoice.total_minor, invoice),
                money(owed, invoice) if owed else "–",
                is_overdue(invoice, owed, today=today),
            )
        )
    return rows


def sum_by_currency(found: QuerySet[Invoice]) -> list[CurrencySums]:
    """Totals and what is still owed, by currency."""
    owing = Q(state=InvoiceState.ISSUED, kind=InvoiceKind.INVOICE)
    grouped = (
        found.exclude(state=InvoiceState.VOID).order_by("currency").values_list("currency", "minor_digits")
    )
    notes = Invoice.objects.filter(corrects__in=found.filter(owing).values("pk"))
    credited = dict(notes.order_by("currency").values_list("currency").annotate(Sum("due_minor")))
    return [
        CurrencySums(
            minor_for_people(total, currency, digits),
            minor_for_people(due + credited.get(currency, 0), currency, digits),
        )
        for currency, digits, total, due in grouped.annotate(
            total=Sum("total_minor"), due=Sum("due_minor", filter=owing, default=0)
        )
    ]


def name_of(invoice: Invoice) -> str:
    """What a statement is called: its number; without one, whose and of which month it is."""
    if invoice.number is not None:
        return invoice.number_text
    return f"{invoice.get_kind_display().capitalize()} for {invoice.tenant.name}, {invoice.month:%Y-%m}"


def confirm_name(invoice: Invoice) -> str:
    """What a person types to confirm a step: the number, or tenant and month while there is none."""
    return invoice.number_text or f"{invoice.tenant.name} {invoice.month:%Y-%m}"


def owed_minor(invoice: Invoice, credited_minor: int) -> int:
    """What the tenant still owes of an issued invoice, after credit and credit notes."""
    if invoice.state != InvoiceState.ISSUED or invoice.kind != InvoiceKind.INVOICE:
        return 0
    return int(invoice.due_minor) + credited_minor


def is_overdue(invoice: Invoice, owed: int, *, today: dt.date) -> bool:
    """Something is owed, and its day has passed."""
    return owed > 0 and invoice.due_on is not None and invoice.due_on < today


def money(amount_minor: int, invoice: Invoice) -> str:
    """An amount of the statement for people."""
    return minor_for_people(amount_minor, invoice.currency, invoice.minor_digits)


def list_months(*, today: dt.date) -> list[MonthStanding]:
    """The last months since the first usage, newest first."""
    first_day = UsageByDay.objects.order_by("day").values_list("day", flat=True).first()
    first_month = Invoice.objects.order_by("month").values_list("month", flat=True).first()
    begins = [day.replace(day=1) for day in (first_day, first_month) if day is not None]
    if not begins:
        return []
    closed_until = find_closed_until()
    closings = {one.month: one for one in PeriodClosing.objects.all()[:MONTHS_SHOWN]}
    counts: dict[dt.date, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for month, all_of_it, drafts in (
        Invoice.objects.order_by("month")
        .values_list("month")
        .annotate(all=Count("pk"), drafts=Count("pk", filter=Q(number=None)))
    ):
        counts[month] = (all_of_it, drafts)
    found: list[MonthStanding] = []
    month = today.replace(day=1)
    while month >= min(begins) and len(found) < MONTHS_SHOWN:
        closing = closings.get(month)
        state = _state_of(month, closing, closed_until=closed_until, today=today)
        found.append(MonthStanding(month, state, closing, *counts[month]))
        month = (month - dt.timedelta(days=1)).replace(day=1)
    return found


def find_open_month(months: Sequence[MonthStanding]) -> MonthStanding | None:
    """The oldest month that is not closed: to be closed now, or running; None before the first usage."""
    return next((one for one in reversed(months) if one.state != "closed"), None)


def _state_of(
    month: dt.date, closing: PeriodClosing | None, *, closed_until: dt.date | None, today: dt.date
) -> MonthState:
    if closing is not None and closing.state in ("waiting", "running"):
        return "closing"
    if closing is not None and closing.state == "failed":
        return "failed"
    if closed_until is not None and month < closed_until:
        return "closed"
    return "running" if month == today.replace(day=1) else "open"
