"""What do Anthropic's cost and usage reports say? The Admin API's JSON, or what the console exports as CSV.

Pure. JSON, as documented at platform.claude.com/docs/en/api/admin/cost_report and .../usage_report: buckets with
`starting_at`, `ending_at` (RFC 3339) and `results`. A cost's `amount` is a decimal text in the currency's lowest units:
"123.45" in "USD" is 1.23 USD. `uncached_input_tokens`, `cache_read_input_tokens` and `cache_creation` stand beside each
other; what was sent is their sum. Costs have a model where the report was grouped by description.
CSV: support.claude.com/en/articles/9534590 says that the console exports costs and usage, not their columns. Those
read here (`usage_date_utc`, `model`, `cost_usd`; `model_version`, `usage_input_tokens_no_cache`, ...) are those of
exports that others published; costs are rounded to cents line by line there. Checked against these descriptions only,
never against an account. Priority tier is in the usage report and never in the cost report, says the documentation.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from billing.provider_bills.bill import NO_COUNTS, BillError, BillLine, Counts
from billing.provider_bills.cells import Record
from billing.provider_bills.files import Table, list_buckets

CENTS_A_USD = Decimal(100)
USAGE_COLUMNS = ("usage_date_utc", "model_version", "usage_input_tokens_no_cache", "usage_output_tokens")


def cost_records(document: Any) -> Iterator[Record]:
    """The results of a cost report."""
    for place, bucket, result in list_buckets(document):
        if "amount" not in result:
            raise BillError(f"{place}: amount is missing: is this the cost report?")
        yield Record(place, bucket | result, False, whole=repr((bucket, result)))


def read_cost(record: Record) -> tuple[BillLine, str] | None:
    """One result and its currency."""
    day = _read_day(record)
    amount = record.amount("amount")
    if amount is None:
        raise BillError("amount is missing")
    currency = record.text("currency") or "USD"
    if currency.upper() != "USD":
        raise BillError(f"currency {currency}: what its lowest unit is, is not documented; only USD is read")
    billed_as = record.text("model") or record.text("description") or record.text("cost_type")
    line = BillLine(day, billed_as, record.text("workspace_id"), NO_COUNTS, amount[0] / CENTS_A_USD)
    return line, currency


def cost_table(table: Table) -> Iterator[Record]:
    """The lines of the console's cost export."""
    table.need("usage_date_utc", "model", "cost_usd")
    return table.records()


def read_cost_line(record: Record) -> tuple[BillLine, str] | None:
    """One line of the export."""
    amount = record.amount("cost_usd")
    if amount is None:
        raise BillError("cost_usd is missing")
    billed_as = record.text("model") or record.text("cost_type") or record.text("token_type")
    account = record.text("workspace") or record.text("api_key")
    return BillLine(record.day("usage_date_utc"), billed_as, account, NO_COUNTS, *amount), "USD"


def usage_records(document: Any) -> Iterator[Record]:
    """The results of a usage report."""
    for place, bucket, result in list_buckets(document):
        written = result.get("cache_creation")
        if "uncached_input_tokens" not in result or (written is not None and not isinstance(written, dict)):
            raise BillError(f"{place}: uncached_input_tokens is missing: is this the messages usage report?")
        yield Record(place, bucket | result | (written or {}), False, whole=repr((bucket, result)))


def usage_table(table: Table) -> Iterator[Record]:
    """The lines of the console's usage export, under the names of the report."""
    table.need(*USAGE_COLUMNS)
    return table.records(
        {
            "starting_at": "usage_date_utc",
            "model": "model_version",
            "workspace_id": "workspace",
            "uncached_input_tokens": "usage_input_tokens_no_cache",
            "ephemeral_5m_input_tokens": "usage_input_tokens_cache_write_5m",
            "ephemeral_1h_input_tokens": "usage_input_tokens_cache_write_1h",
            "cache_read_input_tokens": "usage_input_tokens_cache_read",
            "output_tokens": "usage_output_tokens",
        }
    )


def read_usage(record: Record) -> tuple[BillLine, str] | None:
    """One result of the usage report."""
    day = _read_day(record)
    uncached, generated = record.count("uncached_input_tokens"), record.count("output_tokens")
    if uncached is None or generated is None:
        raise BillError("uncached_input_tokens or output_tokens is missing")
    read = record.count("cache_read_input_tokens") or 0
    written = sum(
        record.count(name) or 0 for name in ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
    )
    counts = Counts(None, uncached + read + written, read, written, generated)
    return BillLine(day, record.text("model"), record.text("workspace_id"), counts, None), "USD"


def _read_day(record: Record) -> dt.date:
    day = record.day("starting_at")
    if record.values.get("ending_at") not in (None, ""):
        last = record.day("ending_at")
        if not dt.timedelta(0) <= last - day <= dt.timedelta(days=1):
            raise BillError(
                "ending_at is not within a day after starting_at: ask for buckets of a day (bucket_width=1d)"
            )
    return day
