"""Who is charged what, now and next, and what would last month have been charged?

Reads: sale_term, price (book sale), usage_by_day. The estimate reads sums, never a record; `ASSUMPTIONS` says what that
leaves out.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NamedTuple

from django.db.models import Sum

from billing.charging import FACTOR_SCALE, SaleTerms, as_factor, charge
from billing.models import Price, SaleTerm, UsageByDay
from billing.pricebook import PriceVersion
from billing.rating import METERS, NANOUSD_PER_USD, REQUEST, total_nanousd
from billing.sale_book import SaleBook, SaleScope
from billing.stored_prices import load_prices
from billing.usage import Usage

HISTORY_SHOWN: Final = 100
A_REQUEST: Final = "usd_per_request"
ASSUMPTIONS: Final = (
    "Each tenant's sums of last month (UTC) by deployment and price, at the terms that hold at the moment asked about.",
    "A factor of all meters is exact but for the rounding of single requests.",
    "Factors of single meters and own prices are applied to sums of tokens: rates for large inputs, service tiers and "
    "hours of the day are left out, audio and images count as text;"
    " searches, images by the piece and tokens of failed attempts are missing.",
    "Requests without a price are left out, as they are from every sum.",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A term or own price as the page shows it. `row` is where it stands."""

    row: SaleTerm | Price
    scope: SaleScope
    begins_at: dt.datetime
    factor: Decimal | None = None
    rates: dict[str, str] | None = None

    @property
    def is_end(self) -> bool:
        return self.factor is None and self.rates is None

    @property
    def percent(self) -> Decimal | None:
        """20 for a markup of 20 %, -10 for a discount of 10 %."""
        return None if self.factor is None else (self.factor - 1) * 100

    @property
    def tenant(self) -> str:
        return self.row.tenant.name if self.row.tenant else ""

    @property
    def what(self) -> str:
        """The deployment or model it is about; empty for all."""
        model = self.row.model if isinstance(self.row, SaleTerm) else None
        named = self.row.deployment or model
        return named.name if named else ""

    @property
    def meter(self) -> str:
        return self.scope.meter

    @property
    def note(self) -> str:
        return self.row.note if isinstance(self.row, SaleTerm) else self.row.source


class Standing(NamedTuple):
    """One scope: what holds, and what begins next."""

    now: Entry | None
    following: Entry | None

    @property
    def entry(self) -> Entry:
        found = self.now or self.following
        assert found is not None
        return found


class TenantEstimate(NamedTuple):
    """One tenant's last month: what it cost, was charged, and would be charged."""

    tenant_id: int
    tenant: str
    cost_nanousd: int
    charged_nanousd: int
    would_nanousd: int

    @property
    def change_nanousd(self) -> int:
        return self.would_nanousd - self.charged_nanousd


def list_entries() -> list[Entry]:
    """Every term and own price, the newest first. Two queries."""
    terms = SaleTerm.objects.select_related("tenant", "model", "deployment")
    entries = [
        Entry(
            term,
            SaleScope(term.tenant_id, term.model_id, term.deployment_id, term.meter),
            term.effective_from,
            None if term.factor is None else as_factor(int(term.factor * FACTOR_SCALE)),
        )
        for term in terms
    ]
    for price in Price.objects.filter(book=Price.Book.SALE).select_related("tenant", "deployment"):
        scope = SaleScope(price.tenant_id, None, price.deployment_id)
        begins_at = max(price.effective_from, price.created_at)
        entries.append(Entry(price, scope, begins_at, None, price.rates))
    return sorted(entries, key=lambda entry: (entry.begins_at, entry.is_end, entry.row.pk), reverse=True)


def list_standing(entries: Iterable[Entry], *, now: dt.datetime) -> list[Standing]:
    """Scopes in which something holds or will; tenants' own first, by name."""
    by_scope: dict[SaleScope, list[Entry]] = {}
    for entry in entries:
        by_scope.setdefault(entry.scope, []).append(entry)
    standing = []
    for listed in by_scope.values():
        begun = next((entry for entry in listed if entry.begins_at <= now), None)
        coming = [entry for entry in listed if entry.begins_at > now]
        holds = begun if begun is not None and not begun.is_end else None
        if holds is not None or coming:
            standing.append(Standing(holds, coming[-1] if coming else None))
    return sorted(
        standing, key=lambda one: (not one.entry.tenant, one.entry.tenant, one.entry.what, one.entry.meter)
    )


def last_month(today: dt.date) -> tuple[dt.date, dt.date]:
    """Its first and last day."""
    last_day = today.replace(day=1) - dt.timedelta(days=1)
    return last_day.replace(day=1), last_day


def estimate_month(book: SaleBook, *, at: dt.datetime, today: dt.date) -> list[TenantEstimate]:
    """What last month would have been charged at the terms of `at`, the greatest change first."""
    first_day, last_day = last_month(today)
    names = ("request_count", "unpriced_count", "unknown_count", "input_tokens", "output_tokens", "cache_read_tokens",
             "cache_write_tokens", "reasoning_tokens", "cost_nanousd", "charge_nanousd")  # fmt: skip
    rows: list[Any] = list(
        UsageByDay.objects.filter(day__gte=first_day, day__lte=last_day)
        .order_by()
        .values("tenant_id", "tenant__name", "deployment_id", "price_id")
        .annotate(**{f"sum_{name}": Sum(name) for name in names})
    )
    prices = load_prices({row["price_id"] for row in rows if row["price_id"]})
    sums: dict[tuple[int, str], list[int]] = {}
    for row in rows:
        terms = None
        if row["deployment_id"] is not None:
            terms = book.find(tenant_id=row["tenant_id"], deployment_id=row["deployment_id"], at=at)
        would = _estimate(row, terms, prices.get(row["price_id"]))
        kept = sums.setdefault((row["tenant_id"], row["tenant__name"]), [0, 0, 0])
        for place, amount in enumerate((row["sum_cost_nanousd"], row["sum_charge_nanousd"], would)):
            kept[place] += int(amount)
    estimates = [TenantEstimate(*names, *amounts) for names, amounts in sums.items()]
    return sorted(estimates, key=lambda one: (-abs(one.change_nanousd), -one.cost_nanousd, one.tenant))


def _estimate(row: dict[str, Any], terms: SaleTerms | None, price: PriceVersion | None) -> int:
    cost = int(row["sum_cost_nanousd"])
    if terms is None or price is None:
        return cost
    if terms.price is None and not terms.meter_millionths:
        return (2 * cost * terms.factor_millionths + FACTOR_SCALE) // (2 * FACTOR_SCALE)
    usage = Usage(
        "estimated",
        int(row["sum_input_tokens"]),
        int(row["sum_output_tokens"]),
        int(row["sum_cache_read_tokens"]),
        int(row["sum_cache_write_tokens"]),
        int(row["sum_reasoning_tokens"]),
    )
    requests = int(row["sum_request_count"] - row["sum_unpriced_count"] - row["sum_unknown_count"])
    if terms.price is not None:
        return _at_flat_rates(usage, requests, terms.price)
    flat = _flat(price)
    charged = charge(usage, flat, terms).total_nanousd
    for_requests = int(price.rates.get(A_REQUEST, 0) * NANOUSD_PER_USD) * requests
    factor = terms.meter_millionths.get(REQUEST, terms.factor_millionths)
    charged += for_requests * factor // FACTOR_SCALE
    # What the sums of tokens do not explain of the cost (failed attempts, tiers) goes by the general factor.
    rest = cost - total_nanousd(usage, flat) - for_requests
    return charged + rest * terms.factor_millionths // FACTOR_SCALE


def _at_flat_rates(usage: Usage, requests: int, price: PriceVersion) -> int:
    for_requests = int(price.rates.get(A_REQUEST, 0) * NANOUSD_PER_USD) * requests
    return total_nanousd(usage, _flat(price)) + for_requests


def _flat(price: PriceVersion) -> PriceVersion:
    """The price's rates by the token that have no limits."""
    known = {f"{meter}_usd_per_mtok" for meter in METERS}
    rates = {name: rate for name, rate in price.rates.items() if name in known}
    return PriceVersion(-price.id, price.deployment_id, price.effective_from_unix_s, rates)
