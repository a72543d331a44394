"""Which billing details and exchange rates does a configuration file state, and does the database agree?

Writes: through `billing.billing_profiles` and `billing.exchange_rates`. Reads: billing_profile, exchange_rate. What a
file no longer states stays: issued statements rest on it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from decimal import Decimal
from typing import Any

from billing.billing_profiles import FIELDS, ISSUER_FIELDS, change_profile, profile_of
from billing.exchange_rates import add_rate
from billing.models import BillingProfile, ExchangeRate
from gateway.configuration_file.format import ConfigurationFile
from gateway.configuration_file.values import Entry
from policies.models import Tenant

Note = Callable[..., None]
At = Callable[[str], AbstractContextManager[None]]


def apply_billing(entry: Entry | None, tenant: Tenant | None, *, owner: str, note: Note, at: At) -> None:
    """Change a tenant's billing details (or the issuer's, None) where they are not what the file states."""
    if entry is None:
        return
    name = tenant.name if tenant is not None else "issuer"
    with at(entry.path):
        before = profile_of(tenant)
        row = change_profile(tenant=tenant, actor=owner, **entry.values)
    changed = [f"{field}: {getattr(row, field)}" for field in entry.values if _differs(before, row, field)]
    if changed:
        note("create" if before.pk is None else "change", "billing", name, "; ".join(changed))
    else:
        note("nothing", "billing", name)


def apply_rates(file: ConfigurationFile, *, owner: str, note: Note, at: At) -> None:
    """Add the rates that the file states and the database does not."""
    for entry in file.exchange_rates:
        name = f"{entry['currency']} from {entry['first_day']}"
        last = ExchangeRate.objects.filter(currency=entry["currency"], first_day=entry["first_day"]).first()
        with at(entry.path):
            row = add_rate(actor=owner, **entry.values)
        if last is not None and row.pk == last.pk:
            note("nothing", "rate", name)
        else:
            note("add", "rate", name, f"{row.rate.normalize():f}")


def stated_billing(tenant: Tenant | None) -> dict[str, Any]:
    """The billing details as the file states them; defaults are left out."""
    row, empty = profile_of(tenant), BillingProfile()
    stated: dict[str, Any] = {}
    for name in FIELDS if tenant is not None else ISSUER_FIELDS:
        value = getattr(row, name)
        if value != getattr(empty, name):
            stated[name] = f"{value.normalize():f}" if isinstance(value, Decimal) else value
    return stated


def stated_rates() -> list[dict[str, Any]]:
    """All rates that were not corrected, oldest first."""
    newest = {(row.currency, row.first_day): row for row in ExchangeRate.objects.order_by("id")}
    stated: list[dict[str, Any]] = []
    for (currency, first_day), row in sorted(newest.items()):
        entry: dict[str, Any] = {
            "currency": currency,
            "rate": f"{row.rate.normalize():f}",
            "first_day": first_day,
            "source": row.source,
        }
        if row.last_day is not None:
            entry["last_day"] = row.last_day
        # Put back elsewhere, in this order, a steep step is as it was.
        stated.append({**entry, "is_sure": True} if _is_steep(stated, entry) else entry)
    return stated


def _differs(before: BillingProfile, after: BillingProfile, field: str) -> bool:
    return bool(getattr(before, field) != getattr(after, field))


def _is_steep(stated: list[dict[str, Any]], entry: dict[str, Any]) -> bool:
    if not stated or stated[-1]["currency"] != entry["currency"]:
        return False
    step = Decimal(entry["rate"]) / Decimal(stated[-1]["rate"])
    return not Decimal("0.5") <= step <= 2
