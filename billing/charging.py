"""What is a tenant charged for one attempt? The cost, or what its terms make of it.

Pure. Integers throughout, rounded half up to whole nano-USD once per attempt; floats never take part. Without terms,
and with a factor of 1, the charge is the cost line by line. An own price is the whole price: it rates the usage itself,
and factors of single meters do not touch it. What has no cost price is not charged, as nobody knows what it cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Context, Decimal
from typing import Any, Final, NamedTuple

from billing.pricebook import PriceVersion
from billing.rating import Rated, UsageUnknownError, parts_of, rate, sum_parts, total_nanousd
from billing.stored_usage import usage_from_json
from billing.usage import Usage

# Factors have six decimals at most, so that they are whole numbers of millionths.
FACTOR_SCALE: Final = 1_000_000
NO_FACTORS: Final[Mapping[str, int]] = {}
NO_TERMS: Final[Mapping[str, int]] = {}
# Wide enough that no digit of a rate is lost.
_EXACT: Final = Context(prec=200)


class SaleTerms(NamedTuple):
    """What one tenant is charged for one deployment at one time: an own price, else a factor of each meter's cost."""

    price: PriceVersion | None = None
    factor_millionths: int = FACTOR_SCALE
    # Meter -> its own factor, in millionths.
    meter_millionths: Mapping[str, int] = NO_FACTORS
    # Which stored terms these are, for those who tell; of a meter its own. An own price has its own id.
    term_id: int | None = None
    meter_term_ids: Mapping[str, int] = NO_TERMS

    def term_of(self, meter: str) -> int | None:
        """The stored term by which a meter is charged; None where an own price is, or where only others have terms."""
        return None if self.price is not None else self.meter_term_ids.get(meter, self.term_id)


class ChargedAttempt(NamedTuple):
    """What a record keeps of an attempt that cost something. `usage` as `billing.stored_usage` stores it."""

    deployment_id: int
    usage: Mapping[str, Any]
    price: PriceVersion
    cost_nanousd: int


def charge(usage: Usage, cost: PriceVersion, terms: SaleTerms | None) -> Rated:
    """The charge's lines and total, as `billing.rating.rate` gives those of the cost. Raises UsageUnknownError."""
    if terms is None or terms.price is not None:
        return rate(usage, cost if terms is None or terms.price is None else terms.price)
    parts, scale = parts_of(usage, cost)
    changed = []
    for meter, quantity, (per_unit, stated) in parts:
        millionths = terms.meter_millionths.get(meter, terms.factor_millionths)
        sold_at = _EXACT.multiply(stated, as_factor(millionths))
        changed.append((meter, quantity, (per_unit * millionths, sold_at)))
    return sum_parts(changed, scale * FACTOR_SCALE)


def charge_nanousd(usage: Usage, cost: PriceVersion, terms: SaleTerms | None) -> int:
    """`charge(...)`'s total without its lines, for every request that is recorded. Raises UsageUnknownError."""
    if terms is None:
        return total_nanousd(usage, cost)
    if terms.price is not None:
        return total_nanousd(usage, terms.price)
    parts, scale = parts_of(usage, cost)
    default, own = terms.factor_millionths, terms.meter_millionths
    total = 0
    for meter, quantity, (per_unit, _) in parts:
        total += quantity * per_unit * (own.get(meter, default) if own else default)
    scale *= FACTOR_SCALE
    return (2 * total + scale) // (2 * scale)


def charge_attempts(
    attempts: Iterable[ChargedAttempt], find_terms: Callable[[int], SaleTerms | None]
) -> int | None:
    """What a record is charged; None where no terms hold for any attempt: the same as the cost.

    `find_terms` answers for a deployment. An attempt with a cost and no usage is charged that cost.
    """
    total, has_terms = 0, False
    for attempt in attempts:
        terms = find_terms(attempt.deployment_id)
        if terms is None:
            total += attempt.cost_nanousd
            continue
        has_terms = True
        try:
            total += charge_nanousd(usage_from_json(attempt.usage), attempt.price, terms)
        except UsageUnknownError:
            total += attempt.cost_nanousd
    return total if has_terms else None


def as_factor(millionths: int) -> Decimal:
    """1200000 -> 1.2"""
    return Decimal(millionths).scaleb(-6, _EXACT).normalize(_EXACT)
