"""Does the demo's invented week look like traffic, tie to its rollups, and come once?"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from django.utils import timezone

from billing.ingesting import Ingester
from billing.models import AttemptRecord, RequestRecord
from billing.verifying import verify
from gateway import demo_traffic, demo_week
from gateway.bootstrap import bootstrap

pytestmark = pytest.mark.django_db
DAYS = 2


def test_the_week_is_the_same_for_the_same_moment_and_another_for_another() -> None:
    now_unix_s = dt.datetime(2026, 3, 4, 15, tzinfo=dt.UTC).timestamp()
    week = demo_week.list_turns(now_unix_s)
    assert week == demo_week.list_turns(now_unix_s)
    assert 5_000 < len(week) < 10_000
    assert all(now_unix_s - 7 * 86_400 <= turn.at_unix_s < now_unix_s for turn in week)
    at_weekend = [t for t in week if dt.datetime.fromtimestamp(t.at_unix_s, dt.UTC).isoweekday() > 5]
    assert len(at_weekend) / 2 < (len(week) - len(at_weekend)) / 5


def test_the_week_becomes_records_that_tie_and_comes_once(tmp_path: Path) -> None:
    bootstrap(environment={}, with_demo=True)
    set_up_at = dt.datetime(2026, 3, 5, 12, tzinfo=dt.UTC)  # a Thursday
    count = demo_traffic.write_demo_week(data_dir=tmp_path, set_up_at=set_up_at, days=DAYS)
    ingester = Ingester(tmp_path)
    ingester.ingest_available()
    assert (ingester.counters.record_count, ingester.counters.rejected_count) == (count, 0)
    assert verify(now=timezone.now()).is_ok
    records = RequestRecord.objects.all()
    assert set(records.values_list("status", flat=True)) == {"ok", "error", "refused", "cancelled"}
    assert not records.filter(is_unpriced=True).exists()
    assert records.filter(started_at__gte=set_up_at).count() == 0
    assert AttemptRecord.objects.filter(outcome="http_error").exists()
    assert "ejected" in {reason for r in records for _, reason in r.decision.get("dropped", [])}

    demo_traffic.write_demo_week(data_dir=tmp_path, set_up_at=set_up_at, days=DAYS)
    ingester.ingest_available()
    assert RequestRecord.objects.count() == count


def test_no_week_beside_real_providers_or_without_a_demo_or_long_after_it() -> None:
    now = timezone.now()
    assert demo_traffic.find_due_moment(now) is None
    bootstrap(environment={}, with_demo=True)
    assert demo_traffic.find_due_moment(timezone.now()) is not None
    assert demo_traffic.find_due_moment(timezone.now() + dt.timedelta(days=1)) is None
    bootstrap(environment={"GEMINI_API_KEY": "sk-x"}, with_demo=True)
    assert demo_traffic.find_due_moment(timezone.now()) is None
