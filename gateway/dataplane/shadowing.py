"""Is an answered request also asked of another model? Shadow sampling, for tenants that opted in.

Calls: a provider, the journal, the daily budget (a port). Only after the client has its answer, in a task of its own,
few at once; what has no room is left. A shadow request is a pinned request with an id of its own: intent before the
call, outcome after it, cost as of any other. Its failures are nobody's health and are not repeated.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from dataclasses import replace
from typing import Any, Final, NamedTuple

import orjson

from billing.budget_arithmetic import most_nanousd
from gateway.dataplane.answer_checks import JsonAnswer, checks_answers, find_fault
from gateway.dataplane.attempts import first_answer
from gateway.dataplane.budget_holds import hold_budgets
from gateway.dataplane.errors import GatewayError
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.gateway import Gateway
from gateway.dataplane.health import Health
from gateway.dataplane.most_costs import most_input_tokens
from gateway.dataplane.ports import ShadowBudget
from gateway.dataplane.recording import AttemptLog
from gateway.dataplane.shadow_evidence import Said, evidence_line
from gateway.dataplane.stats import Stats
from gateway.journal import JournalError
from gateway.wire.openai_closed_answer import closed_form
from gateway.wire.openai_errors import recorded_code
from gateway.wire.openai_usage import read_usage
from policies.decision import RoutingError, decide
from policies.features import TEXT_FEATURE_NAMES, Features
from policies.snapshot import DeploymentSnapshot

logger = logging.getLogger(__name__)

MAX_RUNNING: Final = 4
# A worker with more requests than this has better things to do.
MAX_IN_FLIGHT: Final = 200
MAX_BYTES: Final = 256 * 1024
TOTAL_S: Final = 120.0
# Of a hard budget of which more is used, the rest is left to what callers ask.
MAX_BUDGET_USED_RATIO: Final = 0.5
# Members with which a provider does, keeps or charges more than an answer.
_UNSHARED: Final = frozenset({"store", "web_search_options", "prediction"})
_NOTHING: Final = Features()


class _Target(NamedTuple):
    """The other model's deployment, and what a call of it can cost at most."""

    deployment: DeploymentSnapshot
    worst_nanousd: int


class ShadowSampler:
    """One worker's shadow requests."""

    def __init__(self, gateway: Gateway, budget: ShadowBudget) -> None:
        self._gateway = gateway
        self._budget = budget
        self._tasks: set[asyncio.Task[None]] = set()
        # The same journal and providers, but neither health, figures nor conversations of the clients' requests.
        self._apart = replace(
            gateway,
            health=Health(allows_retries=False),
            stats=Stats(),
            conversations=None,
            timeouts=replace(gateway.timeouts, total_s=min(TOTAL_S, gateway.timeouts.total_s)),
        )

    def offer(self, exchange: Exchange, answer: JsonAnswer) -> None:
        """Take a request whose client has its answer, or leave it. Never waits and never raises."""
        grant, gateway = exchange.grant, self._gateway
        percent = grant.tenant.shadow_percent if grant is not None else 0.0
        if not percent or gateway.draw() * 100 >= percent or not _is_eligible(exchange, answer):
            return
        if not self._leaves_room(exchange):
            gateway.stats.shadows["no_budget"] += 1
            return
        is_busy = len(self._tasks) >= MAX_RUNNING or gateway.stats.in_flight > MAX_IN_FLIGHT
        if is_busy or gateway.is_draining:
            gateway.stats.shadows["busy"] += 1
            return
        task = asyncio.get_running_loop().create_task(self._run(exchange, answer.body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _leaves_room(self, exchange: Exchange) -> bool:
        """Say whether the key's hard budgets have so much left that no caller will miss what a shadow holds."""
        grant, budgets = exchange.grant, self._gateway.budgets
        if grant is None:
            return False
        terms = (*grant.budgets, *grant.model_budgets)
        if not terms:
            return True
        if budgets is None:
            return False
        used_ratio = budgets.used_ratio(terms, at_unix_s=exchange.started_at_unix_s)
        return used_ratio <= MAX_BUDGET_USED_RATIO

    def _leaves_room_at(self, deployment: DeploymentSnapshot, at_unix_s: float) -> bool:
        """Say the same of a deployment's own budgets."""
        terms = self._gateway.configuration.snapshot.deployment_budgets.get(deployment.id)
        if not terms:
            return True
        budgets = self._gateway.budgets
        return budgets is not None and budgets.used_ratio(terms, at_unix_s=at_unix_s) <= MAX_BUDGET_USED_RATIO

    async def close(self) -> None:
        """Stop what runs; each writes its outcome before this returns."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, exchange: Exchange, body: bytes) -> None:
        outcome = "failed"
        try:
            outcome = await self._sample(exchange, body)
        except Exception:  # an edge: nobody waits for this task
            logger.exception("the shadow of request %s failed inside the gateway", exchange.request_id)
        finally:
            self._gateway.stats.shadows[outcome] += 1

    async def _sample(self, original: Exchange, body: bytes) -> str:
        parsed, features = original.parsed, original.features
        assert parsed is not None and features is not None and original.grant is not None
        attempt = served_attempt(original)
        closed = closed_form(orjson.loads(body), parsed.payload)
        if closed is None and not attempt.failed_check:
            return "not_comparable"
        target = self._choose(original)
        if target is None:
            return "no_candidate"
        tenant_id = original.grant.tenant.id
        day = dt.datetime.fromtimestamp(self._gateway.now_unix_s(), dt.UTC).date()
        if not await self._budget.reserve(tenant_id, day, target.worst_nanousd):
            return "no_budget"
        shadow = self._prepare(original, target.deployment)
        answer = None if shadow is None else await _call(shadow)
        cost = 0 if shadow is None or not shadow.has_intent else shadow.cost_nanousd()
        try:
            if shadow is None or answer is None:
                return "failed"
            qualities = _expected_qualities(original)
            own = shadow.attempts[-1]
            line = evidence_line(
                Said(
                    original.request_id,
                    attempt,
                    qualities[attempt.deployment.name],
                    attempt.failed_check,
                    closed,
                ),
                Said(
                    shadow.request_id,
                    own,
                    qualities[own.deployment.name],
                    *await _read(answer, parsed.payload),
                ),
                workload=features.workload,
                task_type=features.task_type,
                cost_nanousd=cost,
            )
            if line is None:
                return "not_comparable"
            self._gateway.journal.append(line)
            return "compared"
        except JournalError:
            return "failed"
        finally:
            if cost is not None:
                await self._budget.settle(tenant_id, day, target.worst_nanousd, cost)

    def _choose(self, original: Exchange) -> _Target | None:
        """Draw another model of those that the rule could have chosen, with a known price and a known limit."""
        decision, parsed, features = original.decision, original.parsed, original.features
        assert decision is not None and parsed is not None and features is not None
        served_model = served_attempt(original).deployment.model.id
        known = _expected_qualities(original)
        targets: dict[int, _Target] = {}
        for deployment in decision.candidates:
            price = self._gateway.configuration.find_price(deployment.id, original.started_at_unix_s)
            output_tokens = features.max_output_tokens or deployment.model.max_output_tokens
            if (
                deployment.model.id != served_model
                and deployment.name in known
                and price is not None
                and output_tokens
                and self._gateway.health.problem(deployment) is None
                and self._leaves_room_at(deployment, original.started_at_unix_s)
            ):
                worst = most_nanousd(
                    price, input_tokens=most_input_tokens(parsed), output_tokens=output_tokens
                )
                targets.setdefault(deployment.model.id, _Target(deployment, worst))
        if not targets:
            return None
        return list(targets.values())[int(self._gateway.draw() * len(targets))]

    def _prepare(self, original: Exchange, deployment: DeploymentSnapshot) -> Exchange | None:
        """The shadow request, decided: pinned to its deployment. None when that may not serve it any more."""
        grant, parsed, ask, features = original.grant, original.parsed, original.ask, original.features
        assert grant is not None and parsed is not None and ask is not None and features is not None
        name = deployment.name
        shadow = Exchange(self._apart, "chat")
        shadow.shadow_of = original.request_id
        shadow.is_pinned = True
        shadow.grant = grant
        shadow.parsed = replace(parsed, model=name)
        # What the words told stays away from this record: sums by workload are of what callers asked.
        of_the_words = {member: getattr(_NOTHING, member) for member in TEXT_FEATURE_NAMES}
        shadow.features = features._replace(**{**of_the_words, "requested_model": name})
        shadow.ask = ask._replace(
            requested_model=name,
            models=(),
            is_pinned=True,
            slider=None,
            allowed_models=(),
            excluded_models=(),
            conversation_deployment="",
        )
        snapshot = self._gateway.configuration.snapshot
        try:
            shadow.decision = decide(
                shadow.ask, shadow.features, snapshot, grant, self._gateway.health, draw=self._gateway.draw()
            )
        except RoutingError:
            return None
        found = [candidate.id for candidate in shadow.decision.candidates]
        return shadow if found == [deployment.id] else None


def served_attempt(exchange: Exchange) -> AttemptLog:
    """The attempt whose answer the client got."""
    return exchange.served or exchange.attempts[-1]


def _is_eligible(exchange: Exchange, answer: JsonAnswer) -> bool:
    """Say whether a request may be asked twice: text alone, and nothing that a provider keeps or charges apart."""
    parsed, features = exchange.parsed, exchange.features
    if parsed is None or features is None or parsed.is_stream or not checks_answers(exchange):
        return False
    if len(parsed.body) > MAX_BYTES or len(answer.body) > MAX_BYTES or features.choice_count != 1:
        return False
    if features.has_images or features.has_audio or features.has_files:
        return False
    payload = parsed.payload
    tools = payload.get("tools") or []
    return (
        not any(payload.get(name) for name in _UNSHARED)
        and all(isinstance(tool, dict) and tool.get("type") == "function" for tool in tools)
        and served_attempt(exchange).deployment.name in _expected_qualities(exchange)
    )


def _expected_qualities(exchange: Exchange) -> dict[str, float]:
    """What the router took the models to be worth when it decided this request, by deployment."""
    decision = exchange.decision
    return {score[0]: score[1] for score in decision.scores if len(score) > 2} if decision is not None else {}


async def _call(shadow: Exchange) -> JsonAnswer | None:
    """Call the provider between intent and outcome. None: no answer, and the record, if there is one, says why."""
    assert shadow.grant is not None
    try:
        snapshot = shadow.gateway.configuration.snapshot
        if shadow.grant.budgets or shadow.grant.model_budgets or snapshot.deployment_budgets:
            await hold_budgets(shadow)
            if shadow.output_limit is not None:  # less of an answer than the client got would fit
                shadow.end_hold()
                return None
        shadow.write_intent()
    except GatewayError:
        shadow.end_hold()
        return None
    try:
        answer = await first_answer(shadow)
    except GatewayError as error:
        code = recorded_code(error.code, error.type) or "provider_error"
        shadow.write_outcome("error", http_status=error.status, error_code=code)
        return None
    except BaseException as failure:
        # Stopped in the middle of a call, or a fault of ours: what the provider did is not known.
        for attempt in shadow.attempts[-1:]:
            attempt.end_ms = shadow.elapsed_ms()
            attempt.usage = attempt.usage or read_usage(None)
        is_stopping = isinstance(failure, asyncio.CancelledError)
        code = "gateway_stopping" if is_stopping else "internal_error"
        shadow.write_outcome("error", http_status=503 if is_stopping else 500, error_code=code)
        raise
    finally:
        shadow.room.leave()  # few run at once, and what is large is not looked at
    assert isinstance(answer, JsonAnswer)
    shadow.write_outcome("ok", http_status=answer.status)
    return answer


async def _read(answer: JsonAnswer, request: dict[str, Any]) -> tuple[str, bytes | None]:
    """The free check that an answer failed, and its closed form."""
    if len(answer.body) > MAX_BYTES:
        return "", None
    payload = orjson.loads(answer.body)
    return await find_fault(payload, request), closed_form(payload, request)
