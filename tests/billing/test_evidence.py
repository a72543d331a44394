"""Does every rating and every failed check become evidence once, and only about its own request?"""

from __future__ import annotations

import datetime as dt
import uuid
from pathlib import Path
from typing import Any

import orjson
import pytest
from django.utils import timezone

from billing.evidence import Judgement, record_evidence
from billing.evidence_collecting import Collected, collect_feedback, forget_old
from billing.ingesting import Ingester
from billing.models import Evidence, Feedback, RequestRecord
from gateway.dataplane.request_ids import make_request_id
from tests import make

pytestmark = pytest.mark.django_db

FEATURES = {"input_tokens": 12, "workload": "00112233445566ff", "task_type": "code"}


def feedback_line(request_id: str, key_id: int, quality: float | None = 1.0, **fields: Any) -> dict[str, Any]:
    return {
        "k": "feedback",
        "v": 1,
        "id": make_request_id(),
        "request": request_id,
        "key": key_id,
        "quality": quality,
        **fields,
    }


def request_lines(world: make.World, request_id: str, **outcome: Any) -> list[dict[str, Any]]:
    return [
        make.intent_line(world, request_id, features=FEATURES),
        make.outcome_line(world, request_id, **outcome),
    ]


def failed_attempts(world: make.World, request_id: str, *checks: str) -> list[dict[str, Any]]:
    (attempt,) = make.outcome_line(world, request_id)["attempts"]
    return [
        {**attempt, "n": n, **({"check": check} if check else {})} for n, check in enumerate(checks, start=1)
    ]


def test_feedback_is_stored_once_and_becomes_evidence_about_the_model_that_served(tmp_path: Path) -> None:
    world, request_id = make.world(), make_request_id()
    line = feedback_line(request_id, world.key.pk, 0.75)
    make.ingest(tmp_path, [line, *request_lines(world, request_id)])
    make.ingest(tmp_path, [line, line], worker="worker-2")
    assert Feedback.objects.count() == 1
    assert collect_feedback(now=timezone.now()) == Collected(counted=1)
    assert collect_feedback(now=timezone.now()) == Collected()
    found = Evidence.objects.get()
    assert (found.source, found.quality, found.model_id) == ("feedback", 0.75, world.deployment.model_id)
    assert (found.workload, found.task_type) == (FEATURES["workload"], "code")
    assert (found.output_tokens, found.latency_ms) == (500, 12.3)
    assert found.request_id == uuid.UUID(request_id)


def test_another_keys_request_is_nobodys_evidence(tmp_path: Path) -> None:
    world, other, request_id = make.world(), make.world(), make_request_id()
    make.ingest(tmp_path, [*request_lines(world, request_id), feedback_line(request_id, other.key.pk)])
    assert collect_feedback(now=timezone.now()) == Collected(ignored=1)
    assert not Evidence.objects.exists()
    assert Feedback.objects.get().state == Feedback.State.IGNORED


def test_feedback_waits_for_its_record_for_two_days(tmp_path: Path) -> None:
    world, request_id, now = make.world(), make_request_id(), timezone.now()
    make.ingest(tmp_path, [feedback_line(request_id, world.key.pk), feedback_line(make_request_id(), 1)])
    assert collect_feedback(now=now) == Collected(waiting=2)
    assert collect_feedback(now=now, since=now + dt.timedelta(minutes=1)) == Collected()
    make.ingest(tmp_path, request_lines(world, request_id), worker="worker-2")
    assert collect_feedback(now=now) == Collected(counted=1, waiting=1)
    assert collect_feedback(now=now + dt.timedelta(days=3)) == Collected(ignored=1)


def test_who_changes_their_mind_is_believed_the_last_time(tmp_path: Path) -> None:
    world, request_id = make.world(), make_request_id()
    now = timezone.now()
    first, second = (
        feedback_line(
            request_id,
            world.key.pk,
            quality,
            id=make.request_id_at(now + dt.timedelta(milliseconds=after_ms)),
        )
        for after_ms, quality in ((0, 1.0), (5, 0.0))
    )
    make.ingest(tmp_path, [*request_lines(world, request_id), second, first])
    collect_feedback(now=timezone.now())
    assert Evidence.objects.get().quality == 0.0
    third = feedback_line(
        request_id, world.key.pk, 0.5, id=make.request_id_at(now + dt.timedelta(milliseconds=9))
    )
    make.ingest(tmp_path, [third], worker="worker-2")
    collect_feedback(now=timezone.now())
    assert Evidence.objects.get().quality == 0.5


def test_a_neutral_thumb_is_kept_and_is_no_evidence(tmp_path: Path) -> None:
    world, request_id = make.world(), make_request_id()
    make.ingest(
        tmp_path, [*request_lines(world, request_id), feedback_line(request_id, world.key.pk, quality=None)]
    )
    assert collect_feedback(now=timezone.now()) == Collected(ignored=1)


def test_a_feedback_line_that_cannot_be_stored_is_put_aside(tmp_path: Path) -> None:
    lines = [
        feedback_line("no id", 1),
        feedback_line(make_request_id(), 1, quality=2),
        feedback_line(make_request_id(), 0),
        feedback_line(make_request_id(), 1, v=2),
    ]
    make.ingest(tmp_path, lines)
    rejected = (tmp_path / "journal" / "rejected.jsonl").read_bytes().splitlines()
    assert [orjson.loads(line)["reason"].partition(":")[0] for line in rejected] == [
        "id",
        "quality",
        "key",
        "not a feedback line of version 1",
    ]
    assert not Feedback.objects.exists()


def test_failed_checks_are_evidence_of_quality_zero_once(tmp_path: Path) -> None:
    world, request_id = make.world(), make_request_id()
    attempts = failed_attempts(world, request_id, "empty", "")
    lines = request_lines(world, request_id, attempts=attempts)
    make.ingest(tmp_path, lines)
    make.ingest(tmp_path, lines, worker="worker-2")
    found = Evidence.objects.get()
    assert (found.source, found.quality, found.detail) == ("check", 0.0, "empty")
    assert (found.workload, found.model_id) == (FEATURES["workload"], world.deployment.model_id)
    assert RequestRecord.objects.count() == 1


def test_requests_without_failed_checks_leave_no_evidence(tmp_path: Path) -> None:
    world = make.world()
    make.segment(tmp_path, request_lines(world, make_request_id()))
    Ingester(tmp_path).ingest_available()
    assert not Evidence.objects.exists()


def test_what_counts_for_nothing_any_more_is_forgotten(tmp_path: Path) -> None:
    world, now = make.world(), timezone.now()
    request_id = make.request_id_at(now)
    lines = [feedback_line(request_id, world.key.pk), feedback_line(make_request_id(), world.key.pk)]
    make.ingest(tmp_path, [*request_lines(world, request_id), *lines])
    collect_feedback(now=now)
    forget_old(now=now + dt.timedelta(days=91))
    assert Feedback.objects.get().state == Feedback.State.WAITING
    assert Evidence.objects.count() == 1
    forget_old(now=now + dt.timedelta(days=721))
    assert not Evidence.objects.exists()


def test_answers_to_one_question_stay_separate_judgements() -> None:
    world, now = make.world(), timezone.now()
    judgement = Judgement(
        Evidence.Source.EVALUATION, world.deployment.model_id, 1.0, now, pair_id="set-1/run-2/line-3"
    )
    assert record_evidence([judgement, judgement._replace(quality=0.0)]) == 2
    assert record_evidence([]) == 0
    assert sorted(Evidence.objects.values_list("quality", flat=True)) == [0.0, 1.0]
