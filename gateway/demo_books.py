"""Which terms, budgets and statements does the demo come with? Invented, like its traffic, so that finance has a month.

Writes: by the verbs of billing and policies, as `ACTOR`. `set_up` runs with the demo itself, before anything is asked;
`complete` once its traffic is recorded. Doing it again changes nothing.
"""

from __future__ import annotations

import datetime as dt
import logging
from decimal import Decimal
from typing import Final

from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import Sum

from billing import alerting, billing_profiles, budgets, exchange_rates, invoicing, sale_terms, saved_views
from billing.alert_recipients import add_recipient
from billing.closing import close_period
from billing.credits import grant_credit
from billing.models import (
    AlertRecipient,
    Budget,
    CreditGrant,
    ExchangeRate,
    InvoiceState,
    SavedView,
    UsageByKeyDay,
)
from billing.periods import find_closed_until
from gateway import demo_week
from policies.errors import ConfigurationError
from policies.models import ApiKey, ChangeEvent, Tenant
from policies.rate_limits import set_rate_limit

logger = logging.getLogger(__name__)

ACTOR: Final = "demo"
SOURCE: Final = "invented for the demo"
NANO: Final = 10**9
CURRENCY: Final = "EUR"
# Who has the budget that is nearly used up: the key that spends twice as much since a week.
GROWN_KEY: Final = ("documents", "archive")
BUSY_KEY: Final = ("support", "helpdesk")


def set_up(*, tenant: Tenant, now: dt.datetime) -> None:
    """Say what the tenant is charged and how it is billed, from where its traffic begins. Call in a transaction."""
    begin = demo_week.find_begin(now.timestamp())
    sale_terms.add_term(
        tenant=tenant,
        factor=Decimal("1.2"),
        note=f"20 % for the platform team, {SOURCE}",
        at=begin,
        actor=ACTOR,
    )
    billing_profiles.change_profile(
        tenant=None,
        legal_name="Pointsman Demo Platform Team",
        address="1 Invented Street\n10115 Berlin\nGermany",
        email="billing@platform.example",
        tax_id="DE000000000",
        actor=ACTOR,
    )
    billing_profiles.change_profile(
        tenant=tenant,
        legal_name="Example Bicycles GmbH (invented)",
        address="Accounts payable\n2 Invented Street\n20095 Hamburg\nGermany",
        email="accounts@bicycles.example",
        tax_id="DE999999999",
        tax_name="VAT",
        tax_ratio="0.19",
        currency=CURRENCY,
        payment_days=14,
        actor=ACTOR,
    )
    exchange_rates.add_rate(
        currency=CURRENCY, rate="0.92", first_day=begin.date(), source=SOURCE, actor=ACTOR
    )
    grant_credit(
        tenant=tenant,
        kind=CreditGrant.Kind.PAID,
        amount_nano=100 * NANO,
        currency=CURRENCY,
        reference="bank transfer 2210",
        note=SOURCE,
        at=begin,
        actor=ACTOR,
    )
    set_rate_limit(
        owner=_key(tenant, BUSY_KEY), requests_per_minute=120, tokens_per_minute=400_000, actor=ACTOR
    )
    _save_view(now)


def complete(*, set_up_at: dt.datetime, now: dt.datetime) -> None:
    """Set budgets by what this month has cost so far; close the month before last, and have its statement paid."""
    tenant = Tenant.objects.filter(name="demo").first()
    if tenant is None:
        return
    try:
        if not ChangeEvent.objects.filter(actor=ACTOR, object_type="budget").exists():
            with transaction.atomic():
                _set_budgets(tenant, now)
                # What there is to tell is noticed before anybody hears of it: nobody gets a mail about the demo.
                alerting.notice(now=now)
                add_recipient(
                    tenant=tenant,
                    channel=AlertRecipient.Channel.EMAIL,
                    address="finance@bicycles.example",
                    actor=ACTOR,
                )
        if find_closed_until() is None:
            _close_first_month(tenant, demo_week.find_begin(set_up_at.timestamp()).date(), now)
    except (ConfigurationError, ApiKey.DoesNotExist) as refusal:
        # Somebody was quicker: what they made or deleted stays so, and the demo does with less.
        logger.warning("The demo's books stay incomplete: %s", refusal)


def find_invented_until() -> dt.datetime | None:
    """Until when traffic is invented; None where the demo brought none. By the one of its rows that never goes."""
    return ExchangeRate.objects.filter(created_by=ACTOR).values_list("created_at", flat=True).first()


def _set_budgets(tenant: Tenant, now: dt.datetime) -> None:
    key = _key(tenant, GROWN_KEY)
    days = UsageByKeyDay.objects.filter(tenant=tenant, day__gte=now.astimezone(dt.UTC).date().replace(day=1))
    spent = int(days.aggregate(sum=Sum("cost_nanousd"))["sum"] or 0)
    spent_by_key = int(days.filter(api_key=key).aggregate(sum=Sum("cost_nanousd"))["sum"] or 0)
    month = Budget.Window.MONTH
    hard_limit = _round_up(spent_by_key * 106 // 100, step=NANO // 10)
    budgets.create_budget(tenant=tenant, api_key=key, window=month, limit_nanousd=hard_limit, actor=ACTOR)
    soft_limit = _round_up(spent * 10 // 7, step=NANO)
    budgets.create_budget(tenant=tenant, window=month, limit_nanousd=soft_limit, is_hard=False, actor=ACTOR)


def _round_up(nanousd: int, *, step: int) -> int:
    """The next whole step above; on a month's first day little is spent, but a limit is never 0."""
    return (nanousd // step + 1) * step


def _close_first_month(tenant: Tenant, month: dt.date, now: dt.datetime) -> None:
    close_period(month=month, actor=ACTOR, now=now)
    invoice = invoicing.find_invoice(tenant=tenant, month=month)
    if invoice is not None and invoice.state == InvoiceState.ISSUED:
        invoicing.mark_paid(invoice=invoice, actor=ACTOR, now=now, reference=f"bank transfer, {SOURCE}")


def _save_view(now: dt.datetime) -> None:
    """Belongs to whoever is the first operator; without one there is nobody to save it for."""
    owner = get_user_model().objects.filter(is_superuser=True).order_by("pk").first()
    if owner is not None:
        saved_views.save_view(
            owner=owner,
            page=SavedView.Page.KEYS,
            name="Keys, last seven days",
            query="period=7d",
            is_shared=True,
            now=now,
            actor=ACTOR,
        )


def _key(tenant: Tenant, name: tuple[str, str]) -> ApiKey:
    project, key = name
    return ApiKey.objects.get(project__tenant=tenant, project__name=project, name=key, replaced_by=None)
