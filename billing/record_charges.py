"""What are tenants charged for requests that are being recorded?

Reads: sale_term, price. Only tenants with terms cost anything: for all others the charge is the cost, and stays unsaid.
"""

from __future__ import annotations

from collections.abc import Sequence

from billing.charging import ChargedAttempt, charge_attempts
from billing.journal_lines import Intent, Outcome
from billing.pricebook import PriceVersion
from billing.sale_book import SaleBook
from billing.sale_terms import hold_terms, load_sale_terms
from billing.stored_prices import load_prices


class RecordCharges:
    """The terms and cost prices that a batch of records needs."""

    def __init__(self, book: SaleBook, prices: dict[int, PriceVersion]) -> None:
        self._book = book
        self._prices = prices

    def find(self, intent: Intent, outcome: Outcome) -> int | None:
        """The charge; None: the same as the cost, and for what has none."""
        if outcome.cost_nanousd is None or not self._book.concerns(intent.tenant_id):
            return None
        attempts = [
            ChargedAttempt(
                attempt.deployment_id,
                attempt.usage,
                self._prices[attempt.price_id].at(intent.started_at.timestamp()),
                attempt.cost_nanousd,
            )
            for attempt in outcome.attempts
            if attempt.cost_nanousd is not None and attempt.price_id is not None
        ]
        return charge_attempts(
            attempts,
            lambda deployment_id: self._book.find(
                tenant_id=intent.tenant_id, deployment_id=deployment_id, at=intent.started_at
            ),
        )


def begin_charging(pairs: Sequence[tuple[Intent, Outcome]]) -> RecordCharges:
    """Keep terms as they are until the end of the transaction, and load what these records need."""
    hold_terms()
    book = load_sale_terms()
    if book.is_empty:
        return RecordCharges(book, {})
    needed = {
        attempt.price_id
        for intent, outcome in pairs
        if book.concerns(intent.tenant_id)
        for attempt in outcome.attempts
        if attempt.price_id is not None
    }
    return RecordCharges(book, load_prices(needed))
