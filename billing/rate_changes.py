"""What would a new price change? Rate by rate.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from billing.pricebook import RATE_NAMES, parse_rates, read_rate_key

# A rate that changes by more than this is more often a slip (per thousand, per token) than a new price.
DOUBTFUL_FACTOR = 10
# The dearest rate of any list that was seen is below it (USD a million tokens, or a request).
DEAREST_USUAL_USD = 1_000


@dataclass(frozen=True, slots=True)
class RateChange:
    """One rate before and after; None is not stated."""

    name: str
    before: Decimal | None
    after: Decimal | None

    @property
    def is_same(self) -> bool:
        return self.before == self.after

    @property
    def ratio(self) -> float | None:
        """By how much it rises: 0.1 is 10 % dearer. None where one of them is missing or the old one is zero."""
        if self.before is None or self.after is None or not self.before:
            return None
        return float(self.after / self.before) - 1

    @property
    def is_doubtful(self) -> bool:
        """Ask twice: it would change more than tenfold, become free, or be dearer than any list price."""
        if self.after is None or self.is_same:
            return False
        if self.after > DEAREST_USUAL_USD:
            return True
        if self.before is None:
            return False
        low, high = sorted((self.before, self.after))
        return low * DOUBTFUL_FACTOR < high if low else self.before > 0


def list_changes(before: Mapping[str, str] | None, after: Mapping[str, str]) -> list[RateChange]:
    """All rates of both prices, in the order of `RATE_NAMES`, the limited ones after those they limit."""
    old, new = (parse_rates(rates) if rates else {} for rates in (before, after))

    def place(name: str) -> tuple[int, str, tuple[int, ...], str, int]:
        key = read_rate_key(name)
        place = RATE_NAMES.index(key.name)
        return place, key.service_tier, tuple(key.window or ()), key.limit, key.start_tokens

    return [
        RateChange(name, old.get(name), new.get(name)) for name in sorted(old.keys() | new.keys(), key=place)
    ]
