"""What does an export hold? Its kind and address -> columns and rows, the very ones of the page.

Reads: records by pages, reports by `billing.spend_tables`, FOCUS by `billing.focus_rows`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson
from django.utils.dateparse import parse_datetime

from billing import focus, focus_rows
from billing.exporting import JSON_COLUMNS, list_columns, show_chunk
from billing.models import ExportKind, RequestRecord
from billing.request_listing import RequestFilters, filter_requests
from billing.request_questions import read_filters
from billing.spend_tables import Answer, key_table, spend_table
from billing.spreadsheets import Column, Kind
from policies.errors import ConfigurationError

CHUNK: Final = 500
# JSON in a cell of a spreadsheet helps nobody, and is longer than a cell may be.
NO_JSON_FORMATS: Final = ("xlsx",)


@dataclass(frozen=True, slots=True)
class Table:
    """`rows` can be read once. A row is its values in the order of the columns, or (JSON Lines) an object as it is."""

    name: str
    file_stem: str
    columns: tuple[Column, ...]
    rows: Iterator[Any]
    count: Callable[[], int]
    about: Sequence[tuple[str, str]] = ()


class ExportRefused(ConfigurationError):
    """An address that no table can be read of; the text says why."""


def open_table(
    kind: str, query: str, file_format: str, *, now: dt.datetime, sees_margin: bool = False
) -> Table:
    """The table of one export. `sees_margin`: whoever may have it sees the margin. Raises ExportRefused."""
    asked = dict(parse_qsl(query))
    if kind == ExportKind.REQUESTS:
        return _requests(asked, file_format, now)
    if kind == ExportKind.SPEND:
        return _spend(spend_table(asked, now=now, sees_margin=sees_margin), file_format)
    if kind == ExportKind.SPEND_KEYS:
        return _spend(key_table(asked, now=now, sees_margin=sees_margin), file_format)
    if kind == ExportKind.FOCUS:
        return _focus(read_focus_question(asked), now)
    raise ExportRefused(f"there is no export of {kind}")


def count_requests(filters: RequestFilters, *, at_most: int | None = None) -> int:
    """How many records match; with `at_most` no more are counted than that and one."""
    rows = filter_requests(filters).order_by()
    return rows.count() if at_most is None else len(rows.values_list("pk")[: at_most + 1])


def _requests(asked: Mapping[str, str], file_format: str, now: dt.datetime) -> Table:
    # What comes in while the file is written is not in it: else it would never end where traffic is faster.
    filters = read_filters(asked)
    until = min(filters.until, now) if filters.until is not None else now
    names = list_columns(has_json=file_format not in NO_JSON_FORMATS)
    columns = tuple(Column(name, _kind_of(name)) for name in names)
    shown = (one for chunk in request_pages(filters, until) for one in show_chunk(chunk))
    rows: Iterator[Any] = shown if file_format == "jsonl" else (_request_cells(one, columns) for one in shown)
    return Table(
        name="Requests",
        file_stem=f"requests-{now:%Y-%m-%d-%H%M}",
        columns=columns,
        rows=rows,
        count=lambda: count_requests(_until(filters, until)),
        about=[
            ("Table", "Requests, the oldest first"),
            *((f"Only {name}", value) for name, value in asked.items() if value),
            ("Made at", f"{now.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"),
            ("Cost", "cost_nanousd is exact. An empty cell: no price, or unknown usage; it is not zero."),
            ("Left out", "Requests that were running; attempts and decisions (in CSV, JSON Lines, Parquet)."),
        ],
    )


def request_pages(filters: RequestFilters, until: dt.datetime) -> Iterator[list[RequestRecord]]:
    """Matching records, oldest first, a page at a time: no transaction stays open for the length of an export."""
    rows = filter_requests(_until(filters, until)).order_by("started_at", "id")
    last: RequestRecord | None = None
    while True:
        # The time alone lets the partitions and their indexes find the place; ids begin with it.
        found = rows if last is None else rows.filter(started_at__gte=last.started_at, id__gt=last.id)
        page = list(found[:CHUNK])
        if page:
            yield page
            last = page[-1]
        if len(page) < CHUNK:
            return


def _until(filters: RequestFilters, until: dt.datetime) -> RequestFilters:
    return RequestFilters(
        **{name: getattr(filters, name) for name in RequestFilters.__slots__ if name != "until"}, until=until
    )


def _kind_of(name: str) -> Kind:
    if name in ("http_status", "policy_version", "price_id", "usage_audio_s"):
        return "count"
    kinds: Mapping[str, Kind] = {
        "_count": "count", "_tokens": "count", "_nanousd": "count", "_usd": "decimal", "_ms": "number", "_at": "time",
    }  # fmt: skip
    if name.startswith("is_"):
        return "flag"
    return next((kind for ending, kind in kinds.items() if name.endswith(ending)), "text")


def _request_cells(shown: Mapping[str, Any], columns: Sequence[Column]) -> list[Any]:
    cells: list[Any] = []
    for column in columns:
        if column.name in JSON_COLUMNS:
            cells.append(orjson.dumps(shown[column.name]).decode())
            continue
        value = (
            shown["usage"][column.name.removeprefix("usage_")]
            if column.name.startswith("usage_")
            else shown[column.name]
        )
        if value is not None and column.kind == "decimal":
            value = Decimal(value)
        elif value is not None and column.kind == "time":
            value = parse_datetime(value)
        cells.append(value)
    return cells


def _spend(answer: Answer, file_format: str) -> Table:
    """A report is whole in memory already: there are as many rows as keys, not as requests."""
    sheet = answer.sheet
    # The total is a row for people; a program that adds up a column would count everything twice.
    rows = [*sheet.rows] if file_format in ("jsonl", "parquet") else [*sheet.rows, sheet.total]
    return Table(
        name=sheet.name,
        file_stem=answer.file_stem,
        columns=sheet.columns,
        rows=iter(rows),
        count=lambda: len(rows),
        about=sheet.about,
    )


@dataclass(frozen=True, slots=True)
class FocusQuestion:
    """A month (its first day), the version of FOCUS, one tenant or all."""

    month: dt.date
    version: str
    tenant_id: int | None


def read_focus_question(asked: Mapping[str, str]) -> FocusQuestion:
    """Read month=2026-10, version=1.4, tenant=ID. Raises ExportRefused."""
    try:
        month = dt.datetime.strptime(asked.get("month", ""), "%Y-%m").replace(tzinfo=dt.UTC).date()
    except ValueError:
        raise ExportRefused("name a month, for example 2026-10") from None
    if not 2000 <= month.year <= 2999:
        raise ExportRefused("name a month from 2000 on")
    version = asked.get("version") or focus.VERSIONS[0]
    if version not in focus.VERSIONS:
        raise ExportRefused(f"there is no FOCUS {version} here; there are {', '.join(focus.VERSIONS)}")
    tenant = asked.get("tenant", "")
    if tenant and not (tenant.isascii() and tenant.isdecimal() and len(tenant) <= 18):
        raise ExportRefused("a tenant is named by its number")
    return FocusQuestion(month, version, int(tenant) if tenant else None)


def _focus(question: FocusQuestion, now: dt.datetime) -> Table:
    columns = focus.columns_of(question.version)
    last = focus_rows.last_day_of(question.month)
    # Days that have not come have no rows to look for.
    span: dict[str, Any] = {
        "first_day": question.month,
        "last_day": last,
        "tenant_id": question.tenant_id,
    }
    whose = "" if question.tenant_id is None else f"-tenant-{question.tenant_id}"

    def count() -> int:
        focus_rows.bring_up_to_date(**span)
        return focus_rows.count_rows(**span)

    return Table(
        name="FOCUS",
        file_stem=f"focus-{question.version}-{question.month:%Y-%m}{whose}",
        columns=columns,
        rows=(focus.values_of(row, columns) for row in focus_rows.read_rows(**span)),
        count=count,
        about=[
            ("Table", f"FOCUS {question.version} Cost and Usage, {question.month:%Y-%m} (UTC)"),
            ("Made at", f"{now.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"),
            ("ListCost", "Quantity times the rate of the provider's price."),
            ("ContractedCost", "Quantity times the tenant's rate."),
            ("BilledCost", "What was charged. The rows of an InvoiceId sum to the invoice's total with tax."),
        ],
    )
