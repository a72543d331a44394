"""Which provider's file is this, and what does it say as a whole? Everything, or nothing with the reasons.

Pure. `find_rate` says what a currency is worth on a day.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from decimal import Context, Decimal
from typing import Any, Final, NamedTuple, Protocol

from billing.provider_bills import anthropic, files, mapped_csv, openai, openrouter
from billing.provider_bills.bill import Bill, BillError, BillLine
from billing.provider_bills.cells import Record
from billing.provider_bills.files import Table

MAX_PROBLEMS: Final = 20
MAX_NOTES: Final = 20
MAPPED: Final = "csv"
_EXACT = Context(prec=60)

ReadRecord = Callable[[Record], tuple[BillLine, str] | None]


class FindRate(Protocol):
    """Say how much of a currency one USD was on a day; None when nobody knows."""

    def __call__(self, *, currency: str, on: dt.date) -> Decimal | None: ...


class Format(NamedTuple):
    """How a format's JSON and CSV become records, and a record a line."""

    title: str
    from_json: Callable[[Any], Iterator[Record]]
    from_table: Callable[[Table], Iterator[Record]]
    read_json: ReadRecord
    read_table: ReadRecord


FORMATS: Final[Mapping[str, Format]] = {
    "openai-costs": Format(
        "OpenAI: costs", openai.cost_records, openai.cost_table, openai.read_cost, openai.read_cost
    ),
    "openai-usage": Format(
        "OpenAI: usage", openai.usage_records, openai.usage_table, openai.read_usage, openai.read_usage
    ),
    "anthropic-cost": Format(
        "Anthropic: cost report",
        anthropic.cost_records,
        anthropic.cost_table,
        anthropic.read_cost,
        anthropic.read_cost_line,
    ),
    "anthropic-usage": Format(
        "Anthropic: usage report",
        anthropic.usage_records,
        anthropic.usage_table,
        anthropic.read_usage,
        anthropic.read_usage,
    ),
    "openrouter": Format(
        "OpenRouter: activity",
        openrouter.activity_records,
        openrouter.activity_table,
        openrouter.read_activity,
        openrouter.read_activity,
    ),
}
TITLES: Final = {name: known.title for name, known in FORMATS.items()} | {MAPPED: "CSV with columns to name"}


def read_bill(
    raw: bytes,
    *,
    file_format: str,
    today: dt.date,
    find_rate: FindRate,
    columns: Mapping[str, str] | None = None,
) -> Bill:
    """Read a file. Raises BillError listing what is wrong, each with its line: then nothing of it is taken."""
    text = files.decode(raw)
    problems: list[str] = []
    notes: list[str] = []
    records: Iterator[Record]
    read: ReadRecord
    if file_format == MAPPED:
        if files.is_json(text):
            raise BillError("this is JSON, not CSV")
        records, read = mapped_csv.mapped_table(files.read_table(text), columns or {}), mapped_csv.read_line
    elif files.is_json(text):
        document = files.read_json(text)
        if any(page.get("has_more") for page in files.list_pages(document)[-1:]):
            notes.append("the last page says has_more: days after it are not in this file")
        records, read = FORMATS[file_format].from_json(document), FORMATS[file_format].read_json
    else:
        table = files.read_table(text)
        records, read = FORMATS[file_format].from_table(table), FORMATS[file_format].read_table
    lines = []
    seen: dict[str, str] = {}
    latest: tuple[dt.date, str] | None = None
    for record in records:
        first = seen.setdefault(record.whole, record.place)
        if first != record.place:
            problems.append(f"{record.place}: the same as {first}: it would count twice")
            continue
        try:
            found = read(record)
            if found is None:
                continue
            line = _in_usd(*found, find_rate=find_rate)
            if line.day > today:
                raise BillError(f"{line.day} is in the future")
        except BillError as refusal:
            problems.append(f"{record.place}: {refusal}")
            continue
        if latest is not None and line.day < latest[0]:
            notes.append(
                f"{record.place}: {line.day} comes after {latest[0]} ({latest[1]}); days may come in any order"
            )
        if latest is None or line.day > latest[0]:
            latest = (line.day, record.place)
        lines.append(line)
    if not lines and not problems:
        problems = ["nothing is charged in this file"]
    if problems:
        raise BillError("\n".join(_first(problems, MAX_PROBLEMS)))
    return Bill(tuple(lines), tuple(_first(notes, MAX_NOTES)))


def _in_usd(line: BillLine, currency: str, *, find_rate: FindRate) -> BillLine:
    if line.cost_usd is None or currency.upper() == "USD":
        return line
    rate = find_rate(currency=currency.upper(), on=line.day) if len(currency) == 3 else None
    if rate is None:
        raise BillError(
            f"there is no exchange rate of {currency[:10]} for {line.day}: add one, or a bill in USD"
        )
    return line._replace(
        cost_usd=_EXACT.divide(line.cost_usd, rate), rounded_usd=_EXACT.divide(line.rounded_usd, rate)
    )


def _first(texts: list[str], number: int) -> list[str]:
    more = len(texts) - number
    return [*texts[:number], f"and {more} more"] if more > 0 else texts
