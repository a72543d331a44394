"""Do old months of records go, and only they, and does everything that reads records know?"""

from __future__ import annotations

import datetime as dt
import json
import threading
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.models import Sum
from django.utils import timezone

from billing import retention, tasks
from billing.models import AttemptRecord, RequestRecord, UsageByDay, WorkloadUsage
from billing.partitions import add_months, drop_months_before, ensure_months, list_months, month_of
from billing.retention import MonthBusyError, drop_old_months, find_records_since, list_old_months
from billing.workload_usage import collect_workloads
from policies.errors import InvalidValueError
from policies.models import ChangeEvent
from tests import make

NOW = dt.datetime(2031, 3, 15, 12, tzinfo=dt.UTC)


def month_before(count: int) -> dt.date:
    return add_months(month_of(timezone.now()), -count)


@pytest.fixture
def world(db: None, tmp_path: Path, settings: Any) -> make.World:
    """One answered request now and one four months ago."""
    settings.POINTSMAN_DATA_DIR = tmp_path
    world = make.world()
    old = dt.datetime.combine(month_before(4), dt.time(12), tzinfo=dt.UTC)
    make.ingest(
        tmp_path, [*make.request_lines(world), *make.request_lines(world, request_id=make.request_id_at(old))]
    )
    assert RequestRecord.objects.count() == 2
    return world


def run(**options: Any) -> str:
    output = StringIO()
    call_command("prune_records", stdout=output, **options)
    return output.getvalue()


@pytest.mark.django_db
def test_the_current_and_the_last_month_never_go() -> None:
    months = [dt.date(2031, 1, 1), dt.date(2031, 2, 1), dt.date(2031, 3, 1), dt.date(2031, 4, 1)]
    ensure_months(months)
    named = [month.first_day for month in list_old_months(keep_months=1, now=NOW)]
    assert dt.date(2031, 1, 1) in named
    assert not {*months[1:]} & {*named}
    assert dt.date(2031, 1, 1) not in [m.first_day for m in list_old_months(keep_months=2, now=NOW)]
    for wrong in (0, -1, 10**9):
        with pytest.raises(InvalidValueError, match="at least the one before it"):
            list_old_months(keep_months=wrong, now=NOW)


def test_records_go_sums_stay_and_the_audit_log_says_so(world: make.World) -> None:
    cost = UsageByDay.objects.aggregate(total=Sum("cost_nanousd"))["total"]
    gone = f"{month_before(4):%Y-%m}"
    assert f"would go: {gone}" in run(keep_months=3, dry_run=True)
    assert RequestRecord.objects.count() == 2
    assert f"dropped: {gone}" in run(keep_months=3)
    assert (RequestRecord.objects.count(), AttemptRecord.objects.count()) == (1, 1)
    assert UsageByDay.objects.aggregate(total=Sum("cost_nanousd"))["total"] == cost
    # Other tests may have left older months, which go with it.
    event = ChangeEvent.objects.get(object_type="request_records", object_name=gone)
    assert (event.action, event.object_name, event.actor) == ("drop", gone, "manage.py prune_records")
    assert event.before is not None
    assert event.before["size_bytes"] > 0
    assert "No month is old enough" in run(keep_months=3)
    with pytest.raises(CommandError, match="1 to 1200"):
        run(keep_months=0)


def test_what_cannot_be_verified_any_more_is_named_and_the_rest_is_right(
    world: make.World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(keep_months=3)
    # A line that comes after its month was dropped: recorded, but its month is not whole.
    late = dt.datetime.combine(month_before(4), dt.time(13), tzinfo=dt.UTC)
    make.ingest(tmp_path, make.request_lines(world, request_id=make.request_id_at(late)))
    assert month_before(4) in list_months()
    call_command("verify_usage")
    said = capsys.readouterr().out
    assert f"the rollups of {month_before(4):%Y-%m}." in said
    assert "every cost and every rollup is right" in said
    result = json.loads((tmp_path / "run" / "verify.json").read_text())
    assert result["unchecked_months"] == [f"{month_before(4):%Y-%m}"]
    assert find_records_since() == month_before(3)


def test_a_late_record_of_a_dropped_month_does_not_replace_its_sums_by_workload(
    world: make.World, tmp_path: Path
) -> None:
    old = dt.datetime.combine(month_before(2), dt.time(12), tzinfo=dt.UTC)
    now = old + dt.timedelta(days=75)

    def recorded(at: dt.datetime) -> None:
        lines = make.request_lines(world, request_id=make.request_id_at(at))
        lines[0]["features"] = {"workload": "00112233445566ff"}
        make.ingest(tmp_path, lines, worker=f"worker-{at.minute}")

    recorded(old)
    recorded(old.replace(minute=1))
    collect_workloads(now=now)
    before = list(WorkloadUsage.objects.filter(day=old.date()).values("request_count", "cost_nanousd"))
    assert [row["request_count"] for row in before] == [2]
    run(keep_months=1)
    recorded(old.replace(minute=2))
    collect_workloads(now=now)
    assert (
        list(WorkloadUsage.objects.filter(day=old.date()).values("request_count", "cost_nanousd")) == before
    )


def test_a_month_that_went_some_other_way_is_no_difference_but_named(
    world: make.World, capsys: pytest.CaptureFixture[str]
) -> None:
    drop_months_before(month_before(3))
    call_command("verify_usage")
    assert "Not checked" in capsys.readouterr().out


@pytest.mark.parametrize(("keep_months", "left"), [(0, 2), (3, 1), (-5, 2)])
def test_the_daily_task_drops_only_when_it_was_told_to(
    world: make.World, settings: Any, keep_months: int, left: int
) -> None:
    settings.POINTSMAN_KEEP_MONTHS = keep_months
    tasks.prune_records()
    assert RequestRecord.objects.count() == left


def test_a_month_that_is_read_stays_and_nobody_waits_long(
    transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "LOCK_TIMEOUT_MS", 50)
    ensure_months([dt.date(2021, 5, 1)])
    is_reading, may_end = threading.Event(), threading.Event()

    def read() -> None:
        with transaction.atomic():
            assert not RequestRecord.objects.filter(started_at__lt=NOW.replace(year=2022)).exists()
            is_reading.set()
            may_end.wait(10)
        connection.close()

    reader = threading.Thread(target=read)
    reader.start()
    assert is_reading.wait(10)
    try:
        with pytest.raises(MonthBusyError, match="2021-05 are in use"):
            drop_old_months(keep_months=1, now=timezone.now(), actor="test")
    finally:
        may_end.set()
        reader.join()
    assert dt.date(2021, 5, 1) in list_months()
    assert not ChangeEvent.objects.filter(object_type="request_records").exists()
    drop_old_months(keep_months=1, now=timezone.now(), actor="test")
    assert dt.date(2021, 5, 1) not in list_months()
