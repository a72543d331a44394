"""How do tenants get terms of their own, and which are there?

Reads: sale_term, price (book sale), deployment, usage_by_day, meter_by_day. Writes: sale_term, change_event.
The only writer of terms.

Terms begin now or later, before only where nothing is recorded since: what is recorded keeps its charge, so that
recorded charges can be computed again from the terms that are there. For that, ingestion holds a lock, which adding
waits for (`hold_terms`), and terms begin after the requests that are recorded already because a gateway's clock is
ahead. A price of the book `sale` that is dated back counts from the moment it was added.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from django.db import connection, transaction
from django.db.models import Max
from django.utils import timezone

from billing.charging import FACTOR_SCALE
from billing.models import MeterByDay, Price, RequestRecord, SaleTerm, UsageByDay
from billing.models.sale import MAX_FACTOR
from billing.pricebook import PriceVersion, parse_rates
from billing.rating import METERS
from billing.request_times import first_id_of
from billing.sale_book import SaleBook, SaleEntry, SaleScope
from policies import changes
from policies.errors import InvalidValueError, NameTakenError
from policies.models import Deployment, Model, Tenant
from policies.row_changes import refuse_unstorable_text

# Shared by whoever records charges, exclusive for whoever adds terms: none may begin before records that missed them.
SALE_LOCK: Final = 0x73616C65
FACTOR_DECIMALS: Final = 6
INSTEAD: Final = (
    "what was too much is given back by a credit note over the month's statement, or before that as promotional"
    " credit"
)


# Requests further ahead than this are of a clock that is no clock: they keep no terms waiting.
MOST_AHEAD: Final = dt.timedelta(days=1)
_SHORTEST: Final = dt.timedelta(milliseconds=1)  # request ids know no less


def hold_terms(*, exclusively: bool = False) -> None:
    """Keep terms as they are until the end of the transaction; `exclusively`: keep charges from being recorded."""
    function = "pg_advisory_xact_lock" if exclusively else "pg_advisory_xact_lock_shared"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {function}(%s)", [SALE_LOCK])


def load_sale_terms(more: Sequence[SaleEntry] = ()) -> SaleBook:
    """Read all terms and sale prices, of all times. Two queries where there are none, as by default.

    `more`: entries that are asked about, and are nowhere yet.
    """
    terms = SaleTerm.objects.order_by().values_list(
        "tenant_id", "model_id", "deployment_id", "meter", "effective_from", "factor", "pk"
    )
    entries = [
        SaleEntry(
            SaleScope(tenant_id, model_id, deployment_id, meter),
            effective_from.timestamp(),
            None if factor is None else int(factor * FACTOR_SCALE),
            term_id=term_id,
        )
        for tenant_id, model_id, deployment_id, meter, effective_from, factor, term_id in terms
    ]
    for price in Price.objects.filter(book=Price.Book.SALE).order_by():
        begins_unix_s = max(price.effective_from, price.created_at).timestamp()
        version = PriceVersion(price.pk, price.deployment_id, begins_unix_s, parse_rates(price.rates))
        scope = SaleScope(price.tenant_id, None, price.deployment_id)
        entries.append(SaleEntry(scope, begins_unix_s, None, version))
    entries += more
    models = dict(Deployment.objects.order_by().values_list("pk", "model_id")) if entries else {}
    return SaleBook(entries, models)


def has_terms() -> bool:
    """Whether anybody is, was or will be charged something else than the cost. One query."""
    prices = Price.objects.filter(book=Price.Book.SALE)
    return SaleTerm.objects.order_by().values("pk").union(prices.order_by().values("pk")).exists()


def why_not_moved(deployment: Deployment, model: Model) -> str:
    """Why a deployment cannot serve another model; "" where it can. Call inside the transaction that moves it.

    Charges are computed again by the terms of the model that a deployment serves today: moved with its past, its
    recorded charges would be wrong, and no month that has them could be closed.
    """
    hold_terms(exclusively=True)
    if not SaleTerm.objects.filter(model__in=[deployment.model_id, model.pk]).exists():
        return ""
    is_used = UsageByDay.objects.filter(deployment=deployment).exists()
    if not is_used and not MeterByDay.objects.filter(price__deployment=deployment).exists():
        return ""
    return (
        f"{deployment} was charged for under {deployment.model}, and there are sale prices of that model or of"
        f" {model}: make a new deployment for {model} instead"
    )


@transaction.atomic
def add_term(
    *,
    factor: Decimal,
    actor: str,
    tenant: Tenant | None = None,
    model: Model | None = None,
    deployment: Deployment | None = None,
    meter: str = "",
    effective_from: dt.datetime | None = None,
    note: str = "",
    at: dt.datetime | None = None,
) -> SaleTerm:
    """Charge `factor` times the cost from `effective_from` (now) on. Raises ConfigurationError.

    `at`: as of an earlier time, which is refused when anything of the tenant's is recorded that began since.
    """
    problems: dict[str, list[str]] = {}
    if not factor.is_finite() or not 0 <= factor <= MAX_FACTOR:
        problems["factor"] = [f"a factor is a number from 0 to {MAX_FACTOR}"]
    elif factor != factor.quantize(Decimal(1).scaleb(-FACTOR_DECIMALS)):
        problems["factor"] = [f"a factor has at most {FACTOR_DECIMALS} decimals"]
    if problems:
        raise InvalidValueError(problems)
    return _add(tenant, model, deployment, meter, factor, effective_from, note, actor, at)


@transaction.atomic
def end_term(
    *,
    actor: str,
    tenant: Tenant | None = None,
    model: Model | None = None,
    deployment: Deployment | None = None,
    meter: str = "",
    effective_from: dt.datetime | None = None,
    note: str = "",
    at: dt.datetime | None = None,
) -> SaleTerm:
    """End the factor or own price of a scope: the next less specific terms hold again. Raises ConfigurationError.

    `at`: as for `add_term`.
    """
    return _add(tenant, model, deployment, meter, None, effective_from, note, actor, at)


def check_begin(effective_from: dt.datetime | None, *, now: dt.datetime) -> dt.datetime:
    """When terms begin; now, where nobody says. Raises InvalidValueError for the past."""
    if effective_from is None:
        return now
    if timezone.is_naive(effective_from):
        raise InvalidValueError({"effective_from": ["a time needs its time zone"]})
    if effective_from < now:
        raise InvalidValueError(
            {
                "effective_from": [
                    f"terms begin now or later: what is recorded keeps what it was charged; {INSTEAD}"
                ]
            }
        )
    return effective_from


def after_recorded(
    effective_from: dt.datetime | None, *, tenant: Tenant | None, now: dt.datetime
) -> dt.datetime:
    """When terms that are wanted for a time (None: now) can begin. Raises InvalidValueError for the past.

    Where a gateway's clock is ahead, requests from after now can be recorded: those keep their charge, too. Hold the
    terms exclusively.
    """
    begins = check_begin(effective_from, now=now)
    ahead = RequestRecord.objects.filter(
        pk__gte=first_id_of(begins), started_at__gte=begins, started_at__lt=now + MOST_AHEAD
    )
    if tenant is not None:
        ahead = ahead.filter(tenant=tenant)
    newest: dt.datetime | None = ahead.order_by().aggregate(newest=Max("started_at"))["newest"]
    if newest is None:
        return begins
    if effective_from is not None:
        raise InvalidValueError(
            {
                "effective_from": [
                    f"a request that says it began at {newest:%Y-%m-%d %H:%M:%S} UTC is recorded already, as the"
                    " clock of its gateway is ahead: terms begin after it"
                ]
            }
        )
    return newest + _SHORTEST


def _add(
    tenant: Tenant | None,
    model: Model | None,
    deployment: Deployment | None,
    meter: str,
    factor: Decimal | None,
    effective_from: dt.datetime | None,
    note: str,
    actor: str,
    at: dt.datetime | None = None,
) -> SaleTerm:
    if meter and meter not in METERS:
        raise InvalidValueError({"meter": [f"{meter!r} is not one of {', '.join(METERS)}"]})
    if model is not None and deployment is not None:
        raise InvalidValueError({"model": ["terms are of a model or of one deployment, not of both"]})
    hold_terms(exclusively=True)
    now = timezone.now()  # after the lock: whatever is recorded from here on will see the term
    if at is not None:
        records = RequestRecord.objects.filter(started_at__gte=at)
        if (records if tenant is None else records.filter(tenant=tenant)).exists():
            raise InvalidValueError(
                {"at": [f"requests since then are recorded, and keep what they were charged; {INSTEAD}"]}
            )
        now = at
    begins = after_recorded(effective_from, tenant=tenant, now=now)
    scope = SaleScope(
        tenant.pk if tenant else None,
        model.pk if model else None,
        deployment.pk if deployment else None,
        meter,
    )
    before = load_sale_terms().find_entry(scope, begins)
    if before is not None and before.begins_unix_s == begins.timestamp():
        raise NameTakenError("other terms of the same scope begin at that very moment")
    if factor is None and (before is None or before.is_end):
        raise InvalidValueError({"": ["there is nothing to end: no terms of this scope are in force then"]})
    term = SaleTerm(
        tenant=tenant,
        model=model,
        deployment=deployment,
        meter=meter,
        factor=factor,
        effective_from=begins,
        note=note.strip()[:200],
        created_at=now,
        created_by=actor[:150],
    )
    refuse_unstorable_text(term)
    term.save(force_insert=True)
    changes.record_change(
        actor=actor,
        action="add" if factor is not None else "end",
        object_type="sale_term",
        object_id=term.pk,
        object_name=scope_text(tenant, model, deployment, meter),
        after={
            "factor": None if factor is None else format(factor.normalize(), "f"),
            "effective_from": begins.isoformat(),
            "note": term.note,
        },
    )
    return term


def scope_text(
    tenant: Tenant | None, model: Model | None, deployment: Deployment | None, meter: str = ""
) -> str:
    """Whom and what terms are about, in words."""
    what = deployment.name if deployment else model.name if model else "all models"
    return ", ".join(filter(None, (tenant.name if tenant else "all tenants", what, meter)))
