"""What does an answer say of its request in its headers? Its id, who served it by which rule, and what is left.

Pure, but for the standings of budgets and rate limits, which it reads.
"""

from __future__ import annotations

from functools import lru_cache

from gateway.dataplane.errors import Headers
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.rate_limit_headers import standing_headers
from policies.snapshot import DeploymentSnapshot, PolicySnapshot, RuleSnapshot


def answer_headers(exchange: Exchange) -> Headers:
    """Headers of every answer to this request: its id, and who served it once that is known."""
    request_id = exchange.request_id.encode()
    headers: Headers = [(b"x-request-id", request_id), (b"x-pointsman-request-id", request_id)]
    decision = exchange.decision
    attempts = exchange.attempts
    if attempts:
        headers += _deployment_headers((exchange.served or attempts[-1]).deployment)
        headers.append((b"x-pointsman-attempts", b"%d" % len(attempts)))
    if decision is not None and decision.policy is not None:
        headers += _policy_headers(decision.policy, decision.rule)
    if exchange.is_pinned:
        headers.append((b"x-pointsman-pin", b"1"))
    left = _remaining_nanousd(exchange)
    if left is not None:
        headers.append((b"x-pointsman-budget-remaining-usd", b"%d.%09d" % divmod(left, 1_000_000_000)))
    grant, book = exchange.grant, exchange.gateway.rate_limits
    if grant is not None and grant.rate_limits and book is not None:
        headers += standing_headers(*book.standings(grant.rate_limits))
    return headers


def _remaining_nanousd(exchange: Exchange) -> int | None:
    """What is left of the tightest hard budget that this request counted for; None for keys without one."""
    grant, budgets = exchange.grant, exchange.gateway.budgets
    if grant is None or budgets is None or not (grant.budgets or grant.model_budgets):
        return None
    terms = grant.budgets
    if grant.model_budgets:
        if exchange.attempts:
            models = {(exchange.served or exchange.attempts[-1]).deployment.model.id}
        else:  # refused: by the budgets of those that could have served it
            candidates = exchange.decision.candidates if exchange.decision is not None else ()
            models = {one.model.id for one in candidates}
        terms += tuple(one for one in grant.model_budgets if one.model_id in models)
    return budgets.remaining_nanousd(terms, at_unix_s=exchange.started_at_unix_s)


@lru_cache(maxsize=4096)
def _deployment_headers(deployment: DeploymentSnapshot) -> Headers:
    return [
        (b"x-pointsman-model", _header_text(deployment.model.name)),
        (b"x-pointsman-provider", _header_text(deployment.provider.name)),
        (b"x-pointsman-deployment", _header_text(deployment.name)),
    ]


@lru_cache(maxsize=4096)
def _policy_headers(policy: PolicySnapshot, rule: RuleSnapshot | None) -> Headers:
    headers: Headers = [
        (b"x-pointsman-policy", _header_text(policy.public_id)),
        (b"x-pointsman-policy-version", b"%d" % policy.version_number),
    ]
    if rule is not None:
        headers.append((b"x-pointsman-rule", _header_text(rule.name)))
    return headers


def _header_text(text: str) -> bytes:
    """A header value: printable ASCII as it is, everything else percent-encoded as UTF-8."""
    if text.isascii() and text.isprintable():
        return text.encode()
    return "".join(
        char
        if char.isascii() and char.isprintable()
        else "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "replace"))
        for char in text
    ).encode()
