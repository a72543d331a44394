"""Is every total the sum of its records, however it is cut?"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from billing import recent_reports, reports
from billing.reports import DayTotals, Scope
from tests import make

pytestmark = pytest.mark.django_db

NOW = dt.datetime(2026, 5, 10, 14, 30, tzinfo=dt.UTC)
TODAY = NOW.date()
YESTERDAY = TODAY - dt.timedelta(days=1)


def request_at(world: make.World, at: dt.datetime, **outcome: Any) -> list[dict[str, Any]]:
    return make.request_lines(world, make.request_id_at(at), **outcome)


def ago(**time: float) -> dt.datetime:
    return NOW - dt.timedelta(**time)


@pytest.fixture
def worlds(tmp_path: Path) -> tuple[make.World, make.World]:
    one, other = make.world("one"), make.world("other")
    unknown = make.usage_line(kind="unknown", input=None, output=None)
    lines = [
        *request_at(one, ago(minutes=10), ms=100.0),
        *request_at(one, ago(minutes=20), ms=300.0, status="error", error="upstream_timeout"),
        *request_at(one, ago(hours=5), usage=make.usage_line(kind="estimated", reasoning=40)),
        *request_at(other, ago(minutes=40), cost=None, price=None, unpriced=True),
        *request_at(other, ago(hours=26), usage=unknown, cost=None, price=None),
        *request_at(other, ago(hours=24, minutes=5)),
        *request_at(other, ago(hours=23, minutes=5)),
        make.intent_line(other, make.request_id_at(ago(minutes=1)), policy=None, version=None),
    ]
    make.ingest(tmp_path, lines)
    return one, other


def test_a_period_counts_what_has_no_price_and_no_usage_beside_its_sum(
    worlds: tuple[make.World, make.World],
) -> None:
    assert reports.totals(first_day=TODAY, last_day=TODAY) == DayTotals(
        request_count=5,
        error_count=2,
        unpriced_count=1,
        estimated_count=1,
        unknown_count=1,
        input_tokens=4000,
        output_tokens=2000,
        cost_nanousd=3 * make.COST_NANOUSD,
        charge_nanousd=3 * make.COST_NANOUSD,
        cache_read_tokens=800,
        reasoning_tokens=40,
    )
    one, other = worlds
    assert reports.totals(
        first_day=YESTERDAY, last_day=TODAY, scope=Scope(tenant_id=one.tenant.pk)
    ).cost_nanousd == (3 * make.COST_NANOUSD)
    assert reports.totals(
        first_day=YESTERDAY, last_day=YESTERDAY, scope=Scope(api_key_id=other.key.pk)
    ).request_count == (3)
    assert reports.totals(first_day=dt.date(2020, 1, 1), last_day=dt.date(2020, 1, 2)) == DayTotals()


def test_the_totals_of_some_keys_are_those_of_each_and_leave_out_the_unused(
    worlds: tuple[make.World, make.World],
) -> None:
    one, other, unused = worlds[0].key.pk, worlds[1].key.pk, make.world().key.pk
    found = reports.totals_by_key([one, unused], first_day=YESTERDAY, last_day=TODAY)
    alone = reports.totals(first_day=YESTERDAY, last_day=TODAY, scope=Scope(api_key_id=one))
    assert found == {one: alone}
    assert set(reports.totals_by_key([one, other], first_day=YESTERDAY, last_day=TODAY)) == {one, other}


@pytest.mark.parametrize(
    "dimension", ["tenant", "project", "key", "model", "provider", "deployment", "policy"]
)
def test_groups_and_days_sum_to_the_total(worlds: tuple[make.World, make.World], dimension: Any) -> None:
    total = reports.totals(first_day=YESTERDAY, last_day=TODAY)
    groups = reports.group_by(dimension, first_day=YESTERDAY, last_day=TODAY)
    days = reports.series_by_day(first_day=YESTERDAY - dt.timedelta(days=1), last_day=TODAY)
    assert [point.totals.request_count for point in days] == [0, 3, 5]
    for parts in ([group.totals for group in groups], [point.totals for point in days]):
        for name in DayTotals.__dataclass_fields__:
            assert sum(getattr(part, name) for part in parts) == getattr(total, name)
    assert reports.group_by(dimension, first_day=YESTERDAY, last_day=TODAY, limit=1) == groups[:1]
    assert [group.totals.cost_nanousd for group in groups] == sorted(
        (group.totals.cost_nanousd for group in groups), reverse=True
    )
    assert worlds[0].tenant.name in {
        group.name for group in reports.group_by("tenant", first_day=TODAY, last_day=TODAY)
    }


def test_hours_are_all_there_and_know_mean_latency(worlds: tuple[make.World, make.World]) -> None:
    points = recent_reports.series_by_hour(since=ago(hours=3), until=NOW, tenant_id=worlds[0].tenant.pk)
    assert [point.begins_at.hour for point in points] == [11, 12, 13, 14]
    assert [point.totals.request_count for point in points] == [0, 0, 0, 2]
    assert points[-1].totals.mean_duration_ms == 200.0
    assert points[-1].totals.mean_first_token_ms == 4.5
    assert points[0].totals.mean_duration_ms is None
    assert points[0].totals.error_ratio is None


def test_today_is_compared_with_yesterday_until_the_same_time(
    worlds: tuple[make.World, make.World], django_assert_max_num_queries: Any
) -> None:
    with django_assert_max_num_queries(6):
        summary = recent_reports.today_summary(NOW)
    assert (summary.today.request_count, summary.today.error_count) == (5, 2)
    # Whole hours until 14:00 (one, at 12:30), and of the one at 14:25 the half hour that has passed: none.
    assert summary.yesterday_until_now.request_count == 1
    assert summary.yesterday_until_now.cost_nanousd == make.COST_NANOUSD // 2
    assert type(summary.yesterday_until_now.cost_nanousd) is int
    assert len(summary.last_24_hours) == 24
    assert summary.last_24_hours[-1].begins_at == NOW.replace(minute=0)
    assert sum(point.totals.request_count for point in summary.last_24_hours) == 6
    assert summary.top_keys[0].name == str(worlds[0].key)


def test_the_last_hour_has_percentiles_and_the_commonest_errors(
    worlds: tuple[make.World, make.World], monkeypatch: pytest.MonkeyPatch
) -> None:
    last_hour = recent_reports.read_last_hour(NOW)
    assert (last_hour.request_count, last_hour.is_cut) == (4, False)
    assert last_hour.p50_duration_ms == 100.0
    assert last_hour.p95_duration_ms == pytest.approx(280.0)
    assert {(one.status, one.error_code, one.count) for one in last_hour.errors} == {
        ("error", "upstream_timeout", 1),
        ("interrupted", "", 1),
    }
    monkeypatch.setattr(recent_reports, "MAX_RAW_ROWS", 2)
    assert (recent_reports.read_last_hour(NOW).request_count, recent_reports.read_last_hour(NOW).is_cut) == (
        2,
        True,
    )
    empty = recent_reports.read_last_hour(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    assert (empty.request_count, empty.p50_duration_ms, empty.errors) == (0, None, ())
