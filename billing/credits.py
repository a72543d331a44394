"""How is credit granted, drawn by statements, given back, refunded, and how does it expire?

Writes: credit_grant, change_event; postings through `billing.ledger`. Reads: ledger_entry: what is left of a grant is
the sum of its entries, never a column. Whoever takes from a tenant's credit locks all its grants of that currency
first, by id: two statements never draw the same credit, and none waits for another in a circle.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from django.db import transaction
from django.db.models import QuerySet, Sum
from django.utils import timezone

from billing import credit_order, ledger
from billing.currencies import check_currency, format_amount, minor_unit_nano
from billing.ledger import Account, Entry, Kind
from billing.models import CreditGrant, LedgerEntry, LedgerPosting
from policies import changes
from policies.errors import InUseError, InvalidValueError, NameTakenError
from policies.models import Model, Tenant
from policies.row_changes import json_value, save_checked

MAX_PRIORITY: Final = 1000
MAX_GRANT_NANO: Final = 10**18


class Draw(NamedTuple):
    """What one grant pays of a statement, or gets back from it."""

    grant: CreditGrant
    amount_nano: int


@transaction.atomic
def grant_credit(
    *,
    tenant: Tenant,
    kind: str,
    amount_nano: int,
    currency: str,
    actor: str,
    priority: int = 100,
    expires_at: dt.datetime | None = None,
    model_names: Sequence[str] = (),
    reference: str = "",
    note: str = "",
    at: dt.datetime | None = None,
) -> CreditGrant:
    """Grant credit. `reference` names the payment: it is taken once a tenant. Raises ConfigurationError."""
    now = at or timezone.now()
    _check_grant(kind, amount_nano, currency, priority, expires_at, now, model_names)
    if reference and CreditGrant.objects.filter(tenant=tenant, reference=reference).exists():
        raise NameTakenError(f"{tenant} has credit for {reference} already")
    row = CreditGrant(
        tenant=tenant,
        kind=kind,
        amount_nano=amount_nano,
        currency=currency,
        priority=priority,
        expires_at=expires_at,
        model_names=sorted(set(model_names)),
        reference=reference,
        note=note.strip(),
        granted_at=now,
        created_by=actor[:150],
    )
    save_checked(row)
    _book(row, Kind.GRANT, f"credit {row.pk}", -amount_nano, _source_of(row), at=now, actor=actor, note=note)
    after = {
        "amount": format_amount(amount_nano, currency),
        "kind": kind,
        "priority": priority,
        "expires_at": json_value(expires_at),
        "models": row.model_names,
        "reference": reference,
    }
    _record(row, actor=actor, action="grant", after=after)
    return row


@transaction.atomic
def draw(
    *,
    tenant: Tenant,
    currency: str,
    wanted_nano: int,
    reference: str,
    at: dt.datetime,
    actor: str,
    models: Mapping[str, int] | None = None,
) -> list[Draw]:
    """Pay up to `wanted_nano` of the statement `reference` from credit; return what each grant pays.

    By priority, then what expires first, then the oldest, in whole units of the currency. `models`: how much of the
    amount is for which model; credit for certain models pays only those (None: it pays nothing). The same
    reference again changes nothing and returns what was drawn. Call it before anything that records a change.
    """
    grants = _lock_grants(tenant, currency)
    earlier = ledger.find_posting(kind=Kind.DRAW, reference=reference)
    if earlier is not None:
        if (earlier.tenant_id, earlier.currency) != (tenant.pk, currency):
            raise ledger.PostedOtherwiseError(f"{reference} drew credit of another tenant or currency")
        return _draws_of(earlier)
    left = _list_left(grants)
    usable = [
        credit_order.Usable(grant.pk, left[grant.pk], frozenset(grant.model_names))
        for grant in grants
        if grant.granted_at <= at
        and (grant.expires_at is None or grant.expires_at > at)
        and left[grant.pk] > 0
    ]
    order = {grant.pk: number for number, grant in enumerate(sorted(grants, key=_order_of))}
    usable.sort(key=lambda one: order[one.grant_id])
    shares = credit_order.share_out(
        usable, wanted_nano=wanted_nano, by_model=models or {}, unit_nano=minor_unit_nano(currency)
    )
    by_pk = {grant.pk: grant for grant in grants}
    draws = [Draw(by_pk[grant_id], amount) for grant_id, amount in shares if amount]
    if draws:
        entries = [Entry(_account_of(one.grant), one.amount_nano, one.grant) for one in draws]
        entries.append(Entry(Account.RECEIVABLE, -sum(one.amount_nano for one in draws)))
        ledger.post(
            tenant=tenant,
            kind=Kind.DRAW,
            reference=reference,
            currency=currency,
            entries=entries,
            at=at,
            actor=actor,
        )
    return draws


@transaction.atomic
def give_back(
    *,
    draw_reference: str,
    reference: str,
    at: dt.datetime,
    actor: str,
    amount_nano: int | None = None,
) -> list[Draw]:
    """Give credit back that the statement `draw_reference` drew: all that is left of it, or at most `amount_nano`.

    `reference` names the void or credit note that does it; the same again changes nothing. What was drawn last goes
    back first. Credit that expired meanwhile gets its amount back, and `expire_due` then ends it anew.
    """
    drawn = ledger.find_posting(kind=Kind.DRAW, reference=draw_reference)
    if drawn is None:
        return []
    if amount_nano is not None and amount_nano < 0:
        raise InvalidValueError({"amount": ["what is given back is not negative"]})
    _lock_grants(drawn.tenant, drawn.currency)
    earlier = ledger.find_posting(kind=Kind.GIVE_BACK, reference=reference)
    if earlier is not None:
        if earlier.corrects_id != drawn.pk:
            raise ledger.PostedOtherwiseError(f"{reference} gave back credit of another statement")
        return [Draw(one.grant, -one.amount_nano) for one in _draws_of(earlier)]
    returned = _sum_by_grant(LedgerEntry.objects.filter(posting__corrects=drawn))
    wanted, backs = amount_nano, list[Draw]()
    for one in reversed(_draws_of(drawn)):
        remaining = one.amount_nano + returned.get(one.grant.pk, 0)
        amount = remaining if wanted is None else min(remaining, wanted)
        if amount:
            backs.append(Draw(one.grant, amount))
            wanted = None if wanted is None else wanted - amount
    if backs:
        entries = [Entry(_account_of(one.grant), -one.amount_nano, one.grant) for one in backs]
        entries.append(Entry(Account.RECEIVABLE, sum(one.amount_nano for one in backs)))
        ledger.post(
            tenant=drawn.tenant,
            kind=Kind.GIVE_BACK,
            reference=reference,
            currency=drawn.currency,
            entries=entries,
            at=at,
            actor=actor,
            corrects=drawn,
        )
    return backs


@transaction.atomic
def refund(
    *,
    grant: CreditGrant,
    actor: str,
    note: str,
    amount_nano: int | None = None,
    at: dt.datetime | None = None,
) -> int:
    """Pay back what is left of paid credit, or a part; return how much. Raises ConfigurationError."""
    row, left = _lock_one(grant)
    if row.kind != CreditGrant.Kind.PAID:
        raise InUseError("promotional credit was not paid for: let it expire instead")
    if not note.strip():
        raise InvalidValueError({"note": ["say why it is paid back"]})
    amount = left if amount_nano is None else amount_nano
    if not 0 < amount <= left:
        raise InvalidValueError({"amount": [f"{format_amount(left, row.currency)} of it is left"]})
    if amount % minor_unit_nano(row.currency):
        raise InvalidValueError({"amount": ["this is finer than the currency's smallest unit"]})
    reference = _next_reference(row, Kind.REFUND)
    _book(row, Kind.REFUND, reference, amount, Account.CASH, at=at or timezone.now(), actor=actor, note=note)
    _record(
        row,
        actor=actor,
        action="refund",
        after={"amount": format_amount(amount, row.currency), "note": note.strip()},
    )
    return amount


@transaction.atomic
def expire(*, grant: CreditGrant, actor: str, note: str = "", at: dt.datetime | None = None) -> int:
    """End a grant: what is left of it is booked off. Returns how much; nothing left changes nothing."""
    row, left = _lock_one(grant)
    if left <= 0:
        return 0
    account = Account.BREAKAGE if row.kind == CreditGrant.Kind.PAID else Account.PROMOTION
    reference = _next_reference(row, Kind.EXPIRE)
    _book(row, Kind.EXPIRE, reference, left, account, at=at or timezone.now(), actor=actor, note=note)
    after = {"amount": format_amount(left, row.currency), "note": note.strip()}
    _record(row, actor=actor, action="expire", after=after)
    return left


def expire_due(*, now: dt.datetime, actor: str = "system") -> int:
    """Book off what is left of all credit whose time has passed; return of how many grants. Run daily by beat."""
    due = CreditGrant.objects.filter(expires_at__lte=now)
    rows = due.annotate(signed=Sum("entries__amount_nano")).filter(signed__lt=0).order_by("pk")
    return sum(1 for row in rows if expire(grant=row, actor=actor, at=now))


def find_left(grant: CreditGrant) -> int:
    """What is left of a grant, in nano of its currency."""
    return _list_left([grant])[grant.pk]


def _book(
    row: CreditGrant,
    kind: str,
    reference: str,
    amount_nano: int,
    against: str,
    *,
    at: dt.datetime,
    actor: str,
    note: str,
) -> None:
    """Post `amount_nano` to the grant (above 0 takes from it) against another account."""
    entries = [Entry(_account_of(row), amount_nano, row), Entry(against, -amount_nano)]
    ledger.post(
        tenant=row.tenant,
        kind=kind,
        reference=reference,
        currency=row.currency,
        entries=entries,
        at=at,
        actor=actor,
        note=note.strip(),
    )


def _lock_grants(tenant: Tenant, currency: str) -> list[CreditGrant]:
    rows = CreditGrant.objects.filter(tenant=tenant, currency=currency).order_by("pk")
    return list(rows.select_for_update(no_key=True))


def _lock_one(grant: CreditGrant) -> tuple[CreditGrant, int]:
    row = CreditGrant.objects.select_for_update(no_key=True).get(pk=grant.pk)
    return row, find_left(row)


def _list_left(grants: Sequence[CreditGrant]) -> dict[int, int]:
    """Credit is a liability: its balance is on the credit side, below 0."""
    signed = _sum_by_grant(LedgerEntry.objects.filter(grant__in=grants))
    return {grant.pk: -signed.get(grant.pk, 0) for grant in grants}


def _sum_by_grant(entries: QuerySet[LedgerEntry]) -> dict[int, int]:
    rows = entries.filter(grant__isnull=False).order_by().values_list("grant_id")
    return {grant_id: int(total) for grant_id, total in rows.annotate(Sum("amount_nano"))}


def _draws_of(posting: LedgerPosting) -> list[Draw]:
    entries = posting.entries.filter(grant__isnull=False).select_related("grant").order_by("id")
    return [Draw(entry.grant, entry.amount_nano) for entry in entries if entry.grant is not None]


def _order_of(grant: CreditGrant) -> tuple[int, float, dt.datetime, int]:
    expires = grant.expires_at.timestamp() if grant.expires_at is not None else float("inf")
    return grant.priority, expires, grant.granted_at, grant.pk


def _account_of(grant: CreditGrant) -> str:
    return Account.CREDIT_PAID if grant.kind == CreditGrant.Kind.PAID else Account.CREDIT_PROMOTIONAL


def _source_of(grant: CreditGrant) -> str:
    return Account.CASH if grant.kind == CreditGrant.Kind.PAID else Account.PROMOTION


def _next_reference(grant: CreditGrant, kind: str) -> str:
    """A grant can be refunded in parts, and expire again after something was given back. Call under its lock."""
    count = LedgerPosting.objects.filter(kind=kind, entries__grant=grant).count()
    return f"credit {grant.pk}" + (f" ({count + 1})" if count else "")


def _check_grant(
    kind: str,
    amount_nano: int,
    currency: str,
    priority: int,
    expires_at: dt.datetime | None,
    now: dt.datetime,
    model_names: Sequence[str],
) -> None:
    if kind not in CreditGrant.Kind.values:
        raise InvalidValueError({"kind": [f"{kind!r} is not one of {', '.join(CreditGrant.Kind.values)}"]})
    check_currency(currency)
    if not 0 < amount_nano <= MAX_GRANT_NANO:
        raise InvalidValueError({"amount": ["credit is more than 0 and at most 1,000,000,000"]})
    if amount_nano % minor_unit_nano(currency):
        raise InvalidValueError({"amount": ["this is finer than the currency's smallest unit"]})
    if not 0 <= priority <= MAX_PRIORITY:
        raise InvalidValueError({"priority": [f"a priority is from 0 to {MAX_PRIORITY:,}"]})
    if expires_at is not None and expires_at <= now:
        raise InvalidValueError({"expires_at": ["this time has passed"]})
    unknown = sorted(set(model_names) - set(Model.objects.values_list("name", flat=True)))
    if unknown:
        raise InvalidValueError({"model_names": [f"there is no model {', '.join(unknown)}"]})


def _record(row: CreditGrant, *, actor: str, action: str, after: Mapping[str, object]) -> None:
    changes.record_change(
        actor=actor,
        action=action,
        object_type="credit",
        object_id=row.pk,
        object_name=f"{row} of {row.tenant}",
        after=dict(after),
    )
