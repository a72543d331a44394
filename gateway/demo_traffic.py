"""How does the demo's invented traffic become records? It is decided and written down by the code of real requests.

Reads: configuration, the change feed. Writes: two workers' journals (the last week, then the months before it), which
the ingester takes like any other. Calls no provider. What happens when follows from the moment the demo was set up, ids
included: doing it again adds nothing.
"""

from __future__ import annotations

import datetime as dt
import heapq
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from billing.models import RequestRecord
from billing.pricebook import PriceVersion, price_at
from billing.usage import Usage
from gateway import demo_edition, demo_week
from gateway.dataplane.asking import read_ask, read_features
from gateway.dataplane.attempts import MAX_ATTEMPTS
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.gateway import Gateway
from gateway.dataplane.health import Health
from gateway.dataplane.ports import RecordLookup
from gateway.dataplane.recording import AttemptLog
from gateway.dataplane.request_ids import make_request_id
from gateway.demo_week import Call, Turn
from gateway.journal import SegmentJournal
from gateway.snapshots import Loaded, load_everything
from gateway.wire.openai_answer import estimate_usage
from gateway.wire.openai_request import Endpoint, ParsedRequest
from gateway.wire.openai_wishes import NO_WISHES
from policies.decision import Decision, RoutingError, decide
from policies.models import ChangeEvent, Deployment
from policies.provider_addresses import SIMULATED
from policies.snapshot import DeploymentSnapshot, KeyGrant, RoutingSnapshot

DEMO_ACTOR = "bootstrap"
DEMO_TENANT = "demo"
# Later than this after the demo was set up, the week would be news to an operator: it stays away.
SETTING_UP = dt.timedelta(minutes=30)
RATED_AFTER_S = 45.0
# Somebody entered this deployment's price late: on two days of last month its requests found none.
PRICED_LATE = "sim-medium@simulated"
LATE_DAYS = (12, 13)
CODE_OF_STATUS = {429: "rate_limit_exceeded", 500: "server_error", 502: "bad_gateway", 503: "overloaded"}


def find_due_moment(now: dt.datetime) -> dt.datetime | None:
    """When the demo was set up, if its traffic is still to be written; None: there is no demo, or it has its traffic.

    A demo that calls real providers gets none: none of them was ever asked.
    """
    event_at = find_set_up_moment(now)
    return None if event_at is None or has_arrived(event_at) else event_at


def find_set_up_moment(now: dt.datetime) -> dt.datetime | None:
    """When the demo was set up, if that was within the last half hour and all its providers are simulated.

    None too for a demo of other code: its traffic is not this one's, and both together would be too much.
    """
    made = ChangeEvent.objects.filter(
        actor=DEMO_ACTOR, object_type="tenant", object_name=DEMO_TENANT, action="create"
    ).order_by("id")
    event = made.first()
    if event is None or not now - SETTING_UP <= event.at <= now:
        return None
    if Deployment.objects.exclude(provider__base_url=SIMULATED).exists():
        return None
    return event.at if demo_edition.is_ours(actor=DEMO_ACTOR) else None


def has_arrived(set_up_at: dt.datetime) -> bool:
    """Whether all of the traffic is recorded. What is written first is recorded first, so the last ones say it."""
    now_unix_s = set_up_at.timestamp()
    last = [demo_week.list_turns(now_unix_s)[-1], demo_week.list_earlier_turns(now_unix_s)[-1]]
    ids = [_request_id(turn) for turn in last]
    return RequestRecord.objects.filter(id__in=ids, started_at__lt=set_up_at).count() == len(ids)


def write_demo_week(*, data_dir: Path, set_up_at: dt.datetime, days: int = demo_week.DAYS) -> int:
    """Write the days before `set_up_at` into a journal of their own; return how many requests they hold."""
    turns = demo_week.list_turns(set_up_at.timestamp(), days=days)
    return write_turns(turns, data_dir=data_dir, set_up_at=set_up_at)


def write_earlier_months(*, data_dir: Path, set_up_at: dt.datetime) -> int:
    """Write the time before the week into a journal of its own; return how many requests it holds."""
    turns = demo_week.list_earlier_turns(set_up_at.timestamp())
    return write_turns(turns, data_dir=data_dir, set_up_at=set_up_at)


def write_turns(turns: Sequence[Turn], *, data_dir: Path, set_up_at: dt.datetime) -> int:
    """Serve these turns, oldest first, into a journal of their own; return how many there were.

    Keys that somebody has deleted meanwhile ask nothing.
    """
    loaded = load_everything()
    grants = _grants_by_name(loaded)
    served = [turn for turn in turns if (turn.workload.project, turn.workload.key) in grants]
    journal = SegmentJournal(data_dir)
    try:
        past = _Past(loaded, grants, journal, set_up_at.timestamp())
        for turn in served:
            past.serve(turn)
    finally:
        journal.close()
    return len(served)


def find_late_days(set_up_at: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
    """From when to when PRICED_LATE had no price: days of last month, which therefore nobody is charged for yet."""
    last_month = (set_up_at.astimezone(dt.UTC).replace(day=1) - dt.timedelta(days=1)).date()
    first, last = (dt.datetime(last_month.year, last_month.month, day, tzinfo=dt.UTC) for day in LATE_DAYS)
    return first, last + dt.timedelta(days=1)


def _request_id(turn: Turn) -> str:
    return _id_of(turn, turn.at_unix_s, kind="request")


def _id_of(turn: Turn, at_unix_s: float, *, kind: str) -> str:
    noise = random.Random(f"{demo_week.SEED}/{turn.number}/{kind}").getrandbits(74)  # noqa: S311
    return make_request_id(int(at_unix_s * 1000), noise=noise)


def _grants_by_name(loaded: Loaded) -> dict[tuple[str, str], KeyGrant]:
    """The demo tenant's keys by project and name."""
    demo = [grant for grant in loaded.grants.values() if grant.tenant.name == DEMO_TENANT]
    return {(grant.project_name, grant.key_name): grant for grant in demo}


class _PastExchange(Exchange):
    """An exchange whose clock stands where its turn says."""

    __slots__ = ("elapsed",)
    elapsed: float

    def elapsed_ms(self) -> float:
        return self.elapsed


@dataclass(slots=True)
class _Configuration:
    """The configuration port over what was loaded. `unpriced`: a deployment without a price from a time to another."""

    snapshot: RoutingSnapshot
    prices: Mapping[int, Any]
    unpriced: tuple[int | None, float, float]
    is_ready: bool = True

    def find_key(self, secret: str, /) -> KeyGrant | None:
        return None

    def find_price(self, deployment_id: int, at_unix_s: float, /) -> PriceVersion | None:
        unpriced_id, begin_unix_s, end_unix_s = self.unpriced
        if deployment_id == unpriced_id and begin_unix_s <= at_unix_s < end_unix_s:
            return None
        return price_at(self.prices.get(deployment_id, ()), at_unix_s)


class _Conversations:
    """The port that remembers who served a conversation, for one journal."""

    def __init__(self) -> None:
        self._served: dict[str, int] = {}

    def find(self, conversation: str, /) -> int | None:
        return self._served.get(conversation) if conversation else None

    def keep(self, conversation: str, deployment_id: int, /) -> None:
        self._served[conversation] = deployment_id


@dataclass(order=True, slots=True)
class _Notice:
    """Something that a deployment's health learns at a time: an answer's end is later than its request's start."""

    at_unix_s: float
    number: int
    tell: Callable[[], None] = field(compare=False)


class _Past:
    """Serves turns one after the other, with the breakers of one worker on the clock of their time."""

    def __init__(
        self,
        loaded: Loaded,
        grants: Mapping[tuple[str, str], KeyGrant],
        journal: SegmentJournal,
        now_unix_s: float,
    ) -> None:
        self._grants = grants
        self._now_unix_s = now_unix_s
        self._clock_unix_s = 0.0
        self._draw = random.Random(demo_week.SEED)  # noqa: S311
        self._notices: list[_Notice] = []
        self._notice_count = 0
        # Which deployment served a conversation last: its provider may have the prompt's beginning cached.
        self._last_served: dict[int, int] = {}
        late = [at.timestamp() for at in find_late_days(dt.datetime.fromtimestamp(now_unix_s, dt.UTC))]
        late_id = next(
            (row.id for row in loaded.routing.deployments.values() if row.name == PRICED_LATE), None
        )
        self._names = {row.id: row.name for row in loaded.routing.deployments.values()}
        self._conversations = _Conversations()
        self.gateway = Gateway(
            configuration=_Configuration(loaded.routing, loaded.prices, (late_id, late[0], late[1])),
            journal=journal,
            records=cast("RecordLookup", None),  # nobody looks a record up
            clients={},
            health=Health(lambda: self._clock_unix_s),
            draw=self._draw.random,
            now_unix_s=lambda: self._clock_unix_s,
            conversations=self._conversations,
        )

    def serve(self, turn: Turn) -> None:
        """Decide, try, and write both lines of one request."""
        self._advance(turn.at_unix_s)
        exchange = self._open(turn)
        gateway, snapshot = self.gateway, self.gateway.configuration.snapshot
        grant, features, ask = exchange.grant, exchange.features, exchange.ask
        assert grant is not None and features is not None and ask is not None
        draw = gateway.draw()
        try:
            exchange.decision = decide(ask, features, snapshot, grant, gateway.health, draw=draw)
        except RoutingError as refusal:
            exchange.write_outcome("refused", http_status=refusal.status, error_code=refusal.code)
            return
        if not exchange.decision.candidates:
            status, code = _refusal_of(exchange.decision)
            exchange.write_outcome("refused", http_status=status, error_code=code)
            return
        exchange.write_intent()
        self._try_candidates(exchange, turn)

    def _open(self, turn: Turn) -> _PastExchange:
        workload = turn.workload
        grant = self._grants[workload.project, workload.key]
        exchange = _PastExchange(self.gateway, cast("Endpoint", workload.endpoint))
        exchange.started_at_unix_s = turn.at_unix_s
        exchange.request_id = _request_id(turn)
        exchange.elapsed = 0.1
        exchange.grant = grant
        exchange.is_pinned = grant.is_pinned or workload.is_pinned
        parsed = exchange.parsed = ParsedRequest(
            endpoint=exchange.endpoint,
            body=b"",
            payload=turn.body(),
            model=turn.asks,
            wishes=NO_WISHES,
            is_stream=workload.is_stream,
            wants_usage=workload.is_stream,
            facts=turn.facts(),
            tags=dict(workload.tags),
        )
        labels = {b"x-title": workload.app, b"x-pointsman-task": workload.task}
        headers = {name: text.encode("latin-1") for name, text in labels.items() if text}
        snapshot = self.gateway.configuration.snapshot
        features = read_features(parsed, headers, grant, snapshot, now_unix_s=turn.at_unix_s)
        ask = read_ask(parsed, is_pinned=exchange.is_pinned)
        served_by = self._conversations.find(features.conversation)
        if served_by is not None:
            ask = ask._replace(conversation_deployment=self._names[served_by])
        exchange.features, exchange.ask = features, ask
        return exchange

    def _try_candidates(self, exchange: _PastExchange, turn: Turn) -> None:
        """Fall back along the candidates until one answers, as `dataplane.attempts` does; the last is asked twice."""
        decision = exchange.decision
        assert decision is not None
        limit = decision.max_attempts or MAX_ATTEMPTS
        candidates = [d for d in decision.candidates if self.gateway.health.may_call(d)]
        candidates = candidates or list(decision.candidates[-1:])
        if len(candidates) < limit:
            candidates.append(candidates[-1])
        call: Call | None = None
        for deployment in candidates[:limit]:
            if exchange.attempts and exchange.attempts[-1].deployment is deployment:
                exchange.elapsed += 600.0  # the pause before a retry
            call = self._call(exchange, turn, deployment)
            if call.status == 200:
                break
        assert call is not None
        last = exchange.attempts[-1]
        if call.status != 200:
            exchange.write_outcome("error", http_status=call.status, error_code=last.error_code)
        elif last.outcome == "cancelled":
            exchange.write_outcome("cancelled", http_status=200, error_code="client_disconnected")
        else:
            exchange.served_model = last.deployment.upstream_model
            exchange.finish_reason = (
                "" if exchange.endpoint == "embeddings" else _finish_reason(turn, exchange)
            )
            exchange.write_outcome("ok", http_status=200)
            self._rate(exchange, turn, last.deployment.model.name)

    def _rate(self, exchange: _PastExchange, turn: Turn, model: str) -> None:
        """Write what the person who got the answer says about it, a minute later, as `POST /v1/feedback` does."""
        quality = demo_week.rate_answer(turn, model)
        at_unix_s = turn.at_unix_s + exchange.elapsed_ms() / 1000 + RATED_AFTER_S
        if quality is None or at_unix_s > self._now_unix_s or exchange.grant is None:
            return
        self.gateway.journal.append(
            {
                "k": "feedback",
                "v": 1,
                "id": _id_of(turn, at_unix_s, kind="feedback"),
                "request": exchange.request_id,
                "key": exchange.grant.key_id,
                "quality": quality,
            }
        )

    def _call(self, exchange: _PastExchange, turn: Turn, deployment: DeploymentSnapshot) -> Call:
        """One attempt: what the invented provider does, put on the exchange's log and told to health in time."""
        log = AttemptLog(
            number=len(exchange.attempts) + 1, deployment=deployment, offset_ms=exchange.elapsed_ms()
        )
        exchange.attempts.append(log)
        call = demo_week.answer_call(
            turn,
            deployment.model.name,
            turn.at_unix_s + log.offset_ms / 1000,
            now_unix_s=self._now_unix_s,
            attempt=log.number,
        )
        log.http_status = call.status
        log.first_byte_ms = log.offset_ms + call.first_byte_ms
        log.end_ms = exchange.elapsed = log.offset_ms + call.total_ms
        ends_at_unix_s = turn.at_unix_s + log.end_ms / 1000
        health = self.gateway.health
        if call.status != 200:
            log.outcome = "rate_limited" if call.status == 429 else "http_error"
            log.error_code = CODE_OF_STATUS[call.status]
            log.error_message = f"The provider answered {call.status}."
            if call.status == 429:
                self._notify(ends_at_unix_s, lambda: health.on_rate_limited(deployment, None))
            else:
                self._notify(ends_at_unix_s, lambda: health.on_failure(deployment, "http_error"))
            return call
        if exchange.parsed is not None and exchange.parsed.is_stream:
            exchange.first_token_ms = log.first_byte_ms
        self._charge(exchange, turn, log, call)
        latency_ms = log.latency_ms()
        self._notify(ends_at_unix_s, lambda: health.on_success(deployment, latency_ms))
        return call

    def _charge(self, exchange: _PastExchange, turn: Turn, log: AttemptLog, call: Call) -> None:
        deployment_id = log.deployment.id
        if turn.leaves_early and exchange.first_token_ms is not None:
            # The client left in the middle of the stream: what had come is estimated, as streaming.settle does.
            log.end_ms = exchange.elapsed = (exchange.first_token_ms + log.end_ms) / 2
            log.outcome = "cancelled"
            exchange.charge(
                log, estimate_usage(input_tokens=turn.input_tokens, output_characters=2 * call.output_tokens)
            )
            return
        log.outcome = "ok"
        is_cached = self._last_served.get(turn.conversation) == deployment_id
        exchange.charge(
            log,
            Usage(
                kind="reported",
                input_tokens=turn.input_tokens,
                output_tokens=call.output_tokens,
                cache_read_tokens=turn.tokens_kept // 128 * 128 if is_cached else 0,
                convention="openai",
            ),
        )
        self._last_served[turn.conversation] = deployment_id

    def _notify(self, at_unix_s: float, tell: Callable[[], None]) -> None:
        self._notice_count += 1
        heapq.heappush(self._notices, _Notice(at_unix_s, self._notice_count, tell))

    def _advance(self, to_unix_s: float) -> None:
        """Turn the clock forward; health hears of what ended until then."""
        while self._notices and self._notices[0].at_unix_s <= to_unix_s:
            notice = heapq.heappop(self._notices)
            self._clock_unix_s = notice.at_unix_s
            notice.tell()
        self._clock_unix_s = to_unix_s


def _refusal_of(decision: Decision) -> tuple[int, str]:
    """Status and code for a request that nobody may serve; the data plane's answers (`inference`)."""
    if not decision.is_never_possible:
        return 503, "no_candidate"
    if {reason for _, reason in decision.dropped} == {"context_window"}:
        return 400, "context_length_exceeded"
    return 400, "no_capable_deployment"


def _finish_reason(turn: Turn, exchange: Exchange) -> str:
    """An agent's answers call a tool, but for the last of a conversation (nobody knows which that is: one in six)."""
    return "tool_calls" if turn.workload.tools and turn.number % 6 else "stop"
