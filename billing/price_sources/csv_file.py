"""What does a CSV file say that deployments cost? A contract, a price list of one's own.

Pure. The first line names the columns: `deployment`, rates as `billing.pricebook` names them (limited ones too), and if
wanted `effective_from`, `effective_until`, `source`. Every mistake is told with its line; one mistake refuses the file.
With `effective_until`, the prices of a deployment must follow each other without a hole or an overlap, the last open.
"""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

from billing.price_sources.listing import Answer, Called, Listing, SourceError
from billing.pricebook import RATE_NAMES, PriceError, is_limited_rate, parse_rates

KIND = "csv"
MAX_FILE_BYTES = 2_000_000
MAX_ROWS = 10_000
MAX_PROBLEMS = 20
OTHER_COLUMNS = ("deployment", "effective_from", "effective_until", "source")
# What a spreadsheet would calculate. Numbers of a price never begin like this, names of deployments neither.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Reader(Protocol):
    """What `csv.reader` makes."""

    @property
    def line_num(self) -> int: ...

    def __iter__(self) -> Iterator[list[str]]: ...


class Row(NamedTuple):
    line: int
    deployment: str
    listing: Listing
    until: dt.datetime | None


@dataclass(frozen=True, slots=True)
class CsvFile:
    """A file that was read: deployment name -> its prices, the earliest first."""

    rows: Mapping[str, Sequence[Row]]
    title: str
    digest: str
    kind: str = KIND

    def find(self, called: Called, *, now: dt.datetime) -> Answer:
        """The prices that the file states for a deployment."""
        rows = self.rows.get(called.name)
        if not rows:
            return Answer("unlisted", text="the file does not name it")
        return Answer("listed", tuple(row.listing for row in rows))


def read_file(raw: bytes, *, name: str, deployments: set[str]) -> CsvFile:
    """Read the file, of which every row names one of `deployments`. Raises SourceError listing what is wrong."""
    if len(raw) > MAX_FILE_BYTES:
        raise SourceError(f"{name} is larger than {MAX_FILE_BYTES // 1_000_000} MB")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SourceError(f"{name} is not text in UTF-8") from None
    if "\0" in text:
        raise SourceError(f"{name} holds a zero byte: it is no CSV file")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [column.strip() for column in next(reader, [])]
        _check_header(header)
        rows, problems = _read_rows(reader, header, deployments)
    except csv.Error as refusal:
        raise SourceError(f"line {reader.line_num}: {refusal}") from None
    by_deployment: dict[str, list[Row]] = {}
    for row in rows:
        by_deployment.setdefault(row.deployment, []).append(row)
    for prices in by_deployment.values():
        prices.sort(key=lambda row: row.listing.effective_from or dt.datetime.min.replace(tzinfo=dt.UTC))
        problems += _gaps(prices)
    if not rows and not problems:
        problems = ["the file states no price"]
    if problems:
        more = len(problems) - MAX_PROBLEMS
        raise SourceError("\n".join([*problems[:MAX_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]))
    digest = hashlib.sha256(raw).hexdigest()
    return CsvFile(by_deployment, f"{name[:60]} ({digest[:8]})", digest)


def _check_header(header: Sequence[str]) -> None:
    unknown = [c for c in header if c not in OTHER_COLUMNS and c not in RATE_NAMES and not is_limited_rate(c)]
    if unknown:
        known = ", ".join((*OTHER_COLUMNS, *RATE_NAMES))
        raise SourceError(
            f"line 1: no such column: {', '.join(repr(c[:60]) for c in unknown)}; known are {known}"
        )
    if "deployment" not in header:
        raise SourceError("line 1: the column deployment is missing")
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise SourceError(f"line 1: the column {twice[0]} stands twice")
    if not set(header) - set(OTHER_COLUMNS):
        raise SourceError("line 1: no column states a rate")


def _read_rows(reader: Reader, header: Sequence[str], deployments: set[str]) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    problems: list[str] = []
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if len(rows) + len(problems) >= MAX_ROWS:
            raise SourceError(f"line {reader.line_num}: a file holds at most {MAX_ROWS:,} prices")
        if len(cells) != len(header):
            problems.append(f"line {reader.line_num}: {len(cells)} cells, the first line has {len(header)}")
            continue
        try:
            rows.append(
                _read_row(reader.line_num, dict(zip(header, map(str.strip, cells), strict=True)), deployments)
            )
        except SourceError as refusal:
            problems.append(f"line {reader.line_num}: {refusal}")
    return rows, problems


def _read_row(line: int, cells: Mapping[str, str], deployments: set[str]) -> Row:
    for column, cell in cells.items():
        if cell.startswith(_FORMULA):
            raise SourceError(
                f"{column}: {cell[:40]!r} is negative or a formula, which is no price and no name"
            )
    if cells["deployment"] not in deployments:
        raise SourceError(f"there is no deployment {cells['deployment'][:100]!r}")
    stated = {column: cell for column, cell in cells.items() if column not in OTHER_COLUMNS and cell}
    try:
        rates = parse_rates(stated)
    except PriceError as refusal:
        raise SourceError(str(refusal)) from None
    begins, until = (_read_moment(cells, column) for column in ("effective_from", "effective_until"))
    if begins and until and until <= begins:
        raise SourceError("effective_until is not after effective_from")
    source = cells.get("source", "")[:150]
    return Row(line, cells["deployment"], Listing(source or f"line {line}", rates, begins), until)


def _read_moment(cells: Mapping[str, str], column: str) -> dt.datetime | None:
    text = cells.get(column, "")
    if not text:
        return None
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError:
        raise SourceError(f"{column}: {text[:40]!r} is no time, for example 2026-01-31T12:00:00Z") from None
    if at.tzinfo is None and len(text) > len("2026-01-31"):
        raise SourceError(f"{column}: {text[:40]!r} needs its time zone, for example 2026-01-31T12:00:00Z")
    if not 2000 <= at.year <= 2200:
        raise SourceError(f"{column}: {text[:40]!r} is not between the years 2000 and 2200")
    return at if at.tzinfo else at.replace(tzinfo=dt.UTC)  # a date alone: from midnight UTC


def _gaps(prices: Sequence[Row]) -> list[str]:
    problems = []
    for former, row in pairwise(prices):
        begins = row.listing.effective_from
        if former.listing.effective_from == begins:
            problems.append(
                f"line {row.line}: {row.deployment} has another price from that time in line {former.line}"
            )
        elif former.until and begins and former.until < begins:
            hole = f"from {former.until:%Y-%m-%d %H:%M} to {begins:%Y-%m-%d %H:%M}"
            problems.append(
                f"line {row.line}: {row.deployment} has no price {hole}, after line {former.line}"
            )
        elif former.until and begins and former.until > begins:
            problems.append(
                f"line {row.line}: overlaps with line {former.line}, which holds until {former.until:%Y-%m-%d %H:%M}"
            )
    last = prices[-1]
    if last.until:
        problems.append(
            f"line {last.line}: after {last.until:%Y-%m-%d %H:%M} {last.deployment} would have no price: leave it open"
        )
    return problems
