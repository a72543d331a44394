"""Are there partitions for the months to come, and do old ones go?"""

from __future__ import annotations

import datetime as dt

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing.partitions import (
    add_months,
    drop_months_before,
    ensure_months,
    ensure_months_ahead,
    list_months,
    month_of,
)
from billing.tasks import prepare_partitions

pytestmark = pytest.mark.django_db


def test_months_are_counted_over_years_and_in_utc() -> None:
    assert add_months(dt.date(2026, 11, 1), 3) == dt.date(2027, 2, 1)
    assert add_months(dt.date(2026, 1, 1), -1) == dt.date(2025, 12, 1)
    berlin = dt.timezone(dt.timedelta(hours=1))
    assert month_of(dt.datetime(2026, 2, 1, 0, 30, tzinfo=berlin)) == dt.date(2026, 1, 1)


def test_the_coming_months_are_made_once() -> None:
    now = dt.datetime(2035, 12, 31, 23, 59, tzinfo=dt.UTC)
    ensure_months_ahead(now)
    assert set(list_months()) >= {dt.date(2035, 12, 1), dt.date(2036, 1, 1), dt.date(2036, 2, 1)}
    with CaptureQueriesContext(connection) as queries:
        ensure_months([dt.date(2035, 12, 1)])
    assert len(queries) == 1  # it looks, and creates nothing


def test_old_months_are_dropped_whole_and_newer_ones_stay() -> None:
    ensure_months([dt.date(2021, 5, 1), dt.date(2021, 6, 1), dt.date(2021, 7, 1)])
    assert drop_months_before(dt.date(2021, 7, 1)) == [dt.date(2021, 5, 1), dt.date(2021, 6, 1)]
    assert min(list_months()) == dt.date(2021, 7, 1)


def test_the_daily_task_prepares_the_months_ahead() -> None:
    prepare_partitions()
    assert add_months(month_of(dt.datetime.now(dt.UTC)), 2) in list_months()
