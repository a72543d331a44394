"""What do OpenAI's costs and usage say? The organization API's JSON, or what the dashboard exports as CSV.

Pure. JSON, as documented at developers.openai.com/api/docs/api-reference/usage (completions, embeddings, costs): a page
of `data` buckets, each with `start_time`, `end_time` (Unix seconds) and `results`. `input_tokens` are the text tokens
sent, cached ones included; audio stands beside them. An amount is in whole units of its currency. Costs grouped by
`line_item` name it "MODEL, METER" ("gpt-4o-2024-08-06, cached input"); newer answers add `quantity` to it.
CSV: help.openai.com/en/articles/8554956 says that there is an export, not its columns. Those read here
(`start_time`, `amount_value`, `amount_currency`, `line_item`, `quantity`, `quantity_unit`, `project_id`, `api_key_id`;
usage as the API names it) are those of exports that others published. Checked against these descriptions only, never
against an account.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from billing.provider_bills.bill import NO_COUNTS, BillError, BillLine, Counts
from billing.provider_bills.cells import Record
from billing.provider_bills.files import Table, list_buckets

A_DAY_S = 86_400
TOKEN_UNITS = frozenset({"", "token", "tokens"})
# What a line item calls its meter -> which counts it adds to: what came from a cache was sent as well.
METERS = {
    "input": ("input_tokens",),
    "input tokens": ("input_tokens",),
    "cached input": ("input_tokens", "cache_read_tokens"),
    "cached input tokens": ("input_tokens", "cache_read_tokens"),
    "input cached tokens": ("input_tokens", "cache_read_tokens"),
    "output": ("output_tokens",),
    "output tokens": ("output_tokens",),
}


def cost_records(document: Any) -> Iterator[Record]:
    """The results of a costs answer, named as in the export."""
    for place, bucket, result in list_buckets(document):
        amount = result.get("amount")
        if not isinstance(amount, dict):
            raise BillError(f"{place}: amount is missing: is this the costs endpoint's answer?")
        values = {"amount_value": amount.get("value"), "amount_currency": amount.get("currency")}
        yield Record(place, bucket | result | values, False, whole=repr((bucket, result)))


def cost_table(table: Table) -> Iterator[Record]:
    """The lines of the dashboard's cost export."""
    table.need("start_time", "amount_value", "amount_currency")
    return table.records()


def read_cost(record: Record) -> tuple[BillLine, str] | None:
    """One line and its currency; None for a bucket in which nothing was charged."""
    day = _read_day(record)
    amount = record.amount("amount_value")
    item = record.text("line_item")
    if amount is None:
        if item:
            raise BillError("amount_value is missing")
        return None
    model, separator, meter = item.rpartition(", ")
    counts = NO_COUNTS
    quantity = record.count("quantity")
    added_to = METERS.get(meter.strip().lower().replace("_", " "), ()) if separator else ()
    if quantity is not None and added_to and record.text("quantity_unit").lower() in TOKEN_UNITS:
        counts = Counts(**dict.fromkeys(added_to, quantity))
    line = BillLine(day, model if added_to else item, _account(record), counts, *amount)
    return line, record.text("amount_currency") or "usd"


def usage_records(document: Any) -> Iterator[Record]:
    """The results of a usage answer."""
    for place, bucket, result in list_buckets(document):
        yield Record(place, bucket | result, False, whole=repr((bucket, result)))


def usage_table(table: Table) -> Iterator[Record]:
    """The lines of the dashboard's usage export."""
    table.need("start_time", "model", "input_tokens", "num_model_requests")
    return table.records()


def read_usage(record: Record) -> tuple[BillLine, str] | None:
    """One line; None for a bucket in which nothing was used."""
    day = _read_day(record)
    requests, sent = record.count("num_model_requests"), record.count("input_tokens")
    if sent is None:
        if requests:
            raise BillError("input_tokens is missing: is this usage of completions or embeddings?")
        return None
    generated = record.count("output_tokens")
    if generated is not None:
        generated += record.count("output_audio_tokens") or 0
    counts = Counts(
        requests=requests,
        input_tokens=sent + (record.count("input_audio_tokens") or 0),
        cache_read_tokens=record.count("input_cached_tokens"),
        output_tokens=generated,
    )
    return BillLine(day, record.text("model"), _account(record), counts, None, Decimal(0)), "usd"


def _account(record: Record) -> str:
    return record.text("project_id") or record.text("api_key_id")


def _read_day(record: Record) -> dt.date:
    day = record.day("start_time")
    begins, ends = record.values.get("start_time"), record.values.get("end_time")
    if ends not in (None, ""):
        try:
            seconds = int(str(ends)) - int(str(begins))
        except ValueError:
            seconds = 0 if record.day("end_time") < day else A_DAY_S
        if not 0 < seconds <= A_DAY_S:
            raise BillError(
                "end_time is not within a day after start_time: ask for buckets of a day (bucket_width=1d)"
            )
    return day
