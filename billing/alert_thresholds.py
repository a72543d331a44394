"""What is worth telling of a budget's window at a moment?

Pure. Integers of nano-USD. Used is what is spent and what nobody knows the cost of, at most.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from typing import Final, NamedTuple

from billing.budget_arithmetic import WindowNumbers

THRESHOLDS: Final = (("used_50", 50), ("used_80", 80), ("used_100", 100))
FORECAST: Final = "forecast"
# A request refused before this much is used was a large one; the budget has room for others.
REFUSING_FROM_PERCENT: Final = 80
# So much of a window must have passed before it is foreseen where it leads, and at least a day.
LEAST_SHARE: Final = 10


class Noticed(NamedTuple):
    """One fact. `is_told` False: a graver one of the same moment says it all."""

    kind: str
    forecast_nanousd: int | None
    is_told: bool


def forecast_window(
    used_nanousd: int, *, starts_at: dt.datetime, ends_at: dt.datetime | None, now: dt.datetime
) -> int | None:
    """Spend so far and a mean day for each day left; None where that cannot be said (yet).

    A window of a day or without an end has none, nor has one of which less than a tenth, or a day, has passed.
    """
    if ends_at is None or now >= ends_at:
        return None
    passed, length = now - starts_at, ends_at - starts_at
    if passed < max(dt.timedelta(days=1), length / LEAST_SHARE):
        return None
    # Days as whole seconds, so that no float touches the money.
    return used_nanousd * int(length.total_seconds()) // int(passed.total_seconds())


def list_due(
    numbers: WindowNumbers,
    *,
    starts_at: dt.datetime,
    ends_at: dt.datetime | None,
    now: dt.datetime,
    known: Collection[str] = (),
    is_refusing: bool = False,
) -> list[Noticed]:
    """What holds of a window and is not known yet. Of several thresholds at once the highest is told.

    A hard budget that refuses is used up: what is left of it is too little for what is asked, and may stay so.
    """
    used = numbers.spent_nanousd + numbers.uncertain_nanousd
    if is_refusing:
        used = max(used, numbers.limit_nanousd)
    reached = [kind for kind, percent in THRESHOLDS if used * 100 >= numbers.limit_nanousd * percent]
    new = [kind for kind in reached if kind not in known]
    due = [Noticed(kind, None, kind == reached[-1]) for kind in new]
    if used < numbers.limit_nanousd and FORECAST not in known:
        forecast = forecast_window(used, starts_at=starts_at, ends_at=ends_at, now=now)
        if forecast is not None and forecast > numbers.limit_nanousd:
            due.append(Noticed(FORECAST, forecast, True))
    return due
