"""May this request be let in, and has a deployment room for it? Holds before, corrections after, and the 429.

Calls: the RateLimits port. Requests of keys without limits, to deployments without, never come here. A request takes
one request, the tokens it is estimated to take (its input as routing estimates it, and the output limit, or
`USUAL_OUTPUT_TOKENS` where nobody states one), and one of the requests at once. When its usage is known, that many
tokens count instead.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from gateway.dataplane.errors import RateLimited
from gateway.dataplane.exchange import Exchange, RoomHold
from gateway.dataplane.rate_limit_headers import duration
from gateway.dataplane.rate_shares import RateLimitedError
from policies.asks import HealthView
from policies.decision import Decision, decide
from policies.snapshot import DeploymentSnapshot, RateTerms

USUAL_OUTPUT_TOKENS = 500
# Another deployment may be free at once: nobody waits long for what other workers hold of this one's room.
ROOM_PATIENCE_S = 0.3
# Official SDKs wait as they are told for up to a minute, and as they like above that.
MAX_RETRY_AFTER_S = 60
_WORDS = {
    "requests": "requests per minute",
    "tokens": "tokens per minute",
    "concurrent": "requests at the same time",
}


async def hold_rate(exchange: Exchange) -> None:
    """Let the request in at all limits of its key. Raises RateLimited."""
    grant, book = exchange.grant, exchange.gateway.rate_limits
    assert grant is not None
    if book is None:
        return
    try:
        exchange.rate_hold = await book.hold(grant.rate_limits, expected_tokens(exchange))
    except RateLimitedError as error:
        exchange.refused_by = f"{error.kind} of {error.terms.name}"
        raise _refused(error) from None


async def find_room(exchange: Exchange, decision: Decision, *, draw: float) -> Decision:
    """Decide again without the deployments that have no room, until the first candidate has."""
    ask, features, grant, gateway = exchange.ask, exchange.features, exchange.grant, exchange.gateway
    assert ask is not None and features is not None and grant is not None
    full: set[int] = set()
    while decision.candidates and not await hold_room(exchange, decision.candidates[0]):
        full.add(decision.candidates[0].id)
        view = _WithoutRoom(gateway.health, full)
        decision = decide(ask, features, gateway.configuration.snapshot, grant, view, draw=draw)
    return decision


async def hold_room(exchange: Exchange, deployment: DeploymentSnapshot) -> bool:
    """Hold a place at a deployment for the next attempt; what was held for an earlier one ends."""
    held, book = exchange.room_hold, exchange.gateway.rate_limits
    attempt_count = len(exchange.attempts)
    if held is not None:
        if held.deployment_id == deployment.id and held.attempt_count == attempt_count:
            return True
        exchange.end_room_hold()
    if book is None or deployment.rate_limit is None:
        return True
    limits = (deployment.rate_limit,)
    try:
        hold = await book.hold(limits, expected_tokens(exchange), patience_s=ROOM_PATIENCE_S)
    except RateLimitedError:
        return False
    exchange.room_hold = RoomHold(hold, deployment.id, attempt_count)
    return True


def no_room(exchange: Exchange, names: Collection[str]) -> RateLimited:
    """What a client is told when all deployments that could serve its request have no room."""
    exchange.end_room_hold()
    book, deployments = exchange.gateway.rate_limits, exchange.gateway.configuration.snapshot.deployments
    limits = [
        limit for name in names if name in deployments and (limit := deployments[name].rate_limit) is not None
    ]
    needed = expected_tokens(exchange)
    if limits and all(needed > (limit.tokens_per_minute or needed) for limit in limits):
        return RateLimited(
            f"This request is larger than what any deployment may take in a minute ({', '.join(names)}: tokens per"
            f" minute), requested {needed:,} tokens; make it smaller.",
            code="rate_limit_exceeded",
            type="tokens",
            headers=[(b"x-should-retry", b"false")],
            extra={"reasons": dict.fromkeys(names, "rate_room")},
        )
    waits_s = [book.room_in_s(limit, needed) for limit in limits] if book is not None else []
    wait_s = max(1.0, min(waits_s, default=1.0))
    return RateLimited(
        f"No deployment has room for another request at the moment ({', '.join(names)}: rate room)."
        f" Please try again in {duration(wait_s)}.",
        code="rate_limit_exceeded",
        type="requests",
        headers=_retry_headers(wait_s),
        extra={"reasons": dict.fromkeys(names, "rate_room")},
    )


class _WithoutRoom:
    """A view of health in which these deployments have no room."""

    __slots__ = ("_full", "_health")

    def __init__(self, health: HealthView, full: set[int]) -> None:
        self._health = health
        self._full = full

    def problem(self, deployment: DeploymentSnapshot, /) -> str | None:
        return "rate_room" if deployment.id in self._full else self._health.problem(deployment)

    def latency_ms(self, deployment_id: int, /) -> float | None:
        return self._health.latency_ms(deployment_id)


def expected_tokens(exchange: Exchange) -> int:
    """How many tokens a request counts as before its usage is known."""
    features = exchange.features
    assert features is not None
    if exchange.endpoint == "embeddings":
        return features.input_tokens
    output = features.max_output_tokens or exchange.output_limit or USUAL_OUTPUT_TOKENS
    return features.input_tokens + output * max(1, features.choice_count)


def _refused(error: RateLimitedError) -> RateLimited:
    terms, wait_s = error.terms, error.retry_after_s
    limit = _limit_of(terms, error.kind)
    what = f"Rate limit reached for {terms.name} on {_WORDS[error.kind]}: limit {limit:,}"
    told = {"limit": terms.name, "kind": error.kind, "value": limit, "requested": error.needed}
    if wait_s is None:
        return RateLimited(
            f"{what}, requested {error.needed:,}. This request is larger than the limit; make it smaller.",
            code="rate_limit_exceeded",
            type=error.kind,
            headers=[(b"x-should-retry", b"false")],
            extra={"rate_limit": {**told, "retry_after_s": None}},
        )
    wait_s = max(0.05, wait_s) if error.kind != "concurrent" else 1.0
    return RateLimited(
        f"{what}, requested {error.needed:,}. Please try again in {duration(wait_s)}.",
        code="rate_limit_exceeded",
        type=error.kind,
        headers=_retry_headers(wait_s),
        extra={"rate_limit": {**told, "retry_after_s": round(wait_s, 3)}},
    )


def _retry_headers(wait_s: float) -> list[tuple[bytes, bytes]]:
    whole_s = min(MAX_RETRY_AFTER_S, math.ceil(wait_s))
    return [
        (b"retry-after", b"%d" % whole_s),
        (b"retry-after-ms", b"%d" % min(MAX_RETRY_AFTER_S * 1000, math.ceil(wait_s * 1000))),
    ]


def _limit_of(terms: RateTerms, kind: str) -> int:
    value = {
        "requests": terms.requests_per_minute,
        "tokens": terms.tokens_per_minute,
        "concurrent": terms.concurrent,
    }[kind]
    return value or 0
