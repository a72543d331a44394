"""What does a journal line say, and is it fit to be stored? A line -> checked intents and outcomes.

Pure. The form of the lines: billing/README.md. Everything that could fail in the database is refused or mended
here: wrong types and numbers out of range are refused, long texts are cut, NUL characters and lone surrogates
(which PostgreSQL cannot hold) are taken out.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from uuid import UUID

from billing.journal_values import (
    NO_OBJECT,
    LineError,
    read_amount,
    read_bool,
    read_count,
    read_few,
    read_id,
    read_leases,
    read_ms,
    read_object,
    read_optional_id,
    read_request_id,
    read_small,
    read_text,
)

MAX_ATTEMPTS: Final = 1_000
STATUSES: Final = frozenset({"ok", "error", "refused", "cancelled"})
USAGE_KINDS: Final = frozenset({"reported", "estimated", "unknown"})
# What few requests use: the journal's name of it, and that of `billing.usage`.
_RARE_COUNTS: Final = (
    ("audio_in", "audio_input_tokens"),
    ("audio_out", "audio_output_tokens"),
    ("cache_write_1h", "cache_write_1h_tokens"),
    ("searches", "search_count"),
)
_IMAGES_AND_SECONDS: Final = (
    ("image_in", "image_input_tokens"),
    ("image_out", "image_output_tokens"),
    ("images", "image_count"),
    ("audio_s", "audio_s"),
)


# Named tuples, not dataclasses: several of them are made per request, at 10,000 requests a second.
class Usage(NamedTuple):
    """Usage as columns; `detail` is the JSON column (see `stored_usage`)."""

    kind: str
    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    convention: str
    service_tier: str
    detail: dict[str, Any]


class ModelLease(NamedTuple):
    """What is held of a lease of a budget for one model."""

    lease: UUID
    hold_nanousd: int
    model_id: int


class DeploymentLease(NamedTuple):
    """What is held of a lease of a deployment's budget."""

    lease: UUID
    hold_nanousd: int
    deployment_id: int


class Intent(NamedTuple):
    """What is known before a provider is contacted."""

    id: UUID
    started_at: dt.datetime
    tenant_id: int
    project_id: int
    api_key_id: int
    endpoint: str
    requested_model: str
    is_stream: bool
    is_pinned: bool
    policy_id: int | None
    policy_version_id: int | None
    rule: str
    tags: Mapping[str, Any]
    features: Mapping[str, Any]
    decision: Mapping[str, Any]
    # What is held of budgets until the outcome says what it cost, and of which leases.
    hold_nanousd: int = 0
    leases: tuple[UUID, ...] = ()
    # The same of budgets of one model.
    model_leases: tuple[ModelLease, ...] = ()
    # And of budgets of deployments.
    deployment_leases: tuple[DeploymentLease, ...] = ()


class Attempt(NamedTuple):
    """One call to one deployment. `usage` is empty when the call used nothing."""

    number: int
    deployment_id: int
    outcome: str
    http_status: int | None
    error_code: str
    error_message: str
    upstream_request_id: str
    offset_ms: float
    first_byte_ms: float | None
    duration_ms: float
    usage: Mapping[str, Any]
    price_id: int | None
    cost_nanousd: int | None
    failed_check: str = ""


class Outcome(NamedTuple):
    """What became of a request. `duration_ms` None: nobody saw it end."""

    id: UUID
    status: str
    http_status: int | None
    error_code: str
    deployment_id: int | None
    served_model: str
    finish_reason: str
    duration_ms: float | None
    first_token_ms: float | None
    usage: Usage
    price_id: int | None
    cost_nanousd: int | None
    is_unpriced: bool
    attempts: tuple[Attempt, ...]
    # The most that attempts can have cost of which nobody knows.
    uncertain_nanousd: int = 0
    # The same by model, for requests that hold of budgets of models.
    uncertain_by_model: tuple[tuple[int, int], ...] = ()
    # And by deployment.
    uncertain_by_deployment: tuple[tuple[int, int], ...] = ()
    # What the answer calls itself.
    answer_id: str = ""


UNKNOWN_USAGE: Final = Usage("unknown", None, None, 0, 0, 0, "", "", {})


def interrupted(intent: Intent) -> Outcome:
    """The outcome of a request whose worker died: nobody knows what it used, so its cost is not known."""
    return Outcome(
        id=intent.id,
        status="interrupted",
        http_status=None,
        error_code="",
        deployment_id=None,
        served_model="",
        finish_reason="",
        duration_ms=None,
        first_token_ms=None,
        usage=UNKNOWN_USAGE,
        price_id=None,
        cost_nanousd=None,
        is_unpriced=False,
        attempts=(),
    )


def read_intent(line: Mapping[str, Any]) -> Intent:
    """Check an intent line. Raises LineError naming the field."""
    get = line.get
    if get("k") != "intent" or get("v") != 1:
        raise LineError("not an intent line of version 1")
    request_id, started_at = read_request_id(get("id"))
    return Intent(
        request_id,
        started_at,
        read_id(get("tenant"), "tenant"),
        read_id(get("project"), "project"),
        read_id(get("key"), "key"),
        read_text(get("endpoint"), "endpoint", 20),
        read_text(get("model"), "model", 300),
        read_bool(get("stream"), "stream"),
        read_bool(get("pinned"), "pinned"),
        read_optional_id(get("policy"), "policy"),
        read_optional_id(get("version"), "version"),
        read_text(get("rule"), "rule", 200),
        read_object(get("tags"), "tags"),
        read_object(get("features"), "features"),
        read_object(get("decision"), "decision"),
        read_amount(get("hold"), "hold") or 0,
        read_leases(get("leases")),
        tuple(
            [
                ModelLease(*_lease(one, "model_leases"))
                for one in read_few(get("model_leases"), "model_leases")
            ]
        ),
        tuple(
            [
                DeploymentLease(*_lease(one, "deployment_leases"))
                for one in read_few(get("deployment_leases"), "deployment_leases")
            ]
        ),
    )


def read_outcome(line: Mapping[str, Any]) -> Outcome:
    """Check an outcome line. Raises LineError naming the field."""
    get = line.get
    if get("k") != "outcome" or get("v") != 1:
        raise LineError("not an outcome line of version 1")
    status = get("status")
    if type(status) is not str or status not in STATUSES:
        raise LineError("status: not one we know")
    attempts = get("attempts")
    if type(attempts) is not list or len(attempts) > MAX_ATTEMPTS:
        raise LineError("attempts: not a list of attempts")
    raw_usage = get("usage")
    usage = _usage(raw_usage)
    return Outcome(
        read_request_id(get("id"))[0],
        status,
        read_small(get("http"), "http"),
        read_text(get("error"), "error", 80),
        read_optional_id(get("deployment"), "deployment"),
        read_text(get("served"), "served", 300),
        read_text(get("finish"), "finish", 60),
        read_ms(get("ms"), "ms"),
        read_ms(get("ttft"), "ttft"),
        usage,
        read_optional_id(get("price"), "price"),
        read_amount(get("cost"), "cost"),
        read_bool(get("unpriced"), "unpriced"),
        tuple([_attempt(attempt, raw_usage, usage) for attempt in attempts]),
        read_amount(get("uncertain"), "uncertain") or 0,
        tuple(
            [
                _amount_of(one, "model_uncertain")
                for one in read_few(get("model_uncertain"), "model_uncertain")
            ]
        ),
        tuple(
            [
                _amount_of(one, "deployment_uncertain")
                for one in read_few(get("deployment_uncertain"), "deployment_uncertain")
            ]
        ),
        read_text(get("answer"), "answer", 200),
    )


def _attempt(raw: Any, request_raw_usage: Any, request_usage: Usage) -> Attempt:
    if type(raw) is not dict:
        raise LineError("attempts: not a list of objects")
    get = raw.get
    number = read_small(get("n"), "attempt n")
    offset_ms, duration_ms = read_ms(get("at"), "attempt at"), read_ms(get("ms"), "attempt ms")
    if not number or offset_ms is None or duration_ms is None:
        raise LineError("attempt: number or times are missing")
    raw_usage = get("usage")
    usage: Mapping[str, Any] = NO_OBJECT
    if raw_usage is not None:
        # The request's usage is nearly always that of its last attempt: read once.
        usage = stored_usage(request_usage if raw_usage == request_raw_usage else _usage(raw_usage))
    return Attempt(
        number,
        read_id(get("deployment"), "attempt deployment"),
        read_text(get("outcome"), "attempt outcome", 30),
        read_small(get("http"), "attempt http"),
        read_text(get("error"), "attempt error", 80),
        read_text(get("message"), "attempt message", 500),
        read_text(get("upstream_id"), "attempt upstream_id", 200),
        offset_ms,
        read_ms(get("first"), "attempt first"),
        duration_ms,
        usage,
        read_optional_id(get("price"), "attempt price"),
        read_amount(get("cost"), "attempt cost"),
        read_text(get("check"), "attempt check", 40),
    )


def stored_usage(usage: Usage) -> dict[str, Any]:
    """Usage for the JSON column of an attempt: `billing.stored_usage` reads it back."""
    stored: dict[str, Any] = {"kind": usage.kind}
    if usage.input_tokens is not None:
        stored["input_tokens"] = usage.input_tokens
    if usage.output_tokens is not None:
        stored["output_tokens"] = usage.output_tokens
    if usage.cache_read_tokens:
        stored["cache_read_tokens"] = usage.cache_read_tokens
    if usage.cache_write_tokens:
        stored["cache_write_tokens"] = usage.cache_write_tokens
    if usage.reasoning_tokens:
        stored["reasoning_tokens"] = usage.reasoning_tokens
    if usage.convention:
        stored["convention"] = usage.convention
    if usage.service_tier:
        stored["service_tier"] = usage.service_tier
    if usage.detail:
        stored.update(usage.detail)
    return stored


def _usage(raw: Any) -> Usage:
    if type(raw) is not dict:
        raise LineError("usage: not an object")
    get = raw.get
    kind = get("kind")
    if type(kind) is not str or kind not in USAGE_KINDS:
        raise LineError("usage kind: not one we know")
    detail: dict[str, Any] = {}
    for short, name in (*_RARE_COUNTS, *_IMAGES_AND_SECONDS) if "images" in raw else _RARE_COUNTS:
        if counted := read_count(get(short), short):
            detail[name] = counted
    reported_cost = read_amount(get("reported_cost"), "reported_cost")
    if reported_cost is not None:
        detail["reported_cost_nanousd"] = reported_cost
    return Usage(
        kind,
        read_count(get("input"), "input"),
        read_count(get("output"), "output"),
        read_count(get("cache_read"), "cache_read") or 0,
        read_count(get("cache_write"), "cache_write") or 0,
        read_count(get("reasoning"), "reasoning") or 0,
        read_text(get("convention"), "convention", 40),
        read_text(get("tier"), "tier", 40),
        detail,
    )


def _lease(value: Any, name: str) -> tuple[UUID, int, int]:
    if type(value) is not list or len(value) != 3:
        raise LineError(f"{name}: not a lease, an amount and an id")
    (lease,) = read_leases(value[:1])
    return lease, read_amount(value[1], name) or 0, read_id(value[2], name)


def _amount_of(value: Any, name: str) -> tuple[int, int]:
    if type(value) is not list or len(value) != 2:
        raise LineError(f"{name}: not an id and an amount")
    return read_id(value[0], name), read_amount(value[1], name) or 0
