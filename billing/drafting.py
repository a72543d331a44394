"""What stands on a tenant's statement of a month?

Reads: meter_by_day, usage_by_day, late_posting, billing profiles, exchange rates, sale terms. Writes nothing: the same
sums, profile and rate give the same document every time; so `billing.invoicing` knows whether a draft is out of date.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from django.db.models import Count, QuerySet, Sum
from django.db.models.functions import TruncMonth

from billing.billing_profiles import address_lines, name_of, profile_of
from billing.exchange_rates import get_rate
from billing.models import BillingProfile, LatePosting, MeterByDay, Price, SaleTerm, UsageByDay
from billing.money import usd_text
from billing.partitions import add_months
from billing.periods import count_foreign_reversals
from billing.rating import A_MILLION, METERS, PIECES
from billing.statement_document import (
    Note,
    NoteKind,
    Party,
    StatementDocument,
    StatementLine,
    build_line,
    build_statement,
)
from policies.models import Deployment, Tenant

METER_NAMES: Final = {
    "input": "Input tokens",
    "cache_read": "Input tokens read from the cache",
    "cache_write": "Input tokens written to the cache",
    "cache_write_1h": "Input tokens written to the cache for an hour",
    "audio_input": "Audio input tokens",
    "output": "Output tokens",
    "reasoning": "Reasoning tokens",
    "audio_output": "Audio output tokens",
    "request": "Requests",
    "search": "Searches",
    "image_input": "Image input tokens",
    "image_output": "Image output tokens",
    "image": "Images",
    "audio_second": "Seconds of audio",
}
# Who bills, while nobody wrote the issuer's profile.
NO_ISSUER: Final = "Pointsman"


class Draft(NamedTuple):
    """A document, and of each of its lines what the document does not hold: the deployment's id."""

    document: StatementDocument
    deployment_ids: tuple[int | None, ...]


def last_day_of(month: dt.date) -> dt.date:
    """The last day of the month that begins on this day."""
    return add_months(month, 1) - dt.timedelta(days=1)


def list_billed_tenants(month: dt.date) -> list[int]:
    """Ids of the tenants with charges in the month, as far as its meters are summed."""
    charged = _meters_of(month).filter(charge_nanousd__gt=0)
    return list(charged.order_by("tenant").values_list("tenant", flat=True).distinct())


def build_draft(*, tenant: Tenant, month: dt.date) -> Draft | None:
    """The statement of a month as it would be now; None where there is nothing to charge.

    Raises RateMissingError when the tenant's currency has no exchange rate.
    """
    rows = _read_rows(tenant, month)
    if not any(row["charge"] for row in rows):
        return None
    profile = profile_of(tenant)
    last_day = last_day_of(month)
    exchange_rate = get_rate(currency=profile.currency, on=last_day)
    places = {row.pk: row for row in _deployments(rows)}
    since = _beginnings(rows)
    rows.sort(key=lambda row: _order_of(row, places.get(row["deployment"])))
    lines = [
        _line(position, row, places.get(row["deployment"]), profile, exchange_rate, since)
        for position, row in enumerate(rows, start=1)
    ]
    document = build_statement(
        kind="invoice",
        state="draft",
        number="",
        tenant_id=tenant.pk,
        tenant_name=tenant.name,
        issuer=party_of(profile_of(None), NO_ISSUER),
        recipient=party_of(profile, tenant.name),
        first_day=month,
        last_day=last_day,
        currency=profile.currency,
        exchange_rate=exchange_rate,
        exchange_rate_on=last_day if profile.currency != "USD" else None,
        lines=lines,
        tax_name=profile.tax_name or "Tax",
        notes=tuple(_notes(tenant, month, lines)),
    )
    return Draft(document, tuple(row["deployment"] for row in rows))


def party_of(profile: BillingProfile, otherwise: str) -> Party:
    """Name and address as they are printed."""
    return Party(
        name=name_of(profile) or otherwise,
        address=address_lines(profile),
        tax_id=profile.tax_id,
        email=profile.email,
    )


def _meters_of(month: dt.date) -> QuerySet[MeterByDay]:
    return MeterByDay.objects.filter(day__gte=month, day__lt=add_months(month, 1))


def _read_rows(tenant: Tenant, month: dt.date) -> list[dict[str, Any]]:
    # Without a rate of the sale a row is the cost's alone: what it charges is in another one.
    charged = _meters_of(month).filter(tenant=tenant).exclude(sale_rate="")
    named = ("deployment", "price", "meter", "service_tier", "sale_rate", "sale_term", "sale_price",
             "late_of", "is_correction")  # fmt: skip
    rows = charged.order_by().values(*named).annotate(units=Sum("quantity"), charge=Sum("charge_nanousd"))
    return [row for row in rows if row["units"] or row["charge"]]


def _deployments(rows: list[dict[str, Any]]) -> QuerySet[Deployment]:
    ids = {row["deployment"] for row in rows}
    return Deployment.objects.filter(pk__in=ids - {None}).select_related("model", "provider")


def _beginnings(rows: list[dict[str, Any]]) -> dict[tuple[str, int], dt.datetime]:
    """From when the terms and own prices of these rows are, by kind and id."""
    since: dict[tuple[str, int], dt.datetime] = {}
    tables: list[tuple[str, QuerySet[Any]]] = [
        ("sale_term", SaleTerm.objects.all()),
        ("sale_price", Price.objects.all()),
    ]
    for kind, table in tables:
        if ids := {row[kind] for row in rows if row[kind]}:
            found = table.filter(pk__in=ids).values_list("pk", "effective_from")
            since |= {(kind, pk): begins_at for pk, begins_at in found}
    return since


def _priced_by(row: dict[str, Any], since: Mapping[tuple[str, int], dt.datetime]) -> str:
    """The price version, and the term of the sale. Never its factor: that would tell the tenant our margin."""
    if row["sale_price"]:
        return f"sale price {row['sale_price']} from {_day(since['sale_price', row['sale_price']])}"
    if row["sale_term"]:
        return f"price {row['price']}, sale term {row['sale_term']} from {_day(since['sale_term', row['sale_term']])}"
    return f"price {row['price']}"


def _day(at: dt.datetime) -> str:
    return f"{at.astimezone(dt.UTC):%Y-%m-%d}"


def _order_of(row: dict[str, Any], place: Deployment | None) -> tuple[Any, ...]:
    meter = row["meter"]
    return (
        row["late_of"] or dt.date.min,
        row["is_correction"],
        place.model.name if place else "",
        place.name if place else "",
        row["service_tier"],
        METERS.index(meter) if meter in METERS else len(METERS),
        row["price"],
        Decimal(row["sale_rate"]),
        row["sale_term"] or 0,
        row["sale_price"] or 0,
    )


def _line(
    position: int,
    row: dict[str, Any],
    place: Deployment | None,
    profile: BillingProfile,
    exchange_rate: Decimal,
    since: Mapping[tuple[str, int], dt.datetime],
) -> StatementLine:
    said = METER_NAMES.get(row["meter"], row["meter"])
    if row["service_tier"]:
        said += f", {row['service_tier']}"
    kind = "correction" if row["is_correction"] else "late" if row["late_of"] else "usage"
    if row["late_of"]:
        said += f", of {row['late_of']:%Y-%m}"
    return build_line(
        position=position,
        description=said,
        amount_nanousd=row["charge"],
        exchange_rate=exchange_rate,
        currency=profile.currency,
        kind=kind,
        model=place.model.name if place else "",
        provider=place.provider.name if place else "",
        deployment=place.name if place else "",
        meter=row["meter"],
        service_tier=row["service_tier"],
        price_id=row["price"],
        priced_by=_priced_by(row, since),
        sale_term_id=row["sale_term"],
        sale_price_id=row["sale_price"],
        quantity=row["units"],
        unit_usd=Decimal(row["sale_rate"]),
        unit_size=PIECES.get(row["meter"], A_MILLION),
        tax_ratio=profile.tax_ratio.normalize() if profile.tax_ratio else Decimal(0),
        late_of=row["late_of"],
    )


def _notes(tenant: Tenant, month: dt.date, lines: list[StatementLine]) -> Iterator[Note]:
    if not any(line.amount_minor for line in lines):
        exact = usd_text(sum(line.amount_nanousd for line in lines))
        yield Note(
            "information",
            f"All lines are {exact} USD before rounding, each less than half of the smallest amount: nothing is to be"
            " paid, and nothing is carried over to another month.",
        )
    posted = LatePosting.objects.filter(
        tenant=tenant, posted_on__gte=month, posted_on__lt=add_months(month, 1)
    )
    counted = posted.exclude(number=1).annotate(of=TruncMonth("started_at", tzinfo=dt.UTC))
    counts = counted.order_by("of", "number").values_list("of", "number").annotate(Count("id"))
    for of, number, count in counts:
        kind: NoteKind = "late" if number == 0 else "correction"
        late_of = of.date()
        amount = sum(x.amount_nanousd for x in lines if x.kind == kind and x.late_of == late_of)
        requests = f"{count:,} request{'' if count == 1 else 's'} of {late_of:%Y-%m}"
        if kind == "late":
            stand = "stands" if count == 1 else "stand"
            text = f"{requests} came in after that month was closed and {stand} on this statement."
        else:
            text = f"{requests} got a price after that month was closed; it stands on this statement."
        yield Note(kind=kind, text=text, request_count=count, amount_nanousd=amount)
    days = UsageByDay.objects.filter(tenant=tenant, day__gte=month, day__lt=add_months(month, 1))
    sums = days.aggregate(
        unpriced=Sum("unpriced_count"), estimated=Sum("estimated_count"), unknown=Sum("unknown_count")
    )
    unpriced, estimated, unknown = (int(sums[name] or 0) for name in ("unpriced", "estimated", "unknown"))
    unpriced += count_foreign_reversals(month, tenant_id=tenant.pk)
    if unpriced > 0:
        yield Note("unpriced", f"{unpriced:,} requests have no price and are not charged.", unpriced)
    if estimated > 0:
        text = f"The usage of {estimated:,} requests is estimated: the provider reported none."
        yield Note("estimated", text, estimated)
    if unknown > 0:
        yield Note("unknown", f"The usage of {unknown:,} requests is unknown; they are not charged.", unknown)
