"""What will this month have cost at its end?

Pure. The days that are left are taken to cost the mean of the last seven whole days (a week: every weekday once), or
of the days since the first request when that is less. A few days say little, and the forecast says of how many it is.
"""

from __future__ import annotations

import calendar
import datetime as dt
from collections.abc import Sequence
from typing import Final, NamedTuple

from billing.reports import DayPoint

LOOK_BACK_DAYS: Final = 7


class Forecast(NamedTuple):
    """`total_nanousd` = spent until now + the rest of today and `days_left` days at `a_day_nanousd` each."""

    total_nanousd: int
    a_day_nanousd: int
    mean_of_days: int
    days_left: int
    unpriced_count: int


def forecast_month(points: Sequence[DayPoint], *, spent_nanousd: int, today: dt.date) -> Forecast | None:
    """Foresee the month of `today`; None without a whole day to go by.

    `points` end with today and begin at least seven days before; `spent_nanousd` is the month's, today included.
    """
    whole = [point for point in points if point.day < today][-LOOK_BACK_DAYS:]
    while whole and not whole[0].totals.request_count:
        whole.pop(0)
    if not whole:
        return None
    costs = sum(point.totals.cost_nanousd for point in whole)
    a_day = (2 * costs + len(whole)) // (2 * len(whole))
    spent_today = sum(point.totals.cost_nanousd for point in points if point.day == today)
    days_left = calendar.monthrange(today.year, today.month)[1] - today.day
    # Today costs what it has cost already, or a mean day if that is more.
    rest_of_today = max(0, a_day - spent_today)
    return Forecast(
        total_nanousd=spent_nanousd + rest_of_today + a_day * days_left,
        a_day_nanousd=a_day,
        mean_of_days=len(whole),
        days_left=days_left,
        unpriced_count=sum(point.totals.unpriced_count for point in whole),
    )
