"""Is a large export written once, whole and only for those who may see it, whatever dies on the way?"""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import io
import tracemalloc
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from django.db import OperationalError
from django.utils import timezone
from pyarrow import parquet

from billing import export_files, export_jobs, export_tables
from billing.export_jobs import (
    MAX_CLAIMS,
    STALE_S,
    cancel_export,
    delete_expired,
    find_unfinished,
    may_download,
    path_of,
    run_export,
    start_export,
    try_again,
)
from billing.export_tables import ExportRefused, open_table
from billing.models import ExportJob, ExportState
from policies.models import ChangeEvent
from policies.permissions import Ability, Role
from tests import make
from tests.console_people import person

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files go to the test's own folder; there is no worker to ask."""
    settings.POINTSMAN_DATA_DIR = tmp_path
    monkeypatch.setattr("celery.current_app.send_task", lambda *args, **kwargs: None)
    return tmp_path


def fill(data_dir: Path, count: int = 7, **outcome: Any) -> make.World:
    world = make.world("=acme")
    lines = [line for _ in range(count) for line in make.request_lines(world, **outcome)]
    make.ingest(data_dir, lines)
    return world


def start(kind: str = "requests", file_format: str = "csv", query: str = "") -> ExportJob:
    return start_export(kind=kind, file_format=file_format, query=query, title="Requests", actor="fin")


def done(job: ExportJob) -> bytes:
    run_export(job.pk)
    job.refresh_from_db()
    assert job.state == ExportState.DONE, job.error
    content = path_of(job).read_bytes()
    assert (hashlib.sha256(content).hexdigest(), len(content)) == (job.sha256, job.byte_count)
    return content


def test_all_formats_hold_the_same_requests(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_tables, "CHUNK", 3)
    world = fill(data_dir)
    rows = list(csv.DictReader(io.StringIO(done(start()).decode(), newline="")))
    objects = [orjson.loads(line) for line in done(start(file_format="jsonl")).splitlines()]
    table = parquet.read_table(io.BytesIO(done(start(file_format="parquet"))))
    assert len(rows) == len({row["id"] for row in rows}) == 7
    ids = [row["id"] for row in rows]
    assert [one["id"] for one in objects] == ids == table.column("id").to_pylist()
    assert [row["started_at"] for row in rows] == sorted(row["started_at"] for row in rows)
    assert {row["tenant"] for row in rows} == {f"'{world.tenant.name}"}, "a formula would run"
    cost = Decimal(make.COST_NANOUSD) / 10**9
    assert set(table.column("cost_usd").to_pylist()) == {cost} == {Decimal(row["cost_usd"]) for row in rows}
    assert table.schema.field("started_at").type.tz == "UTC"
    assert str(table.schema.field("usage_audio_s").type) == "int64"
    sheet = done(start(file_format="xlsx"))
    with zipfile.ZipFile(io.BytesIO(sheet)) as book:
        assert b"usage_image_count" in book.read("xl/worksheets/sheet1.xml")


def test_an_export_holds_what_the_page_with_its_address_lists(data_dir: Path) -> None:
    one, other = fill(data_dir, 2), fill(data_dir, 3, cost=None, price=None, unpriced=True)
    query = f"tenant={other.tenant.pk}&unpriced=1&unknown=x"
    rows = list(csv.DictReader(io.StringIO(done(start(query=query)).decode())))
    assert {row["tenant"] for row in rows} == {f"'{other.tenant.name}"}
    assert len(rows) == 3
    assert [row["cost_usd"] for row in rows] == ["", "", ""], "unknown is not zero"
    spend = done(start("spend", "csv", f"tenant={one.tenant.pk}&by=key")).decode().splitlines()
    assert len(spend) == 3, "a heading, a key, the total"
    objects = done(start("spend", "jsonl", f"tenant={one.tenant.pk}&by=key")).splitlines()
    assert [orjson.loads(line)["cost_nanousd"] for line in objects] == [2 * make.COST_NANOUSD]


def test_memory_does_not_grow_with_the_rows(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_tables, "CHUNK", 25)
    world = make.world()
    done(start())
    peaks = []
    for count in (60, 240):
        lines = [line for _ in range(count) for line in make.request_lines(world)]
        make.ingest(data_dir, lines, worker=f"w{count}")
        job = start()
        tracemalloc.start()
        run_export(job.pk)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.5


def test_a_job_is_written_once_and_one_that_died_is_taken_up_again(data_dir: Path) -> None:
    fill(data_dir)
    job = start()
    assert find_unfinished(now=timezone.now()) == [job.pk], "its task may be lost"
    done(job)
    first = job.sha256
    run_export(job.pk)
    assert find_unfinished(now=timezone.now()) == []
    long_ago = timezone.now() - dt.timedelta(seconds=STALE_S + 1)
    ExportJob.objects.update(state=ExportState.RUNNING, heartbeat_at=long_ago, claim_count=1)
    assert find_unfinished(now=timezone.now()) == [job.pk]
    done(job)
    assert (job.sha256, job.claim_count) == (first, 2)
    ExportJob.objects.update(state=ExportState.RUNNING, heartbeat_at=long_ago, claim_count=3)
    assert find_unfinished(now=timezone.now()) == []
    job.refresh_from_db()
    assert (job.state, "three times" in job.error) == (ExportState.FAILED, True)


def test_a_process_that_lost_its_job_leaves_no_file(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(data_dir)
    job = start()

    def taken_over(path: Path) -> tuple[str, int]:
        ExportJob.objects.update(claim_count=2)
        return "", 0

    monkeypatch.setattr(export_jobs, "_digest", taken_over)
    run_export(job.pk)
    assert ExportJob.objects.get().state == ExportState.RUNNING
    assert list((data_dir / "exports").iterdir()) == []


def test_what_fails_says_why_and_leaves_no_part(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(data_dir)

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_files.CsvFile, "write", full)
    job = start()
    run_export(job.pk)
    job.refresh_from_db()
    assert (job.state, "Make room" in job.error) == (ExportState.FAILED, True)
    assert job.error_detail == "OSError: [Errno 28] No space left on device"
    assert list((data_dir / "exports").iterdir()) == []


def test_a_job_that_lost_its_database_is_taken_up_again_before_it_fails(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(data_dir)
    job, write = start(), export_files.CsvFile.write

    def cut_off(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("the connection is lost")

    monkeypatch.setattr(export_files.CsvFile, "write", cut_off)
    for claim in range(1, MAX_CLAIMS):
        run_export(job.pk)
        job.refresh_from_db()
        assert (job.state, job.claim_count, job.error) == (ExportState.RUNNING, claim, "")
        ExportJob.objects.update(heartbeat_at=timezone.now() - dt.timedelta(seconds=STALE_S + 1))
    run_export(job.pk)
    job.refresh_from_db()
    assert (job.state, "database could not be reached" in job.error) == (ExportState.FAILED, True)
    monkeypatch.setattr(export_files.CsvFile, "write", write)
    assert done(try_again(job=job, actor="olga")).startswith(b"id,")


def test_trying_again_asks_the_same_question_once_in_a_new_job(data_dir: Path) -> None:
    world = fill(data_dir)
    job = start(query=f"tenant={world.tenant.pk}")
    for state in (ExportState.WAITING, ExportState.RUNNING, ExportState.DONE):
        ExportJob.objects.update(state=state)
        with pytest.raises(ExportRefused, match="nothing to try again"):
            try_again(job=job, actor="olga")
    ExportJob.objects.update(state=ExportState.FAILED, error="no room")
    new = try_again(job=job, actor="olga")
    assert (new.query, new.title, new.file_format) == (job.query, job.title, job.file_format)
    assert (new.state, new.started_by, new.pk != job.pk) == (ExportState.WAITING, "olga", True)
    assert try_again(job=job, actor="fin") == new, "it is on its way already"
    with_margin = try_again(job=job, actor="fin", abilities=(Ability.READ, Ability.SEE_MARGIN))
    assert with_margin != new, "a file for others"
    event = ChangeEvent.objects.get(object_type="export", object_id=str(new.pk))
    assert event.after == {"format": "csv", "query": job.query, "again_of": job.pk}
    job.refresh_from_db()
    assert (job.state, job.error) == (ExportState.FAILED, "no room"), "what happened stays"


def test_a_waiting_job_is_cancelled_and_a_running_one_stops(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(data_dir)
    waiting, running = start(), start()
    assert cancel_export(job=waiting, actor="fin")
    run_export(waiting.pk)
    waiting.refresh_from_db()
    assert (waiting.state, waiting.error) == (ExportState.CANCELLED, "cancelled by fin")
    monkeypatch.setattr(export_jobs, "PROGRESS_EVERY_S", 0.0)
    write = export_files.CsvFile.write

    def cancelled(self: Any, row: Any) -> None:
        write(self, row)
        cancel_export(job=running, actor="olga")

    monkeypatch.setattr(export_files.CsvFile, "write", cancelled)
    run_export(running.pk)
    running.refresh_from_db()
    assert (running.state, running.done_count) == (ExportState.CANCELLED, 1)
    assert not cancel_export(job=running, actor="olga")
    assert list((data_dir / "exports").iterdir()) == []


def test_files_go_when_their_time_is_over(data_dir: Path) -> None:
    fill(data_dir)
    job = start()
    done(job)
    assert delete_expired(now=timezone.now() + dt.timedelta(days=6)) == 0
    assert path_of(job).exists()
    folder = data_dir / "exports"
    (folder / "7-1.part").write_text("a process died here")
    (folder / "tmp1" / "rows").mkdir(parents=True)
    delete_expired(now=timezone.now())
    assert (folder / "7-1.part").exists(), "it may still be written"
    assert delete_expired(now=timezone.now() + dt.timedelta(days=8)) == 1
    assert list(folder.iterdir()) == []
    job.refresh_from_db()
    assert (job.state, path_of(job).exists()) == (ExportState.EXPIRED, False)
    actions = ChangeEvent.objects.filter(object_type="export").order_by("id").values_list("action", flat=True)
    assert list(actions) == ["start", "expire"]


def test_what_the_data_needs_is_asked_at_download(data_dir: Path) -> None:
    job = start()
    assert may_download(person(Role.VIEWER), job)
    assert not may_download(person(None), job)
    job.abilities = [Ability.READ.name, Ability.SET_PRICES.name]
    assert may_download(person(Role.FINANCE), job)
    assert not may_download(person(Role.VIEWER), job)
    job.abilities = ["AN_ABILITY_OF_A_LATER_RELEASE"]
    assert not may_download(person(Role.OPERATOR), job)


@pytest.mark.parametrize(
    ("kind", "file_format", "query", "says"),
    [
        ("requests", "pdf", "", "there is no format pdf"),
        ("invoices", "csv", "", "there is no export of invoices"),
        ("focus", "csv", "month=2026-13", "name a month"),
        ("focus", "csv", "month=2026-10&version=9", "there is no FOCUS 9"),
        ("focus", "csv", "month=2026-10&tenant=x", "by its number"),
    ],
)
def test_what_makes_no_sense_is_refused(kind: str, file_format: str, query: str, says: str) -> None:
    with pytest.raises(ExportRefused, match=says):
        start(kind, file_format, query)
    assert not ExportJob.objects.exists()


def test_parquet_that_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_files, "is_parquet_installed", lambda: False)
    with pytest.raises(ExportRefused, match="pip install pyarrow"):
        start(file_format="parquet")


def test_a_sheet_goes_on_where_another_one_is_full(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_files, "XLSX_ROWS", 4)
    fill(data_dir)
    with zipfile.ZipFile(io.BytesIO(done(start(file_format="xlsx")))) as book:
        sheets = [name for name in book.namelist() if name.startswith("xl/worksheets/sheet")]
        counts = [book.read(name).count(b"<row ") for name in sorted(sheets)]
    assert counts[:3] == [4, 4, 2], "three, three and one request, each below a heading"


def test_records_that_come_in_meanwhile_are_not_in_the_file(data_dir: Path) -> None:
    world = fill(data_dir, 2)
    table = open_table("requests", "", "csv", now=timezone.now())
    later = make.request_id_at(timezone.now() + dt.timedelta(seconds=30))
    make.ingest(data_dir, make.request_lines(world, later), worker="later")
    assert (table.count(), len(list(table.rows))) == (2, 2)
