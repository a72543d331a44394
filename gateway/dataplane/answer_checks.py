"""Is a whole answer good enough, or should a better model be asked? Free checks of automatic rules.

Pure, but for a thread where a schema is checked. What is asked for elsewhere is paid for as well, so it happens only
where the policy says so (`check_answers`); what a check found is recorded in any case, as evidence.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.dataplane.exchange import Exchange
from gateway.dataplane.recording import AttemptLog
from gateway.wire.openai_answer_check import check_answer, needs_time


@dataclass(slots=True)
class JsonAnswer:
    """A complete answer, read whole: its bytes are what the client gets."""

    status: int
    body: bytes
    content_type: str


@dataclass(slots=True)
class PoorAnswer:
    """An answer that failed a check, kept for the case that nothing better comes."""

    answer: JsonAnswer
    attempt: AttemptLog
    served_model: str
    finish_reason: str

    @classmethod
    def of(cls, exchange: Exchange, answer: JsonAnswer) -> PoorAnswer:
        """Keep what the exchange knows of its newest answer."""
        return cls(answer, exchange.attempts[-1], exchange.served_model, exchange.finish_reason)

    def give(self, exchange: Exchange) -> JsonAnswer:
        """Make this the answer of the request after all."""
        exchange.served = self.attempt
        exchange.served_model = self.served_model
        exchange.finish_reason = self.finish_reason
        return self.answer


def checks_answers(exchange: Exchange) -> bool:
    """Say whether this request's whole answers are looked at: those of automatic rules."""
    decision = exchange.decision
    return (
        exchange.endpoint == "chat"
        and decision is not None
        and decision.rule is not None
        and decision.rule.auto is not None
    )


async def find_fault(answer: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    """Check an answer; beside the event loop where that may take long."""
    if needs_time(request):
        return await asyncio.to_thread(check_answer, answer, request)
    return check_answer(answer, request)


def better_candidate(
    exchange: Exchange, answer: object, position: int, limit: int, deadline_s: float
) -> int | None:
    """The place of the best candidate that is better than the one whose answer failed its check; None to leave it.

    Better by the router's own estimate. One improvement at most: a request that every model fails costs twice, not
    as often as there are models.
    """
    decision = exchange.decision
    if (
        not isinstance(answer, JsonAnswer)
        or not exchange.attempts[-1].failed_check
        or decision is None
        or decision.rule is None
        or decision.rule.auto is None
        or not decision.rule.auto.check_answers
        or any(attempt.failed_check for attempt in exchange.attempts[:-1])
        or len(exchange.attempts) >= limit
        or time.perf_counter() >= deadline_s
    ):
        return None
    quality = {score[0]: score[1] for score in decision.scores if len(score) > 2}
    tried = {attempt.deployment.name for attempt in exchange.attempts}
    known = quality.get(decision.candidates[position].name, 0.0)
    places = [
        place
        for place, candidate in enumerate(decision.candidates)
        if candidate.name not in tried and quality.get(candidate.name, 0.0) > known
    ]
    return places[0] if places else None
