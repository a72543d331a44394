"""Does the browser get small tables at once, large ones as files, and none that its person may not see?"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import AsyncRequestFactory, Client

from billing.export_jobs import path_of, run_export
from billing.models import ExportJob, ExportState
from billing.views import exports, spend
from billing.views.streaming import stream_download
from policies.models import ChangeEvent
from policies.permissions import Role
from tests import make
from tests.console_people import client_of, finance, operator, viewer


@pytest.fixture
def world(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> make.World:
    settings.POINTSMAN_DATA_DIR = tmp_path
    monkeypatch.setattr("celery.current_app.send_task", lambda *args, **kwargs: None)
    found = make.world("=acme")
    make.ingest(tmp_path, [line for _ in range(3) for line in make.request_lines(found)])
    return found


def start(client: Client, **fields: str) -> Any:
    return client.post("/exports/start", {"kind": "requests", "format": "csv", "query": "", **fields})


@pytest.mark.django_db
def test_a_small_list_of_requests_is_given_at_once_as_the_page_has_it(world: make.World) -> None:
    client = viewer()
    answer = start(client, query=f"tenant={world.tenant.pk}&status=ok")
    assert "attachment" in answer["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(b"".join(answer.streaming_content).decode(), newline="")))
    assert (len(rows), rows[0]["tenant"]) == (3, f"'{world.tenant.name}"), "a formula would run"
    none = b"".join(start(client, query="status=error").streaming_content).decode().splitlines()
    assert (len(none), none[0].startswith("id,started_at,tenant")) == (1, True)
    for file_format, begins in (("xlsx", b"PK"), ("parquet", b"PAR1"), ("jsonl", b'{"object":"request"')):
        assert b"".join(start(client, format=file_format).streaming_content).startswith(begins)
    assert not ExportJob.objects.exists()
    page = client.get(f"/requests?tenant={world.tenant.pk}").content.decode()
    assert f'name="query" value="tenant={world.tenant.pk}"' in page


@pytest.mark.django_db
def test_a_large_one_is_written_shown_and_downloaded(
    world: make.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "MAX_ROWS_AT_ONCE", 2)
    client = finance()
    assert start(client, query=f"tenant={world.tenant.pk}")["Location"] == "/exports"
    job = ExportJob.objects.get()
    assert job.title == f"Requests, tenant {world.tenant.name}"
    page = client.get("/exports").content.decode()
    assert 'hx-trigger="every 1s"' in page
    assert f"/exports/{job.pk}/cancel" in page
    assert client.get(f"/exports/{job.pk}/file")["Location"] == "/exports", "it is not there yet"
    run_export(job.pk)
    job.refresh_from_db()
    page = client.get("/exports", headers={"HX-Request": "true"}).content.decode()
    assert ("every 1s" not in page, job.sha256[:12] in page, f"/exports/{job.pk}/file" in page) == (True,) * 3
    answer = client.get(f"/exports/{job.pk}/file")
    content = b"".join(answer.streaming_content)
    assert (content, answer["Content-Length"]) == (path_of(job).read_bytes(), str(len(content)))
    last = ChangeEvent.objects.filter(object_type="export").latest("id")
    assert (last.action, last.after) == ("download", {"sha256": job.sha256})
    path_of(job).unlink()
    assert client.get(f"/exports/{job.pk}/file")["Location"] == "/exports"


@pytest.mark.django_db
def test_columns_of_the_margin_are_in_files_of_finance_and_for_finance(world: make.World) -> None:
    start(finance(), kind="spend", query="by=key")
    job = ExportJob.objects.get()
    assert job.abilities == ["READ", "SEE_MARGIN"]
    run_export(job.pk)
    assert viewer().get(f"/exports/{job.pk}/file").status_code == 403
    assert operator().get(f"/exports/{job.pk}/file").status_code == 403
    assert finance().get(f"/exports/{job.pk}/file").status_code == 200
    page = viewer().get("/exports").content.decode()
    assert f"/exports/{job.pk}/file" not in page
    assert client_of(None).get("/exports").status_code == 403
    start(viewer(), kind="spend")
    assert ExportJob.objects.first().abilities == ["READ"]  # type: ignore[union-attr]  # there is one


@pytest.mark.django_db
def test_who_started_an_export_and_operators_stop_it(world: make.World) -> None:
    client = viewer()
    start(client, kind="focus", month="2026-10", version="1.2")
    job = ExportJob.objects.get()
    assert job.title == "FOCUS 1.2, 2026-10"
    assert finance().post(f"/exports/{job.pk}/cancel").status_code == 403
    client.post(f"/exports/{job.pk}/cancel")
    job.refresh_from_db()
    assert job.state == ExportState.CANCELLED


@pytest.mark.django_db
def test_a_failed_export_says_what_to_do_and_is_tried_again_from_the_page(world: make.World) -> None:
    client = viewer()
    start(client, kind="focus", month="2026-10", version="1.2")
    job = ExportJob.objects.get()
    line = "OSError: [Errno 28] No space left on device"
    ExportJob.objects.update(state=ExportState.FAILED, error="Make room.", error_detail=line)
    page = client.get("/exports").content.decode()
    assert ("Make room." in page, line in page) == (True, False), "the technical line is for operators"
    assert f"/exports/{job.pk}/again" in page
    assert line in operator().get("/exports").content.decode()
    assert client_of(None).post(f"/exports/{job.pk}/again").status_code == 403
    assert client.get(f"/exports/{job.pk}/again").status_code == 405
    assert client.post(f"/exports/{job.pk}/again")["Location"] == "/exports"
    new = ExportJob.objects.latest("id")
    assert (new.query, new.state, new.pk > job.pk) == (job.query, ExportState.WAITING, True)
    says = client.post(f"/exports/{new.pk}/again", follow=True).content.decode()
    assert "Nothing was started" in says


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"kind": "focus", "month": "yesterday"}, "name a month"),
        ({"kind": "secrets"}, "no export of secrets"),
        ({"format": "exe"}, "no format exe"),
    ],
)
def test_what_makes_no_sense_starts_nothing_and_says_so(
    world: make.World, fields: dict[str, str], says: str
) -> None:
    client = viewer()
    page = client.post("/exports/start", {"kind": "requests", "format": "csv", **fields}, follow=True)
    assert says in page.content.decode()
    assert not ExportJob.objects.exists()


@pytest.mark.django_db
def test_a_report_of_too_many_rows_is_offered_as_a_file(
    world: make.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spend, "MAX_ROWS_AT_ONCE", 0)
    client = client_of(Role.FINANCE)
    for path, kind in (
        ("/spend/export.csv?by=key&period=7d", "spend"),
        ("/spend/keys/export.csv", "spend-keys"),
    ):
        page = client.get(path, follow=True).content.decode()
        assert "too many to wait for" in page
        assert f'name="kind" value="{kind}"' in page
    assert not ExportJob.objects.exists(), "a link starts nothing"


async def test_under_asgi_a_file_leaves_piece_by_piece() -> None:
    made: list[int] = []

    def pieces() -> Iterator[bytes]:
        for number in range(3):
            made.append(number)
            yield b"%d" % number

    request = AsyncRequestFactory().get("/exports/1/file")
    response = stream_download(request, pieces(), content_type="text/csv", file_name="a.csv")
    received = []
    async for piece in response:
        received.append(piece)
        assert len(made) == len(received), "no piece is made before the one before it is sent"
    assert received == [b"0", b"1", b"2"]
