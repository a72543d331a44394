"""How much may this request cost at most, and does that fit into its budgets? Hold before, settle after.

Calls: the Budgets port. Requests of keys without a hard budget never come here. A hold is for one attempt at the
dearest candidate; another attempt after one that cost something, or may have, holds more first.
"""

from __future__ import annotations

import datetime as dt

from billing.budget_arithmetic import most_nanousd, most_output_tokens
from billing.money import usd_text
from billing.pricebook import PriceVersion
from gateway.dataplane.budgets import BudgetShortError, BudgetUnknownError
from gateway.dataplane.errors import BudgetExceeded, GatewayUnready, NoCandidate, UpstreamFailed
from gateway.dataplane.exchange import Exchange
from gateway.wire.openai_request import ParsedRequest
from policies.snapshot import DeploymentSnapshot

# What a provider puts around a request (its template, what explains tools to the model), and what an image or a file
# that is only named can be. A byte of text is at most one token.
TEMPLATE_TOKENS = 1_000
MEDIA_TOKENS = 50_000
# The output limit that is set for a request without one, where the model's own is not known.
DEFAULT_OUTPUT_TOKENS = 4_096
# A lowered limit below this would be no answer.
LEAST_OUTPUT_TOKENS = 16
AMPLE_OUTPUT_TOKENS = 1_024
MAX_LOWERINGS = 3
MAX_CHOICES = 128


async def hold_budgets(exchange: Exchange) -> None:
    """Hold the most that the request can cost. Raises BudgetExceeded (402), GatewayUnready when nobody can say."""
    grant, decision, parsed = exchange.grant, exchange.decision, exchange.parsed
    budgets = exchange.gateway.budgets
    assert grant is not None and decision is not None and parsed is not None
    if budgets is None:
        raise _unknown()
    plan = _Plan(exchange, parsed)
    output_limit = plan.output_limit
    for _ in range(MAX_LOWERINGS):
        most = plan.most_nanousd(output_limit)
        try:
            exchange.hold = await budgets.hold(grant.budgets, most, at_unix_s=exchange.started_at_unix_s)
        except BudgetUnknownError:
            raise _unknown() from None
        except BudgetShortError as short:
            fitting = plan.limit_that_fits(short.fits_nanousd) if short.terms.may_lower_limit else None
            if fitting is None or (output_limit is not None and fitting >= output_limit):
                raise _exceeded(short, most) from None
            output_limit = fitting
            continue
        exchange.attempt_hold_nanousd = most
        exchange.output_limit = output_limit
        return
    raise _unknown()


async def hold_another_attempt(exchange: Exchange) -> bool:
    """Make sure that one more attempt fits besides what the earlier ones cost, or may have. False: it does not."""
    hold, grant, budgets = exchange.hold, exchange.grant, exchange.gateway.budgets
    assert hold is not None and grant is not None and budgets is not None
    missing = sum(exchange.used_nanousd()) + exchange.attempt_hold_nanousd - hold.nanousd
    if missing <= 0:
        return True
    try:
        await budgets.extend(hold, grant.budgets, missing, at_unix_s=exchange.started_at_unix_s)
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
    assert limit is not None and features is not None
    if model.max_output_tokens is not None and model.max_output_tokens <= limit:
        return None
    if model.context_tokens is not None:
        # Some servers refuse a limit that the context has no room for; the input is only estimated here.
        limit = min(limit, max(LEAST_OUTPUT_TOKENS, model.context_tokens - 2 * features.input_tokens))
    return limit


class _Plan:
    """What the candidates may cost, with one output limit or another."""

    def __init__(self, exchange: Exchange, parsed: ParsedRequest) -> None:
        decision, features = exchange.decision, exchange.features
        assert decision is not None and features is not None
        find_price = exchange.gateway.configuration.find_price
        # (price, the most that the model writes where that is known)
        self._candidates: list[tuple[PriceVersion, int | None]] = []
        for candidate in decision.candidates:
            price = find_price(candidate.id, exchange.started_at_unix_s)
            if price is None:  # its price begins later than the request
                raise NoCandidate(
                    f"The deployment '{candidate.name}' has no price at this moment, and the key has a budget.",
                    code="no_candidate",
                    extra={"reasons": {candidate.name: "unpriced"}},
                )
            self._candidates.append((price, candidate.model.max_output_tokens))
        self._input_tokens = most_input_tokens(parsed)
        self._choices = _choice_count(parsed)
        self._asked = features.max_output_tokens
        self._writes = parsed.endpoint != "embeddings"
        # What must be sent along so that the answer ends where the hold does; None: it ends there by itself.
        self.output_limit: int | None = None
        if self._writes and not self._asked and any(known is None for _, known in self._candidates):
            self.output_limit = max(DEFAULT_OUTPUT_TOKENS, *(known or 0 for _, known in self._candidates))

    def most_nanousd(self, output_limit: int | None) -> int:
        return max(
            most_nanousd(
                price,
                input_tokens=self._input_tokens,
                output_tokens=self._choices * self._output_tokens(known, output_limit),
            )
            for price, known in self._candidates
        )

    def _output_tokens(self, known: int | None, output_limit: int | None) -> int:
        if not self._writes:
            return 0
        if self._asked:
            return self._asked
        return min(limit for limit in (known, output_limit, 10**9) if limit is not None)

    def limit_that_fits(self, nanousd: int) -> int | None:
        """The output limit with which every candidate costs no more than an amount; None: there is none.

        Where half of what is left is enough for an answer of some length, the other half is left to other requests.
        """
        half = self._limit_within(nanousd // 2)
        return half if half is not None and half >= AMPLE_OUTPUT_TOKENS else self._limit_within(nanousd)

    def _limit_within(self, nanousd: int) -> int | None:
        if self._asked or not self._writes:
            return None
        fitting = [
            most_output_tokens(price, input_tokens=self._input_tokens, nanousd=nanousd)
            for price, _ in self._candidates
        ]
        limited = [tokens // self._choices for tokens in fitting if tokens is not None]
        if not limited or min(limited) < LEAST_OUTPUT_TOKENS:
            return None
        return min(limited)


def most_input_tokens(parsed: ParsedRequest) -> int:
    """More tokens than any tokenizer makes of this body: a byte of text is at most one."""
    facts = parsed.facts
    has_media = facts.get("has_images") or facts.get("has_audio") or facts.get("has_files")
    named = 0
    if has_media:
        named = sum(parsed.body.count(kind) for kind in (b'"image_url"', b'"input_audio"', b'"file"'))
    return len(parsed.body) + TEMPLATE_TOKENS + MEDIA_TOKENS * named


def _choice_count(parsed: ParsedRequest) -> int:
    best_of = parsed.payload.get("best_of")
    count: int = parsed.facts.get("choice_count", 1)
    return max(count, min(best_of, MAX_CHOICES)) if type(best_of) is int else count


def _unknown() -> GatewayUnready:
    return GatewayUnready(
        "The gateway cannot find out at the moment whether this request fits into its budget.",
        code="budget_unavailable",
        headers=[(b"retry-after", b"2")],
    )


def _exceeded(short: BudgetShortError, most_nanousd_: int) -> BudgetExceeded:
    terms, span, numbers = short.terms, short.span, short.numbers
    resets_at = None
    if span.ends_unix_s is not None:
        resets_at = dt.datetime.fromtimestamp(span.ends_unix_s, dt.UTC).isoformat().replace("+00:00", "Z")
    held = numbers.leased_nanousd + numbers.uncertain_nanousd
    return BudgetExceeded(
        f"This request may cost up to {usd_text(most_nanousd_)} USD, which does not fit into the budget of"
        f" {terms.name}: {usd_text(numbers.spent_nanousd)} of {usd_text(numbers.limit_nanousd)} USD are spent and"
        f" {usd_text(held)} are held for other requests."
        + (f" It begins anew at {resets_at}." if resets_at else ""),
        code="budget_exceeded",
        headers=[(b"x-should-retry", b"false")],
        extra={
            "budget": terms.name,
            "limit_usd": usd_text(numbers.limit_nanousd),
            "spent_usd": usd_text(numbers.spent_nanousd),
            "held_usd": usd_text(held),
            "needed_usd": usd_text(most_nanousd_),
            "resets_at": resets_at,
        },
    )
