"""What does one request look like to people and programs? The one representation of a request record.

Reads: request_record, attempt_record, open_intent, and the names of what they point to.
Used by `GET /v1/requests/{id}`, the JSON Lines export and the console.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.db import close_old_connections, connection
from django.db.models import Model, prefetch_related_objects
from django.utils import timezone

from billing.journal_lines import read_intent
from billing.journal_values import LineError
from billing.models import AttemptRecord, OpenIntent, RequestRecord
from billing.money import usd_text
from billing.request_saving import estimate_saving
from billing.request_times import ForeignIdError, started_at_of
from billing.stored_usage import usage_as_json, usage_from_json
from billing.usage import Usage
from policies.explaining import sentences
from policies.score_columns import with_rows

IN_FLIGHT = "in_flight"
LOOKUP_THREADS = 4
# There is no index of what answers call themselves: it would cost every request, for what is asked of a few, and soon.
ANSWER_IDS_KEPT = dt.timedelta(days=1)
ANSWER_IDS_SEARCHED = 20_000
MAX_ID_CHARACTERS = 200
_FIND_ANSWER = """
SELECT id FROM (
    SELECT id, answer_id FROM billing_requestrecord WHERE api_key_id = %s AND started_at >= %s
    ORDER BY started_at DESC, id DESC LIMIT %s
) newest WHERE answer_id = %s ORDER BY id DESC LIMIT 1
"""
# One query each for any number of records. Foreign keys here are not constraints: a row may be gone.
NAMED = (
    "tenant",
    "project",
    "api_key",
    "policy",
    "policy_version",
    "deployment__model",
    "deployment__provider",
)
ATTEMPT_NAMED = ("deployment__model", "deployment__provider")


def load_names(records: Sequence[RequestRecord], attempts: Sequence[AttemptRecord] = ()) -> None:
    """Fetch everything `request_as_json` names, for many records in a few queries."""
    prefetch_related_objects(list(records), *NAMED)
    prefetch_related_objects(list(attempts), *ATTEMPT_NAMED)


def attempts_of(records: Sequence[RequestRecord]) -> dict[uuid.UUID, list[AttemptRecord]]:
    """The attempts of many requests, in order, by request id: one query over the partitions they lie in."""
    found: dict[uuid.UUID, list[AttemptRecord]] = {record.id: [] for record in records}
    if records:
        times = [record.started_at for record in records]
        rows = AttemptRecord.objects.filter(
            request_id__in=list(found), started_at__gte=min(times), started_at__lte=max(times)
        )
        for attempt in rows.order_by("request_id", "number"):
            found[attempt.request_id].append(attempt)
    return found


def request_as_json(record: RequestRecord, attempts: Sequence[AttemptRecord]) -> dict[str, Any]:
    """Show one request with its attempts. Times are ISO 8601 in UTC, money exact decimal texts.

    Call `load_names` first when there are many: a name that is not loaded is a query.
    """
    deployment = _related(record, "deployment")
    return {
        "object": "request",
        "id": str(record.id),
        "started_at": iso_utc(record.started_at),
        "tenant_id": record.tenant_id,
        "tenant": _name(_related(record, "tenant"), "name"),
        "project_id": record.project_id,
        "project": _name(_related(record, "project"), "name"),
        "key_id": record.api_key_id,
        "key": _name(_related(record, "api_key"), "name"),
        "endpoint": record.endpoint,
        "requested_model": record.requested_model,
        "served_model": record.served_model,
        "is_stream": record.is_stream,
        "is_pinned": record.is_pinned,
        "status": record.status,
        "http_status": record.http_status,
        "error_code": record.error_code,
        "finish_reason": record.finish_reason,
        "answer_id": record.answer_id,
        "policy_id": record.policy_id,
        "policy": _name(_related(record, "policy"), "public_id"),
        "policy_version": _name(_related(record, "policy_version"), "number"),
        "rule": record.rule,
        **_deployment_names(record.deployment_id, deployment),
        "duration_ms": record.duration_ms,
        "first_token_ms": record.first_token_ms,
        "usage": usage_as_json(_usage_of(record)),
        "price_id": record.price_id,
        "is_unpriced": record.is_unpriced,
        **_cost(record.cost_nanousd),
        "attempt_count": record.attempt_count,
        "attempts": [_attempt_as_json(attempt) for attempt in attempts],
        "decision": with_rows(record.decision),
        "features": record.features,
        "tags": record.tags,
    }


def find_request(request_id: uuid.UUID, *, key_id: int | None) -> dict[str, Any] | None:
    """Show one request; with `key_id` only when it was made with that key. None when there is none.

    A request that is still running (its intent is ingested, its outcome is not) has the status `in_flight`.
    """
    try:
        started_at = started_at_of(request_id)
    except ForeignIdError:
        return None
    record = _find_record(request_id, started_at)
    if record is None:
        intent = OpenIntent.objects.filter(id=request_id).first()
        # Between the two queries its outcome may have been ingested: look once more.
        record = record_of_intent(intent.line) if intent is not None else _find_record(request_id, started_at)
    if record is None or (key_id is not None and record.api_key_id != key_id):
        return None
    attempts = attempts_of([record])[record.id]
    load_names([record], attempts)
    return {
        **request_as_json(record, attempts),
        "explanation": sentences(record.decision, refused_by=record.features.get("refused_by", "")),
        "saving": _saving(record),
    }


def find_by_answer(answer_id: str, *, key_id: int, now: dt.datetime) -> dict[str, Any] | None:
    """Show the newest request of a key whose answer's body has this `id`, of its newest ones of the last day."""
    with connection.cursor() as cursor:
        cursor.execute(_FIND_ANSWER, [key_id, now - ANSWER_IDS_KEPT, ANSWER_IDS_SEARCHED, answer_id])
        row = cursor.fetchone()
    return None if row is None else find_request(row[0], key_id=key_id)


def _saving(record: RequestRecord) -> dict[str, Any] | None:
    found = estimate_saving(record, _usage_of(record)) if record.status != IN_FLIGHT else None
    if found is None:
        return None
    return {
        "baseline_model": found.baseline_model,
        "baseline_cost_usd": usd_text(found.baseline_nanousd),
        "saved_nanousd": found.saved_nanousd,
        "saved_usd": usd_text(found.saved_nanousd),
    }


def record_of_intent(line: dict[str, Any]) -> RequestRecord | None:
    """The record that an open intent would become, not saved, with the status `in_flight`."""
    try:
        intent = read_intent(line)
    except LineError:
        return None
    return RequestRecord(
        id=intent.id,
        started_at=intent.started_at,
        tenant_id=intent.tenant_id,
        project_id=intent.project_id,
        api_key_id=intent.api_key_id,
        endpoint=intent.endpoint,
        requested_model=intent.requested_model,
        is_stream=intent.is_stream,
        is_pinned=intent.is_pinned,
        status=IN_FLIGHT,
        policy_id=intent.policy_id,
        policy_version_id=intent.policy_version_id,
        rule=intent.rule,
        attempt_count=0,
        usage_kind="unknown",
        tags=line.get("tags") or {},
        features=line.get("features") or {},
        decision=line.get("decision") or {},
    )


class DatabaseRecordLookup:
    """Fills the data plane's RecordLookup port: queries run on threads of their own, never on the loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="record-lookup")

    async def find_request(self, request_id: str, key_id: int, /) -> dict[str, Any] | None:
        """The record as the API shows it, None when this key has none with that id, ours or its answer's."""
        if not (
            request_id.isascii() and request_id.isprintable() and 0 < len(request_id) <= MAX_ID_CHARACTERS
        ):
            return None
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._find, request_id, key_id)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def _find(request_id: str, key_id: int) -> dict[str, Any] | None:
        # Django does this around its own requests; here nobody else would drop a connection that has died.
        close_old_connections()
        try:
            try:
                found = find_request(uuid.UUID(request_id), key_id=key_id)
            except ValueError:
                found = None
            # Some providers' ids are UUIDs too.
            return found or find_by_answer(request_id, key_id=key_id, now=timezone.now())
        finally:
            close_old_connections()


def iso_utc(at: dt.datetime) -> str:
    """2026-11-23T10:28:15.123Z"""
    return at.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _find_record(request_id: uuid.UUID, started_at: dt.datetime) -> RequestRecord | None:
    return RequestRecord.objects.filter(id=request_id, started_at=started_at).first()


def _usage_of(record: RequestRecord) -> Usage:
    detail = record.usage_detail
    return Usage(
        kind=record.usage_kind,  # type: ignore[arg-type]  # a text column with these three values
        input_tokens=record.input_tokens,
        output_tokens=record.output_tokens,
        cache_read_tokens=record.cache_read_tokens or 0,
        cache_write_tokens=record.cache_write_tokens or 0,
        reasoning_tokens=record.reasoning_tokens or 0,
        audio_input_tokens=detail.get("audio_input_tokens", 0),
        audio_output_tokens=detail.get("audio_output_tokens", 0),
        convention=record.usage_convention,
        service_tier=record.service_tier,
        reported_cost_nanousd=detail.get("reported_cost_nanousd"),
        cache_write_1h_tokens=detail.get("cache_write_1h_tokens", 0),
        search_count=detail.get("search_count", 0),
        image_input_tokens=detail.get("image_input_tokens", 0),
        image_output_tokens=detail.get("image_output_tokens", 0),
        image_count=detail.get("image_count", 0),
        audio_s=detail.get("audio_s", 0),
    )


def _attempt_as_json(attempt: AttemptRecord) -> dict[str, Any]:
    return {
        "number": attempt.number,
        **_deployment_names(attempt.deployment_id, _related(attempt, "deployment")),
        "outcome": attempt.outcome,
        "http_status": attempt.http_status,
        "error_code": attempt.error_code,
        "error_message": attempt.error_message,
        "upstream_request_id": attempt.upstream_request_id,
        "offset_ms": attempt.offset_ms,
        "first_byte_ms": attempt.first_byte_ms,
        "duration_ms": attempt.duration_ms,
        "usage": usage_as_json(usage_from_json(attempt.usage)) if attempt.usage else None,
        "price_id": attempt.price_id,
        **_cost(attempt.cost_nanousd),
    }


def _cost(nanousd: int | None) -> dict[str, Any]:
    return {"cost_nanousd": nanousd, "cost_usd": None if nanousd is None else usd_text(nanousd)}


def _deployment_names(deployment_id: int | None, deployment: Any) -> dict[str, Any]:
    return {
        "deployment_id": deployment_id,
        "deployment": _name(deployment, "name"),
        "model": _name(_related(deployment, "model"), "name") if deployment is not None else None,
        "provider": _name(_related(deployment, "provider"), "name") if deployment is not None else None,
    }


def _related(row: Model, name: str) -> Any:
    """The row a foreign key points to, None when it is null or gone."""
    try:
        return getattr(row, name)
    except ObjectDoesNotExist:
        return None


def _name(row: Any, attribute: str) -> Any:
    return None if row is None else getattr(row, attribute)
