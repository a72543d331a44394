"""How do the rows of an export become a file, however many there are? CSV, XLSX, JSON Lines or Parquet.

Writes: the file that it is given. No format keeps more than some thousand rows in memory.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import orjson
import xlsxwriter

from billing.money import usd_text
from billing.parquet_files import ParquetFile
from billing.parquet_files import is_installed as is_parquet_installed
from billing.spreadsheets import (
    XLSX_OPTIONS,
    Column,
    begin_xlsx_page,
    csv_cells,
    exact_text,
    time_text,
    write_xlsx_about,
    write_xlsx_row,
    xlsx_formats,
)

FORMATS: Final[Mapping[str, str]] = {
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "jsonl": "application/jsonl",
    "parquet": "application/vnd.apache.parquet",
}
FORMAT_NAMES: Final = {"csv": "CSV", "xlsx": "XLSX", "jsonl": "JSON Lines", "parquet": "Parquet"}
# The last row of an XLSX sheet; more go to a further sheet.
XLSX_ROWS: Final = 1_048_576
# A cell of XLSX takes no longer text; what is cut ends so.
XLSX_TEXT: Final = 32_767
CUT: Final = " … (cut)"


class RowFile(Protocol):
    """Takes rows, in order; `close` makes the file whole."""

    def write(self, row: Any) -> None: ...

    def close(self) -> None: ...


class FormatMissing(ValueError):
    """A format that this installation cannot write; the text says what to do."""


def check_format(file_format: str) -> None:
    """Raise FormatMissing for a format that does not exist or is not installed."""
    if file_format not in FORMATS:
        raise FormatMissing(f"there is no format {file_format}; there are {', '.join(FORMATS)}")
    if file_format == "parquet" and not is_parquet_installed():
        raise FormatMissing("Parquet is not installed: .venv/bin/pip install pyarrow")


def list_formats() -> list[tuple[str, str, bool]]:
    """Format, its name, whether it can be written here."""
    return [
        (name, title, name != "parquet" or is_parquet_installed()) for name, title in FORMAT_NAMES.items()
    ]


def open_row_file(
    file_format: str,
    path: Path,
    columns: Sequence[Column],
    *,
    name: str,
    about: Sequence[tuple[str, str]] = (),
) -> RowFile:
    """Begin a file. `name` is that of the sheet, `about` what a reader has to know (XLSX). Raises FormatMissing."""
    check_format(file_format)
    if file_format == "csv":
        return CsvFile(path, columns)
    if file_format == "jsonl":
        return JsonLinesFile(path, columns)
    if file_format == "parquet":
        return ParquetFile(path, columns)
    return XlsxFile(path, columns, name=name, about=about)


class CsvFile:
    """A line a row; texts run no formula."""

    def __init__(self, path: Path, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file, lineterminator="\r\n")
        self._writer.writerow([column.name for column in columns])

    def write(self, row: Any) -> None:
        self._writer.writerow(csv_cells(row, self._columns))

    def close(self) -> None:
        self._file.close()


class JsonLinesFile:
    """A JSON object a row; a row that is an object already stays as it is. Amounts are exact texts."""

    def __init__(self, path: Path, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._file = path.open("wb")

    def write(self, row: Any) -> None:
        self._file.write(json_line(row, self._columns))

    def close(self) -> None:
        self._file.close()


class XlsxFile:
    """A workbook whose rows leave memory at once; a second sheet says what it is, a third goes on beyond a million."""

    def __init__(
        self, path: Path, columns: Sequence[Column], *, name: str, about: Sequence[tuple[str, str]]
    ) -> None:
        self._columns = columns
        self._name = name
        self._about = about
        self._book = xlsxwriter.Workbook(
            str(path), {"constant_memory": True, "tmpdir": str(path.parent), **XLSX_OPTIONS}
        )
        self._heading = self._book.add_format({"bold": True, "bottom": 1})
        self._formats = xlsx_formats(self._book)
        self._page_count = 0
        self._begin_page()

    def write(self, row: Any) -> None:
        if self._next_row == XLSX_ROWS:
            self._begin_page()
        cells = [
            f"{value[: XLSX_TEXT - len(CUT)]}{CUT}"
            if isinstance(value, str) and len(value) > XLSX_TEXT
            else value
            for value in row
        ]
        write_xlsx_row(self._page, self._next_row, cells, self._columns, self._formats)
        self._next_row += 1

    def close(self) -> None:
        if self._about:
            write_xlsx_about(self._book, self._about)
        self._book.close()

    def _begin_page(self) -> None:
        self._page_count += 1
        title = self._name if self._page_count == 1 else f"{self._name} {self._page_count}"
        self._page = self._book.add_worksheet(title)
        begin_xlsx_page(self._page, self._columns, self._heading)
        self._page.freeze_panes(1, 1)
        self._next_row = 1


def json_line(row: Any, columns: Sequence[Column]) -> bytes:
    """One row as a line of JSON."""
    shown = (
        row
        if isinstance(row, dict)
        else {
            column.name: _json_value(value, column.kind) for value, column in zip(row, columns, strict=True)
        }
    )
    return orjson.dumps(shown, option=orjson.OPT_APPEND_NEWLINE)


def _json_value(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "usd":
        return usd_text(value)
    if kind == "decimal":
        return exact_text(value)
    return time_text(value) if kind == "time" else value
