"""Does the ledger add up, and does it say what grants and issued statements say?

Reads: ledger_posting, ledger_entry, credit_grant, invoice, invoice_line. Triggers keep most of it right; this finds
what came past them (a restored dump, a superuser) and what only whole sums show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

from django.db.models import Count, F, Q, QuerySet, Sum

from billing.ledger import Account, Kind
from billing.minor_units import nano_of_minor
from billing.models import CreditGrant, Invoice, InvoiceLine, InvoiceState, LedgerEntry, LedgerPosting

CREDIT_ACCOUNTS: Final = (Account.CREDIT_PAID, Account.CREDIT_PROMOTIONAL)
# Tenant and currency -> nano.
_Sums = Counter[tuple[int, str]]


class WrongBooking(NamedTuple):
    """One thing of the ledger that is not what it should be."""

    kind: str
    what: str
    stored: str
    expected: str


def find_wrong_bookings() -> Iterator[WrongBooking]:
    """All of the ledger: postings, grants, and the sums that statements tie to."""
    yield from _postings()
    yield from _grants()
    yield from _credit_without_grant()
    yield from _statements()


def _postings() -> Iterator[WrongBooking]:
    """Postings that do not sum to zero, or whose entries are of another tenant or currency."""
    others = ~Q(entries__tenant=F("tenant")) | ~Q(entries__currency=F("currency"))
    rows = LedgerPosting.objects.order_by("pk").annotate(
        total=Sum("entries__amount_nano"), stray=Count("entries", filter=others)
    )
    wrong = rows.filter(Q(total__isnull=True) | ~Q(total=0) | Q(stray__gt=0))
    for row in wrong:
        if row.total != 0:
            yield WrongBooking("ledger posting", str(row), "-" if row.total is None else str(row.total), "0")
        if row.stray:
            text = f"{row.stray} entries of another tenant or currency"
            yield WrongBooking("ledger posting", str(row), text, "none")


def _grants() -> Iterator[WrongBooking]:
    """Grants that were not booked with their amount, or of which less than nothing or more than that is left."""
    granted = Sum("entries__amount_nano", filter=Q(entries__posting__kind=Kind.GRANT))
    rows = CreditGrant.objects.order_by("pk").annotate(signed=Sum("entries__amount_nano"), booked=granted)
    wrong = rows.filter(
        Q(booked__isnull=True)
        | ~Q(booked=-F("amount_nano"))
        | Q(signed__gt=0)
        | Q(signed__lt=-F("amount_nano"))
    )
    for row in wrong:
        if row.booked is None or -row.booked != row.amount_nano:
            yield WrongBooking("credit granted", str(row), str(-(row.booked or 0)), str(row.amount_nano))
        left = -(row.signed or 0)
        if not 0 <= left <= row.amount_nano:
            yield WrongBooking("credit left", str(row), str(left), f"0 to {row.amount_nano}")


def _credit_without_grant() -> Iterator[WrongBooking]:
    """Tenants whose credit is not the sum of their grants: entries that name none, or one of another kind or tenant."""
    entries = LedgerEntry.objects.filter(account__in=CREDIT_ACCOUNTS)
    stray = entries.exclude(
        Q(account=Account.CREDIT_PAID, grant__kind=CreditGrant.Kind.PAID)
        | Q(account=Account.CREDIT_PROMOTIONAL, grant__kind=CreditGrant.Kind.PROMOTIONAL),
        grant__tenant=F("tenant"),
        grant__currency=F("currency"),
    )
    for entry in stray.order_by("pk").select_related("posting"):
        yield WrongBooking(
            "credit entry", str(entry.posting), str(entry.amount_nano), "an entry of its grant"
        )


def _statements() -> Iterator[WrongBooking]:
    """Revenue, tax and what is owed are what the issued statements say that are not void."""
    billed = Invoice.objects.filter(number__isnull=False).exclude(state=InvoiceState.VOID).order_by()
    lines = InvoiceLine.objects.filter(invoice__in=billed).order_by()
    revenue: _Sums = Counter()
    for tenant, currency, amount in lines.values_list("invoice__tenant", "invoice__currency").annotate(
        Sum("amount_nano")
    ):
        revenue[tenant, currency] += int(amount)
    tax, owed = _sum_minor(billed, "tax_minor"), _sum_minor(billed, "due_minor")
    paid = _sum_account(Account.RECEIVABLE, kinds=[Kind.PAY, Kind.WRITE_OFF])
    for key, amount in paid.items():
        owed[key] += amount
    names = dict(Invoice.objects.order_by().values_list("tenant", "tenant__name"))
    for account, expected in ((Account.REVENUE, _negated(revenue)), (Account.TAX, _negated(tax))):
        yield from _compare(account, _sum_account(account), expected, names)
    yield from _compare(Account.RECEIVABLE, _sum_account(Account.RECEIVABLE), owed, names)


def _compare(account: str, stored: _Sums, expected: _Sums, names: dict[int, str]) -> Iterator[WrongBooking]:
    for key in sorted(set(stored) | set(expected)):
        if stored[key] != expected[key]:
            what = f"{names.get(key[0], f'tenant {key[0]}')} in {key[1]}"
            yield WrongBooking(f"ledger {account}", what, str(stored[key]), str(expected[key]))


def _sum_account(account: str, *, kinds: list[Kind] | None = None) -> _Sums:
    entries = LedgerEntry.objects.filter(account=account).order_by()
    if kinds is not None:
        entries = entries.filter(posting__kind__in=kinds)
    rows = entries.values_list("tenant", "currency").annotate(Sum("amount_nano"))
    return Counter({(tenant, currency): int(amount) for tenant, currency, amount in rows})


def _sum_minor(billed: QuerySet[Invoice], column: str) -> _Sums:
    sums: _Sums = Counter()
    rows = billed.values_list("tenant", "currency", "minor_digits").annotate(Sum(column))
    for tenant, currency, digits, amount in rows:
        sums[tenant, currency] += nano_of_minor(int(amount), digits)
    return sums


def _negated(sums: _Sums) -> _Sums:
    return Counter({key: -amount for key, amount in sums.items()})
