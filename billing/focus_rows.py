"""Which rows does a month have in FOCUS? Meters by day, day by day, then what makes each statement its total.

Reads: meter_by_day (brought up to date first), invoice, billing profiles, labels, names. A page of rows is in
memory at a time.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final

from django.db.models import Count, QuerySet, Sum

from billing.focus import (
    Account,
    Row,
    Statement,
    Usage,
    closing_rows,
    usage_row,
)
from billing.models import BillingProfile, Invoice, InvoiceKind, InvoiceState, Label, MeterByDay, UsageByDay
from billing.summing_meters import sum_meters
from policies.models import Tenant

DAY: Final = dt.timedelta(days=1)
PAGE: Final = 2_000
ISSUER: Final = "Pointsman"
OTHER_VALUES: Final = "(all others)"
NAMED: Final = (
    "project",
    "api_key",
    "deployment__model",
    "price__deployment__provider",
)
IN_FORCE: Final = (InvoiceState.ISSUED, InvoiceState.PAID)


def last_day_of(month: dt.date) -> dt.date:
    """The last day of the month that begins on this day."""
    return (month + 32 * DAY).replace(day=1) - DAY


def bring_up_to_date(*, first_day: dt.date, last_day: dt.date, tenant_id: int | None) -> None:
    """Sum the meters of days that have news."""
    sum_meters(first_day=first_day, last_day=last_day, tenant_id=tenant_id)


def count_rows(*, first_day: dt.date, last_day: dt.date, tenant_id: int | None) -> int:
    """About how many rows there are: those of statements come on top."""
    return _meters(first_day, last_day, tenant_id).count()


def count_unpriced(*, first_day: dt.date, last_day: dt.date, tenant_id: int | None) -> int:
    """Requests of these days that have no price and so no row."""
    rows = UsageByDay.objects.filter(day__gte=first_day, day__lte=last_day)
    if tenant_id is not None:
        rows = rows.filter(tenant=tenant_id)
    return rows.aggregate(count=Sum("unpriced_count"))["count"] or 0


def read_rows(*, first_day: dt.date, last_day: dt.date, tenant_id: int | None) -> Iterator[Row]:
    """The rows of these days, oldest first. Rows of statements: those of whole months that lie in them."""
    accounts = _accounts(tenant_id)
    statements = _statements(first_day, last_day, tenant_id)
    by_month = {
        (tenant, one.month): one
        for tenant, listed in statements.items()
        for one in listed
        if not one.is_credit_note
    }
    billed: dict[str, Decimal] = {}
    labels = _Labels()
    for row in _pages(first_day, last_day, tenant_id):
        statement = by_month.get((row.tenant_id, row.day.replace(day=1)))
        found = usage_row(
            _usage_of(row, labels.tags_of(row.tag_label_ids)), accounts[row.tenant_id], statement
        )
        if statement is not None:
            billed[statement.number] = billed.get(statement.number, Decimal(0)) + found["BilledCost"]
        yield found
    for tenant, listed in statements.items():
        for one in listed:
            if first_day <= one.month and last_day_of(one.month) <= last_day:
                yield from closing_rows(one, accounts[tenant], billed=billed.get(one.number, Decimal(0)))


def _meters(first_day: dt.date, last_day: dt.date, tenant_id: int | None) -> QuerySet[MeterByDay]:
    rows = MeterByDay.objects.filter(day__gte=first_day, day__lte=last_day)
    return rows if tenant_id is None else rows.filter(tenant=tenant_id)


def _pages(first_day: dt.date, last_day: dt.date, tenant_id: int | None) -> Iterator[MeterByDay]:
    """Every row, by day and number. Pages instead of one cursor: a long export holds no transaction open."""
    day = first_day
    while day <= last_day:
        after = 0
        while True:
            rows = _meters(day, day, tenant_id).filter(pk__gt=after).order_by("pk").select_related(*NAMED)
            page = list(rows[:PAGE])
            yield from page
            if len(page) < PAGE:
                break
            after = page[-1].pk
        day += DAY


class _Labels:
    """Names and values of tags, each read once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[str, str]] = {}

    def tags_of(self, label_ids: Sequence[int]) -> dict[str, str]:
        """Name -> value. Of values that a tenant's reports do not hold apart it is known that there was one."""
        if missing := set(label_ids) - self._known.keys():
            rows = Label.objects.filter(pk__in=missing).values_list("pk", "name", "value")
            self._known |= {pk: (name, value or OTHER_VALUES) for pk, name, value in rows}
        return dict(self._known[one] for one in label_ids)


def _usage_of(row: MeterByDay, tags: Mapping[str, str]) -> Usage:
    sold = row.price.deployment
    return Usage(
        day=row.day,
        project_id=row.project_id,
        project=row.project.name,
        key_id=row.api_key_id,
        key=row.api_key.name,
        model=row.deployment.model.name if row.deployment is not None else "",
        deployment=row.deployment.name if row.deployment is not None else "",
        sku_deployment=sold.name,
        provider=sold.provider.name,
        price_id=row.price_id,
        meter=row.meter,
        service_tier=row.service_tier,
        cost_rate=row.cost_rate,
        sale_rate=row.sale_rate,
        late_of=row.late_of,
        is_correction=row.is_correction,
        quantity=row.quantity,
        cost_nanousd=row.cost_nanousd,
        charge_nanousd=row.charge_nanousd,
        tags=tags,
    )


def _accounts(tenant_id: int | None) -> Mapping[int, Account]:
    issuer = BillingProfile.objects.filter(tenant__isnull=True).values_list("legal_name", flat=True).first()
    tenants = Tenant.objects.all() if tenant_id is None else Tenant.objects.filter(pk=tenant_id)
    return {pk: Account(pk, name, issuer or ISSUER) for pk, name in tenants.values_list("pk", "name")}


def _statements(first_day: dt.date, last_day: dt.date, tenant_id: int | None) -> dict[int, list[Statement]]:
    """Issued and paid statements of the months that these days touch, by tenant, in the order of their numbers."""
    rows = Invoice.objects.filter(
        month__gte=first_day.replace(day=1), month__lte=last_day, state__in=IN_FORCE
    ).annotate(line_count=Count("lines"), rounding_nano=Sum("lines__rounding_nano"))
    if tenant_id is not None:
        rows = rows.filter(tenant=tenant_id)
    found: dict[int, list[Statement]] = {}
    for row in rows.order_by("tenant", "kind", "number"):
        found.setdefault(row.tenant_id, []).append(
            Statement(
                number=row.number_text,
                is_credit_note=row.kind == InvoiceKind.CREDIT_NOTE,
                month=row.month,
                currency=row.currency,
                minor_digits=row.minor_digits,
                exchange_rate=row.exchange_rate,
                subtotal_minor=row.subtotal_minor,
                tax_minor=row.tax_minor,
                line_count=row.line_count,
                lines_rounding_nano=row.rounding_nano or 0,
            )
        )
    return found
