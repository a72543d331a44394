"""How does a file of bytes become records? CSV with its line numbers, JSON with its places.

Pure. CSV: UTF-8 with or without a byte order mark, separated by commas or semicolons. JSON: exact decimals, and no NaN.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from billing.provider_bills.bill import BillError
from billing.provider_bills.cells import Record

MAX_FILE_BYTES: Final = 20_000_000
MAX_LINES: Final = 200_000


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV file: its columns, and its lines as lists of cells."""

    columns: tuple[str, ...]
    lines: Sequence[tuple[int, list[str]]]

    def records(self, names: Mapping[str, str] | None = None) -> Iterator[Record]:
        """The lines; `names` calls columns otherwise: our name -> the file's."""
        places = {column: place for place, column in enumerate(self.columns)}
        wanted = {column: column for column in self.columns} if names is None else names
        chosen = [(name, places[column]) for name, column in wanted.items() if column in places]
        for number, cells in self.lines:
            values = {name: cells[place] for name, place in chosen}
            yield Record(f"line {number}", values, True, whole="\0".join(cells))

    def need(self, *columns: str) -> None:
        """Raise BillError naming the columns that are missing."""
        missing = list(dict.fromkeys(column for column in columns if column not in self.columns))
        if missing:
            listed = ", ".join(self.columns)[:300]
            one, verb = ("column", "is") if len(missing) == 1 else ("columns", "are")
            raise BillError(f"line 1: the {one} {', '.join(missing)} {verb} missing; the file has {listed}")


def decode(raw: bytes) -> str:
    """The file as text. Raises BillError."""
    if len(raw) > MAX_FILE_BYTES:
        raise BillError(f"the file is larger than {MAX_FILE_BYTES // 1_000_000} MB")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BillError("the file is not text in UTF-8") from None
    if "\0" in text:
        raise BillError("the file holds a zero byte: it is no text")
    if not text.strip():
        raise BillError("the file is empty")
    return text


def is_json(text: str) -> bool:
    """Say whether a text begins like JSON; a CSV file never does."""
    return text.lstrip()[:1] in ("{", "[")


def read_json(text: str) -> Any:
    """Read JSON with exact numbers. Raises BillError."""
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=_refuse_constant)
    except json.JSONDecodeError as refusal:
        raise BillError(f"line {refusal.lineno}: not JSON: {refusal.msg}") from None
    except RecursionError:
        raise BillError("not JSON: nested too deeply") from None
    except ValueError as refusal:  # an integer of thousands of digits
        raise BillError(f"not JSON: {str(refusal)[:100]}") from None


def read_table(text: str) -> Table:
    """Read CSV. Raises BillError listing lines that have another number of cells than the first."""
    first = text.split("\n", 1)[0]
    delimiter = ";" if ";" in first and "," not in first else ","
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    lines: list[tuple[int, list[str]]] = []
    problems: list[str] = []
    try:
        columns = tuple(column.strip() for column in next(reader, []))
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(lines) >= MAX_LINES:
                raise BillError(f"line {reader.line_num}: a file holds at most {MAX_LINES:,} lines")
            if len(cells) != len(columns):
                problems.append(
                    f"line {reader.line_num}: {len(cells)} cells, the first line has {len(columns)}"
                )
            lines.append((reader.line_num, cells))
    except csv.Error as refusal:
        raise BillError(f"line {reader.line_num}: {refusal}") from None
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise BillError(f"line 1: the column {twice[0] or '(without a name)'} stands twice")
    if problems:
        raise BillError("\n".join(problems[:20]))
    return Table(columns, lines)


def list_pages(document: Any) -> list[Mapping[str, Any]]:
    """The pages of an answer: one object with `data`, or a list of such."""
    pages = document if isinstance(document, list) else [document]
    for page in pages:
        if not isinstance(page, dict) or not isinstance(page.get("data"), list):
            raise BillError(
                "an object with the list data is needed, as the provider's API answers, or a list of such"
            )
    return pages


def list_buckets(document: Any) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(place, bucket without its results, result) of an answer that sums by time: pages > data > results."""
    pages = list_pages(document)
    for number, page in enumerate(pages):
        before = f"[{number}]." if len(pages) > 1 else ""
        for bucket_number, bucket in enumerate(page["data"]):
            place = f"{before}data[{bucket_number}]"
            results = bucket.get("results") if isinstance(bucket, dict) else None
            if not isinstance(results, list):
                raise BillError(f"{place}: the list results is missing")
            times = {name: value for name, value in bucket.items() if name != "results"}
            for result_number, result in enumerate(results):
                here = f"{place}.results[{result_number}]"
                if not isinstance(result, dict):
                    raise BillError(f"{here}: not an object")
                yield here, times, result


def _refuse_constant(text: str) -> Any:
    raise BillError(f"{text} is not a number")
