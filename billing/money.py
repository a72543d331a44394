"""How is money written, read and rounded? Nano-USD integers <-> what people read.

Pure. 1 USD is 1,000,000,000 nano-USD. Floats never take part.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal
from typing import Final

NANOUSD_PER_USD: Final = 1_000_000_000
NANOUSD_PER_CENT: Final = 10_000_000
NANO_DIGITS: Final = 9
# Below one dollar cents say too little: so many digits after the leading zeros are shown.
SIGNIFICANT_DIGITS: Final = 3
UNPRICED: Final = "unpriced"
# What people read of amounts below zero; what machines read has a hyphen (`usd_text`).
MINUS: Final = "−"

_AMOUNT = re.compile(r"([+-]?)\$?(\d{1,3}(?:,\d{3})+|\d+)?(?:\.(\d+))?", re.ASCII)
# Any 64-bit amount fits without a rounding of the context's own.
_EXACT = Context(prec=60)


class MoneyError(ValueError):
    """A text that is not an amount of USD, or one that is finer than a nano-USD."""


def format_usd(nanousd: int | None) -> str:
    """Write an amount for people, with as many digits as mean something: $1,204.50, $0.000042, −$0.30.

    None is "unpriced". From one dollar up it is rounded half up to cents; below, to three significant digits.
    """
    if nanousd is None:
        return UNPRICED
    sign, size = (MINUS, -nanousd) if nanousd < 0 else ("", nanousd)
    step = NANOUSD_PER_CENT
    if size < NANOUSD_PER_USD:
        step = min(step, 10 ** max(0, len(str(size)) - SIGNIFICANT_DIGITS))
    rounded = (size + step // 2) // step * step
    whole, fraction = divmod(rounded, NANOUSD_PER_USD)
    digits = f"{fraction:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}${whole:,}.{digits}"


def grouped(number: float) -> str:
    """Write a number for people: 1,204; −46,859."""
    return f"{MINUS if number < 0 else ''}{abs(number):,}"


def usd_text(nanousd: int) -> str:
    """Write an amount exactly, for machines: "1.5", "0.000042", "-3", "0"."""
    sign, size = ("-", -nanousd) if nanousd < 0 else ("", nanousd)
    whole, fraction = divmod(size, NANOUSD_PER_USD)
    digits = f"{fraction:09d}".rstrip("0")
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"


def usd_decimal(nanousd: int) -> Decimal:
    """The exact amount in USD."""
    return Decimal(nanousd).scaleb(-NANO_DIGITS, context=_EXACT)


def round_to_cents(nanousd: int) -> int:
    """Round half up (away from zero) to whole cents. Done once, on an invoice line."""
    cents = (abs(nanousd) + NANOUSD_PER_CENT // 2) // NANOUSD_PER_CENT
    return -cents if nanousd < 0 else cents


def parse_usd(text: str) -> int:
    """Read "1204.50", "$1,204.50", "-0.000042" as nano-USD, also with a real minus. Raises MoneyError."""
    match = _AMOUNT.fullmatch(text.strip().replace(MINUS, "-"))
    if match is None or (match[2] is None and match[3] is None):
        raise MoneyError(f"{text!r} is not an amount of USD, for example 12.50")
    fraction = (match[3] or "").rstrip("0")
    if len(fraction) > NANO_DIGITS:
        raise MoneyError(f"{text!r} is finer than a nano-USD (nine digits after the point)")
    whole = (match[2] or "0").replace(",", "")
    if len(whole) > NANO_DIGITS + 1:
        raise MoneyError(f"{text!r} is more than this product can count")
    size = int(whole) * NANOUSD_PER_USD + int(fraction.ljust(NANO_DIGITS, "0"))
    return -size if match[1] == "-" else size
