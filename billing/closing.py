"""How is a month closed, and what keeps it from being closed?

Writes: period_lock, period_closing, change_event; statements through `billing.invoicing`. Calls: `summing_meters`.
A month is locked in one transaction that keeps the ingester out; from then on what comes for it counts in the next one.
Then each tenant's statement is drafted, reviewed in the closer's name where nobody did, and issued, one transaction
each: a run that breaks off goes on where it was. Closing a closed month changes nothing, but for what was left of it.
"""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from django.db import DataError, transaction
from django.db.models import F, Q, Subquery, Sum, Value
from django.db.models.functions import Coalesce

from billing import invoicing
from billing.drafting import last_day_of, list_billed_tenants
from billing.exchange_rates import find_rate
from billing.job_failures import explain_failure, let_go_of_a_broken_connection
from billing.models import (
    BillingProfile,
    ClosingState,
    Invoice,
    InvoiceState,
    OpenIntent,
    PeriodClosing,
    PeriodLock,
    UsageByDay,
    UsageByKeyDay,
)
from billing.partitions import add_months
from billing.periods import count_foreign_reversals, find_closed_until, hold_period_alone
from billing.statement_document import StatementError
from billing.summing_meters import list_unmatched_days, sum_meters
from policies import changes
from policies.errors import ConfigurationError, InvalidValueError
from policies.models import Tenant

logger = logging.getLogger(__name__)

GRACE_DAYS: Final = 3
MAX_GRACE_DAYS: Final = 60
# A run that has not said anything for so long is dead.
STALE_AFTER: Final = dt.timedelta(minutes=5)

FindingKind = Literal[
    "month_not_over", "grace_not_over", "earlier_month_open", "open_intents", "unmatched_days", "no_exchange_rate",
    "earlier_usage", "unpriced", "unknown", "not_reviewed", "not_summed",
]  # fmt: skip


class NotClosableError(ConfigurationError):
    """Something has to be done first; `findings` name what."""

    def __init__(self, month: dt.date, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__(f"{month:%Y-%m} cannot be closed: " + " ".join(one.text for one in findings))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know before closing. An obstacle keeps the month open."""

    kind: FindingKind
    text: str
    count: int
    is_obstacle: bool


@dataclass(frozen=True, slots=True)
class Preview:
    """What closing a month would meet and do. `charge_nanousd`: of all tenants, by the day sums."""

    month: dt.date
    is_closed: bool
    findings: tuple[Finding, ...]
    tenant_count: int
    charge_nanousd: int

    @property
    def obstacles(self) -> tuple[Finding, ...]:
        return tuple(one for one in self.findings if one.is_obstacle)


def find_closable_month(now: dt.datetime) -> dt.date:
    """The month to close next: the open one after a closing, before the first of all the last one."""
    today = now.astimezone(dt.UTC).date()
    return find_closed_until() or add_months(today.replace(day=1), -1)


def find_overdue_month(now: dt.datetime) -> dt.date | None:
    """The month that waits to be closed: over, its late records waited for, and with usage in it."""
    today = now.astimezone(dt.UTC).date()
    # One query, as the home page asks it: the first usage since what is closed, or of the last month.
    closed_until = Subquery(PeriodLock.objects.values("closed_until")[:1])
    since = Coalesce(closed_until, Value(add_months(today.replace(day=1), -1)))
    used = UsageByKeyDay.objects.filter(day__gte=since).order_by("day").values_list("day", flat=True)[:1]
    months = [day.replace(day=1) for day in used]
    return next((one for one in months if today >= add_months(one, 1) + dt.timedelta(days=GRACE_DAYS)), None)


def preview(*, month: dt.date, now: dt.datetime, grace_days: int = GRACE_DAYS) -> Preview:
    """Look, and change nothing. Reads sums by day, open requests and drafts; no records."""
    _check(month, grace_days)
    closed_until = find_closed_until()
    is_closed = closed_until is not None and month < closed_until
    days = UsageByKeyDay.objects.filter(day__gte=month, day__lt=add_months(month, 1))
    charged = days.values("tenant").annotate(charge=Sum("charge_nanousd")).filter(charge__gt=0)
    amounts = [row["charge"] for row in charged]
    found = () if is_closed else tuple(_find(month, closed_until, now=now, grace_days=grace_days))
    return Preview(month, is_closed, found, len(amounts), sum(amounts))


def close_period(
    *, month: dt.date, actor: str, now: dt.datetime, grace_days: int = GRACE_DAYS
) -> PeriodClosing:
    """Close a month and issue its statements, all at once. Raises NotClosableError."""
    closing = ask_closing(month=month, actor=actor, now=now, grace_days=grace_days)
    run_closing(closing.pk, now=now)
    closing.refresh_from_db()
    return closing


def ask_closing(
    *, month: dt.date, actor: str, now: dt.datetime, grace_days: int = GRACE_DAYS
) -> PeriodClosing:
    """Note that somebody wants a month closed; `run_closing` does it. Raises NotClosableError.

    A month that is closed stays as it is; what was left of its statements is tried again.
    """
    seen = preview(month=month, now=now, grace_days=grace_days)
    if seen.obstacles:
        raise NotClosableError(month, seen.obstacles)
    with transaction.atomic():
        row, is_new = PeriodClosing.objects.select_for_update(no_key=True).get_or_create(
            month=month, defaults={"grace_days": grace_days, "asked_at": now, "asked_by": actor[:150]}
        )
        is_over = row.state == ClosingState.FAILED or (row.state == ClosingState.DONE and row.left)
        if not is_new and is_over:
            row.state, row.error, row.error_detail = ClosingState.WAITING, "", ""
            row.grace_days = grace_days
            row.asked_at, row.asked_by = now, actor[:150]
            row.save()
    return row


def list_unfinished(*, now: dt.datetime) -> list[int]:
    """Closings whose task was lost or whose process died."""
    stale = Q(state=ClosingState.RUNNING, heartbeat_at__lt=now - STALE_AFTER)
    return list(
        PeriodClosing.objects.filter(Q(state=ClosingState.WAITING) | stale).values_list("pk", flat=True)
    )


def run_closing(closing_id: int, *, now: dt.datetime) -> None:
    """Do what was asked for, if nobody else does. Refusals stand in the row, other errors are raised too."""
    free = Q(state=ClosingState.WAITING) | Q(state=ClosingState.RUNNING, heartbeat_at__lt=now - STALE_AFTER)
    claimed = PeriodClosing.objects.filter(free, pk=closing_id).update(
        state=ClosingState.RUNNING, heartbeat_at=now, done_count=0
    )
    if not claimed:
        return
    row = PeriodClosing.objects.get(pk=closing_id)
    try:
        _lock(row, now=now)
        left = _issue_all(row, now=now)
    except ConfigurationError as refusal:
        _finish(row, ClosingState.FAILED, error=str(refusal), now=now)
    except BaseException as failure:
        let_go_of_a_broken_connection()
        told = explain_failure(failure)
        _finish(row, ClosingState.FAILED, error=told.text, detail=told.detail, now=now)
        raise
    else:
        PeriodClosing.objects.filter(pk=row.pk).update(left=left)
        _finish(row, ClosingState.DONE, error="", now=now)


def _find(
    month: dt.date, closed_until: dt.date | None, *, now: dt.datetime, grace_days: int, is_final: bool = False
) -> Iterator[Finding]:
    after = add_months(month, 1)
    today = now.astimezone(dt.UTC).date()
    if today < after:
        yield _obstacle("month_not_over", f"It ends on {last_day_of(month)} (UTC).")
    elif today < after + dt.timedelta(days=grace_days):
        until = after + dt.timedelta(days=grace_days)
        yield _obstacle("grace_not_over", f"Late records are waited for until {until} (UTC).")
    if closed_until is not None and month > closed_until:
        yield _obstacle("earlier_month_open", f"{closed_until:%B %Y} has to be closed first.")
    open_count = OpenIntent.objects.filter(id__lt=_first_id_of(after)).count()
    if open_count:
        yield _obstacle(
            "open_intents",
            f"{open_count:,} requests have begun and not ended yet, or are not ingested.",
            open_count,
        )
    yield from _find_unmatched(month, is_final=is_final)
    yield from _find_missing_rates(month)
    yield from _list_notices(month, closed_until)


def _find_unmatched(month: dt.date, *, is_final: bool) -> Iterator[Finding]:
    unmatched = list_unmatched_days(first_day=month, last_day=last_day_of(month))
    # What still is to be summed after all was has lost its records.
    wrong = [one for one in unmatched if is_final or not one.is_to_be_summed]
    if wrong:
        days = ", ".join(sorted({f"{one.day}" for one in wrong})[:5])
        text = (
            f"The meters of {len(wrong):,} days are not what Spend says ({days}): run manage.py verify_usage."
        )
        yield _obstacle("unmatched_days", text, len(wrong))
    if waiting := len(unmatched) - len(wrong):
        day_count = len({one.day for one in unmatched} - {one.day for one in wrong})
        text = f"{day_count} day{' is' if day_count == 1 else 's are'} summed anew when it is closed."
        yield Finding("not_summed", text, waiting, False)


def _find_missing_rates(month: dt.date) -> Iterator[Finding]:
    last_day = last_day_of(month)
    days = UsageByKeyDay.objects.filter(day__gte=month, day__lte=last_day, charge_nanousd__gt=0)
    tenants = Tenant.objects.filter(pk__in=days.order_by().values("tenant").distinct())
    # Without a profile a tenant is billed in USD, which needs no rate.
    currencies = set(BillingProfile.objects.filter(tenant__in=tenants).values_list("currency", flat=True))
    for currency in sorted(currencies):
        if find_rate(currency=currency, on=last_day) is None:
            yield _obstacle("no_exchange_rate", f"There is no exchange rate of {currency} for {last_day}.")


def _list_notices(month: dt.date, closed_until: dt.date | None) -> Iterator[Finding]:
    days = UsageByKeyDay.objects.filter(day__gte=month, day__lt=add_months(month, 1))
    sums = days.aggregate(unpriced=Sum("unpriced_count"), unknown=Sum("unknown_count"))
    unpriced = int(sums["unpriced"] or 0) + count_foreign_reversals(month)
    unknown = int(sums["unknown"] or 0)
    if unpriced > 0:
        text = f"{unpriced:,} requests have no price and are not charged; priced later, they are on a later statement."
        yield Finding("unpriced", text, unpriced, False)
    if unknown > 0:
        text = f"The usage of {unknown:,} requests is unknown; they are not charged."
        yield Finding("unknown", text, unknown, False)
    drafts = Invoice.objects.filter(month=month, state=InvoiceState.DRAFT).count()
    if drafts:
        yield Finding("not_reviewed", f"{drafts:,} drafts are not reviewed; closing does it.", drafts, False)
    earlier = UsageByDay.objects.filter(day__lt=month, charge_nanousd__gt=0)
    if closed_until is None and earlier.exists():
        text = "There is usage of earlier months, which will be on no statement. To bill it, close those months first."
        yield Finding("earlier_usage", text, 0, False)


def _lock(row: PeriodClosing, *, now: dt.datetime) -> None:
    """Close the month for records, unless it is; its meters are summed for good."""
    month, last_day = row.month, last_day_of(row.month)
    for day in (month + dt.timedelta(days=number) for number in range(last_day.day)):
        sum_meters(first_day=day, last_day=day)
        PeriodClosing.objects.filter(pk=row.pk).update(heartbeat_at=_later(now))
    with transaction.atomic():
        hold_period_alone()
        closed_until = find_closed_until()
        if closed_until is not None and month < closed_until:
            return
        # Nobody writes now: what came since the sums above is all there is.
        sum_meters(first_day=month, last_day=last_day)
        found = _find(month, closed_until, now=now, grace_days=row.grace_days, is_final=True)
        if obstacles := [one for one in found if one.is_obstacle]:
            raise NotClosableError(month, obstacles)
        PeriodLock.objects.update_or_create(id=1, defaults={"closed_until": add_months(month, 1)})
        row.locked_at = now
        row.save(update_fields=["locked_at"])
        changes.record_change(
            actor=row.asked_by,
            action="close",
            object_type="period",
            object_id=row.pk,
            object_name=f"{month:%Y-%m}",
            after={"closed_until": f"{add_months(month, 1)}", "grace_days": row.grace_days},
        )


def _issue_all(row: PeriodClosing, *, now: dt.datetime) -> list[dict[str, Any]]:
    """Issue what is not issued; return which statements were left, and why."""
    left: list[dict[str, Any]] = []
    tenants = Tenant.objects.in_bulk(list_billed_tenants(row.month))
    PeriodClosing.objects.filter(pk=row.pk).update(tenant_count=len(tenants))
    for tenant in sorted(tenants.values(), key=lambda tenant: tenant.name):
        try:
            if reason := _issue_one(tenant, row, now=now):
                left.append({"tenant": tenant.pk, "reason": reason})
        except ConfigurationError as refusal:
            left.append({"tenant": tenant.pk, "reason": str(refusal)})
        except (StatementError, DataError) as fault:
            # What is wrong with one statement keeps no other tenant from its own.
            logger.exception("The statement of %s for %s is left.", tenant, f"{row.month:%Y-%m}")
            left.append({"tenant": tenant.pk, "reason": f"It cannot be written: {str(fault)[:200]}"})
        PeriodClosing.objects.filter(pk=row.pk).update(
            done_count=F("done_count") + 1, heartbeat_at=_later(now)
        )
    return left


def _issue_one(tenant: Tenant, row: PeriodClosing, *, now: dt.datetime) -> str:
    """Issue a tenant's statement; the reason when it is left."""
    kept = invoicing.find_invoice(tenant=tenant, month=row.month)
    if kept is not None and kept.is_issued:
        return ""
    was_reviewed = kept is not None and kept.state == InvoiceState.REVIEWED
    invoice = invoicing.draft(tenant=tenant, month=row.month, actor=row.asked_by, now=now)
    if invoice is None:
        return ""
    if was_reviewed and invoice.state == InvoiceState.DRAFT:
        return "its sums changed since it was reviewed: look at it again, and issue it"
    invoicing.review(invoice=invoice, actor=row.asked_by, now=now)
    invoicing.issue(invoice=invoice, actor=row.asked_by, now=now)
    return ""


def _finish(
    row: PeriodClosing, state: ClosingState, *, error: str, now: dt.datetime, detail: str = ""
) -> None:
    PeriodClosing.objects.filter(pk=row.pk).update(
        state=state, error=error[:2000], error_detail=detail, finished_at=now
    )


def _later(now: dt.datetime) -> dt.datetime:
    """The heartbeat is of the clock; a run that is told another time (a test, a command) is as old as that."""
    return max(now, dt.datetime.now(dt.UTC))


def _first_id_of(day: dt.date) -> uuid.UUID:
    """No request id (UUIDv7) of before that day is above this."""
    at = dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)
    return uuid.UUID(int=int(at.timestamp() * 1000) << 80)


def _obstacle(kind: FindingKind, text: str, count: int = 1) -> Finding:
    return Finding(kind, text, count, is_obstacle=True)


def _check(month: dt.date, grace_days: int) -> None:
    if month.day != 1:
        raise InvalidValueError({"month": ["a month is named by its first day"]})
    if not 0 <= grace_days <= MAX_GRACE_DAYS:
        raise InvalidValueError({"grace_days": [f"from 0 to {MAX_GRACE_DAYS} days"]})
