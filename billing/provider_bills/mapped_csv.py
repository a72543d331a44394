"""What does a CSV file of any provider say, when a person has said which column is which?

Pure. Columns that are called as here need no mapping. A line needs a day, a model, and a cost or the tokens sent and
generated; `input_tokens` is all that was sent, `uncached_input_tokens` what is left without the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from billing.provider_bills.bill import BillError, BillLine, Counts
from billing.provider_bills.cells import Record
from billing.provider_bills.files import Table

NAMES = (
    "day",
    "model",
    "account",
    "cost",
    "currency",
    "requests",
    "input_tokens",
    "uncached_input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
)


def mapped_table(table: Table, columns: Mapping[str, str]) -> Iterator[Record]:
    """The lines, under our names. `columns`: our name -> the file's."""
    unknown = sorted(set(columns) - set(NAMES))
    if unknown:
        raise BillError(f"there is no {', '.join(unknown)} to map; known are {', '.join(NAMES)}")
    names = {name: columns.get(name, name) for name in NAMES}
    table.need(names["day"], names["model"], *columns.values())
    if not {names["cost"], names["input_tokens"], names["uncached_input_tokens"]} & set(table.columns):
        table.need(names["cost"])
    return table.records(names)


def read_line(record: Record) -> tuple[BillLine, str] | None:
    """One line and its currency."""
    model = record.text("model")
    if not model:
        raise BillError("model is missing")
    amount = record.amount("cost")
    sent = record.count("input_tokens")
    read, written = record.count("cache_read_tokens"), record.count("cache_write_tokens")
    uncached = record.count("uncached_input_tokens")
    if sent is None and uncached is not None:
        sent = uncached + (read or 0) + (written or 0)
    counts = Counts(record.count("requests"), sent, read, written, record.count("output_tokens"))
    if amount is None and sent is None:
        raise BillError("neither a cost nor the tokens sent are stated")
    cost, rounded = amount if amount is not None else (None, None)
    line = BillLine(record.day("day"), model, record.text("account"), counts, cost)
    return (line if rounded is None else line._replace(rounded_usd=rounded)), record.text("currency") or "USD"
