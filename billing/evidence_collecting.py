"""Which judgement about which model is in what callers sent? Feedback -> evidence.

Reads: feedback, request_record. Writes: feedback (its state), and evidence through `billing.evidence`. Running it
twice changes nothing.
"""

from __future__ import annotations

import datetime as dt
import uuid
from typing import NamedTuple

from django.db import connection, transaction

from billing.evidence import Judgement, record_evidence
from billing.models import Evidence, Feedback

BATCH = 2000
# So long after the request a record may still come (a worker without a database writes its journal on).
WAIT_FOR_RECORD = dt.timedelta(days=2)
KEEP_FEEDBACK = dt.timedelta(days=90)
# Halved every 90 days, evidence counts 1/256 by then.
KEEP_EVIDENCE = dt.timedelta(days=720)


class Collected(NamedTuple):
    """What one run did with the feedback that waited."""

    counted: int = 0
    ignored: int = 0
    waiting: int = 0


class _Record(NamedTuple):
    api_key_id: int
    model_id: int | None
    workload: str
    task_type: str
    output_tokens: int | None
    duration_ms: float | None


def collect_feedback(*, now: dt.datetime, since: dt.datetime | None = None) -> Collected:
    """Make evidence of waiting feedback whose request is recorded and is one of the same key.

    `since` leaves older feedback waiting: what names requests that never were is not looked at every half minute.

    Feedback about another key's request, one that nobody served, or one that never came, is ignored: it stays as a
    row and is nobody's evidence. So is a thumb that says neither good nor bad.
    """
    counted = ignored = waiting = 0
    after = (since or dt.datetime.min.replace(tzinfo=dt.UTC), uuid.UUID(int=0))
    while True:
        with transaction.atomic():
            rows = _next_batch(after)
            if not rows:
                return Collected(counted, ignored, waiting)
            after = (rows[-1].at, rows[-1].id)
            records = _find_records([row.request_id for row in rows])
            judgements: list[Judgement] = []
            states: dict[str, list[uuid.UUID]] = {Feedback.State.COUNTED: [], Feedback.State.IGNORED: []}
            for row in rows:
                record = records.get(row.request_id)
                if record is None and now - row.at < WAIT_FOR_RECORD:
                    waiting += 1
                    continue
                judgement = None if record is None else _judgement(row, record)
                if judgement is None:
                    states[Feedback.State.IGNORED].append(row.id)
                else:
                    judgements.append(judgement)
                    states[Feedback.State.COUNTED].append(row.id)
            record_evidence(judgements)
            for state, ids in states.items():
                Feedback.objects.filter(pk__in=ids).update(state=state)
        counted += len(states[Feedback.State.COUNTED])
        ignored += len(states[Feedback.State.IGNORED])


def forget_old(*, now: dt.datetime) -> None:
    """Delete feedback that is dealt with, and evidence that counts next to nothing by now."""
    Feedback.objects.exclude(state=Feedback.State.WAITING).filter(at__lt=now - KEEP_FEEDBACK).delete()
    Evidence.objects.filter(at__lt=now - KEEP_EVIDENCE).delete()


def _next_batch(after: tuple[dt.datetime, uuid.UUID]) -> list[Feedback]:
    # A tuple comparison keeps rows that go on waiting from being read for ever.
    return list(
        Feedback.objects.raw(
            "SELECT * FROM billing_feedback WHERE state = 'waiting' AND (at, id) > (%s, %s)"
            " ORDER BY at, id LIMIT %s FOR UPDATE SKIP LOCKED",
            [after[0], after[1], BATCH],
        )
    )


def _judgement(row: Feedback, record: _Record) -> Judgement | None:
    if row.quality is None or record.model_id is None or record.api_key_id != row.api_key_id:
        return None
    return Judgement(
        source=Evidence.Source.FEEDBACK,
        model_id=record.model_id,
        quality=row.quality,
        at=row.at,
        workload=record.workload,
        task_type=record.task_type,
        request_id=row.request_id,
        output_tokens=record.output_tokens,
        latency_ms=record.duration_ms,
    )


def _find_records(request_ids: list[uuid.UUID]) -> dict[uuid.UUID, _Record]:
    """The records of these requests. Each id holds its own time, so a month's partition is enough for each."""
    times = [dt.datetime.fromtimestamp((value.int >> 80) / 1000, dt.UTC) for value in request_ids]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT r.id, r.api_key_id, d.model_id, left(coalesce(r.features->>'workload', ''), 16),"
            " left(coalesce(r.features->>'task_type', ''), 40), r.output_tokens, r.duration_ms"
            " FROM billing_requestrecord r LEFT JOIN policies_deployment d ON d.id = r.deployment_id"
            " WHERE r.id = ANY(%s) AND r.started_at >= %s AND r.started_at <= %s AND r.status = 'ok'",
            [request_ids, min(times) - dt.timedelta(seconds=1), max(times) + dt.timedelta(seconds=1)],
        )
        return {row[0]: _Record(*row[1:]) for row in cursor.fetchall()}
