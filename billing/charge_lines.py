"""How does the cost of each attempt come about? The lines that a request's page shows.

Reads: price. Rates again with the price that is stored with the attempt, so the sum can be compared.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from billing.models import Price
from billing.pricebook import list_windows
from billing.rating import AUDIO_SECOND, IMAGE, REQUEST, SEARCH, Line, UsageUnknownError, rate
from billing.stored_prices import read_price
from billing.usage import Usage

_PIECE_NAMES: Final = {REQUEST: "a request", SEARCH: "a search", IMAGE: "an image", AUDIO_SECOND: "an hour"}


@dataclass(frozen=True, slots=True)
class ChargeLine:
    """One meter: how many units at which rate make how much."""

    meter: str
    quantity: int
    rate: Decimal
    unit: str
    nanousd: int


@dataclass(frozen=True, slots=True)
class Charge:
    """The lines of one attempt. `is_same`: rating again gives what was recorded.

    `hours`: the windows of the price that held when the request began, as "16:30-00:30"; empty for none.
    """

    attempt_number: int
    price: Price
    lines: tuple[ChargeLine, ...]
    total_nanousd: int
    is_same: bool
    hours: str = ""


def charge_lines(attempts: Sequence[Mapping[str, Any]], *, at: dt.datetime) -> list[Charge]:
    """Rate the attempts of `request_as_json` again, as at the request's start.

    Attempts without price or known usage are left out.
    """
    prices = Price.objects.select_related("deployment").in_bulk(
        [attempt["price_id"] for attempt in attempts if attempt["price_id"]]
    )
    charges = []
    for attempt in attempts:
        price = prices.get(attempt["price_id"])
        if price is None or attempt["usage"] is None:
            continue
        try:
            rated = rate(Usage(**attempt["usage"]), read_price(price).at(at.timestamp()))
        except UsageUnknownError:
            continue
        lines = tuple(_line(line) for line in rated.lines)
        is_same = rated.total_nanousd == attempt["cost_nanousd"]
        hours = ", ".join(sorted({str(window) for window in list_windows(price.rates, at.timestamp())}))
        charges.append(Charge(attempt["number"], price, lines, rated.total_nanousd, is_same, hours))
    return charges


def _line(line: Line) -> ChargeLine:
    return ChargeLine(
        line.meter, line.quantity, line.usd_per_mtok, _PIECE_NAMES.get(line.meter, "a million"), line.nanousd
    )
