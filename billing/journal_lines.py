"""What does a journal line say, and is it fit to be stored? Bytes -> checked intents, outcomes and feedback.

Pure. The form of the lines: billing/README.md. Everything that could fail in the database is refused or mended
here: wrong types and numbers out of range are refused, long texts are cut, NUL characters and lone surrogates
(which PostgreSQL cannot hold) are taken out.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple, NoReturn
from uuid import UUID

import orjson

from billing.request_times import ForeignIdError, started_at_of
from billing.usage import MAX_TOKENS

MAX_BIGINT: Final = 2**63 - 1
MAX_SMALLINT: Final = 2**15 - 1
MAX_MS: Final = 1e12
# Ten million USD for one request is a mistake; believed, a few of them would overflow every sum.
MAX_NANOUSD: Final = 10**16
MAX_ATTEMPTS: Final = 1_000
MAX_LEASES: Final = 100
STATUSES: Final = frozenset({"ok", "error", "refused", "cancelled"})
USAGE_KINDS: Final = frozenset({"reported", "estimated", "unknown"})
NO_OBJECT: Final[Mapping[str, Any]] = {}


class LineError(ValueError):
    """A line that cannot be stored; the text says why."""


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


class Feedback(NamedTuple):
    """What a caller said about an answer. `quality` from 0 to 1; None: neither good nor bad."""

    id: UUID
    at: dt.datetime
    request_id: UUID
    api_key_id: int
    quality: float | None


class JudgedAnswer(NamedTuple):
    """One of the two answers of a shadow line: how good it was, 0 to 1, and a code that says by what."""

    deployment_id: int
    quality: float
    detail: str
    output_tokens: int | None
    latency_ms: float | None


class Shadow(NamedTuple):
    """What a shadow request told about its model and the one that served the client."""

    id: UUID
    at: dt.datetime
    request_id: UUID
    workload: str
    task_type: str
    cost_nanousd: int
    served: JudgedAnswer
    other: JudgedAnswer


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


def read_line(raw: bytes) -> dict[str, Any]:
    """Read one line as JSON, without NUL characters and lone surrogates. Raises LineError."""
    try:
        line = orjson.loads(raw)
        if b"\\u0000" in raw:
            line = _cleaned(line)
    except orjson.JSONDecodeError:
        line = _read_leniently(raw)
    if type(line) is not dict:
        raise LineError("not a JSON object")
    return line


def read_intent(line: Mapping[str, Any]) -> Intent:
    """Check an intent line. Raises LineError naming the field."""
    get = line.get
    if get("k") != "intent" or get("v") != 1:
        raise LineError("not an intent line of version 1")
    request_id, started_at = _request_id(get("id"))
    return Intent(
        request_id,
        started_at,
        _id(get("tenant"), "tenant"),
        _id(get("project"), "project"),
        _id(get("key"), "key"),
        _text(get("endpoint"), "endpoint", 20),
        _text(get("model"), "model", 300),
        _bool(get("stream"), "stream"),
        _bool(get("pinned"), "pinned"),
        _optional_id(get("policy"), "policy"),
        _optional_id(get("version"), "version"),
        _text(get("rule"), "rule", 200),
        _object(get("tags"), "tags"),
        _object(get("features"), "features"),
        _object(get("decision"), "decision"),
        _amount(get("hold"), "hold") or 0,
        _leases(get("leases")),
        tuple([_model_lease(one) for one in _few(get("model_leases"), "model_leases")]),
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
        _request_id(get("id"))[0],
        status,
        _small(get("http"), "http"),
        _text(get("error"), "error", 80),
        _optional_id(get("deployment"), "deployment"),
        _text(get("served"), "served", 300),
        _text(get("finish"), "finish", 60),
        _ms(get("ms"), "ms"),
        _ms(get("ttft"), "ttft"),
        usage,
        _optional_id(get("price"), "price"),
        _amount(get("cost"), "cost"),
        _bool(get("unpriced"), "unpriced"),
        tuple([_attempt(attempt, raw_usage, usage) for attempt in attempts]),
        _amount(get("uncertain"), "uncertain") or 0,
        tuple([_model_amount(one) for one in _few(get("model_uncertain"), "model_uncertain")]),
    )


def read_feedback(line: Mapping[str, Any]) -> Feedback:
    """Check a feedback line. Raises LineError naming the field."""
    get = line.get
    if get("k") != "feedback" or get("v") != 1:
        raise LineError("not a feedback line of version 1")
    feedback_id, at = _request_id(get("id"))
    quality = get("quality")
    if quality is not None and (type(quality) not in (float, int) or not 0 <= quality <= 1):
        raise LineError("quality: not a number from 0 to 1")
    return Feedback(
        feedback_id,
        at,
        _request_id(get("request"))[0],
        _id(get("key"), "key"),
        None if quality is None else float(quality),
    )


def read_shadow(line: Mapping[str, Any]) -> Shadow:
    """Check a shadow line. Raises LineError naming the field."""
    get = line.get
    if get("k") != "shadow" or get("v") != 1:
        raise LineError("not a shadow line of version 1")
    shadow_id, at = _request_id(get("id"))
    answers = get("answers")
    if type(answers) is not list or len(answers) != 2:
        raise LineError("answers: not two")
    served, other = (_judged_answer(answer) for answer in answers)
    return Shadow(
        shadow_id,
        at,
        _request_id(get("request"))[0],
        _text(get("workload"), "workload", 16),
        _text(get("task_type"), "task_type", 40),
        _amount(get("cost"), "cost") or 0,
        served,
        other,
    )


def _judged_answer(raw: Any) -> JudgedAnswer:
    if type(raw) is not dict:
        raise LineError("answers: not objects")
    get = raw.get
    quality: Any = get("quality")
    if type(quality) not in (float, int) or not 0 <= quality <= 1:
        raise LineError("quality: not a number from 0 to 1")
    return JudgedAnswer(
        _id(get("deployment"), "deployment"),
        float(quality),
        _text(get("detail"), "detail", 40),
        _count(get("output"), "output"),
        _ms(get("ms"), "ms"),
    )


def _attempt(raw: Any, request_raw_usage: Any, request_usage: Usage) -> Attempt:
    if type(raw) is not dict:
        raise LineError("attempts: not a list of objects")
    get = raw.get
    number = _small(get("n"), "attempt n")
    offset_ms, duration_ms = _ms(get("at"), "attempt at"), _ms(get("ms"), "attempt ms")
    if not number or offset_ms is None or duration_ms is None:
        raise LineError("attempt: number or times are missing")
    raw_usage = get("usage")
    usage: Mapping[str, Any] = NO_OBJECT
    if raw_usage is not None:
        # The request's usage is nearly always that of its last attempt: read once.
        usage = stored_usage(request_usage if raw_usage == request_raw_usage else _usage(raw_usage))
    return Attempt(
        number,
        _id(get("deployment"), "attempt deployment"),
        _text(get("outcome"), "attempt outcome", 30),
        _small(get("http"), "attempt http"),
        _text(get("error"), "attempt error", 80),
        _text(get("message"), "attempt message", 500),
        _text(get("upstream_id"), "attempt upstream_id", 200),
        offset_ms,
        _ms(get("first"), "attempt first"),
        duration_ms,
        usage,
        _optional_id(get("price"), "attempt price"),
        _amount(get("cost"), "attempt cost"),
        _text(get("check"), "attempt check", 40),
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
    if audio_input := _count(get("audio_in"), "audio_in"):
        detail["audio_input_tokens"] = audio_input
    if audio_output := _count(get("audio_out"), "audio_out"):
        detail["audio_output_tokens"] = audio_output
    if write_1h := _count(get("cache_write_1h"), "cache_write_1h"):
        detail["cache_write_1h_tokens"] = write_1h
    if searches := _count(get("searches"), "searches"):
        detail["search_count"] = searches
    reported_cost = _amount(get("reported_cost"), "reported_cost")
    if reported_cost is not None:
        detail["reported_cost_nanousd"] = reported_cost
    return Usage(
        kind,
        _count(get("input"), "input"),
        _count(get("output"), "output"),
        _count(get("cache_read"), "cache_read") or 0,
        _count(get("cache_write"), "cache_write") or 0,
        _count(get("reasoning"), "reasoning") or 0,
        _text(get("convention"), "convention", 40),
        _text(get("tier"), "tier", 40),
        detail,
    )


def _leases(value: Any) -> tuple[UUID, ...]:
    if value is None:
        return ()
    try:
        if type(value) is list and len(value) <= MAX_LEASES:
            return tuple([UUID(text) for text in value])
    except (ValueError, TypeError, AttributeError):
        pass
    raise LineError("leases: not a list of ids")


def _few(value: Any, field: str) -> list[Any]:
    if value is None:
        return []
    if type(value) is list and len(value) <= MAX_LEASES:
        return value
    raise LineError(f"{field}: not a short list")


def _model_lease(value: Any) -> ModelLease:
    if type(value) is not list or len(value) != 3:
        raise LineError("model_leases: not a lease, an amount and a model")
    (lease,) = _leases(value[:1])
    return ModelLease(lease, _amount(value[1], "model_leases") or 0, _id(value[2], "model_leases"))


def _model_amount(value: Any) -> tuple[int, int]:
    if type(value) is not list or len(value) != 2:
        raise LineError("model_uncertain: not a model and an amount")
    return _id(value[0], "model_uncertain"), _amount(value[1], "model_uncertain") or 0


def _request_id(value: Any) -> tuple[UUID, dt.datetime]:
    try:
        return _parse_id(value)
    except (ForeignIdError, ValueError, TypeError, AttributeError):
        raise LineError("id: not a request id of this gateway") from None


@lru_cache(maxsize=20_000)
def _parse_id(text: str) -> tuple[UUID, dt.datetime]:
    # Every id is read twice, by its intent and its outcome.
    request_id = UUID(text)
    return request_id, started_at_of(request_id)


def _id(value: Any, name: str) -> int:
    if type(value) is not int or not 0 < value <= MAX_BIGINT:
        raise LineError(f"{name}: not a database id")
    return value


def _optional_id(value: Any, name: str) -> int | None:
    return None if value is None else _id(value, name)


def _text(value: Any, name: str, limit: int) -> str:
    if value is None:
        return ""
    if type(value) is not str:
        raise LineError(f"{name}: not a text")
    return value if len(value) <= limit else value[:limit]


def _bool(value: Any, name: str) -> bool:
    if type(value) is not bool:
        raise LineError(f"{name}: not true or false")
    return value


def _small(value: Any, name: str) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= MAX_SMALLINT:
        raise LineError(f"{name}: not a number from 0 to {MAX_SMALLINT}")
    return value


def _count(value: Any, name: str) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= MAX_TOKENS:
        raise LineError(f"{name}: not a number of tokens")
    return value


def _amount(value: Any, name: str) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= MAX_NANOUSD:
        raise LineError(f"{name}: not an amount of nano-USD")
    return value


def _ms(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if type(value) not in (float, int) or not 0 <= value <= MAX_MS:
        raise LineError(f"{name}: not a number of milliseconds")
    return float(value)


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if value is None:
        return NO_OBJECT
    if type(value) is not dict:
        raise LineError(f"{name}: not an object")
    return value


def _read_leniently(raw: bytes) -> Any:
    """What orjson refuses and still has one meaning: wrong UTF-8 and lone surrogates, replaced."""
    try:
        return _cleaned(json.loads(raw.decode("utf-8", "replace"), parse_constant=_refuse_constant))
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, LineError) else "not JSON"
        raise LineError(reason) from None


def _refuse_constant(name: str) -> NoReturn:
    raise LineError(f"{name} is not a number")


def _cleaned(value: Any) -> Any:
    if type(value) is str:
        return value.replace("\x00", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if type(value) is dict:
        return {_cleaned(key): _cleaned(item) for key, item in value.items()}
    if type(value) is list:
        return [_cleaned(item) for item in value]
    if type(value) is float and not math.isfinite(value):
        raise LineError("a number is not finite")
    return value
