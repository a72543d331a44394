"""How much may this request cost at most, and does that fit into its budgets? Hold before, settle after.

Calls: the Budgets port. Requests of keys without a hard budget never come here, unless a deployment has one. A hold is
for one attempt at the dearest candidate; another attempt after one that cost something, or may have, holds more first.
"""

from __future__ import annotations

from gateway.dataplane.budget_refusals import budget_exceeded, budget_unknown
from gateway.dataplane.budgets import BudgetShortError, BudgetUnknownError, Hold
from gateway.dataplane.deployment_holds import end_deployment_holds, hold_at_deployments
from gateway.dataplane.errors import UpstreamFailed
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.model_holds import MAX_LOWERINGS, budgets_by_model, hold_by_model
from gateway.dataplane.most_costs import LEAST_OUTPUT_TOKENS, CostPlan
from policies.snapshot import DeploymentSnapshot


async def hold_budgets(exchange: Exchange) -> None:
    """Hold the most that the request can cost, of the deployments' budgets and of its caller's.

    Raises BudgetExceeded (402), NoCandidate when no deployment's budget has room, GatewayUnready when nobody can say.
    """
    grant, gateway = exchange.grant, exchange.gateway
    assert grant is not None
    if gateway.configuration.snapshot.deployment_budgets:
        try:
            await hold_at_deployments(exchange)
            if grant.budgets or grant.model_budgets:
                of_deployments = exchange.output_limit
                await _hold_of_caller(exchange)
                limits = [limit for limit in (of_deployments, exchange.output_limit) if limit is not None]
                exchange.output_limit = min(limits, default=None)
        except BaseException:
            end_deployment_holds(exchange)
            raise
        # What a model's budget has left out meanwhile will not be called.
        end_deployment_holds(exchange, but_of=exchange.decision.candidates if exchange.decision else ())
        if exchange.deployment_holds and exchange.hold is None:
            exchange.hold = Hold()
    else:
        await _hold_of_caller(exchange)


async def _hold_of_caller(exchange: Exchange) -> None:
    grant, decision, parsed = exchange.grant, exchange.decision, exchange.parsed
    budgets = exchange.gateway.budgets
    assert grant is not None and decision is not None and parsed is not None
    if budgets is None:
        raise budget_unknown()
    if grant.model_budgets:
        by_model = budgets_by_model(grant.model_budgets, decision.candidates)
        if by_model:
            await hold_by_model(exchange, parsed, by_model)
            return
        if not grant.budgets:
            return
    plan = CostPlan(exchange, parsed, decision.candidates)
    output_limit = plan.output_limit
    for _ in range(MAX_LOWERINGS):
        most = plan.most_nanousd(output_limit)
        try:
            exchange.hold = await budgets.hold(grant.budgets, most, at_unix_s=exchange.started_at_unix_s)
        except BudgetUnknownError:
            raise budget_unknown() from None
        except BudgetShortError as short:
            fitting = plan.limit_that_fits(short.fits_nanousd) if short.terms.may_lower_limit else None
            if fitting is None or (output_limit is not None and fitting >= output_limit):
                exchange.refused_by = f"budget of {short.terms.name}"
                raise budget_exceeded(short, most) from None
            output_limit = fitting
            continue
        exchange.attempt_hold_nanousd = most
        exchange.output_limit = output_limit
        return
    raise budget_unknown()


async def hold_another_attempt(exchange: Exchange, deployment: DeploymentSnapshot) -> bool:
    """Make sure that one more attempt fits besides what the earlier ones cost, or may have. False: it does not."""
    hold, grant, budgets = exchange.hold, exchange.grant, exchange.gateway.budgets
    assert hold is not None and grant is not None and budgets is not None
    try:
        missing = sum(exchange.used_nanousd()) + exchange.attempt_hold_nanousd - hold.nanousd
        if missing > 0:
            await budgets.extend(hold, grant.budgets, missing, at_unix_s=exchange.started_at_unix_s)
        of_model = exchange.model_holds.get(deployment.model.id)
        if of_model is not None:
            used = sum(exchange.used_of_model(deployment.model.id))
            missing = used + of_model.attempt_nanousd - of_model.hold.nanousd
            if missing > 0:
                at_unix_s = exchange.started_at_unix_s
                await budgets.extend(of_model.hold, of_model.terms, missing, at_unix_s=at_unix_s)
    except (BudgetShortError, BudgetUnknownError):
        return False
    return True


def no_budget_for_another(deployment: DeploymentSnapshot) -> UpstreamFailed:
    """Why a better model is not asked after an answer that failed its check."""
    return UpstreamFailed(
        f"There is no budget for another answer, of '{deployment.name}'.", code="budget_exceeded", status=402
    )


def output_limit_for(exchange: Exchange, deployment: DeploymentSnapshot) -> int | None:
    """The output limit to send to one deployment; None where its model ends by itself before the hold does."""
    limit, features, model = exchange.output_limit, exchange.features, deployment.model
    assert limit is not None and features is not None and exchange.grant is not None
    is_held = model.id in exchange.model_holds or deployment.id in exchange.deployment_holds
    if not exchange.grant.budgets and not is_held:
        return None  # nothing of it is held
    if model.max_output_tokens is not None and model.max_output_tokens <= limit:
        return None
    if model.context_tokens is not None:
        # Some servers refuse a limit that the context has no room for; the input is only estimated here.
        limit = min(limit, max(LEAST_OUTPUT_TOKENS, model.context_tokens - 2 * features.input_tokens))
    return limit
