"""How do request records leave as a file? JSON Lines or CSV, oldest first, in constant memory.

Reads: request_record, attempt_record over a server-side cursor, and the names of what they point to.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import orjson
from django.db import transaction

from billing.models import RequestRecord
from billing.money import usd_text
from billing.request_listing import RequestFilters, filter_requests
from billing.request_view import attempts_of, load_names, request_as_json

Format = Literal["jsonl", "csv"]
CHUNK = 500
# A spreadsheet runs a text that begins with one of these as a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

CSV_COLUMNS = (
    "id", "started_at", "tenant", "project", "key", "endpoint", "requested_model", "model", "served_model",
    "deployment", "provider", "policy", "policy_version", "rule", "is_stream", "is_pinned", "status",
    "http_status", "error_code", "finish_reason", "attempt_count", "duration_ms", "first_token_ms",
    "price_id", "is_unpriced", "cost_nanousd", "cost_usd", "charge_nanousd", "charge_usd",
)  # fmt: skip
USAGE_COLUMNS = (
    "kind", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens",
    "audio_input_tokens", "audio_output_tokens", "convention", "service_tier", "reported_cost_nanousd",
)  # fmt: skip
JSON_COLUMNS = ("attempts", "decision", "features", "tags")
# What usage has learnt to count since the columns above were first written: at the end of the row, so that whoever
# reads a file by the place of a column goes on reading the same ones.
LATER_USAGE_COLUMNS = (
    "cache_write_1h_tokens", "search_count", "image_input_tokens", "image_output_tokens", "image_count", "audio_s",
)  # fmt: skip


def export_requests(
    *, file_format: Format, since: dt.datetime | None = None, until: dt.datetime | None = None
) -> Iterator[str]:
    """Yield the file in pieces that end with a line. `until` is exclusive."""
    if file_format == "csv":
        yield _csv_rows([list_columns()])
    for chunk in _chunks(RequestFilters(since=since, until=until)):
        shown = show_chunk(chunk)
        if file_format == "csv":
            yield _csv_rows([_csv_row(one) for one in shown])
        else:
            yield "".join(orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE).decode() for one in shown)


def list_columns(*, has_json: bool = True) -> list[str]:
    """The columns of a table of requests, in order; those of JSON help nobody in a spreadsheet."""
    usage, later = ([f"usage_{name}" for name in names] for names in (USAGE_COLUMNS, LATER_USAGE_COLUMNS))
    return [*CSV_COLUMNS, *usage, *(JSON_COLUMNS if has_json else ()), *later]


def show_chunk(records: Sequence[RequestRecord]) -> list[dict[str, Any]]:
    """Records as the API shows them, and what the tenant is charged: some queries for all of them together."""
    attempts = attempts_of(records)
    load_names(records, [attempt for own in attempts.values() for attempt in own])
    return [{**request_as_json(record, attempts[record.id]), **_charge_of(record)} for record in records]


def _charge_of(record: RequestRecord) -> dict[str, Any]:
    """Without terms of its own a request is charged at its cost; unknown is not zero."""
    nanousd = record.cost_nanousd if record.charge_nanousd is None else record.charge_nanousd
    return {"charge_nanousd": nanousd, "charge_usd": None if nanousd is None else usd_text(nanousd)}


def _chunks(filters: RequestFilters) -> Iterator[list[RequestRecord]]:
    # In a transaction the cursor streams; outside of one the server would first put the whole result aside.
    with transaction.atomic():
        chunk: list[RequestRecord] = []
        for record in filter_requests(filters).order_by("started_at", "id").iterator(chunk_size=CHUNK):
            chunk.append(record)
            if len(chunk) == CHUNK:
                yield chunk
                chunk = []
        if chunk:
            yield chunk


def _csv_row(shown: dict[str, Any]) -> list[str]:
    return [
        *(_cell(shown[name]) for name in CSV_COLUMNS),
        *(_cell(shown["usage"][name]) for name in USAGE_COLUMNS),
        *(orjson.dumps(shown[name]).decode() for name in JSON_COLUMNS),
        *(_cell(shown["usage"][name]) for name in LATER_USAGE_COLUMNS),
    ]


def _cell(value: object) -> str:
    """A value as a cell: empty for unknown, true/false, texts without a formula's beginning."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return neutralised(value)
    return str(value)


def neutralised(text: str) -> str:
    """Put an apostrophe before a text that a spreadsheet would run."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _csv_rows(rows: list[list[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()
