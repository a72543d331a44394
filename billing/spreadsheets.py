"""How does a table of a report become a file? Columns and rows -> CSV or XLSX.

Pure. Amounts are integer nano-USD in, exact decimals out: no float takes part. Texts are never run as formulas: CSV
puts an apostrophe before what a spreadsheet would run, XLSX marks every text as text.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple

import xlsxwriter

from billing.exporting import neutralised
from billing.money import usd_decimal, usd_text

Kind = Literal["text", "count", "usd", "ratio", "day", "decimal", "number", "time", "flag"]
# Spreadsheets keep numbers as doubles: whole ones are exact up to here, greater ones go out as text.
_EXACT_LIMIT: Final = 2**53
_FORMATS: Final[dict[str, str]] = {
    "count": "#,##0",
    "usd": '"$"#,##0.00#######',
    "ratio": "0.0%",
    "day": "yyyy-mm-dd",
    "decimal": "0.00##################",
    "number": "0.0##",
}
_WIDTHS: Final[dict[str, int]] = {
    "text": 30, "count": 15, "usd": 17, "ratio": 12, "day": 12, "decimal": 17, "number": 12, "time": 26, "flag": 9,
}  # fmt: skip
# Nothing in a text of a file is run, looked up or turned into a number.
XLSX_OPTIONS: Final = {"strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}


class Column(NamedTuple):
    """One column: its name in the file's first row, and what its values are.

    `usd`: whole nano-USD; `decimal`: an exact Decimal; `number`: a float, never money; `time`: an aware datetime.
    """

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table, its last row being the total, and what a reader has to know about it."""

    name: str
    columns: tuple[Column, ...]
    rows: Sequence[Sequence[Any]]
    total: Sequence[Any]
    about: Sequence[tuple[str, str]]


def as_csv(sheet: Sheet) -> str:
    """Write the rows and the total. None is an empty cell: unknown is not zero."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow([column.name for column in sheet.columns])
    for row in _all_rows(sheet):
        writer.writerow(csv_cells(row, sheet.columns))
    return buffer.getvalue()


def as_xlsx(sheet: Sheet) -> bytes:
    """Write a workbook: the table, and a second sheet that says what it is."""
    buffer = io.BytesIO()
    with xlsxwriter.Workbook(buffer, {"in_memory": True, **XLSX_OPTIONS}) as book:
        formats, totals = xlsx_formats(book), xlsx_formats(book, bold=True, top=1)
        page = book.add_worksheet(sheet.name)
        begin_xlsx_page(page, sheet.columns, book.add_format({"bold": True, "bottom": 1}))
        for number, row in enumerate(sheet.rows, 1):
            write_xlsx_row(page, number, row, sheet.columns, formats)
        write_xlsx_row(page, len(sheet.rows) + 1, sheet.total, sheet.columns, totals)
        page.freeze_panes(1, 1)
        if sheet.rows:
            page.autofilter(0, 0, len(sheet.rows), len(sheet.columns) - 1)
        write_xlsx_about(book, sheet.about)
    return buffer.getvalue()


def xlsx_formats(book: Any, **style: Any) -> dict[str, Any]:
    """How cells of each kind look in this workbook."""
    plain = {kind: book.add_format(style) for kind in ("text", "time", "flag")}
    return plain | {
        kind: book.add_format({"num_format": pattern, **style}) for kind, pattern in _FORMATS.items()
    }


def begin_xlsx_page(page: Any, columns: Sequence[Column], heading: Any) -> None:
    """Widths and names of the columns."""
    for place, column in enumerate(columns):
        page.set_column(place, place, _WIDTHS[column.kind])
        page.write_string(0, place, column.name, heading)


def write_xlsx_about(book: Any, lines: Iterable[tuple[str, str]]) -> None:
    """The sheet that says what the table is."""
    about = book.add_worksheet("About")
    about.set_column(0, 0, 24)
    about.set_column(1, 1, 100)
    heading = book.add_format({"bold": True})
    for number, (name, text) in enumerate(lines):
        about.write_string(number, 0, name, heading)
        about.write_string(number, 1, text)


def _all_rows(sheet: Sheet) -> Iterable[Sequence[Any]]:
    yield from sheet.rows
    yield sheet.total


def csv_cells(row: Sequence[Any], columns: Sequence[Column]) -> list[str]:
    """One row as texts that no spreadsheet runs."""
    return [_csv_cell(value, column.kind) for value, column in zip(row, columns, strict=True)]


def csv_line(row: Sequence[Any], columns: Sequence[Column] | None = None) -> bytes:
    """One line of a CSV file; without columns all cells are texts."""
    buffer = io.StringIO()
    cells = csv_cells(row, columns) if columns is not None else [neutralised(str(cell)) for cell in row]
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue().encode()


def exact_text(value: Decimal) -> str:
    """A decimal without an exponent and without zeros that say nothing: "0.05", "1200", "0"."""
    text = format(value, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def _csv_cell(value: Any, kind: Kind) -> str:
    if value is None:
        return ""
    if kind == "usd":
        return usd_text(value)
    if kind == "decimal":
        return exact_text(value)
    if kind == "ratio":
        return f"{value:.6f}"
    if kind == "day":
        return value.isoformat() if isinstance(value, dt.date) else str(value)
    if kind == "time":
        return time_text(value)
    if kind == "flag":
        return "true" if value else "false"
    return neutralised(str(value)) if kind == "text" else str(value)


def time_text(at: dt.datetime) -> str:
    """2026-11-23T10:28:15.123Z"""
    return at.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def write_xlsx_row(
    page: Any, number: int, row: Sequence[Any], columns: Sequence[Column], formats: dict[str, Any]
) -> None:
    """Write one row of cells, each as what it is."""
    for place, (value, column) in enumerate(zip(row, columns, strict=True)):
        style = formats[column.kind]
        if value is None:
            page.write_blank(number, place, None, style)
        elif column.kind == "text":
            page.write_string(number, place, str(value), style)
        elif column.kind == "time":
            page.write_string(number, place, time_text(value), style)
        elif column.kind == "flag":
            page.write_boolean(number, place, bool(value), style)
        elif column.kind == "day":
            page.write_datetime(number, place, dt.datetime.combine(value, dt.time()), style)
        elif column.kind == "usd":
            # XlsxWriter prints a Decimal with 16 digits: exact up to $10 million; the column beside it is in nano-USD.
            page.write_number(number, place, usd_decimal(value), style)
        elif column.kind == "count" and abs(value) >= _EXACT_LIMIT:
            page.write_string(number, place, str(value), style)
        else:
            page.write_number(number, place, value, style)
