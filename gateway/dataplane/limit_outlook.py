"""Would the limits and budgets of a key let such a request in at the moment? For explaining: nothing is held of them.

Reads: how they stand, through the RateLimits and Budgets ports; what does not answer in a moment is said as last heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress

from billing.money import usd_text
from gateway.dataplane.budgets import BudgetShortError, BudgetUnknownError
from gateway.dataplane.errors import NoCandidate
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.gateway import Gateway
from gateway.dataplane.most_costs import CostPlan
from gateway.dataplane.rate_limit_headers import duration
from gateway.dataplane.rate_limit_holds import expected_tokens
from gateway.dataplane.rate_shares import Standing
from policies.snapshot import BudgetTerms, DeploymentSnapshot, KeyGrant, RateTerms

_REFUSED = "it would be refused (429)"
_PASSED_OVER = "that deployment would be passed over"


# How long an explanation waits for the numbers of budgets.
LOOK_S = 0.5


async def look_at_budgets(gateway: Gateway, grant: KeyGrant, *, at_unix_s: float) -> None:
    """Hear how the key's budgets stand."""
    await _look_at(gateway, (*grant.budgets, *grant.model_budgets), at_unix_s)


async def look_at_deployment_budgets(exchange: Exchange, candidates: tuple[DeploymentSnapshot, ...]) -> None:
    """Hear how the candidates' own budgets stand."""
    of_deployments = _deployment_budgets(exchange)
    terms = tuple(one for candidate in candidates for one in of_deployments.get(candidate.id, ()))
    await _look_at(exchange.gateway, terms, exchange.started_at_unix_s)


async def _look_at(gateway: Gateway, terms: tuple[BudgetTerms, ...], at_unix_s: float) -> None:
    """A hold of nothing, which is given back."""
    budgets = gateway.budgets
    if not terms or budgets is None:
        return
    with suppress(TimeoutError, BudgetShortError, BudgetUnknownError):
        async with asyncio.timeout(LOOK_S):
            budgets.settle(await budgets.hold(terms, 0, at_unix_s=at_unix_s), 0)


def _deployment_budgets(exchange: Exchange) -> Mapping[int, tuple[BudgetTerms, ...]]:
    return exchange.gateway.configuration.snapshot.deployment_budgets


async def look_at_rate_limits(exchange: Exchange, candidates: tuple[DeploymentSnapshot, ...]) -> None:
    """Hear how the limits of the key and of the candidates stand."""
    grant, book = exchange.grant, exchange.gateway.rate_limits
    assert grant is not None
    rooms = [one.rate_limit for one in candidates if one.rate_limit is not None]
    if book is not None and (grant.rate_limits or rooms):
        await book.look((*grant.rate_limits, *rooms))


def list_outlook(exchange: Exchange, candidates: tuple[DeploymentSnapshot, ...]) -> list[str]:
    """Say it in sentences, for each limit, also of the candidates, and each budget; [] where there is none."""
    grant = exchange.grant
    assert grant is not None
    told = [note for terms in grant.rate_limits for note in _of_rate_limit(exchange, terms, _REFUSED)]
    for one in candidates:
        if one.rate_limit is not None:
            told += _of_rate_limit(exchange, one.rate_limit, _PASSED_OVER)
    return [*told, *_of_deployments(exchange, candidates), *_of_budgets(exchange, candidates)]


def _of_rate_limit(exchange: Exchange, terms: RateTerms, refusal: str) -> Iterator[str]:
    book = exchange.gateway.rate_limits
    if book is None:
        return
    requests, tokens = book.standings((terms,))
    limits = (
        ("requests", terms.requests_per_minute, requests, 1),
        ("tokens", terms.tokens_per_minute, tokens, expected_tokens(exchange)),
    )
    for kind, limit, standing, needed in limits:
        if limit is not None:
            what = f"Limit: {limit:,} {kind} per minute of {terms.name}"
            yield _said_of_limit(what, limit, standing, needed, refusal)
    if terms.concurrent is not None:
        yield f"Limit: {terms.concurrent:,} requests at once of {terms.name}."


def _said_of_limit(what: str, limit: int, standing: Standing | None, needed: int, refusal: str) -> str:
    remaining = limit if standing is None else standing.remaining
    told = f"{what}; {remaining:,} left as far as this worker knows, this request counts as {needed:,}"
    if needed > limit:
        return f"{told}: {refusal}, always."
    if needed > remaining and standing is not None and standing.resets_s <= 0:
        return f"{told}: others hold the rest, and what they do not use comes back within seconds."
    if needed > remaining and standing is not None:
        return f"{told}: {refusal}. All is free again in {duration(standing.resets_s)}."
    return f"{told}."


def _of_deployments(exchange: Exchange, candidates: tuple[DeploymentSnapshot, ...]) -> Iterator[str]:
    """What the deployments' own budgets say. How much all tenants have spent there is not the caller's to know."""
    budgets, parsed, of_deployments = (
        exchange.gateway.budgets,
        exchange.parsed,
        _deployment_budgets(exchange),
    )
    assert parsed is not None
    counted = [one for one in candidates if one.id in of_deployments]
    for candidate in counted if budgets is not None else ():
        assert budgets is not None
        try:
            plan = CostPlan(exchange, parsed, [candidate])
        except NoCandidate:
            yield f"The deployment {candidate.name} has a budget and no price: {_PASSED_OVER}."
            continue
        most = plan.most_nanousd(plan.output_limit)
        for terms in of_deployments[candidate.id]:
            told = f"Budget of {terms.name}: this request may cost up to {usd_text(most)} USD there"
            left = budgets.remaining_nanousd((terms,), at_unix_s=exchange.started_at_unix_s)
            if left is None:
                yield f"{told}; this worker has not heard of late how much is left."
            elif most <= left:
                yield f"{told}, which is not spent."
            else:
                yield f"{told}, and less than that is left: {_PASSED_OVER}."


def _of_budgets(exchange: Exchange, candidates: tuple[DeploymentSnapshot, ...]) -> Iterator[str]:
    grant, budgets, parsed = exchange.grant, exchange.gateway.budgets, exchange.parsed
    assert grant is not None and parsed is not None
    for terms in (*grant.budgets, *grant.model_budgets) if budgets is not None else ():
        assert budgets is not None
        counted = [one for one in candidates if terms.model_id in (None, one.model.id)]
        if not counted:
            continue
        try:
            plan = CostPlan(exchange, parsed, counted)
        except NoCandidate as unpriced:
            yield unpriced.message
            continue
        most = plan.most_nanousd(plan.output_limit)
        told = f"Budget of {terms.name}: this request may cost up to {usd_text(most)} USD"
        left = budgets.remaining_nanousd((terms,), at_unix_s=exchange.started_at_unix_s)
        if left is None:
            yield f"{told}; this worker has not heard of late how much is left."
        elif most <= left:
            yield f"{told}, and {usd_text(left)} USD are not spent."
        elif terms.may_lower_limit and plan.limit_that_fits(left) is not None:
            yield f"{told}, and {usd_text(left)} USD are not spent: its output limit would be lowered."
        else:
            refusal = (
                "its model would be left out" if terms.model_id is not None else "it would be refused (402)"
            )
            yield f"{told}, and only {usd_text(left)} USD are not spent: {refusal}."
