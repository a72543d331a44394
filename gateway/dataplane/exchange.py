"""What is known about the request being served? The state that its steps share, and what is written about it.

Writes: the journal, through its port. One object per request; nothing outlives it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from billing.rating import total_nanousd
from billing.usage import UNKNOWN_USAGE, Usage
from gateway.dataplane.budgets import Hold, PartHold
from gateway.dataplane.errors import GatewayUnready
from gateway.dataplane.gateway import Gateway
from gateway.dataplane.limits import Room
from gateway.dataplane.rate_shares import Hold as RateHold
from gateway.dataplane.recording import AttemptLog, features_as_line, outcome_line, read_end_user
from gateway.dataplane.request_ids import make_request_id
from gateway.journal import JournalError
from gateway.wire.openai_request import Endpoint, ParsedRequest
from policies.asks import Ask
from policies.decision import Decision
from policies.explaining import decision_record
from policies.features import Features
from policies.snapshot import KeyGrant

Send = Callable[[dict[str, Any]], Awaitable[None]]

# A million USD for one attempt: whatever usage leads there is not believed, and sums stay far from 64 bits.
MAX_COST_NANOUSD = 10**15


class RoomHold(NamedTuple):
    """A place at a deployment with limits, held for the attempt after so many."""

    hold: RateHold
    deployment_id: int
    attempt_count: int


class Exchange:
    """One request from its first byte to its outcome line."""

    __slots__ = (
        "ask",
        "attempt_hold_nanousd",
        "attempts",
        "client_ids",
        "decision",
        "deployment_holds",
        "endpoint",
        "features",
        "finish_reason",
        "first_token_ms",
        "gateway",
        "grant",
        "has_intent",
        "hold",
        "is_client_gone",
        "is_committed",
        "is_pinned",
        "is_recorded",
        "model_holds",
        "output_limit",
        "parsed",
        "rate_hold",
        "refused_by",
        "request_id",
        "room",
        "room_hold",
        "served",
        "served_model",
        "shadow_of",
        "started_at_unix_s",
        "started_s",
    )

    def __init__(self, gateway: Gateway, endpoint: Endpoint) -> None:
        self.gateway = gateway
        self.endpoint = endpoint
        self.started_s = time.perf_counter()
        unix_ns = time.time_ns()
        self.started_at_unix_s = unix_ns / 1e9
        self.request_id = make_request_id(unix_ns // 1_000_000)
        self.grant: KeyGrant | None = None
        self.client_ids: dict[str, str] = {}
        self.parsed: ParsedRequest | None = None
        self.ask: Ask | None = None
        self.features: Features | None = None
        self.decision: Decision | None = None
        self.attempts: list[AttemptLog] = []
        # The attempt whose answer the client gets, where that is not the last one.
        self.served: AttemptLog | None = None
        self.served_model = ""
        self.finish_reason = ""
        self.first_token_ms: float | None = None
        self.room = Room(gateway.stats)
        # Of budgets, for keys that have one: what is held, the most that one attempt can cost, and the output limit
        # with which that is so, where the request came without one.
        self.hold: Hold | None = None
        self.attempt_hold_nanousd = 0
        self.output_limit: int | None = None
        # The same of budgets for one model, by the model's id, and of deployments, by theirs; `hold` is then there too,
        # if only empty.
        self.model_holds: dict[int, PartHold] = {}
        self.deployment_holds: dict[int, PartHold] = {}
        # Of rate limits: what the key's hold, what the deployment's hold that is called, and which refused the request.
        self.rate_hold: RateHold | None = None
        self.room_hold: RoomHold | None = None
        self.refused_by = ""
        self.is_pinned = False
        # Whose shadow this is: the id of the request that was answered (`dataplane.shadowing`).
        self.shadow_of = ""
        self.is_client_gone = False
        self.is_committed = False
        self.has_intent = False
        self.is_recorded = False

    def elapsed_ms(self) -> float:
        """Milliseconds since the request's first byte."""
        return (time.perf_counter() - self.started_s) * 1000

    def deadline_s(self) -> float:
        """When the request must be over, on the clock of `started_s`: the rule's limit, else the gateway's."""
        rule = self.decision.rule if self.decision is not None else None
        limit_s = rule.timeout_s if rule is not None else None
        return self.started_s + (limit_s or self.gateway.timeouts.total_s)

    def write_intent(self) -> None:
        """Write the intent line. Raises GatewayUnready when the journal cannot take it: then nothing is called."""
        grant = self.grant
        assert grant is not None
        decision = self.decision
        policy = decision.policy if decision is not None else None
        parsed = self.parsed
        features = features_as_line(self.features, self.ask) if self.features is not None else {}
        if self.client_ids:
            # No feature: no condition sees it, no decision is made from it.
            features["client"] = self.client_ids
        if grant.tenant.reports_end_users and parsed is not None and (user := read_end_user(parsed.payload)):
            features["end_user"] = user
        if self.shadow_of:
            features["shadow_of"] = self.shadow_of
        if self.refused_by:
            features["refused_by"] = self.refused_by
        budgets: dict[str, Any] = {}
        if self.hold is not None:
            budgets = {"hold": self.hold.nanousd, "leases": self.hold.lease_ids()}
            if self.model_holds:
                budgets["model_leases"] = [
                    [lease_id, held.hold.nanousd, model_id]
                    for model_id, held in self.model_holds.items()
                    for lease_id in held.hold.lease_ids()
                ]
            if self.deployment_holds:
                budgets["deployment_leases"] = [
                    [lease_id, held.hold.nanousd, deployment_id]
                    for deployment_id, held in self.deployment_holds.items()
                    for lease_id in held.hold.lease_ids()
                ]
        try:
            self.gateway.journal.append(
                {
                    "k": "intent",
                    "v": 1,
                    "id": self.request_id,
                    "tenant": grant.tenant.id,
                    "project": grant.project_id,
                    "key": grant.key_id,
                    "endpoint": self.endpoint,
                    "model": parsed.model[:300] if parsed is not None else "",
                    "stream": parsed.is_stream if parsed is not None else False,
                    "pinned": self.is_pinned,
                    "policy": policy.id if policy is not None else None,
                    "version": policy.version_id if policy is not None else None,
                    "rule": decision.rule.name if decision is not None and decision.rule is not None else "",
                    "tags": parsed.tags if parsed is not None else {},
                    "features": features,
                    "decision": decision_record(decision) if decision is not None else {},
                    **budgets,
                }
            )
        except JournalError as error:
            self.gateway.stats.journal_errors += 1
            raise GatewayUnready(
                "The gateway cannot write its journal, so it accepts no request it could lose.",
                code="journal_unavailable",
                headers=[(b"retry-after", b"1")],
            ) from error
        self.has_intent = True

    def write_outcome(self, status: str, *, http_status: int | None, error_code: str = "") -> None:
        """Write the outcome line once; later calls change nothing."""
        if self.is_recorded:
            return
        self.is_recorded = True
        if status == "ok":
            self._keep_conversation()
        duration_ms = self.elapsed_ms()
        stats = self.gateway.stats
        stats.requests[self.endpoint, status] += 1
        stats.duration_ms.observe(duration_ms)
        if self.first_token_ms is not None:
            stats.first_token_ms.observe(self.first_token_ms)
        if self.grant is None:
            stats.refusals[error_code] += 1
            return
        if not self.has_intent:
            self.write_intent()
        line = outcome_line(
            request_id=self.request_id,
            status=status,
            http_status=http_status,
            error_code=error_code,
            duration_ms=duration_ms,
            served_model=self.served_model[:300],
            finish_reason=self.finish_reason[:60],
            first_token_ms=self.first_token_ms,
            attempts=self.attempts,
            served=self.served,
            uncertain_nanousd=self.used_nanousd()[1] if self.hold is not None else 0,
        )
        if self.hold is not None:
            self._note_uncertain(line)
        try:
            self.gateway.journal.append(line)
        except JournalError:
            # The answer exists and may be paid for: the client gets it, and the line waits for room on the disk.
            stats.journal_errors += 1
            self.gateway.unwritten.append(line)
        self.end_hold()
        if self.rate_hold is not None or self.room_hold is not None:
            self.end_rate_holds()

    def _note_uncertain(self, line: dict[str, Any]) -> None:
        """Say what nobody knows of attempts at models and deployments of whose budgets something is held."""
        if self.model_holds:
            unknown = [[model_id, self.used_of_model(model_id)[1]] for model_id in self.model_holds]
            line["model_uncertain"] = [one for one in unknown if one[1]]
        if self.deployment_holds:
            unknown = [[one, self.used_of_deployment(one)[1]] for one in self.deployment_holds]
            line["deployment_uncertain"] = [one for one in unknown if one[1]]

    def end_rate_holds(self) -> None:
        """The request runs no more; count the tokens it took instead of those it was estimated to take."""
        self.end_room_hold()
        hold, book = self.rate_hold, self.gateway.rate_limits
        if hold is not None and book is not None:
            book.settle(hold, _used_tokens(self.attempts))
            self.rate_hold = None

    def end_room_hold(self) -> None:
        """Leave the deployment whose room was held; its last attempt says what was taken."""
        held, book = self.room_hold, self.gateway.rate_limits
        if held is not None and book is not None:
            book.settle(held.hold, _used_tokens(self.attempts[held.attempt_count :]))
            self.room_hold = None

    def end_hold(self) -> None:
        """Settle what is held of budgets with what was used; after the outcome line, or when there is none."""
        hold, budgets = self.hold, self.gateway.budgets
        if hold is not None and budgets is not None:
            budgets.settle(hold, sum(self.used_nanousd()))
            self.hold = None
            for model_id, held in self.model_holds.items():
                budgets.settle(held.hold, sum(self.used_of_model(model_id)))
            self.model_holds = {}
            for deployment_id, held in self.deployment_holds.items():
                budgets.settle(held.hold, sum(self.used_of_deployment(deployment_id)))
            self.deployment_holds = {}

    def _keep_conversation(self) -> None:
        """Note who serves the conversation, where that matters for its next request."""
        features, decision = self.features, self.decision
        board = self.gateway.conversations
        if decision is None or decision.pin is None or board is None or features is None:
            return
        if self.attempts:
            board.keep(features.conversation, (self.served or self.attempts[-1]).deployment.id)

    def charge(self, attempt: AttemptLog, usage: Usage) -> None:
        """Put usage on an attempt, rated with the price in force at request start. What it cost before is forgotten:
        a stream may state its usage again, and what nobody knows has no cost.
        """
        attempt.usage = usage
        attempt.price_id = attempt.cost_nanousd = None
        price = self.gateway.configuration.find_price(attempt.deployment.id, self.started_at_unix_s)
        if price is not None and usage.kind != "unknown":
            total = total_nanousd(usage, price)
            if total > MAX_COST_NANOUSD:
                attempt.usage = UNKNOWN_USAGE
                return
            attempt.price_id = price.id
            attempt.cost_nanousd = total

    def used_nanousd(self) -> tuple[int, int]:
        """What the attempts cost, and the most that those can have cost of which nobody knows."""
        return self._used(self.attempts, self.attempt_hold_nanousd)

    def used_of_model(self, model_id: int) -> tuple[int, int]:
        """The same of the attempts at one model, of whose budgets something is held."""
        attempts = [attempt for attempt in self.attempts if attempt.deployment.model.id == model_id]
        return self._used(attempts, self.model_holds[model_id].attempt_nanousd)

    def used_of_deployment(self, deployment_id: int) -> tuple[int, int]:
        """The same of the attempts at one deployment."""
        attempts = [attempt for attempt in self.attempts if attempt.deployment.id == deployment_id]
        return self._used(attempts, self.deployment_holds[deployment_id].attempt_nanousd)

    @staticmethod
    def _used(attempts: list[AttemptLog], attempt_hold_nanousd: int) -> tuple[int, int]:
        known = uncertain = 0
        for attempt in attempts:
            if attempt.cost_nanousd is not None:
                known += attempt.cost_nanousd
            elif attempt.outcome == "cancelled" if attempt.usage is None else attempt.usage.kind == "unknown":
                uncertain += attempt_hold_nanousd
        return known, uncertain

    def cost_nanousd(self) -> int | None:
        """The request's cost so far; None when something is unknown or unpriced."""
        total = 0
        for attempt in self.attempts:
            if attempt.usage is None:
                continue
            if attempt.cost_nanousd is None:
                return None
            total += attempt.cost_nanousd
        return total


def _used_tokens(attempts: Sequence[AttemptLog]) -> int | None:
    """What attempts took, None where nobody knows of one."""
    total = 0
    for attempt in attempts:
        usage = attempt.usage
        if usage is None:
            if attempt.outcome == "cancelled":
                return None
        elif usage.kind == "unknown":
            return None
        else:
            total += (usage.input_tokens or 0) + (usage.output_tokens or 0)
    return total
