"""How does a large export become a file, once, whatever dies on the way? Start, cancel, run, try again, delete.

Writes: export_job, change_event, DATA_DIR/exports. Reads: by `billing.export_tables`. The row is the truth: whoever
claims it works on it, and a process that loses its claim drops what it did.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

from celery import current_app
from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone
from kombu.exceptions import OperationalError

from billing import focus
from billing.export_files import FormatMissing, check_format, open_row_file
from billing.export_tables import ExportRefused, Table, open_table, read_focus_question
from billing.job_failures import explain_death, explain_failure, let_go_of_a_broken_connection
from billing.models import ExportJob, ExportKind, ExportState
from billing.models.exports import ACTIVE_STATES
from policies import changes
from policies.permissions import Ability, Person, may

logger = logging.getLogger(__name__)

RUN_TASK: Final = "gateway.tasks.run_export"
# More rows than this are not made while somebody waits for them.
MAX_ROWS_AT_ONCE: Final = 50_000
KEEP_DAYS: Final = 7
# A process that said nothing for so long has died: a page of rows takes a tenth of a second.
STALE_S: Final = 120.0
MAX_CLAIMS: Final = 3
PROGRESS_EVERY_S: Final = 0.5
HASH_BYTES: Final = 1 << 20
ORPHAN_S: Final = 86_400


class _Superseded(Exception):
    """Somebody else has claimed the job."""


class _Cancelled(Exception):
    """Somebody wants it to stop."""


def start_export(
    *,
    kind: str,
    file_format: str,
    query: str,
    title: str,
    actor: str,
    abilities: Sequence[Ability] = (Ability.READ,),
    again_of: ExportJob | None = None,
) -> ExportJob:
    """Write down that a file is wanted, and ask a worker for it. Raises ExportRefused."""
    if kind not in ExportKind.values:
        raise ExportRefused(f"there is no export of {kind}")
    try:
        check_format(file_format)
    except FormatMissing as missing:
        raise ExportRefused(str(missing)) from None
    if kind == ExportKind.FOCUS:
        _check_focus(query)
    with transaction.atomic():
        job = ExportJob.objects.create(
            kind=kind,
            file_format=file_format,
            query=query,
            title=title[:200],
            abilities=[ability.name for ability in abilities],
            started_by=actor,
        )
        again = {} if again_of is None else {"again_of": again_of.pk}
        _record(job, actor=actor, action="start", after={"format": file_format, "query": query, **again})
    transaction.on_commit(lambda: _ask_a_worker(job.pk))
    return job


def try_again(*, job: ExportJob, actor: str, abilities: Sequence[Ability] = (Ability.READ,)) -> ExportJob:
    """Start a new job with the question of one that gave no file, or whose file is deleted. Raises ExportRefused.

    Asked twice, or while the same question is on its way for the same readers, it is one new job.
    """
    with transaction.atomic():
        # Whoever asks at the same time waits here, and finds the job of who came first.
        seen = ExportJob.objects.select_for_update(no_key=True).get(pk=job.pk)
        if not may_be_tried_again(seen):
            raise ExportRefused(
                f"“{seen.title}” is {seen.get_state_display()}: there is nothing to try again"
            )
        under_way = ExportJob.objects.filter(
            kind=seen.kind,
            file_format=seen.file_format,
            query=seen.query,
            abilities=[ability.name for ability in abilities],
            state__in=ACTIVE_STATES,
        ).first()
        return under_way or start_export(
            kind=seen.kind,
            file_format=seen.file_format,
            query=seen.query,
            title=seen.title,
            actor=actor,
            abilities=abilities,
            again_of=seen,
        )


def may_be_tried_again(job: ExportJob) -> bool:
    """Whether the job is over and left no file."""
    return job.state in (ExportState.FAILED, ExportState.CANCELLED, ExportState.EXPIRED)


def cancel_export(*, job: ExportJob, actor: str) -> bool:
    """End an export that waits, and tell one that runs to stop; False: it was over already."""
    now = timezone.now()
    note = f"cancelled by {actor}"[:200]
    with transaction.atomic():
        was_active = ExportJob.objects.filter(Q(state=ExportState.WAITING) | _stale(now), pk=job.pk).update(
            state=ExportState.CANCELLED, error=note, finished_at=now
        ) or ExportJob.objects.filter(pk=job.pk, state=ExportState.RUNNING).update(
            is_cancel_wanted=True, error=note
        )
        if was_active:
            _record(job, actor=actor, action="cancel", after={})
    return bool(was_active)


def may_download(person: Person, job: ExportJob) -> bool:
    """Say whether this person may see, now, what the file holds. An ability that is gone is one that nobody has."""
    return all(name in Ability.__members__ and may(person, Ability[name]) for name in job.abilities)


def is_for_readers(job: ExportJob) -> bool:
    """Say whether everybody who may read may have the file: a management token is nobody with a role."""
    return set(job.abilities) <= {Ability.READ.name}


def title_of(kind: str, query: str) -> str:
    """What an export is called in the list."""
    asked = dict(parse_qsl(query))
    name = str(dict(ExportKind.choices).get(kind, kind))
    if kind == ExportKind.FOCUS:
        whose = f", tenant {asked['tenant']}" if asked.get("tenant") else ""
        return f"{name} {asked.get('version') or focus.VERSIONS[0]}, {asked.get('month', '')}{whose}"
    return f"{name} by {asked.get('by', 'tenant')}" if kind == ExportKind.SPEND else name


def path_of(job: ExportJob) -> Path:
    """Where the file of a job lies, or will."""
    return _folder() / f"{job.pk}-{job.claim_count}-{job.file_name}"


def find_unfinished(*, now: dt.datetime) -> list[int]:
    """Jobs that nobody works on: their task was lost, or their process died. Those that died too often fail."""
    death = explain_death(MAX_CLAIMS)
    ExportJob.objects.filter(_stale(now), claim_count__gte=MAX_CLAIMS).update(
        state=ExportState.FAILED, error=death.text, error_detail=death.detail, finished_at=now
    )
    rows = ExportJob.objects.filter(Q(state=ExportState.WAITING) | _stale(now))
    return list(rows.order_by("pk").values_list("pk", flat=True))


def run_export(job_id: int) -> None:
    """Write a file, if it is there to be written. Called twice or late, it changes nothing."""
    job = _claim(job_id)
    if job is None:
        return
    part = _folder() / f"{job.pk}-{job.claim_count}.part"
    try:
        _make(job, part)
    except _Superseded:
        logger.info("export %s was taken over elsewhere", job_id)
    except _Cancelled:
        _mine(job).update(state=ExportState.CANCELLED, finished_at=timezone.now())
    except Exception as error:
        logger.exception("export %s failed", job_id)
        let_go_of_a_broken_connection()
        _fail(job, error)
    finally:
        part.unlink(missing_ok=True)


def delete_expired(*, now: dt.datetime) -> int:
    """Delete files whose time is over, and what processes that died left; returns how many files of jobs."""
    expired = list(ExportJob.objects.filter(state=ExportState.DONE, expires_at__lte=now))
    for job in expired:
        path_of(job).unlink(missing_ok=True)
        with transaction.atomic():
            ExportJob.objects.filter(pk=job.pk, state=ExportState.DONE).update(state=ExportState.EXPIRED)
            _record(job, actor="expiry", action="expire", after={})
    # Parts, and the folders in which XlsxWriter keeps rows (`tmp…`), of processes that were killed.
    for left in [*_folder().glob("*.part"), *_folder().glob("tmp*")]:
        try:
            if left.stat().st_mtime >= now.timestamp() - ORPHAN_S:
                continue
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        except FileNotFoundError:
            continue
    return len(expired)


def record_download(*, job: ExportJob, actor: str) -> None:
    """Write down who took the file."""
    with transaction.atomic():
        _record(job, actor=actor, action="download", after={"sha256": job.sha256})


def _fail(job: ExportJob, error: Exception) -> None:
    """Say what happened; what may pass by itself is left to whoever looks for unfinished jobs, while it has tries."""
    failure = explain_failure(error)
    if not (failure.is_passing and job.claim_count < MAX_CLAIMS):
        _mine(job).update(
            state=ExportState.FAILED,
            error=failure.text,
            error_detail=failure.detail,
            finished_at=timezone.now(),
        )


def _make(job: ExportJob, part: Path) -> None:
    table = open_table(
        job.kind,
        job.query,
        job.file_format,
        now=timezone.now(),
        sees_margin=Ability.SEE_MARGIN.name in job.abilities,
    )
    total = table.count()
    if not _mine(job).update(total_count=total, heartbeat_at=timezone.now()):
        raise _Superseded
    done = _write(job, table, part)
    digest, size = _digest(part)
    job.file_name = f"{table.file_stem}.{job.file_format}"
    # The name comes last: a file with a job's name is whole, and a row that says done has its file.
    part.replace(path_of(job))
    now = timezone.now()
    finished = _mine(job).update(
        state=ExportState.DONE,
        done_count=done,
        total_count=done,
        byte_count=size,
        sha256=digest,
        file_name=job.file_name,
        finished_at=now,
        expires_at=now + dt.timedelta(days=KEEP_DAYS),
    )
    if not finished:
        path_of(job).unlink(missing_ok=True)
        raise _Superseded


def _write(job: ExportJob, table: Table, part: Path) -> int:
    part.parent.mkdir(parents=True, exist_ok=True)
    file = open_row_file(job.file_format, part, table.columns, name=table.name, about=table.about)
    done, told_s = 0, time.perf_counter()
    try:
        for row in table.rows:
            file.write(row)
            done += 1
            if time.perf_counter() - told_s > PROGRESS_EVERY_S:
                told_s = time.perf_counter()
                _tell_progress(job, done)
    finally:
        file.close()
    _tell_progress(job, done)
    return done


def _tell_progress(job: ExportJob, done_count: int) -> None:
    """Renew the claim. Raises _Superseded, _Cancelled."""
    if not _mine(job).update(done_count=done_count, heartbeat_at=timezone.now()):
        raise _Superseded
    if _mine(job).filter(is_cancel_wanted=True).exists():
        raise _Cancelled


def _digest(path: Path) -> tuple[str, int]:
    found, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(HASH_BYTES):
            found.update(block)
            size += len(block)
    return found.hexdigest(), size


def _claim(job_id: int) -> ExportJob | None:
    now = timezone.now()
    free = Q(state=ExportState.WAITING) | _stale(now)
    claimed = ExportJob.objects.filter(free, pk=job_id, claim_count__lt=MAX_CLAIMS).update(
        state=ExportState.RUNNING, claim_count=F("claim_count") + 1, heartbeat_at=now, done_count=0
    )
    return ExportJob.objects.get(pk=job_id) if claimed else None


def _mine(job: ExportJob) -> QuerySet[ExportJob]:
    """The row, as long as nobody took it over."""
    return ExportJob.objects.filter(pk=job.pk, state=ExportState.RUNNING, claim_count=job.claim_count)


def _stale(now: dt.datetime) -> Q:
    return Q(state=ExportState.RUNNING, heartbeat_at__lt=now - dt.timedelta(seconds=STALE_S))


def _folder() -> Path:
    return Path(settings.POINTSMAN_DATA_DIR) / "exports"


def _check_focus(query: str) -> None:
    read_focus_question(dict(parse_qsl(query)))


def _record(job: ExportJob, *, actor: str, action: str, after: dict[str, object]) -> None:
    changes.record_change(
        actor=actor,
        action=action,
        object_type="export",
        object_id=job.pk,
        object_name=job.title,
        after=after or None,
    )


def _ask_a_worker(job_id: int) -> None:
    try:
        current_app.send_task(RUN_TASK, args=[job_id], retry=False)
    except (OperationalError, OSError) as error:
        # Only a hint: whoever looks for unfinished jobs finds this one.
        logger.warning("export %s waits, the broker cannot be reached: %s", job_id, error)
