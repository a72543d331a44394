"""Which candidates fit into the budgets of their models?

Calls: the Budgets port. Only requests that a model with a budget of its own may serve come here. What fits no more is
left out, and the others stay; each model's budgets hold, and settle, what attempts at that model cost alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.dataplane.budget_refusals import budget_exceeded, budget_unknown
from gateway.dataplane.budgets import BudgetShortError, BudgetUnknownError, Hold, PartHold
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.most_costs import CostPlan
from gateway.wire.openai_request import ParsedRequest
from policies.asks import Dropped
from policies.snapshot import BudgetTerms, DeploymentSnapshot

MAX_LOWERINGS = 3
REASON = "model_budget"

Candidates = Sequence[DeploymentSnapshot]
TermsByModel = Mapping[int, tuple[BudgetTerms, ...]]


class _Refusal(NamedTuple):
    """What did not fit, and for whom."""

    short: BudgetShortError
    most_nanousd: int
    candidates: Candidates


def budgets_by_model(terms: tuple[BudgetTerms, ...], candidates: Candidates) -> TermsByModel:
    """The budgets that count for these candidates, by the model's id."""
    models = {candidate.model.id for candidate in candidates}
    found: dict[int, tuple[BudgetTerms, ...]] = {}
    for one in terms:
        if one.model_id is not None and one.model_id in models:
            found[one.model_id] = (*found.get(one.model_id, ()), one)
    return found


async def hold_by_model(exchange: Exchange, parsed: ParsedRequest, by_model: TermsByModel) -> None:
    """Hold of the models' budgets and of the others. Raises BudgetExceeded when nothing is left, GatewayUnready."""
    grant, decision = exchange.grant, exchange.decision
    assert grant is not None and decision is not None
    # Of models without a budget nothing is counted, unless the key has budgets for all.
    counted = [one for one in decision.candidates if grant.budgets or one.model.id in by_model]
    plan = CostPlan(exchange, parsed, counted)
    output_limit = plan.output_limit
    for _ in range(MAX_LOWERINGS):
        try:
            refusal = await _hold_all(exchange, plan, by_model, output_limit)
        except BudgetUnknownError:
            raise budget_unknown() from None
        if refusal is None:
            exchange.output_limit = output_limit
            return
        terms, fits = refusal.short.terms, refusal.short.fits_nanousd
        fitting = plan.limit_that_fits(fits, refusal.candidates) if terms.may_lower_limit else None
        if fitting is None or (output_limit is not None and fitting >= output_limit):
            exchange.refused_by = f"budget of {terms.name}"
            raise budget_exceeded(refusal.short, refusal.most_nanousd) from None
        output_limit = fitting
    raise budget_unknown()


async def _hold_all(
    exchange: Exchange, plan: CostPlan, by_model: TermsByModel, output_limit: int | None
) -> _Refusal | None:
    """Hold with one output limit; None: done, and the decision has only candidates that fit."""
    grant, decision, budgets = exchange.grant, exchange.decision, exchange.gateway.budgets
    assert grant is not None and decision is not None and budgets is not None
    at_unix_s = exchange.started_at_unix_s
    holds: dict[int, PartHold] = {}
    refusals: list[_Refusal] = []
    left_out: set[int] = set()
    is_kept = False
    try:
        for model_id, terms in by_model.items():
            group = [one for one in decision.candidates if one.model.id == model_id]
            held, refusal = await _hold_model(exchange, plan, terms, group, output_limit)
            if refusal is not None:
                refusals.append(refusal)
            if held is not None:
                holds[model_id] = held
            fit = [] if held is None else _fitting(plan, group, held.attempt_nanousd, output_limit)
            left_out |= {one.id for one in group} - {one.id for one in fit}
        staying = tuple(one for one in decision.candidates if one.id not in left_out)
        if not staying:
            return refusals[0]
        hold, most = Hold(), 0
        if grant.budgets:
            most = plan.most_nanousd(output_limit, staying)
            try:
                hold = await budgets.hold(grant.budgets, most, at_unix_s=at_unix_s)
            except BudgetShortError as short:
                return _Refusal(short, most, staying)
        exchange.hold, exchange.attempt_hold_nanousd, exchange.model_holds = hold, most, holds
        is_kept = True
    finally:
        if not is_kept:
            for held in holds.values():
                budgets.settle(held.hold, 0)
    if left_out:
        dropped = tuple(Dropped(one.name, REASON) for one in decision.candidates if one.id in left_out)
        exchange.decision = decision._replace(candidates=staying, dropped=decision.dropped + dropped)
    return None


async def _hold_model(
    exchange: Exchange,
    plan: CostPlan,
    terms: tuple[BudgetTerms, ...],
    group: Candidates,
    output_limit: int | None,
) -> tuple[PartHold | None, _Refusal | None]:
    """Hold for the dearest deployment of a model that fits; None: not even the cheapest does."""
    budgets = exchange.gateway.budgets
    assert budgets is not None
    refusal: _Refusal | None = None
    fitting = list(group)
    while fitting:
        most = plan.most_nanousd(output_limit, fitting)
        try:
            hold = await budgets.hold(terms, most, at_unix_s=exchange.started_at_unix_s)
        except BudgetShortError as short:
            refusal = refusal or _Refusal(short, most, group)
            cheaper = [one for one in fitting if plan.most_nanousd(output_limit, [one]) < most]
            fitting = _fitting(plan, cheaper, short.fits_nanousd, output_limit)
            continue
        return PartHold(terms, hold, most), refusal
    return None, refusal


def _fitting(
    plan: CostPlan, candidates: Candidates, nanousd: int, output_limit: int | None
) -> list[DeploymentSnapshot]:
    return [one for one in candidates if plan.most_nanousd(output_limit, [one]) <= nanousd]
