"""How is a checked request written in PostgreSQL's COPY text format?

Pure. By hand because this runs 10,000 times a second, in half of the time of psycopg's own row writer.
The format: https://www.postgresql.org/docs/current/sql-copy.html, section "Text Format".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from billing.journal_lines import Intent, Outcome
from billing.journal_values import LineError
from billing.request_times import attempt_hex_of

REQUEST_COLUMNS: Final = (
    "id, started_at, tenant_id, project_id, api_key_id, endpoint, requested_model, is_stream, is_pinned, status,"
    " http_status, error_code, policy_id, policy_version_id, rule, deployment_id, served_model, finish_reason,"
    " attempt_count, duration_ms, first_token_ms, usage_kind, usage_convention, input_tokens, output_tokens,"
    " cache_read_tokens, cache_write_tokens, reasoning_tokens, usage_detail, service_tier, price_id,"
    " cost_nanousd, charge_nanousd, is_unpriced, tags, features, decision,"
    " label_ids, answer_id"
)
ATTEMPT_COLUMNS: Final = (
    "id, request_id, started_at, number, deployment_id, outcome, http_status, error_code, error_message,"
    " upstream_request_id, offset_ms, first_byte_ms, duration_ms, usage, price_id, cost_nanousd"
)
NULL: Final = "\\N"
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def write_rows(
    intent: Intent, outcome: Outcome, charge_nanousd: int | None = None, label_ids: Sequence[int] = ()
) -> tuple[str, str]:
    """One line of `COPY request (REQUEST_COLUMNS)`, and its lines of `COPY attempt (ATTEMPT_COLUMNS)`.

    Raises LineError for an object that is no JSON.
    """
    # Written once: both are slow to make into text.
    request_id, started_at = str(intent.id), intent.started_at.isoformat()
    attempts = [
        f"{attempt_hex_of(intent.id, attempt.number)}\t{request_id}\t{started_at}\t{attempt.number}\t"
        f"{attempt.deployment_id}\t{_text(attempt.outcome)}\t{_number(attempt.http_status)}\t"
        f"{_text(attempt.error_code)}\t{_text(attempt.error_message)}\t"
        f"{_text(attempt.upstream_request_id)}\t{attempt.offset_ms}\t{_number(attempt.first_byte_ms)}\t"
        f"{attempt.duration_ms}\t{_json(attempt.usage)}\t{_number(attempt.price_id)}\t"
        f"{_number(attempt.cost_nanousd)}\n"
        for attempt in outcome.attempts
    ]
    return _request_row(request_id, started_at, intent, outcome, charge_nanousd, label_ids), "".join(attempts)


def _request_row(
    request_id: str,
    started_at: str,
    intent: Intent,
    outcome: Outcome,
    charge_nanousd: int | None,
    label_ids: Sequence[int],
) -> str:
    usage = outcome.usage
    if usage.kind == "unknown":
        cache_read, cache_write, reasoning = NULL, NULL, NULL
    else:
        cache_read, cache_write, reasoning = (
            str(usage.cache_read_tokens),
            str(usage.cache_write_tokens),
            str(usage.reasoning_tokens),
        )
    return (
        f"{request_id}\t{started_at}\t{intent.tenant_id}\t{intent.project_id}\t"
        f"{intent.api_key_id}\t{_text(intent.endpoint)}\t{_text(intent.requested_model)}\t"
        f"{intent.is_stream}\t{intent.is_pinned}\t{outcome.status}\t{_number(outcome.http_status)}\t"
        f"{_text(outcome.error_code)}\t{_number(intent.policy_id)}\t{_number(intent.policy_version_id)}\t"
        f"{_text(intent.rule)}\t{_number(outcome.deployment_id)}\t{_text(outcome.served_model)}\t"
        f"{_text(outcome.finish_reason)}\t{len(outcome.attempts)}\t{_number(outcome.duration_ms)}\t"
        f"{_number(outcome.first_token_ms)}\t{usage.kind}\t{_text(usage.convention)}\t"
        f"{_number(usage.input_tokens)}\t{_number(usage.output_tokens)}\t{cache_read}\t{cache_write}\t"
        f"{reasoning}\t{_json(usage.detail)}\t{_text(usage.service_tier)}\t{_number(outcome.price_id)}\t"
        f"{_number(outcome.cost_nanousd)}\t{_number(charge_nanousd)}\t{outcome.is_unpriced}\t{_json(intent.tags)}\t"
        f"{_json(intent.features)}\t{_json(intent.decision)}\t{_numbers(label_ids)}\t"
        f"{_text(outcome.answer_id) if outcome.answer_id else NULL}\n"
    )


def dump_json(value: Any) -> str:
    """Write JSON. Raises LineError for what cannot be written."""
    try:
        return orjson.dumps(value).decode()
    except TypeError as refusal:  # too deep for orjson, or an integer beyond 64 bits
        raise LineError(f"an object cannot be stored: {refusal}") from None


def _json(value: Mapping[str, Any]) -> str:
    # JSON has no raw tabs and newlines, so only backslashes mean something to COPY.
    return dump_json(value).replace("\\", "\\\\") if value else "{}"


def _number(value: float | None) -> str:
    return NULL if value is None else str(value)


def _numbers(values: Sequence[int]) -> str:
    return f"{{{','.join(map(str, values))}}}" if values else NULL


def _text(value: str) -> str:
    if value.isprintable() and "\\" not in value:
        return value
    return value.translate(_ESCAPES)
