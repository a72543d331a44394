"""Which deployment answers in the end? Retries and fallbacks over a decision's candidates, one deadline.

Calls: providers, through the UpstreamClient port. Until something is returned from here nothing has been sent to
the client, so every failure can still become another attempt or an honest status (the commit point).
Numbers: gateway/README.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import orjson

from gateway.dataplane.addressing import headers_of, url_of
from gateway.dataplane.answer_checks import (
    JsonAnswer,
    PoorAnswer,
    better_candidate,
    checks_answers,
    find_fault,
)
from gateway.dataplane.budget_holds import (
    hold_another_attempt,
    no_budget_for_another,
    output_limit_for,
)
from gateway.dataplane.deployment_holds import hold_again
from gateway.dataplane.errors import GatewayError, GatewayUnready, RateLimited, UpstreamFailed
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.failures import (
    MAX_RETRY_AFTER_S,
    Failure,
    broken,
    failed,
    note_failure,
    read_refusal,
    refused,
)
from gateway.dataplane.ports import UpstreamResponse
from gateway.dataplane.rate_limit_holds import hold_room, no_room
from gateway.dataplane.recording import AttemptLog
from gateway.dataplane.upstream_errors import UpstreamError
from gateway.wire.openai_answer import read_answer
from gateway.wire.openai_errors import fault_in_answer, read_fault
from gateway.wire.openai_request import upstream_body
from gateway.wire.openai_stream import OpenAIStream, StreamGarbageError
from gateway.wire.openai_usage import read_usage, with_images
from policies.snapshot import DeploymentSnapshot

MAX_ATTEMPTS = 3
BACKOFF_BASE_S = 0.25
BACKOFF_BASE_AFTER_429_S = 1.0
BACKOFF_CAP_S = 8.0
MAX_ANSWER_BYTES = 256 * 1024 * 1024

UPSTREAM_ID_HEADERS = ("x-request-id", "request-id", "apim-request-id", "cf-ray")


@dataclass(slots=True)
class StreamAnswer:
    """A stream whose first data event is here: `first` goes out first, then what `response` still brings."""

    response: UpstreamResponse
    stream: OpenAIStream
    first: bytes
    attempt: AttemptLog
    is_ended: bool


async def first_answer(exchange: Exchange) -> JsonAnswer | StreamAnswer:
    """Walk the candidates until one answers. Raises UpstreamFailed with the last failure, made fit for a client;
    RateLimited when no candidate has room, GatewayUnready when the worker has none for the answer.

    An answer that failed a free check is kept while a better model is asked, and given when that one fails too.
    """
    poor: list[PoorAnswer] = []
    try:
        answer = await _walk(exchange, poor)
    except (UpstreamFailed, RateLimited, GatewayUnready):
        if not poor:
            raise
        return poor[0].give(exchange)
    if poor and isinstance(answer, JsonAnswer) and exchange.attempts[-1].failed_check:
        return poor[0].give(exchange)
    return answer


async def _walk(exchange: Exchange, poor: list[PoorAnswer]) -> JsonAnswer | StreamAnswer:
    decision = exchange.decision
    assert decision is not None
    candidates = decision.candidates
    gateway = exchange.gateway
    limit = decision.max_attempts or MAX_ATTEMPTS
    deadline_s = exchange.deadline_s()
    # When each deployment that failed may be called again: infinity for what stays as it is.
    ready_at_s: dict[int, float] = {}
    failure: Failure | None = None
    position = 0
    while True:
        # A deployment on probation takes one request at a time; the last candidate is called all the same.
        while not gateway.health.may_call(candidates[position]) and position + 1 < len(candidates):
            position += 1
        deployment = candidates[position]
        is_limited = deployment.rate_limit is not None or exchange.room_hold is not None
        why_not: GatewayError | None = None
        if is_limited and not await hold_room(exchange, deployment):
            why_not = no_room(exchange, [deployment.name])
        elif exchange.deployment_holds and exchange.attempts and not await hold_again(exchange, deployment):
            why_not = no_budget_for_another(deployment)
        if why_not is not None:
            gateway.health.abandon(deployment)  # had it been a probe, another may follow
            ready_at_s[deployment.id] = float("inf")
            if position + 1 == len(candidates) or candidates[position + 1].id in ready_at_s:
                raise failure.error if failure is not None else why_not
            position += 1
            continue
        if (
            exchange.hold is not None
            and exchange.attempts
            and not await hold_another_attempt(exchange, deployment)
        ):
            gateway.health.abandon(deployment)
            raise failure.error if failure is not None else no_budget_for_another(deployment)
        if failure is None or deployment.id not in ready_at_s:
            # Fallbacks cost no retry budget: they bring no load to what is in trouble.
            result = await _attempt(exchange, deployment, deadline_s)
        else:
            pause_s = ready_at_s[deployment.id] - time.perf_counter()
            if pause_s > MAX_RETRY_AFTER_S or ready_at_s[deployment.id] >= deadline_s:
                raise failure.error
            if not gateway.health.may_retry(deployment.id, in_flight=gateway.stats.in_flight):
                raise failure.error
            with gateway.health.retrying():
                await asyncio.sleep(pause_s)
                result = await _attempt(exchange, deployment, deadline_s)
        if not isinstance(result, Failure):
            better = better_candidate(exchange, result, position, limit, deadline_s)
            if better is None:
                return result
            assert isinstance(result, JsonAnswer)
            poor.append(PoorAnswer.of(exchange, result))
            position = better
            continue
        failure = result
        now_s = time.perf_counter()
        if len(exchange.attempts) >= limit or now_s >= deadline_s:
            raise failure.error
        if failure.kind == "request":
            larger = _larger_context(candidates, position) if failure.is_overflow else None
            if larger is None:
                raise failure.error
            position = larger
            continue
        ready_at_s[deployment.id] = now_s + _pause_s(exchange, failure)
        if position + 1 < len(candidates) and candidates[position + 1].id not in ready_at_s:
            position += 1
        else:
            # Every candidate has been tried: once more the one that may be called soonest, after a pause.
            position = min(
                range(len(candidates)), key=lambda index: ready_at_s.get(candidates[index].id, float("inf"))
            )


def _larger_context(candidates: tuple[DeploymentSnapshot, ...], position: int) -> int | None:
    """The next candidate whose model takes more context than the one that overflowed."""
    known = candidates[position].model.context_tokens
    for index in range(position + 1, len(candidates)):
        context = candidates[index].model.context_tokens
        if known is not None and (context is None or context > known):
            return index
    return None


def _pause_s(exchange: Exchange, failure: Failure) -> float:
    """Full jitter; at least Retry-After when the provider said so. Infinity: repeating it would not help."""
    if failure.kind in ("credential", "elsewhere"):
        return float("inf")
    base = BACKOFF_BASE_AFTER_429_S if failure.kind == "rate_limit" else BACKOFF_BASE_S
    ceiling = min(BACKOFF_CAP_S, base * 2.0 ** (len(exchange.attempts) - 1))
    return max(exchange.gateway.draw() * ceiling, failure.retry_after_s or 0.0)


async def _attempt(
    exchange: Exchange, deployment: DeploymentSnapshot, deadline_s: float
) -> JsonAnswer | StreamAnswer | Failure:
    """Call one deployment once. What happened is in `exchange.attempts` and in the health of the deployment."""
    gateway = exchange.gateway
    parsed = exchange.parsed
    assert parsed is not None
    log = AttemptLog(
        number=len(exchange.attempts) + 1, deployment=deployment, offset_ms=exchange.elapsed_ms()
    )
    exchange.attempts.append(log)
    provider = deployment.provider
    remaining_s = max(0.05, deadline_s - time.perf_counter())
    head_timeout_s = min(gateway.timeouts.first_event_s, remaining_s) if parsed.is_stream else remaining_s
    give_up_s = time.perf_counter() + head_timeout_s
    response: UpstreamResponse | None = None
    is_kept = False
    kept_bytes = exchange.room.answer_bytes
    try:
        response = await gateway.client_for(provider.base_url).send(
            method="POST",
            url=url_of(deployment, exchange.endpoint),
            headers=headers_of(provider),
            body=upstream_body(
                parsed,
                upstream_model=deployment.upstream_model,
                output_limit_parameter=deployment.model.output_limit_parameter,
                takes_stream_options=provider.takes_stream_options,
                output_limit=None
                if exchange.output_limit is None
                else output_limit_for(exchange, deployment),
            ),
            connect_timeout_s=min(gateway.timeouts.connect_s, remaining_s),
            head_timeout_s=head_timeout_s,
            allow_private_network=provider.allow_private_network,
        )
        log.http_status = response.status
        headers = dict(response.headers)
        log.upstream_request_id = _upstream_id(headers)
        if response.status >= 300:
            result: JsonAnswer | StreamAnswer | Failure = await read_refusal(exchange, log, response)
        elif parsed.is_stream and "event-stream" in headers.get("content-type", "").lower():
            result = await _open_stream(exchange, log, response, give_up_s)
            is_kept = isinstance(result, StreamAnswer)
        else:
            result = await _read_json(exchange, log, response, headers, give_up_s)
    except UpstreamError as error:
        error.with_traceback(None)  # a connection keeps what it raises, and its frames hold the request
        result = broken(log, error)
    except GatewayUnready as unready:
        # No room for its answer: nothing is wrong with the provider, and what it charges for that nobody knows.
        log.error_code = unready.code or ""
        log.usage = read_usage(None)
        gateway.health.abandon(deployment)
        raise
    finally:
        log.end_ms = exchange.elapsed_ms()
        if response is not None and not is_kept:
            response.close()
    if isinstance(result, Failure):
        if exchange.room.answer_bytes > kept_bytes:
            exchange.room.leave_answer(kept_bytes)
        note_failure(exchange, deployment, result)
    elif not is_kept:
        gateway.health.on_success(deployment, log.latency_ms())
    gateway.stats.attempts[deployment.name, log.outcome] += 1
    return result


def _upstream_id(headers: Mapping[str, str]) -> str:
    for name in UPSTREAM_ID_HEADERS:
        if name in headers:
            return headers[name]
    return ""


async def _read_json(
    exchange: Exchange,
    log: AttemptLog,
    response: UpstreamResponse,
    headers: Mapping[str, str],
    give_up_s: float,
) -> JsonAnswer | Failure:
    timeout_s = max(0.05, give_up_s - time.perf_counter())
    body = await response.read(limit_bytes=MAX_ANSWER_BYTES, timeout_s=timeout_s, room=exchange.room)
    log.first_byte_ms = exchange.elapsed_ms()
    try:
        payload = orjson.loads(body)
    except ValueError:
        payload = None
    if not isinstance(payload, dict):
        log.usage = read_usage(None)
        return failed(
            log, "bad_answer", 502, "provider_bad_answer", "The provider's answer is not a JSON object."
        )
    status = fault_in_answer(payload)
    if status is not None:
        return refused(
            exchange, log, read_fault(body, status, secret=log.deployment.provider.secret), response
        )
    parsed, features = exchange.parsed, exchange.features
    assert parsed is not None and features is not None
    if parsed.is_stream:
        # An SDK that reads a stream would find no event in it: an empty answer that nobody explains.
        log.usage = read_answer(payload, estimated_input_tokens=features.input_tokens).usage
        exchange.charge(log, log.usage)
        return failed(
            log,
            "bad_answer",
            502,
            "provider_did_not_stream",
            "The provider answered a stream request at once.",
        )
    facts = read_answer(payload, estimated_input_tokens=features.input_tokens)
    exchange.served_model = facts.served_model
    exchange.finish_reason = facts.finish_reason
    log.answer_id = facts.answer_id
    exchange.charge(log, facts.usage)
    log.outcome = "ok"
    if checks_answers(exchange):
        log.failed_check = await find_fault(payload, parsed.payload)
    content_type = headers.get("content-type", "")
    # It is JSON, whatever the provider calls it: SDKs hand anything else to their callers as a text.
    return JsonAnswer(
        response.status, body, content_type if "json" in content_type.lower() else "application/json"
    )


def _cost_so_far(
    exchange: Exchange, log: AttemptLog, estimated_input_tokens: int, stream: OpenAIStream
) -> float | None:
    """What is charged in the end, in USD: the stream has read its usage. None for a usage that nobody can believe."""
    exchange.charge(log, stream.usage_so_far(estimated_input_tokens=estimated_input_tokens))
    is_believed = read_usage(stream.usage, service_tier=stream.service_tier).kind != "unknown"
    cost = exchange.cost_nanousd() if is_believed else None
    return None if cost is None else cost / 1_000_000_000  # a JSON number, for showing


async def _open_stream(
    exchange: Exchange, log: AttemptLog, response: UpstreamResponse, give_up_s: float
) -> StreamAnswer | Failure:
    """Read up to the first data event. Comments before it are kept, and do not count as an answer."""
    parsed, features = exchange.parsed, exchange.features
    assert parsed is not None and features is not None
    secret = log.deployment.provider.secret
    # No closure: it would hold the stream that holds it, and both the request's body until the collector comes.
    cost_of = partial(_cost_so_far, exchange, log, features.input_tokens)
    stream = OpenAIStream(is_usage_wanted=parsed.wants_usage, cost_of=cost_of, secret=secret)
    first: list[bytes] = []
    is_ended = False
    try:
        while not stream.event_count and not stream.is_done:
            left_s = give_up_s - time.perf_counter()
            if left_s <= 0 and first:
                raise UpstreamError("timeout", "Comments came, but no event.")
            chunk = await response.read_chunk(timeout_s=max(0.01, left_s))
            if not chunk:
                first.append(stream.finish())
                is_ended = True
                break
            first.append(stream.feed(chunk))
    except StreamGarbageError as garbage:
        # A usage may have come with it: the provider will charge that.
        stated = read_usage(stream.usage, service_tier=stream.service_tier)
        exchange.charge(log, with_images(stated, stream.image_count))
        return failed(
            log, "bad_answer", 502, "provider_bad_answer", f"The provider's stream holds {garbage}."
        )
    if not stream.event_count:
        log.usage = read_usage(None)
        return failed(
            log, "bad_answer", 502, "provider_bad_answer", "The provider's stream ended without an event."
        )
    if stream.error is not None and stream.event_count == 1:
        status = fault_in_answer({"error": stream.error}) or 502
        body = orjson.dumps({"error": stream.error})
        return refused(exchange, log, read_fault(body, status, secret=secret), response)
    exchange.first_token_ms = log.first_byte_ms = exchange.elapsed_ms()
    log.outcome = "ok"
    return StreamAnswer(response, stream, b"".join(first), log, is_ended)
