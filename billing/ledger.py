"""How is money booked, and what is on an account?

Writes: ledger_posting, ledger_entry; the only writer. Reads: their sums. Every posting is balanced double entry in one
currency: debits (above 0) and credits (below 0) sum to zero. Triggers refuse anything else, at the latest on commit.

    issue          receivable +total   revenue -net   tax -tax   rounding (the difference that rounding lines made)
    draw           credit_* +drawn     receivable -drawn
    pay            cash +due           receivable -due
    grant          cash (paid) or promotion (promotional) +amount   credit_* -amount
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from django.db import IntegrityError, transaction
from django.db.models import Sum

from billing.currencies import check_currency
from billing.models import CreditGrant, LedgerEntry, LedgerPosting
from policies.errors import ConfigurationError, InvalidValueError
from policies.models import Tenant

Posting = LedgerPosting
Kind = LedgerPosting.Kind
Account = LedgerEntry.Account
# What a column of 30 digits holds, with room for sums.
MAX_AMOUNT_NANO: Final = 10**27


class PostedOtherwiseError(ConfigurationError):
    """This kind and reference were posted with other entries."""


class Entry(NamedTuple):
    """One side of a posting: above 0 debit, below 0 credit. The two credit accounts need their grant."""

    account: str
    amount_nano: int
    grant: CreditGrant | None = None


@transaction.atomic
def post(
    *,
    tenant: Tenant,
    kind: str,
    reference: str,
    currency: str,
    entries: Sequence[Entry],
    at: dt.datetime,
    actor: str,
    note: str = "",
    corrects: Posting | None = None,
) -> Posting:
    """Book one event. Entries of 0 are left out. The same again changes nothing and returns what was booked.

    Raises InvalidValueError, and PostedOtherwiseError when kind and reference stand for something else.
    """
    booked = [entry for entry in entries if entry.amount_nano]
    _check(kind, reference, currency, booked)
    try:
        with transaction.atomic():
            posting = LedgerPosting.objects.create(
                tenant=tenant,
                kind=kind,
                reference=reference,
                currency=currency,
                at=at,
                made_by=actor[:150],
                note=note[:300],
                corrects=corrects,
                transaction_number=0,  # a trigger sets it
            )
    except IntegrityError:
        return _find_same(tenant, kind, reference, currency, booked)
    LedgerEntry.objects.bulk_create(
        LedgerEntry(
            posting=posting,
            tenant=tenant,
            currency=currency,
            account=entry.account,
            amount_nano=entry.amount_nano,
            grant=entry.grant,
        )
        for entry in booked
    )
    return posting


def find_posting(*, kind: str, reference: str) -> Posting | None:
    """What was booked under this name, if anything."""
    return LedgerPosting.objects.filter(kind=kind, reference=reference).first()


def find_balance(*, tenant: Tenant, account: str, currency: str, until: dt.datetime | None = None) -> int:
    """The sum of an account's entries, in nano of the currency: above 0 debit. `until`: of what counted before."""
    entries = LedgerEntry.objects.filter(tenant=tenant, account=account, currency=currency)
    if until is not None:
        entries = entries.filter(posting__at__lt=until)
    return int(entries.aggregate(total=Sum("amount_nano"))["total"] or 0)


def _check(kind: str, reference: str, currency: str, entries: Sequence[Entry]) -> None:
    if kind not in Kind.values:
        raise InvalidValueError({"kind": [f"{kind!r} is not one of {', '.join(Kind.values)}"]})
    if not 0 < len(reference) <= 200:
        raise InvalidValueError({"reference": ["a posting needs a name of at most 200 characters"]})
    check_currency(currency)
    for entry in entries:
        if entry.account not in Account.values:
            raise InvalidValueError({"account": [f"there is no account {entry.account!r}"]})
        if abs(entry.amount_nano) > MAX_AMOUNT_NANO:
            raise InvalidValueError({"amount": ["an amount is at most 10^18 of its currency"]})
        if (entry.account in (Account.CREDIT_PAID, Account.CREDIT_PROMOTIONAL)) != (entry.grant is not None):
            raise InvalidValueError({"grant": ["entries of credit, and no others, name their grant"]})
    if len(entries) < 2 or sum(entry.amount_nano for entry in entries) != 0:
        raise InvalidValueError({"entries": ["debits and credits have to sum to zero, and not to be none"]})


def _find_same(tenant: Tenant, kind: str, reference: str, currency: str, entries: Sequence[Entry]) -> Posting:
    posting = LedgerPosting.objects.get(kind=kind, reference=reference)
    stored = posting.entries.values_list("account", "amount_nano", "grant_id")
    wanted = [
        (str(entry.account), entry.amount_nano, None if entry.grant is None else entry.grant.pk)
        for entry in entries
    ]
    is_same = (posting.tenant_id, posting.currency) == (tenant.pk, currency)
    if not is_same or Counter(stored) != Counter(wanted):
        raise PostedOtherwiseError(f"{kind} {reference} was booked already, with other amounts")
    return posting
