"""What does a shadow request tell about two models? One journal line, without a word of either answer.

Pure. Only answers with a closed form are compared (`wire.openai_closed_answer`), and the free checks count where the
other answer has one: an answer in its own words says nothing here, whichever of the two it is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gateway.dataplane.recording import AttemptLog
from policies.autorouter.agreement import judge_agreement


class Said(NamedTuple):
    """One of the two answers. `expected`: the quality that the router took its model to have, 0 to 1.

    `fault`: the free check that it failed, "" for none. `closed`: its closed form, None where it has none.
    """

    request_id: str
    attempt: AttemptLog
    expected: float
    fault: str
    closed: bytes | None


class Verdict(NamedTuple):
    """How good an answer was, and a code that says by what."""

    quality: float
    detail: str


def judge(served: Said, other: Said) -> tuple[Verdict, Verdict] | None:
    """Judge two answers to one request; None when nothing can be told."""
    pair = (served, other)
    if any(not one.fault and one.closed is None for one in pair):
        return None
    if served.fault or other.fault:
        first, second = (
            Verdict(0.0, one.fault) if one.fault else Verdict(one.expected, "sound") for one in pair
        )
        return first, second
    is_same = served.closed == other.closed
    detail = "same_answer" if is_same else "other_answer"
    first_quality, second_quality = judge_agreement(served.expected, other.expected, is_same=is_same)
    return Verdict(first_quality, detail), Verdict(second_quality, detail)


def evidence_line(
    served: Said, other: Said, *, workload: str, task_type: str, cost_nanousd: int | None
) -> dict[str, Any] | None:
    """Return the journal line, None when nothing can be told. `cost_nanousd`: of the shadow request."""
    verdicts = judge(served, other)
    if verdicts is None:
        return None
    return {
        "k": "shadow",
        "v": 1,
        "id": other.request_id,
        "request": served.request_id,
        "workload": workload,
        "task_type": task_type,
        "cost": cost_nanousd or 0,
        "answers": [
            {
                "deployment": one.attempt.deployment.id,
                "quality": round(verdict.quality, 4),
                "detail": verdict.detail,
                "output": None if one.attempt.usage is None else one.attempt.usage.output_tokens,
                "ms": round(one.attempt.end_ms - one.attempt.offset_ms, 3),
            }
            for one, verdict in zip((served, other), verdicts, strict=True)
        ],
    }
