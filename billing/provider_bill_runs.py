"""How does a provider's file become a comparison that is kept? Imported whole or not at all, compared again at will.

Writes: provider_bill, billed_day, billed_name, change_event. Reads: the file, attempts, deployments, exchange rates.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Mapping
from functools import cache

from django.db import transaction

from billing.exchange_rates import find_rate
from billing.models import BilledDay, BilledName, ProviderBill
from billing.price_sources.genai import GenaiPrices
from billing.provider_bills.bill import Bill, BilledGroup, BillError, BillLine, group_lines
from billing.provider_bills.reading import TITLES, read_bill
from billing.reconciling import Compared, Tolerance, compare, match_names
from billing.recorded_attempts import sum_attempts
from policies import changes
from policies.errors import InvalidValueError, NotFoundError
from policies.models import Deployment, Provider

MAX_DAYS = 400


def import_bill(
    raw: bytes,
    *,
    file_name: str,
    file_format: str,
    provider: Provider,
    actor: str,
    now: dt.datetime,
    account: str = "",
    columns: Mapping[str, str] | None = None,
    tolerance: Tolerance | None = None,
    may_read: Callable[[dt.date, dt.date], bool] | None = None,
) -> tuple[ProviderBill, bool]:
    """Read a file, compare it with the records, and keep both. Return the bill, and whether it is new.

    The same file of the same provider (and account) again is the same bill, compared anew. Raises InvalidValueError at
    `file` with every mistake and its line, at `account` when the file does not name it; then nothing is kept.
    `may_read` can refuse days that hold too many records to wait for.
    """
    allowed = _check_tolerance(tolerance or Tolerance())
    if file_format not in TITLES:
        raise InvalidValueError({"file_format": [f"{file_format!r} is not one of {', '.join(TITLES)}"]})
    try:
        bill = read_bill(
            raw,
            file_format=file_format,
            today=now.astimezone(dt.UTC).date(),
            find_rate=find_rate,
            columns=columns,
        )
        lines = _lines_of(bill, account)
        groups = group_lines(lines)
    except BillError as refusal:
        raise InvalidValueError({"file": str(refusal).split("\n")}) from None
    first_day, last_day = groups[0].day, groups[-1].day
    _check_days(first_day, last_day, may_read)
    with transaction.atomic():
        read = {
            "file_format": file_format,
            "accounts": bill.accounts[:1000],
            "groups": [group.as_json() for group in groups],
            "notes": list(bill.notes),
            "line_count": len(lines),
            "first_day": first_day,
            "last_day": last_day,
            "tolerance_ratio": allowed.ratio,
            "tolerance_nanousd": allowed.least_nanousd,
            "compared_at": now,
        }
        imported = {"file_name": file_name[-200:], "imported_at": now, "imported_by": actor[:150]}
        row, is_new = ProviderBill.objects.update_or_create(
            provider=provider,
            sha256=hashlib.sha256(raw).hexdigest(),
            account=account,
            defaults=read,
            create_defaults=read | imported,
        )
        _compare(row)
        _record(row, "import" if is_new else "compare", actor)
    return row, is_new


def _lines_of(bill: Bill, account: str) -> list[BillLine]:
    """The lines of an account, of all where none is named; there is at least one."""
    lines = [line for line in bill.lines if not account or line.account == account]
    if not lines:
        named = ", ".join(bill.accounts)[:300] or "none"
        raise InvalidValueError({"account": [f"no line is of {account[:100]!r}; the file names {named}"]})
    return lines


def _check_days(
    first_day: dt.date, last_day: dt.date, may_read: Callable[[dt.date, dt.date], bool] | None
) -> None:
    if (last_day - first_day).days >= MAX_DAYS:
        raise InvalidValueError({"file": [f"{first_day} to {last_day} is more than {MAX_DAYS} days"]})
    if may_read is not None and not may_read(first_day, last_day):
        raise InvalidValueError(
            {"file": ["its days hold too many requests to wait for: use manage.py reconcile"]}
        )


@transaction.atomic
def compare_again(bill: ProviderBill, *, actor: str, now: dt.datetime) -> None:
    """Compare with what is recorded now: late records, prices and names of models may have changed."""
    row = ProviderBill.objects.select_for_update().get(pk=bill.pk)
    row.compared_at = now
    row.save(update_fields=["compared_at"])
    _compare(row)
    _record(row, "compare", actor)


@transaction.atomic
def match_name(bill: ProviderBill, *, name: str, upstream_model: str, actor: str, now: dt.datetime) -> None:
    """Say which upstream model the provider's bills mean by a name, for this bill and all others; "" is none of ours.

    Raises NotFoundError for a name that is not on the bill, InvalidValueError for a model that we do not call there.
    """
    if name not in {group.billed_as for group in groups_of(bill)}:
        raise NotFoundError(f"{name[:100]!r} is not on this bill")
    if upstream_model and upstream_model not in list_upstream_models(bill.provider_id):
        raise InvalidValueError(
            {"upstream_model": [f"no deployment calls {upstream_model[:100]!r} at this provider"]}
        )
    BilledName.objects.update_or_create(
        provider_id=bill.provider_id, name=name, defaults={"upstream_model": upstream_model}
    )
    changes.record_row(
        "provider_bill",
        bill,
        actor=actor,
        action="match",
        after={"name": name, "upstream_model": upstream_model},
    )
    compare_again(bill, actor=actor, now=now)


def groups_of(bill: ProviderBill) -> list[BilledGroup]:
    """The bill's sums by day and model."""
    return [BilledGroup.from_json(stored) for stored in bill.groups]


def list_upstream_models(provider_id: int) -> list[str]:
    """What is called at a provider, also by deployments that are switched off."""
    rows = Deployment.objects.filter(provider_id=provider_id).order_by("upstream_model")
    return list(rows.values_list("upstream_model", flat=True).distinct())


def _compare(bill: ProviderBill) -> None:
    groups = groups_of(bill)
    recorded = sum_attempts(provider_id=bill.provider_id, first_day=bill.first_day, last_day=bill.last_day)
    chosen = dict(BilledName.objects.filter(provider=bill.provider).values_list("name", "upstream_model"))
    matches = match_names(
        sorted({group.billed_as for group in groups}),
        list_upstream_models(bill.provider_id),
        chosen=chosen,
        is_same=_same_entry_at(bill.provider.base_url),
    )
    tolerance = Tolerance(bill.tolerance_ratio, bill.tolerance_nanousd)
    bill.days.all().delete()
    BilledDay.objects.bulk_create(
        [_as_row(bill, one) for one in compare(groups, recorded, matches=matches, tolerance=tolerance)],
        batch_size=1_000,
    )


def _as_row(bill: ProviderBill, one: Compared) -> BilledDay:
    return BilledDay(
        bill=bill,
        day=one.day,
        upstream_model=one.upstream_model,
        billed_as=one.billed_as,
        verdict=one.verdict.value,
        reason=one.reason,
        billed=one.billed.counts._asdict() if one.billed else None,
        recorded=one.recorded.counts._asdict() if one.recorded else None,
        billed_nanousd=one.billed.cost_nanousd if one.billed else None,
        recorded_nanousd=one.recorded.cost_nanousd if one.recorded else None,
    )


def _same_entry_at(base_url: str) -> Callable[[str, str], bool]:
    """Whether two names are one model to the price list that prices are synced from."""
    prices = GenaiPrices()

    @cache
    def entries(name: str) -> frozenset[str]:
        return prices.entries_of(base_url, name)

    return lambda one, other: bool(entries(one) & entries(other))


def _check_tolerance(tolerance: Tolerance) -> Tolerance:
    if not tolerance.ratio.is_finite() or not 0 <= tolerance.ratio < 1:
        raise InvalidValueError({"tolerance_percent": ["from 0 to less than 100 percent"]})
    if not 0 <= tolerance.least_nanousd <= 10**18:
        raise InvalidValueError({"tolerance_usd": ["0 USD or more"]})
    return tolerance


def _record(bill: ProviderBill, action: str, actor: str) -> None:
    changes.record_row(
        "provider_bill",
        bill,
        actor=actor,
        action=action,
        after={"sha256": bill.sha256, "account": bill.account, "days": bill.days.count()},
    )
