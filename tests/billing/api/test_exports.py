"""Is a large table written, watched, downloaded and cancelled over HTTP?"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from billing.export_jobs import run_export
from billing.models import ExportJob
from tests import make
from tests.policies.api.callers import Caller, caller_with
from tests.policies.api.test_resources import problem_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def caller(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Caller:
    settings.POINTSMAN_DATA_DIR = tmp_path
    monkeypatch.setattr("celery.current_app.send_task", lambda *args, **kwargs: None)
    return caller_with("read")


def test_a_month_in_focus_is_started_watched_and_downloaded(caller: Caller, tmp_path: Path) -> None:
    make.ingest(tmp_path, make.request_lines(make.world()))
    month = f"{timezone.now():%Y-%m}"
    started = caller.send("POST", "exports", {"kind": "focus", "month": month, "format": "jsonl"})
    assert started.status_code == 201, started.content
    place = started["Location"]
    row = caller.read(place)
    assert (row["state"], row["format"], row["title"]) == ("waiting", "jsonl", f"FOCUS 1.4, {month}")
    assert "no file" in problem_of(caller.get(f"{place}/file"), 409, "refused")["detail"]
    run_export(row["id"])
    row = caller.read(place)
    assert (row["state"], row["error"]) == ("done", "")
    file = caller.get(f"{place}/file")
    content = b"".join(file.streaming_content)
    assert hashlib.sha256(content).hexdigest() == row["sha256"]
    assert content.count(b"\n") == row["total_count"] == 3, "input, cached input, output"
    assert f'filename="focus-1.4-{month}.jsonl"' in file["Content-Disposition"]
    assert [one["id"] for one in caller.read("exports?kind=focus&state=done")["items"]] == [row["id"]]


def test_what_makes_no_sense_is_refused_and_the_margin_is_for_people(caller: Caller) -> None:
    assert caller.send("POST", "exports", {"kind": "focus"}).status_code == 409
    assert caller.send("POST", "exports", {"kind": "invoices"}).status_code == 422
    assert caller.send("POST", "exports", {"kind": "requests", "format": "pdf"}).status_code == 422
    with_margin = ExportJob.objects.create(kind="spend", file_format="csv", abilities=["READ", "SEE_MARGIN"])
    problem_of(caller.get(f"exports/{with_margin.pk}/file"), 403, "forbidden")


def test_who_started_an_export_cancels_it(caller: Caller) -> None:
    place = caller.send("POST", "exports", {"kind": "requests", "query": "status=error"})["Location"]
    problem_of(caller_with("read").send("POST", f"{place}/cancel"), 403, "forbidden")
    assert caller.send("POST", f"{place}/cancel").json()["state"] == "cancelled"


def test_a_failed_export_is_started_again_as_a_new_one(caller: Caller) -> None:
    place = caller.send("POST", "exports", {"kind": "requests", "query": "status=error"})["Location"]
    problem_of(caller.send("POST", f"{place}/again"), 409, "refused")
    ExportJob.objects.update(state="failed", error="Make room.", error_detail="OSError: x")
    assert (caller.read(place)["error"], "OSError" in caller.get(place).content.decode()) == (
        "Make room.",
        False,
    )
    again = caller.send("POST", f"{place}/again")
    assert (again.status_code, again["Location"] != place) == (201, True)
    assert (again.json()["query"], again.json()["state"]) == ("status=error", "waiting")
