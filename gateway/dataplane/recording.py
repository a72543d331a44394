"""What is written about a request? Intent and outcome lines of the journal.

Pure: facts in, dictionaries out. The form of both lines: billing/README.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from billing.usage import UNKNOWN_USAGE, Usage
from policies.asks import Ask
from policies.features import Features
from policies.snapshot import DeploymentSnapshot


@dataclass(slots=True)
class AttemptLog:
    """One call to one deployment, filled in while it happens. Times are ms from the request's start."""

    number: int
    deployment: DeploymentSnapshot
    offset_ms: float
    outcome: str = "cancelled"
    http_status: int | None = None
    error_code: str = ""
    error_message: str = ""
    upstream_request_id: str = ""
    # What its answer calls itself, which is what the client reads.
    answer_id: str = ""
    first_byte_ms: float | None = None
    end_ms: float = 0.0
    usage: Usage | None = None
    price_id: int | None = None
    cost_nanousd: int | None = None
    # What a free check of the whole answer found (`wire.openai_answer_check`), "" for nothing.
    failed_check: str = ""

    def latency_ms(self) -> float | None:
        """From the call to its first byte: earlier attempts of the request are not this deployment's fault."""
        return None if self.first_byte_ms is None else self.first_byte_ms - self.offset_ms

    def as_line(self) -> dict[str, Any]:
        line = {
            "n": self.number,
            "deployment": self.deployment.id,
            "outcome": self.outcome,
            "http": self.http_status,
            "error": self.error_code,
            "message": self.error_message[:500],
            "upstream_id": self.upstream_request_id[:200],
            "at": round(self.offset_ms, 3),
            "first": None if self.first_byte_ms is None else round(self.first_byte_ms, 3),
            "ms": round(self.end_ms - self.offset_ms, 3),
            "usage": None if self.usage is None else usage_as_line(self.usage),
            "price": self.price_id,
            "cost": self.cost_nanousd,
        }
        if self.failed_check:
            line["check"] = self.failed_check
        return line


def usage_as_line(usage: Usage) -> dict[str, Any]:
    """Usage in the journal's short names."""
    line = {
        "kind": usage.kind,
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cache_read": usage.cache_read_tokens,
        "cache_write": usage.cache_write_tokens,
        "reasoning": usage.reasoning_tokens,
        "audio_in": usage.audio_input_tokens,
        "audio_out": usage.audio_output_tokens,
        "convention": usage.convention,
        "tier": usage.service_tier,
        "reported_cost": usage.reported_cost_nanousd,
    }
    if usage.cache_write_1h_tokens:
        line["cache_write_1h"] = usage.cache_write_1h_tokens
    if usage.search_count:
        line["searches"] = usage.search_count
    if usage.image_count or usage.image_output_tokens or usage.image_input_tokens or usage.audio_s:
        line |= {
            "image_in": usage.image_input_tokens,
            "image_out": usage.image_output_tokens,
            "images": usage.image_count,
            "audio_s": usage.audio_s,
        }
    return line


MAX_END_USER_CHARACTERS = 200
_UNKNOWN_LINE = usage_as_line(UNKNOWN_USAGE)
_NOTHING_LINE = usage_as_line(Usage(kind="reported", input_tokens=0, output_tokens=0, convention="none"))
# What stands in columns of the record, and what nothing reads but a person who is shown it there.
_FEATURE_COLUMNS = frozenset({"requested_model", "endpoint", "tenant", "project", "key", "tags", "is_stream"})
_ASK_COLUMNS = frozenset({"requested_model", "endpoint", "is_pinned"})
_NO_FEATURES = Features()
_NO_WISHES = Ask("")[1:]


def features_as_line(features: Features, ask: Ask | None = None) -> dict[str, Any]:
    """What a decision looked at and no column holds: features and the caller's wishes that differ from their defaults.

    `policies.replaying` reads it back. A new feature or wish is recorded without a change here.
    """
    line = {
        name: value
        for name, value, default in zip(Features._fields, features, _NO_FEATURES, strict=True)
        if value != default and name not in _FEATURE_COLUMNS
    }
    if ask is not None and ask[1:] != _NO_WISHES:
        for name, wish, default in zip(Ask._fields[1:], ask[1:], _NO_WISHES, strict=True):
            if wish != default and name not in _ASK_COLUMNS:
                line[name] = list(wish) if isinstance(wish, tuple) else wish
    return line


def read_end_user(payload: Mapping[str, Any]) -> str:
    """Whom a request names as its end user, for tenants that have that kept; "" where it names nobody.

    `safety_identifier`, or `user` as it was called before; of Anthropic's format `metadata.user_id`.
    """
    metadata = payload.get("metadata")
    named = metadata.get("user_id") if isinstance(metadata, dict) else None
    for value in (payload.get("safety_identifier"), payload.get("user"), named):
        if isinstance(value, str) and value:
            return value[:MAX_END_USER_CHARACTERS]
    return ""


def outcome_line(
    *,
    request_id: str,
    status: str,
    http_status: int | None,
    error_code: str,
    duration_ms: float,
    served_model: str = "",
    finish_reason: str = "",
    first_token_ms: float | None = None,
    attempts: list[AttemptLog],
    served: AttemptLog | None = None,
    uncertain_nanousd: int = 0,
) -> dict[str, Any]:
    """The outcome. Usage is the last attempt's that has one; cost is the sum over all attempts that cost.

    `uncertain_nanousd`: the most that attempts of unknown usage can have cost, for requests that hold of a budget.
    `served` is the attempt whose answer the client gets, where that is not the last one; its usage is then told.

    An attempt that a provider refused used nothing; one that broke off used nobody knows what: it stays `unknown` at
    that attempt, and the request's cost is what is known, unless nothing is.
    A request of which an attempt has usage and no price is `unpriced`: its cost is not known, so not stated.
    """
    lines = []
    answered = served or (attempts[-1] if attempts else None)
    last: AttemptLog | None = None
    usage: dict[str, Any] = _NOTHING_LINE
    is_unpriced = False
    cost: int | None = 0
    for attempt in attempts:
        line = attempt.as_line()
        lines.append(line)
        if attempt.usage is None:
            continue
        if attempt.usage.kind == "unknown":
            if last is None:
                usage, cost = _UNKNOWN_LINE, None
            continue
        if last is None:
            cost = 0
        if served is None or last is not served:
            last, usage = attempt, line["usage"]
        if attempt.cost_nanousd is None:
            is_unpriced, cost = True, None
        elif cost is not None:
            cost += attempt.cost_nanousd
    told: dict[str, Any] = {
        "k": "outcome",
        "v": 1,
        "id": request_id,
        "status": status,
        "http": http_status,
        "error": error_code,
        "deployment": None if answered is None else answered.deployment.id,
        "served": served_model,
        "finish": finish_reason,
        "ms": round(duration_ms, 3),
        "ttft": None if first_token_ms is None else round(first_token_ms, 3),
        "usage": usage,
        "price": last.price_id if last is not None else None,
        "cost": cost,
        "unpriced": is_unpriced,
        "attempts": lines,
    }
    if answered is not None and answered.answer_id:
        told["answer"] = answered.answer_id[:200]
    if uncertain_nanousd:
        told["uncertain"] = uncertain_nanousd
    return told
