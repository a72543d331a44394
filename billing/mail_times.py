"""When is a scheduled mail due? An hour of a day in a time zone, daily, weekly or monthly.

Pure. Times are of the calendar where the reader lives: an hour that a change of clocks skips is the one after it, one
that it repeats is the first of the two, so that every day has its mail once.
"""

from __future__ import annotations

import datetime as dt
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

DAY: Final = dt.timedelta(days=1)
# A day that matches is never further away than a month.
LOOK_DAYS: Final = 32


class MailTimes(NamedTuple):
    """`rhythm`: daily, weekly (then `weekday`, 0 is Monday), monthly (then `month_day`, 1 to 28)."""

    rhythm: str
    hour: int
    time_zone: str
    weekday: int = 0
    month_day: int = 1

    def latest(self, now: dt.datetime) -> dt.datetime:
        """The last moment, in UTC, at which it was due."""
        return next(
            at for offset in range(LOOK_DAYS) if (at := self._at(now, -offset)) is not None and at <= now
        )

    def following(self, now: dt.datetime) -> dt.datetime:
        """The next moment, in UTC, at which it will be due."""
        return next(
            at for offset in range(LOOK_DAYS) if (at := self._at(now, offset)) is not None and at > now
        )

    def _at(self, now: dt.datetime, offset_days: int) -> dt.datetime | None:
        zone = ZoneInfo(self.time_zone)
        day = now.astimezone(zone).date() + DAY * offset_days
        if self.rhythm == "weekly" and day.weekday() != self.weekday:
            return None
        if self.rhythm == "monthly" and day.day != self.month_day:
            return None
        return dt.datetime(day.year, day.month, day.day, self.hour, tzinfo=zone).astimezone(dt.UTC)
