"""What would the last days have cost at other prices?

Reads: the rollups by day, through billing.reports; never a record, so the answer takes as long for ten million of them.

Sums do not say how large single requests were, which tier answered, at what hour, how often a provider searched, or
what was audio: rates limited to sizes, tiers and hours and those of searches are left out, audio and images count as
text.
Attempts that failed are in what was recorded, their tokens are not in the sums.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from billing import reports
from billing.pricebook import BY_THE_PIECE, RATE_NAMES, PriceVersion, parse_rates
from billing.rating import NANOUSD_PER_USD, total_nanousd
from billing.reports import DayTotals
from billing.usage import Usage

DAYS = 30
A_REQUEST = "usd_per_request"
NO_PRICE_ID = -1


@dataclass(frozen=True, slots=True)
class Estimate:
    """One deployment's last days: as recorded, and at the proposed price."""

    totals: DayTotals
    proposed_nanousd: int
    is_rough: bool

    @property
    def recorded_nanousd(self) -> int:
        return self.totals.cost_nanousd

    @property
    def ratio(self) -> float | None:
        """By how much it would rise; None where part of the requests is unpriced, or nothing was charged."""
        if self.totals.unpriced_count or not self.recorded_nanousd:
            return None
        return self.proposed_nanousd / self.recorded_nanousd - 1


def sum_last_days(now: dt.datetime) -> dict[int, DayTotals]:
    """The sums of the last 30 days (UTC, with today) by deployment. One query."""
    today = now.astimezone(dt.UTC).date()
    groups = reports.group_by("deployment", first_day=today - dt.timedelta(days=DAYS - 1), last_day=today)
    return {group.id: group.totals for group in groups if group.id is not None}


def estimate(totals: DayTotals, rates: Mapping[str, str]) -> Estimate:
    """Rate the sums of one deployment."""
    stated = parse_rates(rates)
    for_tokens = {
        name: rate for name, rate in stated.items() if name in RATE_NAMES and name not in BY_THE_PIECE
    }
    usage = Usage(
        "estimated",
        totals.input_tokens,
        totals.output_tokens,
        totals.cache_read_tokens,
        totals.cache_write_tokens,
        totals.reasoning_tokens,
    )
    price = PriceVersion(NO_PRICE_ID, 0, 0.0, for_tokens)
    for_requests = int(stated.get(A_REQUEST, 0) * NANOUSD_PER_USD) * totals.request_count
    is_rough = len(stated) > len(for_tokens) + (A_REQUEST in stated)
    return Estimate(totals, total_nanousd(usage, price) + for_requests, is_rough)
