"""What does OpenRouter's activity say? The API's JSON, or what the page Activity exports as CSV.

Pure. JSON, as documented at openrouter.ai/docs/api/api-reference/analytics/get-user-activity: `data` with one entry a
day and endpoint: `date`, `model`, `model_permaslug`, `usage` (credits, which are USD), `requests`, `prompt_tokens`,
`completion_tokens` (reasoning inside). What runs on a key of one's own (`byok_usage_inference`) is charged by somebody
else and not counted. CSV: openrouter.ai/docs describes the export, not its columns. Two forms that others published are
read: one line a generation (`created_at`, `cost_total`, `tokens_prompt`, `model_permaslug`, ...), one a day (`Date`,
`Slug`, `Usage`, ...). Checked against these descriptions only, never against an account. Its counts of tokens may be
those of a common tokenizer instead of the model's own: then quantities drift and money agrees.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from billing.provider_bills.bill import BillError, BillLine, Counts
from billing.provider_bills.cells import Record
from billing.provider_bills.files import Table, list_pages

BY_DAY = {
    "date": "Date",
    "model": "Slug",
    "usage": "Usage",
    "requests": "Requests",
    "prompt_tokens": "Prompt Tokens",
    "completion_tokens": "Completion Tokens",
}
BY_GENERATION = {
    "date": "created_at",
    "model": "model_permaslug",
    "usage": "cost_total",
    "prompt_tokens": "tokens_prompt",
    "completion_tokens": "tokens_completion",
    "cached_tokens": "tokens_cached",
    "account": "api_key_name",
    "generation_id": "generation_id",
}


def activity_records(document: Any) -> Iterator[Record]:
    """The entries of the API's answer."""
    for page in list_pages(document):
        for number, entry in enumerate(page["data"]):
            if not isinstance(entry, dict):
                raise BillError(f"data[{number}]: not an object")
            yield Record(f"data[{number}]", entry, False, whole=repr(entry))


def activity_table(table: Table) -> Iterator[Record]:
    """The lines of an export, under the names of the API."""
    if "cost_total" in table.columns:
        table.need("created_at", "cost_total", "model_permaslug", "tokens_prompt", "tokens_completion")
        return table.records(BY_GENERATION)
    table.need(*BY_DAY.values())
    return table.records(BY_DAY)


def read_activity(record: Record) -> tuple[BillLine, str] | None:
    """One entry."""
    amount = record.amount("usage")
    if amount is None:
        raise BillError("usage is missing")
    model = record.text("model") or record.text("model_permaslug")
    if not model:
        raise BillError("model is missing")
    requests = record.count("requests")
    counts = Counts(
        requests=1 if requests is None and record.is_text else requests,
        input_tokens=record.count("prompt_tokens"),
        cache_read_tokens=record.count("cached_tokens"),
        output_tokens=record.count("completion_tokens"),
    )
    return BillLine(record.day("date"), model, record.text("account"), counts, *amount), "USD"
