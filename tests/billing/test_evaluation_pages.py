"""Can an operator upload, run, read and delete an evaluation set, and does nobody else read its texts?"""

from __future__ import annotations

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone

from billing import evaluation_runs
from billing.models import EvaluationAnswer, EvaluationRun, EvaluationSet, EvaluationState
from tests import make
from tests.console_people import operator, viewer

pytestmark = pytest.mark.django_db
LINES = '{"prompt": "Capital of France?", "expected": "Paris"}\n{"prompt": "Of Italy?", "expected": "Rome"}\n'


def upload(client: Client, **fields: object) -> EvaluationSet:
    response = client.post("/router/evaluations/new", {"name": "capitals", "text": LINES, **fields})
    assert response.status_code == 302, response.content.decode()
    return EvaluationSet.objects.get(name=fields.get("name", "capitals"))


def run_once(client: Client, evaluation_set: EvaluationSet) -> EvaluationRun:
    deployment = make.world().deployment
    address = f"/router/evaluations/{evaluation_set.pk}/run"
    fields = {"deployments": [deployment.pk], "budget_usd": "0.5", "max_output_tokens": 50}
    response = client.post(address, fields)
    run = EvaluationRun.objects.get()
    assert response["Location"] == f"/router/evaluations/runs/{run.pk}"
    return run


def answer(run: EvaluationRun, quality: float) -> None:
    for case in run.set.cases.all():
        given = EvaluationAnswer(
            run=run,
            case=case,
            deployment=run.deployments.get(),
            quality=quality,
            answer="Atlantis",
            at=timezone.now(),
        )
        evaluation_runs.record_answer(given, case=case, spent_nanousd=7)


def test_a_file_or_pasted_lines_become_a_set_and_mistakes_are_told_by_line() -> None:
    client = operator()
    assert upload(client).case_count == 2
    file = SimpleUploadedFile("more.jsonl", LINES.encode() * 3)
    assert upload(client, name="more", text="", file=file).case_count == 6
    for fields, text in (
        ({"name": "x", "text": LINES + '{"prompt": 1}'}, "Line 3: prompt: a text is needed"),
        ({"name": "x", "text": ""}, "Choose a file or paste the lines"),
        ({"name": "x", "text": LINES, "file": SimpleUploadedFile("f", LINES.encode())}, "one of the two"),
        ({"name": "x", "file": SimpleUploadedFile("f", b"\xff\xfe")}, "not UTF-8"),
        ({"name": "x", "file": SimpleUploadedFile("f", b" " * 2_000_001)}, "larger than 2 MB"),
        ({"name": "x", "text": LINES, "workload": "what"}, "16 hexadecimal digits"),
        ({"name": "capitals", "text": LINES}, "already a set named capitals"),
    ):
        response = client.post("/router/evaluations/new", fields)
        assert response.status_code == 422
        assert text in response.content.decode(), text
    assert EvaluationSet.objects.count() == 2


def test_a_run_is_started_watched_and_read_and_its_settings_come_again() -> None:
    client = operator()
    evaluation_set = upload(client)
    run = run_once(client, evaluation_set)
    assert (run.state, run.budget_nanousd, run.total_count) == ("waiting", 500_000_000, 2)
    page = f"/router/evaluations/runs/{run.pk}"
    fragment = client.get(page, headers={"HX-Request": "true"})
    assert "HX-Refresh" not in fragment
    assert "waits for a worker" in fragment.content.decode()
    assert "<html" not in fragment.content.decode()
    answer(run, 0.0)
    evaluation_runs.finish_run(run, EvaluationState.DONE)
    assert client.get(page, headers={"HX-Request": "true"})["HX-Refresh"] == "true"
    read = client.get(page).content.decode()
    assert "Atlantis" in read and "Capital of France?" in read
    again = client.get(f"/router/evaluations/{evaluation_set.pk}?again={run.pk}").content.decode()
    assert 'value="0.5"' in again and "checked" in again


def test_others_see_numbers_and_no_text() -> None:
    run = run_once(client := operator(), upload(client))
    answer(run, 0.0)
    evaluation_runs.finish_run(run, EvaluationState.DONE)
    reader = viewer()
    for address in (f"/router/evaluations/{run.set_id}", f"/router/evaluations/runs/{run.pk}"):
        page = reader.get(address).content.decode()
        assert f"Run {run.pk}" in page
        assert "Atlantis" not in page
        assert "Capital of France" not in page


def test_a_run_can_be_cancelled_and_a_set_is_deleted_by_its_name() -> None:
    client = operator()
    run = run_once(client, upload(client))
    address = f"/router/evaluations/{run.set_id}/delete"
    client.post(address, {"confirm_name": "capitals"})
    assert EvaluationSet.objects.exists(), "it is being run"
    client.post(f"/router/evaluations/runs/{run.pk}/cancel")
    run.refresh_from_db()
    assert run.state == EvaluationState.CANCELLED
    client.post(address, {"confirm_name": "capital"})
    assert EvaluationSet.objects.exists()
    client.post(address, {"confirm_name": "capitals"})
    assert not EvaluationSet.objects.exists()
