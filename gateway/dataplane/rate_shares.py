"""What is one worker's share of a rate limit, and what did it take of it?

Pure: numbers over a clock that is given. `rate_limits.ShareBook` decides when to ask for more, and what is told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.dataplane.rate_windows import COUNTS_S, Amount, Answer
from policies.snapshot import RateTerms


class RateLimitedError(Exception):
    """A request that does not fit. `retry_after_s` None: it never will, it is larger than the limit."""

    def __init__(self, terms: RateTerms, kind: str, needed: int, retry_after_s: float | None) -> None:
        super().__init__(f"{terms.name}: no room for {needed} {kind}")
        self.terms = terms
        self.kind = kind
        self.needed = needed
        self.retry_after_s = retry_after_s


class Standing(NamedTuple):
    """How one kind of limit stands, as far as this worker has heard."""

    limit: int
    remaining: int
    resets_s: float


@dataclass(slots=True, eq=False)
class Second:
    """What this worker took of a limit in one second of its window's clock, and what of it was told."""

    second: int
    requests: int = 0
    tokens: int = 0
    told_requests: int = 0
    told_tokens: int = 0


class Part(NamedTuple):
    share: Share
    second: Second
    tokens: int
    is_running: bool


@dataclass(slots=True, eq=False)
class Hold:
    """What one request holds of the limits that it counts for."""

    parts: list[Part] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Want:
    need: Amount
    asked_at_s: float
    patience_s: float
    future: asyncio.Future[Part]


@dataclass(slots=True, eq=False)
class Share:
    """This worker's part of one limit. `free_…` may be used without asking anybody while it is valid."""

    terms: RateTerms
    free_requests: int = 0
    free_tokens: int = 0
    free_concurrent: int = 0
    running: int = 0
    valid_until_s: float = 0.0
    used_at_s: float = float("-inf")
    seconds: deque[Second] = field(default_factory=deque)
    wants: deque[Want] = field(default_factory=deque)
    # The last answer, and when it was asked for and came, on this worker's own clock.
    answer: Answer | None = None
    asked_at_s: float = 0.0
    answered_at_s: float = 0.0
    # On the way to the database: what it was told of, and who waits for the answer.
    is_asking: bool = False
    question_at_s: float = 0.0
    told: tuple[tuple[Second, int, int], ...] = ()
    asked: tuple[Want, ...] = ()
    # Until when nobody asks again for as much as this of a kind, and when there may be so much.
    full_until_s: float = 0.0
    full_kind: str = ""
    full_need: int = 0
    room_at_s: float = 0.0

    def change(self, terms: RateTerms) -> None:
        """Go by what the configuration says now."""
        if terms != self.terms:
            self.full_until_s = 0.0
        self.terms = terms

    def need_for(self, tokens: int) -> Amount:
        """What a request takes of the kinds that are limited."""
        terms = self.terms
        return Amount(
            1 if terms.requests_per_minute is not None else 0,
            tokens if terms.tokens_per_minute is not None else 0,
            1 if terms.concurrent is not None else 0,
        )

    def take(self, tokens: int, now_s: float) -> Part | None:
        """Take a request's part if it fits."""
        terms = self.terms
        is_running = terms.concurrent is not None
        if (
            now_s >= self.valid_until_s
            or (terms.requests_per_minute is not None and self.free_requests < 1)
            or (terms.tokens_per_minute is not None and self.free_tokens < tokens)
            or (is_running and self.free_concurrent < 1)
        ):
            return None
        if terms.requests_per_minute is not None:
            self.free_requests -= 1
        if terms.tokens_per_minute is not None:
            self.free_tokens -= tokens
        if is_running:
            self.free_concurrent -= 1
        return self.note(tokens, now_s)

    def note(self, tokens: int, now_s: float) -> Part:
        """Write down that a request was let in."""
        terms = self.terms
        self.used_at_s = now_s
        second = self.second_at(now_s)
        if terms.requests_per_minute is not None:
            second.requests += 1
        if terms.tokens_per_minute is None:
            tokens = 0
        second.tokens += tokens
        is_running = terms.concurrent is not None
        if is_running:
            self.running += 1
        return Part(self, second, tokens, is_running)

    def clock_s(self, now_s: float) -> float:
        """What the window's clock says now: late by a round trip at most, never early."""
        return 0.0 if self.answer is None else self.answer.now_s + now_s - self.asked_at_s

    def second_at(self, now_s: float) -> Second:
        second = int(self.clock_s(now_s) or now_s)
        seconds = self.seconds
        if seconds and seconds[-1].second >= second:
            return seconds[-1]
        seconds.append(Second(second))
        return seconds[-1]

    def give_up(self) -> None:
        """Use nothing more of what is free."""
        self.free_requests = self.free_tokens = self.free_concurrent = 0

    def own_used(self, now_s: float) -> tuple[int, int]:
        """Requests and tokens that this worker let in within the last minute."""
        since = (self.clock_s(now_s) or now_s) - COUNTS_S
        recent = [second for second in self.seconds if second.second > since]
        return sum(second.requests for second in recent), sum(second.tokens for second in recent)

    def forget_old(self, now_s: float) -> None:
        since = (self.clock_s(now_s) or now_s) - COUNTS_S
        while self.seconds and self.seconds[0].second < since:
            self.seconds.popleft()
