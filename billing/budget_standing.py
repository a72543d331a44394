"""How does each budget stand right now?

Reads: budget, its windows, what was noticed of them.
"""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple

from django.db.models import F, FloatField, Q, QuerySet
from django.db.models.functions import Cast

from billing.budget_arithmetic import WindowNumbers, span_at
from billing.budget_scopes import load_scopes
from billing.models import Budget, BudgetAlert, BudgetWindow
from policies.models import ApiKey

NEAR_RATIO = 0.8
# What a budget's name is made of.
OWNERS = ("tenant", "project__tenant", "api_key__project__tenant", "model", "deployment")


class Standing(NamedTuple):
    """One budget and its window that runs. `used_ratio` counts what is spent or unknown, not what is held."""

    budget: Budget
    starts_at: dt.datetime
    ends_at: dt.datetime | None
    numbers: WindowNumbers
    used_ratio: float

    @property
    def used_nanousd(self) -> int:
        return self.numbers.spent_nanousd + self.numbers.uncertain_nanousd

    @property
    def used_percent(self) -> int:
        return int(self.used_ratio * 100)

    @property
    def left_nanousd(self) -> int:
        """What is neither used nor held; nothing when the budget is overdrawn."""
        return max(0, self.numbers.room_nanousd())

    @property
    def state(self) -> str:
        if not self.budget.is_enabled:
            return "disabled"
        if self.used_ratio > 1:
            return "over"
        if self.used_ratio >= 1:
            return "used up"
        return "near" if self.used_ratio >= NEAR_RATIO else ""


def list_standing(budgets: QuerySet[Budget], *, now: dt.datetime) -> list[Standing]:
    """How budgets stand, the fullest first, those that are switched off last."""
    rows = list(budgets.select_related(*OWNERS))
    running = BudgetWindow.objects.filter(
        Q(ends_at__isnull=True) | Q(ends_at__gt=now), budget__in=[row.pk for row in rows], starts_at__lte=now
    )
    windows = {window.budget_id: window for window in running}
    found = [standing_of(row, windows.get(row.pk), now=now) for row in rows]
    return sorted(found, key=lambda one: (not one.budget.is_enabled, -one.used_ratio, str(one.budget)))


def list_near(*, now: dt.datetime, limit: int) -> list[Standing]:
    """The budgets in force of which most is used, soft ones too, the fullest first. One query."""
    used = F("spent_nanousd") + F("uncertain_nanousd")
    rows = (
        BudgetWindow.objects.filter(
            Q(ends_at__isnull=True) | Q(ends_at__gt=now), budget__is_enabled=True, starts_at__lte=now
        )
        .annotate(ratio=Cast(used, FloatField()) / Cast(F("limit_nanousd"), FloatField()))
        .filter(ratio__gte=NEAR_RATIO)
        .select_related(*(f"budget__{name}" for name in OWNERS))
        .order_by("-ratio", "id")
    )
    return [standing_of(row.budget, row, now=now) for row in rows[:limit]]


def list_foreseen(*, now: dt.datetime, limit: int) -> list[BudgetAlert]:
    """Budgets in force that will be exceeded, as was noticed, of which less than list_near names is used. One query."""
    used = (F("window__spent_nanousd") + F("window__uncertain_nanousd")) * 100
    return list(
        BudgetAlert.objects.filter(
            kind=BudgetAlert.Kind.FORECAST,
            limit_nanousd=F("window__limit_nanousd"),
            window__ends_at__gt=now,
            window__budget__is_enabled=True,
        )
        .annotate(used_percent=used / F("window__limit_nanousd"))
        .filter(used_percent__lt=NEAR_RATIO * 100)
        .select_related(*(f"window__budget__{name}" for name in OWNERS))
        .order_by("-noticed_at", "-id")[:limit]
    )


def list_of_key(key: ApiKey, *, now: dt.datetime) -> list[Standing]:
    """The budgets that a request of this key counts for: its own, its project's and its tenant's."""
    terms = load_scopes().find(key.project.tenant_id, key.project_id, key.pk)
    return list_standing(Budget.objects.filter(pk__in=[one.id for one in terms]), now=now) if terms else []


def standing_of(budget: Budget, window: BudgetWindow | None, *, now: dt.datetime) -> Standing:
    """How a budget stands in a window; None: nothing has been spent in the one that runs."""
    if window is not None:
        numbers = numbers_of(window)
        used = numbers.spent_nanousd + numbers.uncertain_nanousd
        return Standing(budget, window.starts_at, window.ends_at, numbers, used / numbers.limit_nanousd)
    span = span_at(
        budget.window,  # type: ignore[arg-type]  # the choices of the column
        budget.time_zone,
        now.timestamp(),
        counted_from_unix_s=int(budget.counted_from.timestamp()),
    )
    starts_at = dt.datetime.fromtimestamp(span.starts_unix_s, dt.UTC)
    ends_at = None if span.ends_unix_s is None else dt.datetime.fromtimestamp(span.ends_unix_s, dt.UTC)
    return Standing(budget, starts_at, ends_at, WindowNumbers(budget.limit_nanousd), 0.0)


def numbers_of(window: BudgetWindow) -> WindowNumbers:
    """A window's amounts."""
    return WindowNumbers(
        window.limit_nanousd, window.spent_nanousd, window.uncertain_nanousd, window.leased_nanousd
    )
