"""What just happened, and why? The list of requests and the page of one.

Reads: request records by `billing.request_listing`, `billing.in_flight` and `billing.request_view`, prices.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.db.models import Model as Table
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

from billing.charge_lines import charge_lines
from billing.export_files import list_formats
from billing.in_flight import InFlight, list_in_flight
from billing.models import Label, RequestRecord
from billing.models.requests import RequestStatus
from billing.request_listing import ANY_FAILURE, Page, list_requests
from billing.request_questions import LABEL_FILTERS, read_filters
from billing.request_times import started_at_of
from billing.request_view import IN_FLIGHT, find_request
from billing.rerating import find_replacement
from policies.explaining import candidates_of, rules_of, sentences
from policies.models import ApiKey, Deployment, Model, Policy, Project, Provider, Tenant
from policies.permissions import Ability, needs

PAGE_SIZE = 50
NAMED: dict[str, type[Table]] = {
    "tenant": Tenant,
    "project": Project,
    "key": ApiKey,
    "deployment": Deployment,
    "provider": Provider,
    "policy": Policy,
    "served": Model,
    **dict.fromkeys(LABEL_FILTERS, Label),
}
STATUSES = [
    (ANY_FAILURE, "failed, refused or interrupted"),
    *((status.value, status.label) for status in RequestStatus),
    (IN_FLIGHT, "still running"),
]


@dataclass(frozen=True, slots=True)
class Chip:
    """One filter in force; `without` is the query string that takes it away."""

    name: str
    value: str
    without: str


@dataclass(frozen=True, slots=True)
class Span:
    """One attempt on the time axis, in per cent of the whole request."""

    attempt: Mapping[str, Any]
    begin: float
    wait: float
    run: float
    is_failed: bool

    @property
    def run_begin(self) -> float:
        return self.begin + self.wait


@needs(Ability.READ)
@require_safe
@vary_on_headers("HX-Request")
def list_page(request: HttpRequest) -> HttpResponse:
    """Requests, newest first. Filters and the place in the list live in the address."""
    query = {name: str(value) for name, value in request.GET.items() if value and name != "seen"}
    if (wanted := _uuid(query.get("q", ""))) is not None:
        return redirect("request", request_id=wanted)
    filters = read_filters(query)
    after, before = _uuid(query.pop("after", "")), _uuid(query.pop("before", ""))
    running = list_in_flight(filters) if after is None else InFlight()
    if filters.status == IN_FLIGHT:
        page = Page((), None)  # no record has this status, and nothing but reading all of them would tell
    else:
        page = list_requests(filters=filters, after=after, before=before, limit=PAGE_SIZE)
    if before is not None and page.next_before is None:
        # The newest page keeps up with what comes in; a page that ends at a fixed place would not.
        page = list_requests(filters=filters, limit=PAGE_SIZE)
        before = None
    ended = {record.id for record in page.records}
    open_records = [record for record in running.records if before is None and record.id not in ended]
    fingerprint = fingerprint_of(page, open_records)
    is_fragment = bool(request.headers.get("HX-Request"))
    if is_fragment and request.GET.get("seen") == fingerprint:
        return HttpResponse(status=204)
    context = {
        "page": page,
        "rows": [*open_records, *page.records],
        "has_more_running": bool(open_records) and running.has_more,
        "seen": fingerprint,
        "is_newest": after is None and before is None,
        "query": urlencode(query),
        "now": timezone.now(),
    }
    if is_fragment:
        return render(request, "requests/_rows.html", context | {"has_any": True})
    context |= {
        "chips": list_chips(query),
        "kept": {name: value for name, value in query.items() if name not in ("status", "model", "q")},
        "status": query.get("status", ""),
        "model": query.get("model", ""),
        "statuses": STATUSES,
        "export_formats": list_formats(),
        "has_any": bool(page.records or open_records) or RequestRecord.objects.exists(),
        "is_search_missed": bool(query.get("q")),
    }
    return render(request, "requests/list.html", context)


@needs(Ability.READ)
@require_safe
def show_request(request: HttpRequest, request_id: uuid.UUID) -> HttpResponse:
    """One request: attempts on a time axis, the decision in sentences, usage, price and charge."""
    record = find_request(request_id, key_id=None)
    if record is None:
        raise Http404
    decision = record["decision"] if isinstance(record["decision"], dict) else {}
    features = dict(record["features"])
    context = {
        "client_ids": features.pop("client", {}),
        "features": features,
        "record": record,
        "is_running": record["status"] == IN_FLIGHT,
        "spans": build_spans(record),
        "sentences": sentences(decision, refused_by=features.pop("refused_by", "")),
        "rules": rules_of(decision),
        "candidates": candidates_of(decision),
        "tried": {attempt["deployment"] for attempt in record["attempts"]},
        "charges": charge_lines(record["attempts"], at=started_at_of(request_id)),
        "replacement": find_replacement(request_id) if record.get("is_unpriced") else None,
    }
    is_fragment = bool(request.headers.get("HX-Request"))
    return render(request, "requests/_detail.html" if is_fragment else "requests/detail.html", context)


def list_chips(query: Mapping[str, str]) -> list[Chip]:
    """The filters in force, by name; one small query for each that names a row."""
    chips = []
    for name, value in query.items():
        shown = value
        if name in NAMED and value.isdecimal():
            row_id = int(value[:18])
            shown = (_name_of(NAMED[name], row_id) or f"#{value}") if row_id else "none"
        elif name == "unpriced":
            shown = "yes" if value == "1" else value
        elif name == "status":
            shown = value.replace("_", " ")
        elif name not in ("model", "error", "since", "until"):
            continue
        rest = {other: text for other, text in query.items() if other != name}
        chips.append(Chip("label" if name in LABEL_FILTERS else name, shown, urlencode(rest)))
    return chips


def build_spans(record: Mapping[str, Any]) -> list[Span]:
    """Lay the attempts out over the request's duration."""
    attempts = record["attempts"]
    ends = [attempt["offset_ms"] + attempt["duration_ms"] for attempt in attempts]
    whole = max([record["duration_ms"] or 0.0, *ends]) or 1.0
    spans = []
    for attempt in attempts:
        # Something that took no time to speak of is still seen.
        length = max(attempt["duration_ms"] / whole * 100, 0.6)
        first = attempt["first_byte_ms"]
        waited = (first - attempt["offset_ms"]) / whole * 100 if first is not None else length
        wait = min(max(waited, 0.0), length)
        begin = min(attempt["offset_ms"] / whole * 100, 100 - length)
        spans.append(Span(attempt, max(begin, 0.0), wait, length - wait, attempt["outcome"] != "ok"))
    return spans


def fingerprint_of(page: Page, running: Sequence[RequestRecord] = ()) -> str:
    """A short text that changes when the page does: records are never changed, so their ids say all.

    A running request that ends keeps its id and its place: so the two lists are told apart.
    """
    ids: Iterable[bytes] = (record.id.bytes for record in page.records)
    return f"{zlib.crc32(b''.join([*(record.id.bytes for record in running), b'|', *ids])):08x}"


def _name_of(table: type[Table], row_id: int) -> str | None:
    rows = table._default_manager.filter(pk=row_id)
    if table is ApiKey:
        rows = rows.select_related("project__tenant")
    elif table is Project:
        rows = rows.select_related("tenant")
    row = rows.first()
    return str(row) if row is not None else None


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text.strip())
    except ValueError:
        return None
