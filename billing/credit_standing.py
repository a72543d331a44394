"""How much credit does a tenant have, and what will be left of it once its spend is billed?

Reads: ledger_entry, credit_grant, invoice, usage_by_key_day, period_lock, billing_profile, exchange_rate. Balances are
sums of ledger entries. What is not billed yet is an estimate: the days since the last closed month at today's rate,
with tax, and the statements of closed months that are not issued.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final, NamedTuple

from django.db.models import Q, Sum

from billing.exchange_rates import find_rate
from billing.ledger import Account
from billing.minor_units import nano_of_minor, round_half_up
from billing.models import BillingProfile, CreditGrant, Invoice, LedgerEntry, UsageByKeyDay
from billing.models.invoices import UNNUMBERED
from billing.periods import find_closed_until
from policies.models import Tenant

CREDIT_ACCOUNTS: Final = (Account.CREDIT_PAID, Account.CREDIT_PROMOTIONAL)


@dataclass(frozen=True, slots=True)
class Standing:
    """Credit of one tenant in one currency. `unbilled_nano` None: other currency than its statements, or no rate."""

    tenant: Tenant
    currency: str
    paid_nano: int
    promotional_nano: int
    billed_currency: str
    unbilled_nano: int | None
    unbilled_since: dt.date
    next_expiry: dt.datetime | None

    @property
    def left_nano(self) -> int:
        return self.paid_nano + self.promotional_nano

    @property
    def is_billed(self) -> bool:
        """Whether statements are in this currency: credit in another one pays nothing."""
        return self.currency == self.billed_currency

    @property
    def expected_nano(self) -> int | None:
        """What will be left once everything until now is billed; never below 0."""
        return None if self.unbilled_nano is None else max(0, self.left_nano - self.unbilled_nano)

    @property
    def lacking_nano(self) -> int:
        """What credit will not pay of what is not billed yet."""
        return 0 if self.unbilled_nano is None else max(0, self.unbilled_nano - self.left_nano)


class StandingGrant(NamedTuple):
    """A grant and what is left of it."""

    row: CreditGrant
    left_nano: int
    state: str


class AccountLine(NamedTuple):
    """An entry of a tenant's credit, newest first, and the balance after it."""

    entry: LedgerEntry
    amount_nano: int
    balance_nano: int


def list_standing(tenants: Collection[Tenant] | None = None, *, now: dt.datetime) -> list[Standing]:
    """Of all tenants that ever had credit (or of the given ones), by name and currency."""
    entries = LedgerEntry.objects.filter(account__in=CREDIT_ACCOUNTS).order_by()
    if tenants is not None:
        entries = entries.filter(tenant__in=tenants)
    sums: dict[tuple[int, str], dict[str, int]] = {}
    rows = entries.values_list("tenant", "currency", "account").annotate(Sum("amount_nano"))
    for tenant_id, currency, account, total in rows:
        sums.setdefault((tenant_id, currency), {})[account] = -int(total)
    ids = {tenant_id for tenant_id, _ in sums}
    found = {row.pk: row for row in Tenant.objects.filter(pk__in=ids)}
    profiles = {row.tenant_id: row for row in BillingProfile.objects.filter(tenant__in=ids)}
    since, unbilled = _read_unbilled(ids, now)
    expiries = _next_expiries(ids, now)
    rates: dict[str, Decimal | None] = {}
    standing = []
    for (tenant_id, currency), by_account in sums.items():
        profile = profiles.get(tenant_id) or BillingProfile()
        if profile.currency not in rates:
            rates[profile.currency] = find_rate(currency=profile.currency, on=now.astimezone(dt.UTC).date())
        nano = None
        if currency == profile.currency:
            nano = unbilled.in_currency(tenant_id, currency, rates[currency], profile.tax_ratio)
        standing.append(
            Standing(
                tenant=found[tenant_id],
                currency=currency,
                paid_nano=by_account.get(Account.CREDIT_PAID, 0),
                promotional_nano=by_account.get(Account.CREDIT_PROMOTIONAL, 0),
                billed_currency=profile.currency,
                unbilled_nano=nano,
                unbilled_since=since,
                next_expiry=expiries.get((tenant_id, currency)),
            )
        )
    return sorted(standing, key=lambda one: (one.tenant.name, not one.is_billed, one.currency))


def list_grants(tenant: Tenant, *, now: dt.datetime) -> list[StandingGrant]:
    """All grants of a tenant in the order in which they are drawn; those of which nothing is left come last."""
    rows = CreditGrant.objects.filter(tenant=tenant).annotate(signed=Sum("entries__amount_nano"))
    found = [StandingGrant(row, -int(row.signed or 0), "") for row in rows]
    found = [one._replace(state=_state_of(one, now)) for one in found]
    return sorted(found, key=lambda one: one.left_nano == 0)


def list_account_lines(
    tenant: Tenant, currency: str, *, limit: int, before: int | None = None
) -> list[AccountLine]:
    """The newest entries that make up a tenant's credit (those before an id), each with the balance after it."""
    entries = LedgerEntry.objects.filter(tenant=tenant, currency=currency, account__in=CREDIT_ACCOUNTS)
    if before is not None:
        entries = entries.filter(pk__lt=before)
    balance = -int(entries.aggregate(total=Sum("amount_nano"))["total"] or 0)
    lines = []
    for entry in entries.order_by("-pk").select_related("posting__corrects", "grant")[:limit]:
        lines.append(AccountLine(entry, -entry.amount_nano, balance))
        balance += entry.amount_nano
    return lines


class _Unbilled(NamedTuple):
    """Nano-USD of the open days by tenant, and nano of drafts of closed months by tenant and currency."""

    open_nanousd: dict[int, int]
    drafted_nano: dict[tuple[int, str], int]

    def in_currency(
        self, tenant_id: int, currency: str, rate: Decimal | None, tax_ratio: Decimal
    ) -> int | None:
        if rate is None:
            return None
        exact = self.open_nanousd.get(tenant_id, 0) * Fraction(rate) * (1 + Fraction(tax_ratio))
        return round_half_up(exact) + self.drafted_nano.get((tenant_id, currency), 0)


def _read_unbilled(tenant_ids: Collection[int], now: dt.datetime) -> tuple[dt.date, _Unbilled]:
    """Since the last closed month; while none was ever closed, since the first of this one."""
    closed_until = find_closed_until()
    since = closed_until or now.astimezone(dt.UTC).date().replace(day=1)
    days = UsageByKeyDay.objects.filter(tenant__in=tenant_ids, day__gte=since).order_by()
    open_nanousd = {
        tenant_id: int(total)
        for tenant_id, total in days.values_list("tenant").annotate(Sum("charge_nanousd"))
    }
    drafted: dict[tuple[int, str], int] = {}
    drafts = Invoice.objects.filter(tenant__in=tenant_ids, state__in=UNNUMBERED, month__lt=since)
    for tenant_id, currency, digits, total in drafts.values_list(
        "tenant", "currency", "minor_digits", "total_minor"
    ):
        key = (tenant_id, currency)
        drafted[key] = drafted.get(key, 0) + nano_of_minor(total, digits)
    return since, _Unbilled(open_nanousd, drafted)


def _next_expiries(tenant_ids: Collection[int], now: dt.datetime) -> dict[tuple[int, str], dt.datetime]:
    rows = (
        CreditGrant.objects.filter(tenant__in=tenant_ids, expires_at__gt=now)
        .annotate(signed=Sum("entries__amount_nano"))
        .filter(Q(signed__lt=0))
        .order_by("-expires_at")
    )
    # The last one that is written is the soonest.
    return {(row.tenant_id, row.currency): row.expires_at for row in rows if row.expires_at is not None}


def _state_of(one: StandingGrant, now: dt.datetime) -> str:
    if one.row.expires_at is not None and one.row.expires_at <= now:
        return "expired"
    return "active" if one.left_nano else "used up"
