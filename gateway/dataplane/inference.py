"""How is one chat, completions or embeddings request served? From headers to the outcome line.

Calls: journal, providers and the client's channel, through the exchange. Every way out writes one outcome line.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from gateway.dataplane.answer_checks import JsonAnswer
from gateway.dataplane.answer_headers import answer_headers
from gateway.dataplane.asking import read_ask, read_features
from gateway.dataplane.attempts import StreamAnswer, first_answer
from gateway.dataplane.auth import authenticate
from gateway.dataplane.budget_holds import hold_budgets
from gateway.dataplane.client_ids import read_client_ids
from gateway.dataplane.errors import (
    BadRequest,
    ClientGone,
    GatewayError,
    GatewayUnready,
    NoCandidate,
    NotFound,
)
from gateway.dataplane.exchange import Exchange, Send
from gateway.dataplane.gateway import Gateway
from gateway.dataplane.hangups import CONNECTION_KEY, HangupWatch, WatchedConnection
from gateway.dataplane.json_answers import send_error
from gateway.dataplane.limits import (
    LARGE_BODY_BYTES,
    Receive,
    check_content_type,
    check_declared_size,
    read_body,
)
from gateway.dataplane.rate_limit_holds import find_room, hold_rate, no_room
from gateway.dataplane.streaming import error_event, relay, settle
from gateway.wire.openai_answer import estimate_usage
from gateway.wire.openai_errors import recorded_code
from gateway.wire.openai_request import Endpoint, parse_request
from gateway.wire.openai_usage import read_usage
from policies.decision import Decision, RoutingError, decide
from policies.explaining import reason_text
from policies.features import Features
from policies.snapshot import RoutingSnapshot

logger = logging.getLogger(__name__)

ANSWER_PIECE_BYTES = 256 * 1024


async def serve(
    gateway: Gateway, scope: Mapping[str, Any], receive: Receive, send: Send, endpoint: Endpoint
) -> None:
    """Serve one request to its end."""
    exchange = Exchange(gateway, endpoint)
    gateway.stats.in_flight += 1
    answer: JsonAnswer | StreamAnswer | None = None
    watch: HangupWatch | None = None
    try:
        headers = dict(scope["headers"])
        await _prepare(exchange, headers, receive)
        watch = HangupWatch(exchange, scope, receive)
        exchange.write_intent()
        answer = await first_answer(exchange)
        if isinstance(answer, StreamAnswer):
            await relay(exchange, answer, send)
        else:
            await _send_json(exchange, answer, send)
            if gateway.shadows is not None:
                gateway.shadows.offer(exchange, answer)
    except ClientGone:
        connection: WatchedConnection | None = scope.get(CONNECTION_KEY)
        refused_as = connection.refused_as if connection is not None else None
        with suppress(GatewayUnready):  # nobody is left to hear that the journal is full
            if refused_as is not None:
                exchange.write_outcome("refused", http_status=refused_as[0], error_code=refused_as[1])
            else:
                exchange.write_outcome("cancelled", http_status=None, error_code="client_disconnected")
    except GatewayError as error:
        error.with_traceback(None)  # its frames hold it: a cycle that would keep the request's body
        await _send_error(exchange, error, send)
    except asyncio.CancelledError:
        is_answered = exchange.is_recorded
        with suppress(GatewayUnready):
            _settle_cancelled(exchange, answer)
        if not is_answered and not exchange.is_client_gone:
            await _send_stopping(exchange, send)
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
    except Exception:  # an edge: nothing above may see it
        logger.exception("request %s failed inside the gateway", exchange.request_id)
        if isinstance(answer, StreamAnswer) and not exchange.is_recorded:
            settle(exchange, answer)
        with suppress(GatewayUnready):
            exchange.write_outcome("error", http_status=500, error_code="internal_error")
        if exchange.is_committed:
            last = error_event("internal_error", "The gateway failed; its log names this request.")
            await send({"type": "http.response.body", "body": last})
        else:
            await _send_error(
                exchange,
                GatewayError("The gateway failed; its log names this request.", code="internal_error"),
                send,
            )
    finally:
        gateway.stats.in_flight -= 1
        if exchange.hold is not None:  # no outcome could be written
            exchange.end_hold()
        if exchange.rate_hold is not None or exchange.room_hold is not None:
            exchange.end_rate_holds()
        exchange.room.leave()
        if watch is not None:
            watch.stop()


async def _prepare(exchange: Exchange, headers: Mapping[bytes, bytes], receive: Receive) -> None:
    """Check, read, decide. Raises GatewayError; the exchange then says how far it came."""
    gateway = exchange.gateway
    configuration = gateway.configuration
    declared_bytes = check_declared_size(headers)
    grant = authenticate(headers, configuration, now_unix_s=exchange.started_at_unix_s)
    exchange.grant = grant
    exchange.client_ids = read_client_ids(headers)
    check_content_type(headers)
    exchange.room.take(declared_bytes)
    body = await read_body(receive, timeout_s=gateway.timeouts.body_s, room=exchange.room)
    parsed = parse_request(body, exchange.endpoint)
    exchange.parsed = parsed
    exchange.is_pinned = grant.is_pinned or is_yes(headers.get(b"x-pointsman-pin"))
    snapshot = configuration.snapshot
    features = read_features(parsed, headers, grant, snapshot, now_unix_s=exchange.started_at_unix_s)
    if grant.budgets and gateway.budgets is not None:
        ratio = gateway.budgets.used_ratio(grant.budgets, at_unix_s=exchange.started_at_unix_s)
        features = features._replace(budget_used_ratio=ratio)
    exchange.features = features
    if grant.rate_limits:
        await hold_rate(exchange)
    served_by = deployment_of_conversation(gateway, features, snapshot)
    ask = read_ask(parsed, is_pinned=exchange.is_pinned, conversation_deployment=served_by)
    exchange.ask = ask
    try:
        draw = gateway.draw()
        decision = decide(ask, features, snapshot, grant, gateway.health, draw=draw)
        if decision.candidates and decision.candidates[0].rate_limit is not None:
            decision = await find_room(exchange, decision, draw=draw)
    except RoutingError as error:
        raise routing_error(error) from None
    exchange.decision = decision
    for trace in decision.trace:
        if trace.outcome == "failed" and decision.policy is not None:
            gateway.stats.rule_failures[decision.policy.public_id, trace.rule] += 1
    if not decision.candidates:
        full = [dropped.deployment for dropped in decision.dropped if dropped.reason == "rate_room"]
        raise no_room(exchange, full) if full else _no_candidate(decision, exchange.endpoint)
    if grant.budgets or grant.model_budgets or snapshot.deployment_budgets:
        await hold_budgets(exchange)


def deployment_of_conversation(gateway: Gateway, features: Features, snapshot: RoutingSnapshot) -> str:
    """The name of the deployment that served this conversation last, "" where nobody knows."""
    if not features.conversation or gateway.conversations is None:
        return ""
    deployment_id = gateway.conversations.find(features.conversation)
    if deployment_id is not None:
        for deployment in snapshot.deployments.values():
            if deployment.id == deployment_id:
                return deployment.name
    return ""


def is_yes(value: bytes | None) -> bool:
    """Whether a header's value says yes."""
    return value is not None and value.strip().lower() in (b"1", b"true", b"yes")


def routing_error(error: RoutingError) -> GatewayError:
    """A routing refusal as an answer: 404 for a name this key cannot use, else 400."""
    kind: Callable[..., GatewayError] = NotFound if error.status == 404 else BadRequest
    return kind(str(error), code=error.code, param=error.param)


def _no_candidate(decision: Decision, endpoint: str) -> NoCandidate:
    reasons = {dropped.deployment: dropped.reason for dropped in decision.dropped}
    why = _in_words(reasons)
    if decision.is_never_possible and reasons and set(reasons.values()) == {"context_window"}:
        # The code that clients branch on to shorten a conversation, as if a provider had said it.
        return NoCandidate(
            f"The request is too long for every deployment behind '{decision.requested_model}'. {why}",
            code="context_length_exceeded",
            param="messages" if endpoint == "chat" else "prompt",
            status=400,
            type="invalid_request_error",
            extra={"reasons": reasons},
        )
    if decision.is_never_possible:
        return NoCandidate(
            f"No deployment behind '{decision.requested_model}' can serve this request. {why}",
            code="no_capable_deployment",
            param="model",
            status=400,
            type="invalid_request_error",
            extra={"reasons": reasons},
        )
    return NoCandidate(
        f"No deployment behind '{decision.requested_model}' can be called right now. {why}",
        code="no_candidate",
        headers=[(b"retry-after", b"5")],
        extra={"reasons": reasons},
    )


def _in_words(reasons: Mapping[str, str]) -> str:
    """Reasons by deployment as sentences, each reason once."""
    if not reasons:
        return "No rule matched this request."
    names_by_reason: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names_by_reason.setdefault(reason, []).append(name)
    return " ".join(
        f"{', '.join(names)}: {reason_text(reason)} ({reason})." for reason, names in names_by_reason.items()
    )


async def _send_json(exchange: Exchange, answer: JsonAnswer, send: Send) -> None:
    headers = answer_headers(exchange)
    cost = exchange.cost_nanousd()
    if cost is not None:
        headers.append((b"x-pointsman-cost-usd", b"%d.%09d" % divmod(cost, 1_000_000_000)))
    headers.append((b"content-type", answer.content_type.encode("latin-1", "replace")))
    headers.append((b"content-length", b"%d" % len(answer.body)))
    exchange.write_outcome("ok", http_status=answer.status)
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    body = answer.body
    if len(body) >= LARGE_BODY_BYTES:
        # At its client's pace: as long as this takes, the answer takes room.
        last = (len(body) - 1) // ANSWER_PIECE_BYTES * ANSWER_PIECE_BYTES
        for start in range(0, last, ANSWER_PIECE_BYTES):
            piece = body[start : start + ANSWER_PIECE_BYTES]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        body = body[last:]
    await send({"type": "http.response.body", "body": body})


async def _send_error(exchange: Exchange, error: GatewayError, send: Send) -> None:
    status = "error" if exchange.attempts else "refused"
    try:
        exchange.write_outcome(
            status,
            http_status=error.status,
            error_code=recorded_code(error.code, error.type) or "provider_error",
        )
    except GatewayUnready as unready:
        error = unready
    await send_error(error, send, answer_headers(exchange))


async def _send_stopping(exchange: Exchange, send: Send) -> None:
    """Last words to a client whose request outlived the drain: a status, or an event where bytes have gone."""
    message = "The gateway is stopping and cannot finish this request."
    if exchange.is_committed:
        await send({"type": "http.response.body", "body": error_event("gateway_stopping", message)})
        return
    error = GatewayUnready(message, code="gateway_stopping", headers=[(b"retry-after", b"1")])
    await send_error(error, send, answer_headers(exchange))


def _settle_cancelled(exchange: Exchange, answer: JsonAnswer | StreamAnswer | None) -> None:
    """The client went away, or the drain is over: charge what was produced.

    Estimated where the provider said nothing.
    """
    if exchange.attempts:
        exchange.gateway.health.abandon(exchange.attempts[-1].deployment)
    if isinstance(answer, StreamAnswer) and not exchange.is_recorded:
        settle(exchange, answer)
        answer.attempt.outcome = "cancelled"
    elif exchange.attempts and exchange.attempts[-1].outcome == "cancelled":
        attempt, features = exchange.attempts[-1], exchange.features
        attempt.end_ms = exchange.elapsed_ms()
        if attempt.first_byte_ms is not None and features is not None:
            exchange.charge(attempt, estimate_usage(input_tokens=features.input_tokens, output_characters=0))
        else:
            attempt.usage = read_usage(None)
    if exchange.is_client_gone:
        status, http_status, code = "cancelled", 200 if exchange.is_committed else None, "client_disconnected"
    else:
        status, http_status, code = "error", 200 if exchange.is_committed else 503, "gateway_stopping"
    exchange.write_outcome(status, http_status=http_status, error_code=code)
