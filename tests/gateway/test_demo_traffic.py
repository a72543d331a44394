"""Does the demo's invented week look like traffic, tie to its rollups, and come once?"""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path

import pytest
from django.utils import timezone

from billing.ingesting import Ingester
from billing.models import AttemptRecord, Feedback, RequestRecord
from billing.verifying import verify
from gateway import demo_edition, demo_traffic, demo_week
from gateway.bootstrap import bootstrap
from gateway.snapshots import load_everything
from policies.replaying import StoredRequest, differing_members, recompute

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


def test_the_week_becomes_records_that_tie_decide_the_same_again_and_come_once(tmp_path: Path) -> None:
    bootstrap(environment={}, with_demo=True)
    set_up_at = dt.datetime(2026, 3, 5, 12, tzinfo=dt.UTC)  # a Thursday
    count = demo_traffic.write_demo_week(data_dir=tmp_path, set_up_at=set_up_at, days=DAYS)
    ingester = Ingester(tmp_path)
    ingester.ingest_available()
    assert (ingester.counters.record_count, ingester.counters.rejected_count) == (count, 0)
    assert verify(now=timezone.now()).is_ok
    records = list(RequestRecord.objects.select_related("tenant", "project", "api_key"))
    assert {record.status for record in records} == {"ok", "error", "refused", "cancelled"}
    assert not any(record.is_unpriced or record.started_at >= set_up_at for record in records)
    assert AttemptRecord.objects.filter(outcome="http_error").exists()
    assert "ejected" in {reason for record in records for _, reason in record.decision.get("dropped", [])}
    # Several models answer for the policy's automatic rule, and conversations stay with theirs.
    chosen = {record.deployment_id for record in records if record.decision.get("strategy") == "auto"}
    assert len(chosen - {None}) >= 3
    assert "kept" in {record.decision.get("pin", [""])[0] for record in records}
    assert Feedback.objects.count() > 20

    loaded = load_everything()
    grants = {grant.key_id: grant for grant in loaded.grants.values()}
    for record in records[::4]:
        if record.decision:
            again = recompute(
                stored_request(record), snapshot=loaded.routing, grant=grants[record.api_key_id]
            )
            assert differing_members(record.decision, again) == [], record.decision

    demo_traffic.write_demo_week(data_dir=tmp_path, set_up_at=set_up_at, days=DAYS)
    ingester.ingest_available()
    assert RequestRecord.objects.count() == count


def test_a_demo_that_other_code_set_up_gets_no_more_traffic(monkeypatch: pytest.MonkeyPatch) -> None:
    bootstrap(environment={}, with_demo=True)
    ours = demo_edition.edition()
    assert demo_traffic.find_due_moment(timezone.now()) is not None
    monkeypatch.setattr(demo_edition, "edition", lambda: f"newer than {ours}")
    assert demo_traffic.find_due_moment(timezone.now()) is None
    assert demo_traffic.find_set_up_moment(timezone.now()) is None


def test_an_edition_is_what_the_demos_files_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in demo_edition._SAID_BY:
        shutil.copy(Path(demo_edition.__file__).with_name(name), tmp_path)
    monkeypatch.setattr(demo_edition, "__file__", str(tmp_path / "demo_edition.py"))
    same = demo_edition.edition.__wrapped__()
    assert same == demo_edition.edition()
    with (tmp_path / "demo_week.py").open("a") as file:
        file.write("DAYS = 9\n")
    assert demo_edition.edition.__wrapped__() != same


def stored_request(record: RequestRecord) -> StoredRequest:
    return StoredRequest(
        record.requested_model,
        record.endpoint,
        record.is_stream,
        record.is_pinned,
        record.tenant.name,
        record.project.name,
        record.api_key.name,
        record.tags,
        record.features,
        record.decision,
    )


def test_no_week_beside_real_providers_or_without_a_demo_or_long_after_it() -> None:
    now = timezone.now()
    assert demo_traffic.find_due_moment(now) is None
    bootstrap(environment={}, with_demo=True)
    assert demo_traffic.find_due_moment(timezone.now()) is not None
    assert demo_traffic.find_due_moment(timezone.now() + dt.timedelta(days=1)) is None
    bootstrap(environment={"GEMINI_API_KEY": "sk-x"}, with_demo=True)
    assert demo_traffic.find_due_moment(timezone.now()) is None
