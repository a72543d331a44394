"""What is a dollar worth in another currency on a day?

Writes: exchange_rate, change_event; the only writer. Reads: exchange_rate. A rate holds from its first day until the
next one begins, or to its last day. A day without one is a hole: whoever needs it is refused, never given an old one.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal, InvalidOperation
from typing import Final

from django.db import transaction

from billing.currencies import check_currency
from billing.models import ExchangeRate
from policies import changes
from policies.errors import ConfigurationError, InvalidValueError
from policies.row_changes import json_value, save_checked

USD: Final = "USD"
MIN_RATE: Final = Decimal("0.000001")
MAX_RATE: Final = Decimal("1000000")
RATE_DIGITS: Final = 12
# Against the rate before: more than this is more often a slip (an inverse, a point) than a crash.
DOUBTFUL_FACTOR: Final = 2


class RateMissingError(ConfigurationError):
    """No rate is known for that day."""


def find_rate(*, currency: str, on: dt.date) -> Decimal | None:
    """How much of the currency one USD was on that day; None when nobody said. 1 for USD itself."""
    if currency == USD:
        return Decimal(1)
    row = find_row(currency=currency, on=on)
    return None if row is None else row.rate.normalize()


def get_rate(*, currency: str, on: dt.date) -> Decimal:
    """The rate of that day. Raises RateMissingError with a sentence."""
    rate = find_rate(currency=currency, on=on)
    if rate is None:
        raise RateMissingError(f"There is no exchange rate of {currency} for {on}: add one first.")
    return rate


def find_row(*, currency: str, on: dt.date) -> ExchangeRate | None:
    """The row that is in force on that day. A later row of the same first day corrects an earlier one."""
    begun = ExchangeRate.objects.filter(currency=currency, first_day__lte=on)
    row = begun.order_by("-first_day", "-id").first()
    return row if row is not None and (row.last_day is None or row.last_day >= on) else None


def parse_rate(text: str) -> Decimal:
    """Read a rate that somebody typed. Raises InvalidValueError for what is no sensible number."""
    try:
        rate = Decimal(text.strip())
    except InvalidOperation:
        rate = Decimal("NaN")
    if not rate.is_finite():
        raise InvalidValueError({"rate": [f"{text.strip()[:40]!r} is not a number, for example 0.92"]})
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InvalidValueError({"rate": [f"a rate is from {MIN_RATE} to {MAX_RATE:,} for one USD"]})
    exponent = rate.normalize().as_tuple().exponent
    if isinstance(exponent, int) and -exponent > RATE_DIGITS:
        raise InvalidValueError({"rate": [f"a rate has at most {RATE_DIGITS} digits after the point"]})
    return rate


@transaction.atomic
def add_rate(
    *,
    currency: str,
    rate: Decimal | str,
    first_day: dt.date,
    source: str,
    actor: str,
    last_day: dt.date | None = None,
    is_sure: bool = False,
) -> ExchangeRate:
    """Add a rate. What is in force already stays one row. Raises InvalidValueError.

    One that is twice or half of the rate before is doubted, unless `is_sure`.
    """
    check_currency(currency)
    if currency == USD:
        raise InvalidValueError({"currency": ["amounts are kept in USD: its rate is 1"]})
    value = parse_rate(str(rate))
    if last_day is not None and last_day < first_day:
        raise InvalidValueError({"last_day": ["the last day is before the first"]})
    if not source.strip():
        raise InvalidValueError({"source": ["say where the number comes from"]})
    before = ExchangeRate.objects.filter(currency=currency, first_day__lte=first_day).first()
    if before is not None:
        if (before.rate, before.first_day, before.last_day) == (value, first_day, last_day):
            return before
        if not is_sure and not 1 / Decimal(DOUBTFUL_FACTOR) <= value / before.rate <= DOUBTFUL_FACTOR:
            raise InvalidValueError(
                {
                    "rate": [
                        f"since {before.first_day} it is {before.rate.normalize():f}: say that you are sure"
                    ]
                }
            )
    row = ExchangeRate(
        currency=currency,
        rate=value,
        first_day=first_day,
        last_day=last_day,
        source=source.strip(),
        created_by=actor[:150],
    )
    save_checked(row)
    changes.record_row(
        "exchange_rate",
        row,
        actor=actor,
        action="add",
        after={
            "rate": f"{value:f}",
            "first_day": json_value(first_day),
            "last_day": json_value(last_day),
            "source": row.source,
        },
    )
    return row
