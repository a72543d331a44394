"""Which budgets have passed a threshold or will be exceeded, and who is told?

Writes: budget_alert, alert_delivery, in one transaction a window. Reads: budgets' windows, and of those nearly used up
the last minutes' refusals; by the clock, never on the path of a request. A row is unique for window, kind and limit,
so whoever notices twice tells once; a changed limit is another threshold.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Q

from billing.alert_deliveries import queue_delivery
from billing.alert_recipients import list_recipients
from billing.alert_thresholds import REFUSING_FROM_PERCENT, Noticed, list_due
from billing.alert_words import message_of
from billing.budget_scopes import terms_of
from billing.budget_standing import OWNERS, numbers_of
from billing.models import BudgetAlert, BudgetWindow, RequestRecord

# A window that has just ended: its last requests may still be on their way.
LATE = dt.timedelta(hours=1)
# Refusals are looked for this far back, and alerts every minute.
OF_LATE = dt.timedelta(minutes=10)
USED_UP = BudgetAlert.Kind.ALL


def notice(*, now: dt.datetime) -> int:
    """Note what is new of all windows that run, and queue its messages; return how many alerts there were."""
    return sum(_note(window, due, now) for window, due in _list_new(now))


def _list_new(now: dt.datetime) -> Iterator[tuple[BudgetWindow, list[Noticed]]]:
    windows = BudgetWindow.objects.filter(
        Q(ends_at__isnull=True) | Q(ends_at__gt=now - LATE),
        Q(spent_nanousd__gt=0) | Q(uncertain_nanousd__gt=0),
        budget__is_enabled=True,
        starts_at__lte=now,
    )
    known: dict[int, set[str]] = defaultdict(set)
    alerts = BudgetAlert.objects.filter(window__in=windows, limit_nanousd=F("window__limit_nanousd"))
    for window_id, kind in alerts.order_by().values_list("window_id", "kind"):
        known[window_id].add(kind)
    budgets = windows.select_related(*(f"budget__{name}" for name in OWNERS))
    for window in budgets.order_by("id").iterator():
        due = list_due(
            numbers_of(window),
            starts_at=window.starts_at,
            ends_at=window.ends_at,
            now=now,
            known=known[window.pk],
            is_refusing=USED_UP not in known[window.pk] and _is_refusing(window, now),
        )
        if due:
            yield window, due


def _is_refusing(window: BudgetWindow, now: dt.datetime) -> bool:
    """Whether a hard budget that is nearly used up has refused a request of late."""
    budget, used = window.budget, window.spent_nanousd + window.uncertain_nanousd
    if (
        not budget.is_hard
        or budget.tenant_id is None  # what does not fit into a deployment's goes to others
        or used * 100 < window.limit_nanousd * REFUSING_FROM_PERCENT
    ):
        return False
    return RequestRecord.objects.filter(
        tenant_id=budget.tenant_id,
        started_at__gte=max(window.starts_at, now - OF_LATE),
        error_code="budget_exceeded",
        features__refused_by=f"budget of {terms_of(budget).name}",
    ).exists()


@transaction.atomic
def _note(window: BudgetWindow, due: list[Noticed], now: dt.datetime) -> int:
    new = [found for one in due if (found := _insert(window, one, now)) is not None]
    told = [alert_id for alert_id, is_told in new if is_told]
    if told:
        alerts = BudgetAlert.objects.select_related(*(f"window__budget__{name}" for name in OWNERS)).in_bulk(
            told
        )
        for recipient in list_recipients(alerts[told[0]].window.budget):
            for alert in alerts.values():
                message = message_of(alert, recipient.channel, public_url=settings.POINTSMAN_PUBLIC_URL)
                queue_delivery(recipient=recipient, message=message, alert=alert, now=now)
    return len(new)


def _insert(window: BudgetWindow, one: Noticed, now: dt.datetime) -> tuple[int, bool] | None:
    """The new alert's id; None when somebody else has noticed it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO billing_budgetalert (window_id, kind, limit_nanousd, used_nanousd, forecast_nanousd,"
            " is_told, noticed_at) VALUES (%s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (window_id, kind, limit_nanousd) DO NOTHING RETURNING id",
            [
                window.pk,
                one.kind,
                window.limit_nanousd,
                window.spent_nanousd + window.uncertain_nanousd,
                one.forecast_nanousd,
                one.is_told,
                now,
            ],
        )
        row = cursor.fetchone()
        return None if row is None else (row[0], one.is_told)
