"""What does a call without an answer mean, for the next attempt and for the client?

Calls: nothing but the rest of a refusal's body. A provider's words reach the client, its secrets never; the request
record keeps codes alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gateway.dataplane.errors import Headers, UpstreamFailed
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.ports import UpstreamResponse
from gateway.dataplane.recording import AttemptLog
from gateway.dataplane.upstream_errors import UpstreamError
from gateway.wire.openai_errors import ProviderFault, mask_secrets, read_fault, recorded_code
from gateway.wire.openai_usage import read_usage
from policies.snapshot import DeploymentSnapshot

MAX_RETRY_AFTER_S = 20.0
MAX_ERROR_BYTES = 1024 * 1024
ERROR_BODY_S = 15.0


@dataclass(slots=True)
class Failure:
    """Why an attempt brought no answer.

    Kinds: `request` caused it, so no other attempt would help; `elsewhere`: this deployment will not answer it,
    another may, and nothing is wrong with its health; the others count against the deployment.
    """

    error: UpstreamFailed
    kind: Literal["request", "elsewhere", "rate_limit", "credential", "fault"]
    retry_after_s: float | None = None
    is_overflow: bool = False


async def read_refusal(exchange: Exchange, log: AttemptLog, response: UpstreamResponse) -> Failure:
    """Read an answer whose status is not of success."""
    try:
        body = await response.read(limit_bytes=MAX_ERROR_BYTES, timeout_s=ERROR_BODY_S)
    except UpstreamError:
        body = b""  # the status came, and says who is to blame
    log.first_byte_ms = exchange.elapsed_ms()
    if response.status < 400:
        return failed(
            log,
            "bad_answer",
            502,
            "provider_redirects",
            "The provider's address redirects; correct its base URL.",
        )
    fault = read_fault(body, response.status, secret=log.deployment.provider.secret)
    return refused(exchange, log, fault, response)


def refused(exchange: Exchange, log: AttemptLog, fault: ProviderFault, response: UpstreamResponse) -> Failure:
    """A provider's refusal -> what it means for the next attempt, and what the client would be told."""
    status = fault.status
    log.http_status = status
    log.error_code = recorded_code(fault.code, fault.type) or "provider_error"
    param = recorded_code(fault.param)
    log.error_message = f"The provider answered {status}{f' about {param}' if param else ''}."
    headers = _retry_headers(response)
    if fault.is_about_credential:
        log.outcome = "credential_rejected"
        provider = log.deployment.provider
        what = "refused this gateway's credential; an operator must renew it"
        if provider.secret is None:
            what = "wants a credential, and this gateway has none that it can read; an operator must set it"
        error = UpstreamFailed(
            f"The provider '{provider.name}' {what}.",
            code="provider_credential_rejected",
            headers=[(b"x-should-retry", b"false")],
        )
        return Failure(error, "credential")
    if status == 402:
        log.outcome = "http_error"
        error = UpstreamFailed(
            f"This gateway's account at the provider '{log.deployment.provider.name}' is exhausted; "
            "an operator must top it up.",
            code="provider_account_exhausted",
            headers=[(b"x-should-retry", b"false")],
        )
        return Failure(error, "fault")
    error = UpstreamFailed(
        fault.message,
        code=_code_of(fault),
        status=status if status < 600 else 502,
        type=fault.type,
        param=fault.param
        or ("messages" if fault.is_context_overflow and exchange.endpoint == "chat" else None),
        headers=headers,
        extra=fault.extra,
    )
    if fault.is_context_overflow and status != 429:
        log.outcome = "context_overflow"
        return Failure(error, "request", is_overflow=True)
    if status == 429:
        log.outcome = "rate_limited"
        return Failure(
            error, "rate_limit", retry_after_s=_retry_after_s(response), is_overflow=fault.is_context_overflow
        )
    if status == 408 or status >= 500:
        log.outcome = "http_error"
        return Failure(error, "fault", retry_after_s=_retry_after_s(response))
    log.outcome = "refused"
    # A model that this provider no longer has, or a wall in front of it: another deployment may answer.
    is_elsewhere = status in (404, 405, 410) or (status == 403 and not fault.is_about_content)
    return Failure(error, "elsewhere" if is_elsewhere else "request")


def _code_of(fault: ProviderFault) -> str | None:
    if fault.is_context_overflow:
        return "context_length_exceeded"
    if fault.code is None and fault.status == 429:
        return "rate_limit_exceeded"
    return fault.code


def _retry_headers(response: UpstreamResponse) -> Headers:
    passed = ("retry-after", "retry-after-ms", "x-should-retry")
    return [
        (name.encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in response.headers
        if name in passed
    ]


def _retry_after_s(response: UpstreamResponse) -> float | None:
    """Seconds from retry-after-ms or Retry-After. An HTTP date counts as 'later than we wait'."""
    found: float | None = None
    for name, value in response.headers:
        if name == "retry-after":
            try:
                found = max(found or 0.0, float(value))
            except ValueError:
                found = MAX_RETRY_AFTER_S + 1
        elif name == "retry-after-ms":
            try:
                found = max(found or 0.0, float(value) / 1000)
            except ValueError:
                continue
    return found


def failed(log: AttemptLog, outcome: str, status: int, code: str, message: str) -> Failure:
    """A fault of the provider, told in words of the gateway."""
    log.outcome = outcome
    log.error_code = code
    log.error_message = message
    return Failure(UpstreamFailed(message, code=code, status=status), "fault")


def broken(log: AttemptLog, error: UpstreamError) -> Failure:
    """A call that broke below HTTP. Whether it used anything is unknown once the request had been sent."""
    name = log.deployment.provider.name
    if error.kind in ("refused_address", "resolve", "connect", "tls", "connect_timeout"):
        failure = failed(
            log,
            "connect_error",
            502,
            "provider_unreachable",
            f"The provider '{name}' cannot be reached ({error.kind}).",
        )
    elif error.kind == "timeout":
        log.usage = read_usage(None)
        failure = failed(
            log, "timeout", 504, "provider_timeout", f"The provider '{name}' did not answer in time."
        )
    elif error.kind in ("bad_answer", "too_large"):
        log.usage = read_usage(None)
        failure = failed(
            log,
            "bad_answer",
            502,
            "provider_bad_answer",
            f"The provider '{name}' gave an answer that cannot be read.",
        )
    else:
        log.usage = read_usage(None)
        failure = failed(
            log,
            "broken",
            502,
            "provider_connection_broken",
            f"The provider '{name}' broke the connection off.",
        )
    log.error_message = mask_secrets(f"{failure.error.message} {error}")
    return failure


def note_failure(exchange: Exchange, deployment: DeploymentSnapshot, failure: Failure) -> None:
    """Tell the deployment's health. What the request itself caused never counts."""
    health = exchange.gateway.health
    if failure.kind == "fault":
        health.on_failure(deployment, exchange.attempts[-1].outcome)
    elif failure.kind == "rate_limit":
        health.on_rate_limited(deployment, failure.retry_after_s)
    elif failure.kind == "credential":
        health.on_credential_rejected(deployment)
    else:
        # It told nothing about the deployment's health; had it been a probe, another may follow.
        health.abandon(deployment)
