"""How is a client told that its request does not fit into a budget, or that nobody can say?

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

from billing.money import usd_text
from gateway.dataplane.budgets import BudgetShortError
from gateway.dataplane.errors import BudgetExceeded, GatewayUnready, NoCandidate


def budget_unknown() -> GatewayUnready:
    return GatewayUnready(
        "The gateway cannot find out at the moment whether this request fits into its budget.",
        code="budget_unavailable",
        headers=[(b"retry-after", b"2")],
    )


def deployment_budget_exceeded(
    short: Sequence[tuple[BudgetShortError, int]], *, reasons: Mapping[str, str]
) -> NoCandidate:
    """No deployment's budget has room: not the caller's doing, so 503, and asking again at once is of no use.

    How much of it all tenants together have spent is the operator's to know, so it is not said here.
    """
    needed = min(most for _, most in short)
    ends = [one.span.ends_unix_s for one, _ in short]
    resets_at = _moment(min(end for end in ends if end is not None)) if any(ends) else None
    names = ", ".join(reasons)
    return NoCandidate(
        f"This request may cost {usd_text(needed)} USD and more, which does not fit into what may be spent at the"
        f" deployments that could serve it ({names})."
        + (f" Room comes back at {resets_at}." if resets_at else ""),
        code="deployment_budget_exceeded",
        headers=[(b"x-should-retry", b"false")],
        extra={"reasons": dict(reasons), "needed_usd": usd_text(needed), "resets_at": resets_at},
    )


def _moment(unix_s: int) -> str:
    return dt.datetime.fromtimestamp(unix_s, dt.UTC).isoformat().replace("+00:00", "Z")


def budget_exceeded(short: BudgetShortError, most_nanousd_: int) -> BudgetExceeded:
    terms, span, numbers = short.terms, short.span, short.numbers
    resets_at = None if span.ends_unix_s is None else _moment(span.ends_unix_s)
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
