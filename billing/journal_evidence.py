"""What does a journal line tell about how good answers were? A line -> checked feedback and shadow comparisons.

Pure. Refused and mended like intents and outcomes (`billing.journal_lines`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from billing.journal_values import (
    LineError,
    read_amount,
    read_count,
    read_id,
    read_ms,
    read_request_id,
    read_text,
)


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


def read_feedback(line: Mapping[str, Any]) -> Feedback:
    """Check a feedback line. Raises LineError naming the field."""
    get = line.get
    if get("k") != "feedback" or get("v") != 1:
        raise LineError("not a feedback line of version 1")
    feedback_id, at = read_request_id(get("id"))
    quality = get("quality")
    if quality is not None and (type(quality) not in (float, int) or not 0 <= quality <= 1):
        raise LineError("quality: not a number from 0 to 1")
    return Feedback(
        feedback_id,
        at,
        read_request_id(get("request"))[0],
        read_id(get("key"), "key"),
        None if quality is None else float(quality),
    )


def read_shadow(line: Mapping[str, Any]) -> Shadow:
    """Check a shadow line. Raises LineError naming the field."""
    get = line.get
    if get("k") != "shadow" or get("v") != 1:
        raise LineError("not a shadow line of version 1")
    shadow_id, at = read_request_id(get("id"))
    answers = get("answers")
    if type(answers) is not list or len(answers) != 2:
        raise LineError("answers: not two")
    served, other = (_judged_answer(answer) for answer in answers)
    return Shadow(
        shadow_id,
        at,
        read_request_id(get("request"))[0],
        read_text(get("workload"), "workload", 16),
        read_text(get("task_type"), "task_type", 40),
        read_amount(get("cost"), "cost") or 0,
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
        read_id(get("deployment"), "deployment"),
        float(quality),
        read_text(get("detail"), "detail", 40),
        read_count(get("output"), "output"),
        read_ms(get("ms"), "ms"),
    )
