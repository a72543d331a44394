"""Does every journal line become a record exactly once, whatever happens around it?"""

from __future__ import annotations

import datetime as dt
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from django.db import OperationalError, connection
from django.db.models import Sum
from django.utils import timezone

from billing import ingesting, journal_files, storing
from billing.ingesting import Ingester
from billing.models import (
    AttemptRecord,
    JournalCursor,
    OpenIntent,
    RequestRecord,
    UsageByDay,
    UsageByHour,
)
from billing.pairing import match_lines
from billing.request_times import attempt_id_of
from billing.verifying import verify
from gateway.dataplane.request_ids import make_request_id
from gateway.journal import SegmentJournal
from tests import make

pytestmark = pytest.mark.django_db


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SegmentJournal]:
    """The journal of a living worker."""
    living = SegmentJournal(tmp_path)
    yield living
    if not living._stopping.is_set():
        living.close()


def rejected(data_dir: Path) -> list[dict[str, Any]]:
    path = data_dir / "journal" / "rejected.jsonl"
    return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def assert_consistent() -> None:
    found = verify(now=timezone.now())
    assert found.differences == ()
    assert (UsageByDay.objects.aggregate(n=Sum("request_count"))["n"] or 0) == RequestRecord.objects.count()
    assert (UsageByHour.objects.aggregate(n=Sum("request_count"))["n"] or 0) == RequestRecord.objects.count()


def test_a_request_becomes_a_record_with_its_attempt_and_rollups(
    tmp_path: Path, journal: SegmentJournal
) -> None:
    world, request_id = make.world(), make_request_id()
    for line in make.request_lines(world, request_id):
        journal.append(line)
    assert Ingester(tmp_path).ingest_available()
    record = RequestRecord.objects.get()
    assert str(record.id) == request_id
    assert record.requested_model == world.policy.public_id
    assert (record.input_tokens, record.cache_read_tokens, record.cost_nanousd) == (
        1000,
        200,
        make.COST_NANOUSD,
    )
    assert record.decision["candidates"][0]["deployment"] == world.deployment.name
    attempt = AttemptRecord.objects.get()
    assert attempt.id == attempt_id_of(record.id, 1)
    assert (attempt.started_at, attempt.cost_nanousd) == (record.started_at, make.COST_NANOUSD)
    day = UsageByDay.objects.get()
    assert (day.day, day.request_count, day.cost_nanousd, day.cache_read_tokens) == (
        record.started_at.date(),
        1,
        make.COST_NANOUSD,
        200,
    )
    hour = UsageByHour.objects.get()
    assert (hour.request_count, hour.duration_ms_sum, hour.first_token_count) == (1, 12.3, 1)
    assert_consistent()


def test_an_outcome_is_visible_in_less_than_a_second(tmp_path: Path, journal: SegmentJournal) -> None:
    world = make.world()
    ingester, stop = Ingester(tmp_path), threading.Event()
    began_s, seen_s = 0.0, 0.0

    def wait(timeout_s: float) -> bool:
        # The loop of `run`, with its waits, in this thread: the test's connection is not another's.
        nonlocal began_s, seen_s
        if RequestRecord.objects.exists():
            seen_s = time.monotonic()
            return stop.set() is None
        if not began_s:
            began_s = time.monotonic()
            for line in make.request_lines(world):
                journal.append(line)
        time.sleep(timeout_s)
        return False

    stop.wait = wait  # type: ignore[assignment, method-assign]
    ingester.run(stop)
    assert 0 < seen_s - began_s < 1.0


def test_the_same_lines_twice_change_nothing(tmp_path: Path) -> None:
    world = make.world()
    lines = [line for _ in range(5) for line in make.request_lines(world)]
    make.segment(tmp_path, lines + lines[:4], worker="a")
    Ingester(tmp_path).ingest_available()
    make.segment(tmp_path, lines, worker="b")
    make.segment(tmp_path, lines[1::2] + lines[::2], worker="b", number=2)
    ingester = Ingester(tmp_path)
    ingester.ingest_available()
    assert (RequestRecord.objects.count(), AttemptRecord.objects.count(), OpenIntent.objects.count()) == (
        5,
        5,
        0,
    )
    assert ingester.counters.record_count == 0
    assert rejected(tmp_path) == []
    assert_consistent()


def test_an_intent_waits_for_its_outcome_in_a_later_batch(tmp_path: Path, journal: SegmentJournal) -> None:
    world = make.world()
    intent, outcome = make.request_lines(world)
    journal.append(intent)
    ingester = Ingester(tmp_path)
    ingester.ingest_available()
    assert OpenIntent.objects.get().worker == journal.worker
    assert not RequestRecord.objects.exists()
    journal.append(outcome)
    ingester.ingest_available()
    assert RequestRecord.objects.get().status == "ok"
    assert not OpenIntent.objects.exists()
    assert_consistent()


def test_an_outcome_that_comes_before_its_intent_waits_too(tmp_path: Path) -> None:
    world = make.world()
    lines = [make.request_lines(world) for _ in range(6)]
    make.segment(tmp_path, [outcome for _, outcome in lines])
    make.segment(tmp_path, [intent for intent, _ in lines], number=2)
    ingester = Ingester(tmp_path, batch_lines=4)
    ingester.ingest_available()
    assert RequestRecord.objects.filter(status="ok").count() == 6
    assert not OpenIntent.objects.exists()
    assert_consistent()


def test_a_torn_tail_waits_while_its_worker_lives(tmp_path: Path, journal: SegmentJournal) -> None:
    intent, outcome = make.request_lines(make.world())
    raw = orjson.dumps(outcome) + b"\n"
    journal.append(intent)
    path = journal.folder / "00000001.jsonl"
    with path.open("ab") as file:
        file.write(raw[:50])
    ingester = Ingester(tmp_path)
    ingester.ingest_available()
    assert not RequestRecord.objects.exists()
    with path.open("ab") as file:
        file.write(raw[50:])
    ingester.ingest_available()
    assert RequestRecord.objects.get().status == "ok"
    assert rejected(tmp_path) == []


def test_a_dead_workers_torn_tail_is_skipped_and_its_request_interrupted(tmp_path: Path) -> None:
    world = make.world()
    answered = make.request_lines(world)
    intent, outcome = make.request_lines(world)
    make.segment(tmp_path, [*answered, intent, orjson.dumps(outcome)[:80]], end=b"")
    Ingester(tmp_path).ingest_available()
    record = RequestRecord.objects.get(id=intent["id"])
    assert (record.status, record.usage_kind, record.cost_nanousd, record.input_tokens) == (
        "interrupted",
        "unknown",
        None,
        None,
    )
    assert RequestRecord.objects.get(id=answered[0]["id"]).status == "ok"
    assert [one["reason"] for one in rejected(tmp_path)] == ["torn line"]
    assert UsageByDay.objects.aggregate(n=Sum("unknown_count"))["n"] == 1
    assert not OpenIntent.objects.exists()
    assert_consistent()


def test_a_dead_workers_folder_and_cursors_are_removed_and_a_living_ones_are_not(
    tmp_path: Path, journal: SegmentJournal
) -> None:
    world = make.world()
    make.segment(tmp_path, make.request_lines(world), worker="dead")
    for line in make.request_lines(world):
        journal.append(line)
    Ingester(tmp_path).ingest_available()
    assert journal_files.list_workers(tmp_path / "journal") == [journal.folder]
    assert [cursor.worker for cursor in JournalCursor.objects.all()] == [journal.worker]
    journal.close()
    Ingester(tmp_path).ingest_available()
    assert journal_files.list_workers(tmp_path / "journal") == []
    assert not JournalCursor.objects.exists()
    assert RequestRecord.objects.count() == 2


def test_a_folder_that_is_just_being_made_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "journal" / "new"
    folder.mkdir(parents=True)
    ingester = Ingester(tmp_path)
    ingester.ingest_available()
    (folder / "lock").touch()
    ingester.ingest_available()
    assert folder.exists()
    long_ago = time.time() - 2 * journal_files.GRACE_S
    os.utime(folder, (long_ago, long_ago))
    ingester.ingest_available()
    assert not folder.exists()


def test_a_living_workers_read_segments_are_deleted_but_the_last(tmp_path: Path) -> None:
    journal = SegmentJournal(tmp_path, segment_bytes=3000)
    world = make.world()
    for _ in range(10):
        for line in make.request_lines(world):
            journal.append(line)
    assert len(journal_files.list_segments(journal.folder)) > 3
    ingester = Ingester(tmp_path)
    ingester.ingest_available()
    assert len(journal_files.list_segments(journal.folder)) == 1
    assert RequestRecord.objects.count() == 10
    for line in make.request_lines(world):
        journal.append(line)
    ingester.ingest_available()
    assert RequestRecord.objects.count() == 11
    journal.close()


@pytest.mark.parametrize("step", ["store_pairs", "forget_open", "keep_open"])
def test_a_crash_inside_a_batch_leaves_nothing_behind_and_the_next_try_does_all(
    tmp_path: Path, journal: SegmentJournal, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    world = make.world()
    early, late = make.request_lines(world), make.request_lines(world)
    journal.append(early[0])
    ingester = Ingester(tmp_path)
    ingester.ingest_available()
    for line in [early[1], *make.request_lines(world), late[0]]:
        journal.append(line)
    original = getattr(storing, step)

    def crash(*arguments: Any, **options: Any) -> Any:
        original(*arguments, **options)
        raise OperationalError("the power went")

    with monkeypatch.context() as patch:
        patch.setattr(storing, step, crash)
        with pytest.raises(OperationalError):
            ingester.ingest_available()
    assert not RequestRecord.objects.exists()
    assert not UsageByDay.objects.exists()
    assert OpenIntent.objects.count() == 1
    # A new process, and the same one trying again.
    for one in (Ingester(tmp_path), ingester):
        one.ingest_available()
    journal.append(late[1])
    ingester.ingest_available()
    assert RequestRecord.objects.count() == 3
    assert_consistent()


def test_a_crash_while_a_dead_worker_is_taken_over_can_happen_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make.world()
    make.segment(tmp_path, [*make.request_lines(world), make.intent_line(world)])

    def crash(*arguments: Any) -> Any:
        raise OperationalError("the power went")

    for name in ("remove_segments", "remove_folder"):
        with monkeypatch.context() as patch:
            patch.setattr(journal_files, name, crash)
            with pytest.raises(OperationalError):
                Ingester(tmp_path).ingest_available()
    long_ago = time.time() - 2 * journal_files.GRACE_S
    os.utime(tmp_path / "journal" / "worker-1", (long_ago, long_ago))
    Ingester(tmp_path).ingest_available()
    assert sorted(RequestRecord.objects.values_list("status", flat=True)) == ["interrupted", "ok"]
    assert not (tmp_path / "journal" / "worker-1").exists()
    assert not JournalCursor.objects.exists()
    assert_consistent()


def test_bad_lines_are_put_aside_with_their_reason_and_stop_nothing(tmp_path: Path) -> None:
    world = make.world()
    gone, deep = make.request_lines(world), make.request_lines(world)
    gone[0]["tenant"] = 999_999
    raw_deep = orjson.dumps(deep[0])[:-1] + b',"features":' + b'{"a":' * 300 + b"1" + b"}" * 301
    bad_price = make.request_lines(world, price=888_888)
    lines: list[Any] = [
        b"not json", b'{"k":"intent"}', b'{"k":"other"}', b"[]", b'{"k":"outcome","ms":NaN}', b"\xff\xfe",
        *gone, raw_deep, deep[1], *bad_price, b"", *make.request_lines(world),
    ]  # fmt: skip
    make.segment(tmp_path, lines)
    ingester = Ingester(tmp_path)
    ingester.ingest_available()
    assert RequestRecord.objects.count() == 1
    reasons = [one["reason"] for one in rejected(tmp_path)]
    assert len(reasons) == 12 == ingester.counters.rejected_count
    assert reasons.count("there is no tenant 999999") == 2
    assert reasons.count("there is no price 888888") == 2
    assert sum("cannot be stored" in reason for reason in reasons) == 2
    assert rejected(tmp_path)[0]["line"] == "not json"
    assert_consistent()


def test_hostile_texts_are_mended_and_kept(tmp_path: Path) -> None:
    world = make.world()
    intent, outcome = make.request_lines(world)
    intent["model"] = "a\tb\\N\n\r\\.\x00" + "é" * 500
    intent["decision"] = {"why": 'tab\t back\\slash "quote" \x00 \u2028', "\x00": 1}
    raw = orjson.dumps(outcome).replace(b'"stop"', b'"\\ud800"')
    make.segment(tmp_path, [intent, raw])
    Ingester(tmp_path).ingest_available()
    record = RequestRecord.objects.get()
    assert record.requested_model == ("a\tb\\N\n\r\\." + "é" * 500)[:300]
    assert record.decision == {"why": 'tab\t back\\slash "quote"  \u2028', "": 1}
    assert rejected(tmp_path) == []


def test_a_row_that_the_database_refuses_costs_only_itself(tmp_path: Path) -> None:
    world = make.world()
    requests = [make.request_lines(world) for _ in range(20)]
    with connection.cursor() as cursor:
        # A rule of the database that our checks know nothing of.
        cursor.execute(
            "ALTER TABLE billing_requestrecord ADD CONSTRAINT no_poison CHECK (served_model <> 'poison')"
        )
    requests[7][1]["served"] = "poison"
    make.segment(tmp_path, [line for lines in requests for line in lines])
    Ingester(tmp_path).ingest_available()
    assert RequestRecord.objects.count() == 19
    assert [orjson.loads(one["line"])["id"] for one in rejected(tmp_path)] == [requests[7][0]["id"]] * 2
    assert "no_poison" in rejected(tmp_path)[0]["reason"]
    assert_consistent()


def test_a_tenant_deleted_after_it_was_seen_costs_only_its_own_lines(
    tmp_path: Path, journal: SegmentJournal
) -> None:
    leaving, staying = make.world(), make.world()
    ingester = Ingester(tmp_path)
    lines = make.request_lines(leaving)
    sources = [journal_files.SourceLine("w", 1, orjson.dumps(line)) for line in lines]
    usable, _ = ingester._known.split(match_lines(sources).pairs)
    assert len(usable) == 1
    leaving.key.delete()
    for line in [*lines, *make.request_lines(staying)]:
        journal.append(line)
    ingester.ingest_available()
    assert RequestRecord.objects.get().tenant_id == staying.tenant.pk
    assert len(rejected(tmp_path)) == 2
    assert_consistent()


def test_records_of_any_month_find_their_partition(tmp_path: Path) -> None:
    world = make.world()
    times = [dt.datetime(2024, 2, 29, 23, 59, 59, 999000, dt.UTC), dt.datetime(2031, 1, 1, tzinfo=dt.UTC)]
    make.segment(
        tmp_path, [line for at in times for line in make.request_lines(world, make.request_id_at(at))]
    )
    Ingester(tmp_path).ingest_available()
    assert list(RequestRecord.objects.order_by("started_at").values_list("started_at", flat=True)) == times
    assert list(UsageByDay.objects.order_by("day").values_list("day", flat=True)) == [
        dt.date(2024, 2, 29),
        dt.date(2031, 1, 1),
    ]
    assert_consistent()


def test_small_batches_of_many_workers_sum_to_the_same(tmp_path: Path) -> None:
    worlds = [make.world(), make.world()]
    for worker in range(3):
        for number in (1, 2):
            lines = [line for world in worlds for _ in range(4) for line in make.request_lines(world)]
            make.segment(tmp_path, lines, worker=f"w{worker}", number=number)
    ingester = Ingester(tmp_path, batch_lines=7)
    ingester.ingest_available()
    assert ingester.counters.batch_count >= 14
    assert RequestRecord.objects.count() == 48
    assert UsageByHour.objects.aggregate(n=Sum("cost_nanousd"))["n"] == 48 * make.COST_NANOUSD
    assert_consistent()


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_what_was_read_ahead_of_a_failing_batch_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    world = make.world()
    for number in (1, 2, 3):
        make.segment(tmp_path, [line for _ in range(4) for line in make.request_lines(world)], number=number)
    ingester = Ingester(tmp_path, batch_lines=5)
    original, calls = storing.store_pairs, []

    def fail_once(pairs: Any, **options: Any) -> Any:
        calls.append(len(pairs))
        if len(calls) == failing:
            if options["meanwhile"]:
                options["meanwhile"]()  # as when PostgreSQL is lost in the midst of its work
            raise OperationalError("the database is away")
        return original(pairs, **options)

    monkeypatch.setattr(storing, "store_pairs", fail_once)
    with pytest.raises(OperationalError):
        ingester.ingest_available()
    assert len(calls) == failing
    ingester.ingest_available()
    assert RequestRecord.objects.filter(status="ok").count() == 12
    assert ingester.counters.line_count == 24
    assert_consistent()


def test_traffic_that_never_stops_does_not_keep_the_ingester_from_looking_after_workers(
    tmp_path: Path, journal: SegmentJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make.world()
    make.segment(tmp_path, list(make.request_lines(world)), worker="dead")
    ingester = Ingester(tmp_path)
    original = Ingester._store

    def store_and_receive(self: Ingester, batch: Any, *ahead: Any) -> None:
        original(self, batch, *ahead)
        for line in make.request_lines(world):
            journal.append(line)

    with monkeypatch.context() as patch:
        patch.setattr(Ingester, "_store", store_and_receive)
        assert ingester.ingest_available()
    assert not (tmp_path / "journal" / "dead").exists()
    assert RequestRecord.objects.count() == 1
    ingester.ingest_available()
    assert RequestRecord.objects.count() == 2


def test_a_line_longer_than_a_read_is_read_whole(tmp_path: Path) -> None:
    path = make.segment(tmp_path, [{"a": "x" * 5000}, {"b": 1}])
    chunk = journal_files.read_chunk(path, 0, max_bytes=100, max_lines=10)
    assert len(chunk.lines[0]) > 5000
    assert chunk.end_bytes <= path.stat().st_size


def test_a_second_ingester_waits_for_the_first_and_leaves_when_told(tmp_path: Path) -> None:
    first, second, stop = Ingester(tmp_path), Ingester(tmp_path), threading.Event()
    with first.hold_lock(stop) as is_ours:
        assert is_ours
        with (tmp_path / "journal" / "ingester.lock").open("w") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        stop.set()
        with second.hold_lock(stop) as is_its:
            assert not is_its
    with second.hold_lock(threading.Event()) as is_its:
        assert is_its


def test_while_the_database_is_away_the_ingester_waits_and_loses_nothing(
    tmp_path: Path, journal: SegmentJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in make.request_lines(make.world()):
        journal.append(line)
    ingester, stop, waits = Ingester(tmp_path), threading.Event(), list[float]()
    original, failures = storing.store_pairs, 3

    def fail_at_first(pairs: Any, **options: Any) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise OperationalError("the database is away")
        return original(pairs, **options)

    def wait(timeout_s: float) -> bool:
        waits.append(timeout_s)
        if RequestRecord.objects.exists():
            stop.set()
        return False

    monkeypatch.setattr(storing, "store_pairs", fail_at_first)
    monkeypatch.setattr(connection, "close", lambda: None)  # it is the test's
    stop.wait = wait  # type: ignore[assignment, method-assign]
    ingester.run(stop)
    assert waits == [0.25, 0.5, 1.0, ingesting.POLL_S]
    assert RequestRecord.objects.count() == 1
    status = orjson.loads((tmp_path / "run" / "ingest.json").read_bytes())
    assert (status["records"], status["behind_bytes"]) == (1, 0)
