"""How does a deployment get a price?

Writes: price, change_event. The only writer of prices, which are never updated: a change is a new, dated row.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal

from django.db import transaction
from django.utils import timezone

from billing.models import Price
from billing.pricebook import PriceError, parse_rates
from billing.sale_terms import after_recorded, check_begin, hold_terms
from policies import changes
from policies.errors import InvalidValueError, NameTakenError
from policies.models import Deployment, Tenant


@transaction.atomic
def add_price(
    *,
    deployment: Deployment,
    rates: Mapping[str, object],
    actor: str,
    effective_from: dt.datetime | None = None,
    source: str = "",
    book: str = "cost",
    tenant: Tenant | None = None,
) -> Price:
    """Add a price that is in force from `effective_from` (now) until the next one of its book begins.

    Requests that are already recorded keep the price they were rated with. A tenant's own price is of the book `sale`.
    Raises InvalidValueError for a wrong rate, NameTakenError when a price of this book begins at that very moment.
    """
    if effective_from is not None and timezone.is_naive(effective_from):
        raise InvalidValueError({"effective_from": ["a time needs its time zone"]})
    if book not in Price.Book.values:
        raise InvalidValueError({"book": [f"{book!r} is not one of {', '.join(Price.Book.values)}"]})
    if tenant is not None and book != Price.Book.SALE:
        raise InvalidValueError(
            {"tenant": ["providers charge us, not a tenant: only the book sale has own prices"]}
        )
    if book == Price.Book.SALE:
        hold_terms(exclusively=True)  # it begins now at the earliest: no record may miss it
    since = effective_from or timezone.now()
    if book == Price.Book.SALE:
        now = timezone.now()
        is_ahead = since > now
        begins = after_recorded(since if is_ahead else None, tenant=tenant, now=now)
        # Dated back, it says so, and counts from when it was added.
        since = begins if begins > now else since
    same = Price.objects.filter(deployment=deployment, book=book, tenant=tenant, effective_from=since)
    if same.exists():
        raise NameTakenError(f"{deployment} already has a {book} price that begins at {since.isoformat()}")
    price = Price.objects.create(
        deployment=deployment,
        book=book,
        tenant=tenant,
        rates=canonical_rates(rates),
        effective_from=since,
        source=source[:200],
        created_by=actor[:150],
    )
    changes.record_change(
        actor=actor,
        action="add",
        object_type="price",
        object_id=price.pk,
        object_name=deployment.name,
        after={
            "book": book,
            **({"tenant": tenant.name} if tenant else {}),
            "rates": price.rates,
            "effective_from": since.isoformat(),
            "source": price.source,
        },
    )
    return price


@transaction.atomic
def add_own_price(
    *,
    deployment: Deployment,
    tenant: Tenant | None,
    rates: Mapping[str, object],
    actor: str,
    effective_from: dt.datetime | None = None,
    source: str = "",
) -> Price:
    """Charge a tenant (or all) at these rates from `effective_from` (now) on, never before. Raises as `add_price`."""
    hold_terms(exclusively=True)
    return add_price(
        deployment=deployment,
        tenant=tenant,
        rates=rates,
        actor=actor,
        effective_from=check_begin(effective_from, now=timezone.now()),
        source=source,
        book=Price.Book.SALE,
    )


def canonical_rates(rates: Mapping[str, object]) -> dict[str, str]:
    """Return rates as they are stored: decimal texts without exponent or closing zeros, sorted by name.

    Raises InvalidValueError naming the rate.
    """
    try:
        parsed = parse_rates(rates)
    except PriceError as refusal:
        raise InvalidValueError({"rates": [str(refusal)]}) from None
    return {name: decimal_text(parsed[name]) for name in sorted(parsed)}


def decimal_text(value: Decimal) -> str:
    """Write a decimal plainly: 0.050 and 5E-2 both become 0.05."""
    text = format(value, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def find_price_in_force(*, deployment: Deployment, at: dt.datetime, book: str = "cost") -> Price | None:
    """Return the price of a book that is in force at a time, None when there is none."""
    begun = Price.objects.filter(deployment=deployment, book=book, tenant=None, effective_from__lte=at)
    return begun.order_by("-effective_from").first()


def list_priced_deployments() -> set[str]:
    """Names of the deployments that have a cost price in force now."""
    prices = Price.objects.filter(book=Price.Book.COST, tenant=None, effective_from__lte=timezone.now())
    return set(prices.values_list("deployment__name", flat=True).distinct())
