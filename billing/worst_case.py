"""What may a request cost at the very most? A bound to set aside before it is made.

Pure. Whatever part of a price holds in the end (tiers, limits, caches), no token costs more than the dearest rate of
its side: so this stays a bound when prices learn new rates.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal
from typing import Final

from billing.pricebook import PriceVersion

_OUTPUT_RATES: Final = ("output_", "reasoning_", "audio_output_")
_REQUEST_RATE: Final = "usd_per_request"
# USD per million tokens -> nano-USD per token.
_NANOUSD_PER_TOKEN: Final = 1_000
_NANOUSD_PER_USD: Final = 1_000_000_000


def worst_case_nanousd(*, input_tokens: int, output_tokens: int, price: PriceVersion) -> int:
    """Return the most that a request of so many tokens can be rated at this price."""
    dearest = {"input": Decimal(0), "output": Decimal(0), "request": Decimal(0)}
    for name, rate in price.rates.items():
        if name.startswith(_REQUEST_RATE):
            side = "request"
        else:
            side = "output" if name.startswith(_OUTPUT_RATES) else "input"
        dearest[side] = max(dearest[side], rate)
    total = (
        dearest["input"] * input_tokens * _NANOUSD_PER_TOKEN
        + dearest["output"] * output_tokens * _NANOUSD_PER_TOKEN
        + dearest["request"] * _NANOUSD_PER_USD
    )
    return int(total.to_integral_value(rounding=ROUND_CEILING))
