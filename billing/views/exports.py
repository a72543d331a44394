"""Which files can I have? The page of exports: start, watch, cancel, try again, download.

Reads: export_job, tenants. Writes: through `billing.export_jobs`. Everybody who may read may open it; a file is for
whoever may see, now, what is in it.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import parse_qsl, urlencode

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from billing import focus
from billing.export_files import (
    FORMAT_NAMES,
    FORMATS,
    json_line,
    list_formats,
    open_row_file,
)
from billing.export_jobs import (
    KEEP_DAYS,
    MAX_ROWS_AT_ONCE,
    cancel_export,
    may_be_tried_again,
    may_download,
    path_of,
    record_download,
    start_export,
    title_of,
    try_again,
)
from billing.export_tables import ExportRefused, Table, count_requests, open_table
from billing.models import ExportJob, ExportKind, ExportState, UsageByDay
from billing.models.exports import ACTIVE_STATES
from billing.parquet_files import is_installed as is_parquet_installed
from billing.request_questions import read_filters
from billing.spreadsheets import csv_line
from billing.views.requests import list_chips
from billing.views.streaming import pieces_of, stream_download
from policies.models import Tenant
from policies.permissions import Ability, Person, actor_name, may, needs

JOBS_SHOWN: Final = 50
MONTHS_OFFERED: Final = 13
# A workbook and a Parquet file have no first byte before the last row is read: they are made while somebody waits
# only where that takes a second or two.
MAX_ROWS_UNSTREAMED: Final = 2_000
ROWS_A_PIECE: Final = 500


@needs(Ability.READ)
@require_safe
def list_exports(request: HttpRequest) -> HttpResponse:
    """Files that are ready, on their way or gone, newest first; and the form for FOCUS."""
    jobs = list(ExportJob.objects.all()[:JOBS_SHOWN])
    context: dict[str, Any] = {
        "rows": [_shown(request, job) for job in jobs],
        "has_active": any(job.state in ACTIVE_STATES for job in jobs),
        "keep_days": KEEP_DAYS,
    }
    if request.headers.get("HX-Request"):
        return render(request, "exports/_jobs.html", context)
    context |= {
        "formats": list_formats(),
        "has_parquet": is_parquet_installed(),
        "months": _list_months(timezone.now().date()),
        "versions": focus.VERSIONS,
        "tenants": Tenant.objects.order_by("name").values_list("pk", "name"),
        "has_usage": UsageByDay.objects.exists(),
        "offer": _offer(request.GET.dict()),
        "max_rows": MAX_ROWS_AT_ONCE,
    }
    return render(request, "exports/list.html", context)


@needs(Ability.READ)
@require_POST
def start(request: HttpRequest) -> HttpResponse:
    """Give a small table at once; have a large one written, and show how far it is."""
    kind, file_format = request.POST.get("kind", ""), request.POST.get("format", "")
    query = request.POST.get("query", "")
    if kind == ExportKind.FOCUS:
        query = urlencode({name: request.POST.get(name, "") for name in ("month", "version", "tenant")})
    now = timezone.now()
    try:
        if kind == ExportKind.REQUESTS and file_format in FORMATS:
            limit = MAX_ROWS_AT_ONCE if file_format in ("csv", "jsonl") else MAX_ROWS_UNSTREAMED
            found = count_requests(read_filters(dict(parse_qsl(query))), at_most=limit)
            if found <= limit and not (file_format == "parquet" and not is_parquet_installed()):
                return _at_once(request, open_table(kind, query, file_format, now=now), file_format)
        job = start_export(
            kind=kind,
            file_format=file_format,
            query=query,
            title=_title_of(kind, query),
            actor=actor_name(request),
            abilities=abilities_for(request.user, kind),
        )
    except ExportRefused as refusal:
        messages.error(request, f"Nothing was started: {refusal}.")
        return redirect("exports")
    messages.success(request, f"{job.title}: the file is being written.")
    return redirect("exports")


@needs(Ability.READ)
@require_POST
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """Stop an export."""
    job = get_object_or_404(ExportJob, pk=pk)
    if not _may_cancel(request, job):
        raise PermissionDenied("stop what somebody else started")
    if not cancel_export(job=job, actor=actor_name(request)):
        messages.info(request, "This export was over already.")
    return redirect("exports")


@needs(Ability.READ)
@require_POST
def again(request: HttpRequest, pk: int) -> HttpResponse:
    """The same question as a new job, of whoever asks now."""
    job = get_object_or_404(ExportJob, pk=pk)
    try:
        try_again(job=job, actor=actor_name(request), abilities=abilities_for(request.user, job.kind))
    except ExportRefused as refusal:
        messages.error(request, f"Nothing was started: {refusal}.")
    else:
        messages.success(request, f"{job.title}: the file is being written.")
    return redirect("exports")


@needs(Ability.READ)
@require_safe
def download(request: HttpRequest, pk: int) -> HttpResponse:
    """The file, for whoever may see what is in it."""
    job = get_object_or_404(ExportJob, pk=pk)
    if not may_download(request.user, job):
        raise PermissionDenied("see what is in this file")
    path = path_of(job)
    if job.state != ExportState.DONE or not path.is_file():
        messages.error(request, f"The file of “{job.title}” is not here: start the export again.")
        return redirect("exports")
    record_download(job=job, actor=actor_name(request))
    response = stream_download(
        request, pieces_of(path), content_type=FORMATS[job.file_format], file_name=job.file_name
    )
    response["Content-Length"] = str(job.byte_count)
    return cast(HttpResponse, response)  # by its type it is none; the guard passes any answer on


def _title_of(kind: str, query: str) -> str:
    """What an export is called; of requests with the names of what they are filtered by."""
    chips = list_chips(dict(parse_qsl(query))) if kind == ExportKind.REQUESTS else []
    return ", ".join([title_of(kind, query), *(f"{chip.name} {chip.value}" for chip in chips)])


def abilities_for(person: Person, kind: str) -> list[Ability]:
    """What whoever downloads the file must have: its columns are those that the person who starts it sees."""
    has_margin = kind in (ExportKind.SPEND, ExportKind.SPEND_KEYS) and may(person, Ability.SEE_MARGIN)
    return [Ability.READ, *([Ability.SEE_MARGIN] if has_margin else [])]


def _at_once(request: HttpRequest, table: Table, file_format: str) -> HttpResponse:
    file_name = f"{table.file_stem}.{file_format}"
    pieces = _pieces(table, file_format) if file_format in ("csv", "jsonl") else _whole(table, file_format)
    response = stream_download(request, pieces, content_type=FORMATS[file_format], file_name=file_name)
    return cast(HttpResponse, response)


def _pieces(table: Table, file_format: str) -> Iterator[bytes]:
    """A file of lines while its rows are read."""
    is_csv = file_format == "csv"
    piece = [csv_line([column.name for column in table.columns])] if is_csv else []
    for row in table.rows:
        piece.append(csv_line(row, table.columns) if is_csv else json_line(row, table.columns))
        if len(piece) >= ROWS_A_PIECE:
            yield b"".join(piece)
            piece = []
    yield b"".join(piece)


def _whole(table: Table, file_format: str) -> Iterator[bytes]:
    """A file that is whole before it is sent."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table"
        file = open_row_file(file_format, path, table.columns, name=table.name, about=table.about)
        for row in table.rows:
            file.write(row)
        file.close()
        yield from pieces_of(path)


def _may_cancel(request: HttpRequest, job: ExportJob) -> bool:
    return job.started_by == actor_name(request) or may(request.user, Ability.CONFIGURE)


def _shown(request: HttpRequest, job: ExportJob) -> dict[str, Any]:
    return {
        "job": job,
        "format": FORMAT_NAMES.get(job.file_format, job.file_format),
        "is_active": job.state in ACTIVE_STATES,
        "may_cancel": job.state in ACTIVE_STATES and _may_cancel(request, job),
        "is_ready": job.state == ExportState.DONE and may_download(request.user, job),
        "may_try_again": may_be_tried_again(job),
        "share_done": job.done_count / job.total_count if job.total_count else 0.0,
    }


def _list_months(today: dt.date) -> list[tuple[str, str]]:
    """The last months, the last whole one first: that is what is exported."""
    month = today.replace(day=1)
    found = []
    for _ in range(MONTHS_OFFERED):
        found.append((f"{month:%Y-%m}", f"{month:%B %Y}"))
        month = (month - dt.timedelta(days=1)).replace(day=1)
    return [*found[1:], (found[0][0], f"{found[0][1]}, until now")]


def _offer(asked: Mapping[str, str]) -> dict[str, str] | None:
    """A table that was too large to be made at once, as its page's link asks for it."""
    kind, file_format = asked.get("kind", ""), asked.get("format", "")
    if kind not in (ExportKind.SPEND, ExportKind.SPEND_KEYS) or file_format not in FORMATS:
        return None
    query = asked.get("query", "")[:1000]
    return {
        "kind": kind,
        "format": file_format,
        "format_name": FORMAT_NAMES[file_format],
        "query": query,
        "title": title_of(kind, query),
    }
