"""A statement for tests: any number of lines, any currency, names as they come."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

from billing.statement_document import (
    CreditDrawn,
    Note,
    Party,
    StatementDocument,
    build_line,
    build_statement,
)

METERS = ("Input tokens", "Cached input tokens", "Output tokens")


def statement(
    line_count: int = 7,
    *,
    currency: str = "EUR",
    rate: str = "0.92",
    name: str = "Käufer & Söhne €",
    **rest: Any,
) -> StatementDocument:
    """An issued invoice, taxed and partly paid by credit. `name` is used for the recipient, a model and a credit."""
    exchange_rate = Decimal(rate)
    lines = [
        build_line(
            position=number,
            description=f"{METERS[number % 3]} no. {number}",
            amount_nanousd=1_234_567_891 * number,
            exchange_rate=exchange_rate,
            currency=currency,
            model=name if number <= 3 else f"model-{number // 3}",
            quantity=12_345_678 * number,
            unit_usd=Decimal("2.5"),
            kind="late" if number == 6 else "usage",
            late_of=dt.date(2026, 9, 1) if number == 6 else None,
            tax_ratio=Decimal("0.19") if number % 2 else Decimal("0.07"),
        )
        for number in range(1, line_count + 1)
    ]
    about: dict[str, Any] = {
        "kind": "invoice",
        "state": "issued",
        "number": "2026-0001",
        "tenant_id": 1,
        "tenant_name": "acme",
        "issuer": Party("Gateway Ltd", ("1 Main Street", "London"), "GB123", "billing@gateway.example"),
        "recipient": Party(name, ("Straße 1", "10115 Berlin"), "DE123"),
        "first_day": dt.date(2026, 10, 1),
        "last_day": dt.date(2026, 10, 31),
        "issued_on": dt.date(2026, 11, 2),
        "due_on": dt.date(2026, 11, 16),
        "exchange_rate_on": dt.date(2026, 10, 30) if currency != "USD" else None,
        "credits_drawn": [CreditDrawn(f"Credit {name}", 100)] if line_count else [],
        "notes": (Note("unpriced", "12 requests had no price and are not billed.", 12),),
    }
    return build_statement(currency=currency, exchange_rate=exchange_rate, lines=lines, **{**about, **rest})
