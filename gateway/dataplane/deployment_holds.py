"""Which candidates fit into the budgets of their deployments, of what we pay for them over all callers?

Calls: the Budgets port. Only where a deployment has a hard budget; each candidate that has one holds the most that an
attempt there can cost, for itself. What does not fit is left out, and the others stay.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from gateway.dataplane.budget_refusals import budget_unknown, deployment_budget_exceeded
from gateway.dataplane.budgets import BudgetShortError, BudgetUnknownError, Hold, PartHold
from gateway.dataplane.errors import GatewayError, NoCandidate
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.most_costs import CostPlan
from policies.asks import Dropped
from policies.snapshot import BudgetTerms, DeploymentSnapshot

REASON = "deployment_budget"
MAX_LOWERINGS = 3
# A request makes few attempts, and its intent line names what it holds: what has a budget beyond these is left out.
MAX_HELD = 20


class _Refusal(NamedTuple):
    """A candidate that stays out. `short` None: nobody can say whether it fits."""

    candidate: DeploymentSnapshot
    short: BudgetShortError | None
    most_nanousd: int


async def hold_at_deployments(exchange: Exchange) -> None:
    """Hold for each candidate whose deployment has budgets, and leave out of the decision what does not fit.

    Raises NoCandidate when none is left, GatewayUnready when nobody can say.
    """
    decision, parsed = exchange.decision, exchange.parsed
    assert decision is not None and parsed is not None
    budgets_of = exchange.gateway.configuration.snapshot.deployment_budgets
    counted = [one for one in decision.candidates if one.id in budgets_of]
    if not counted:
        return
    find_price = exchange.gateway.configuration.find_price
    priced = [one for one in counted if find_price(one.id, exchange.started_at_unix_s) is not None]
    dropped = [Dropped(one.name, "unpriced") for one in counted if one not in priced]
    tried, beyond = priced[:MAX_HELD], priced[MAX_HELD:]
    has_others = len(counted) < len(decision.candidates)
    refusals: list[_Refusal] = []
    if tried:
        plan = CostPlan(exchange, parsed, tried)
        refusals = await _hold_each(exchange, plan, tried, may_lower=not has_others)
    out = {one.candidate.id for one in refusals} | {one.id for one in (*counted, *beyond) if one not in tried}
    staying = tuple(one for one in decision.candidates if one.id not in out)
    dropped += [Dropped(one.name, REASON) for one in (*(refusal.candidate for refusal in refusals), *beyond)]
    if not staying:
        raise _refuse(exchange, refusals, dropped)
    if dropped:
        exchange.decision = decision._replace(candidates=staying, dropped=(*decision.dropped, *dropped))


async def hold_again(exchange: Exchange, deployment: DeploymentSnapshot) -> bool:
    """Make sure that one more attempt fits besides what earlier ones at this deployment cost, or may have."""
    held, budgets = exchange.deployment_holds.get(deployment.id), exchange.gateway.budgets
    if held is None or budgets is None:
        return True
    missing = sum(exchange.used_of_deployment(deployment.id)) + held.attempt_nanousd - held.hold.nanousd
    if missing > 0:
        try:
            await budgets.extend(held.hold, held.terms, missing, at_unix_s=exchange.started_at_unix_s)
        except (BudgetShortError, BudgetUnknownError):
            return False
    return True


def end_deployment_holds(exchange: Exchange, *, but_of: Collection[DeploymentSnapshot] = ()) -> None:
    """Give back what is held for attempts that will not be made: all, but of these candidates."""
    budgets = exchange.gateway.budgets
    kept = {one.id for one in but_of}
    for deployment_id in [one for one in exchange.deployment_holds if one not in kept]:
        held = exchange.deployment_holds.pop(deployment_id)
        if budgets is not None:
            budgets.settle(held.hold, 0)


async def _hold_each(
    exchange: Exchange, plan: CostPlan, candidates: Sequence[DeploymentSnapshot], *, may_lower: bool
) -> list[_Refusal]:
    """Hold for each that fits; where none does and nothing else is left, with a lower output limit."""
    output_limit = plan.output_limit
    refusals: list[_Refusal] = []
    for _ in range(MAX_LOWERINGS):
        refusals = []
        for candidate in candidates:
            most = plan.most_nanousd(output_limit, [candidate])
            refusal = await _hold_one(exchange, candidate, most)
            if refusal is not None:
                refusals.append(refusal)
        if exchange.deployment_holds:
            exchange.output_limit = output_limit
            break
        fitting = _lowered(plan, refusals) if may_lower else None
        if fitting is None or (output_limit is not None and fitting >= output_limit):
            break
        output_limit = fitting
    return refusals


async def _hold_one(exchange: Exchange, candidate: DeploymentSnapshot, most_nanousd: int) -> _Refusal | None:
    budgets, at_unix_s = exchange.gateway.budgets, exchange.started_at_unix_s
    terms: tuple[BudgetTerms, ...] = exchange.gateway.configuration.snapshot.deployment_budgets[candidate.id]
    if budgets is None:
        return _Refusal(candidate, None, most_nanousd)
    # What is spent does not come back: who asks for more than is left need not wait for an answer.
    short = budgets.find_spent(terms, most_nanousd, at_unix_s=at_unix_s)
    try:
        if short is None:
            hold: Hold = await budgets.hold(terms, most_nanousd, at_unix_s=at_unix_s)
            exchange.deployment_holds[candidate.id] = PartHold(terms, hold, most_nanousd)
            return None
    except BudgetShortError as error:
        short = error
    except BudgetUnknownError:
        return _Refusal(candidate, None, most_nanousd)
    return _Refusal(candidate, short, most_nanousd)


def _lowered(plan: CostPlan, refusals: Sequence[_Refusal]) -> int | None:
    """The highest output limit with which one of them fits whose budget allows to lower it."""
    limits = [
        plan.limit_that_fits(one.short.fits_nanousd, [one.candidate])
        for one in refusals
        if one.short is not None and one.short.terms.may_lower_limit
    ]
    return max((limit for limit in limits if limit is not None), default=None)


def _refuse(exchange: Exchange, refusals: Sequence[_Refusal], dropped: Sequence[Dropped]) -> GatewayError:
    short = [(one.short, one.most_nanousd) for one in refusals if one.short is not None]
    if short:
        exchange.refused_by = f"budget of {short[0][0].terms.name}"
        return deployment_budget_exceeded(short, reasons={one.deployment: one.reason for one in dropped})
    if refusals:
        return budget_unknown()
    return NoCandidate(
        f"No deployment that could serve this request has a price, and they have budgets"
        f" ({', '.join(one.deployment for one in dropped)}).",
        code="no_candidate",
        extra={"reasons": {one.deployment: one.reason for one in dropped}},
    )
