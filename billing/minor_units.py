"""How many cents (minor units) of a currency is an amount, and how is that written?

Pure. Integers and Decimals only. Every rounding here is half up, away from zero: a credit of a line is exactly
the line, negated.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Final

from billing.money import MINUS

NANO_DIGITS: Final = 9
# ISO 4217: what has none, or three, after the point.
_NONE: Final = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF"
_THREE: Final = "BHD IQD JOD KWD LYD OMR TND"
_DIGITS: Final[dict[str, int]] = {**dict.fromkeys(_NONE.split(), 0), **dict.fromkeys(_THREE.split(), 3)}


def digits_of(currency: str) -> int:
    """How many digits after the point the currency's amounts have."""
    return _DIGITS.get(currency, 2)


def round_half_up(exact: Fraction) -> int:
    """To a whole number; a half goes away from zero."""
    whole = (2 * abs(exact.numerator) + exact.denominator) // (2 * exact.denominator)
    return -whole if exact < 0 else whole


def nano_of(amount_nanousd: int, exchange_rate: Decimal) -> int:
    """Nano-USD in billionths of the currency; the rate says how much of it one USD is."""
    return round_half_up(amount_nanousd * Fraction(exchange_rate))


def minor_of(amount_nanousd: int, exchange_rate: Decimal, digits: int) -> int:
    """Nano-USD in minor units of the currency, rounded once, from the exact product."""
    return round_half_up(amount_nanousd * Fraction(exchange_rate) / 10 ** (NANO_DIGITS - digits))


def nano_of_minor(amount_minor: int, digits: int) -> int:
    """Minor units in billionths of the currency, exactly."""
    scale: int = 10 ** (NANO_DIGITS - digits)
    return amount_minor * scale


def minor_text(amount_minor: int, digits: int) -> str:
    """1204, 2 -> "12.04": for files, without a separator of thousands."""
    sign, size = ("-" if amount_minor < 0 else ""), str(abs(amount_minor)).rjust(digits + 1, "0")
    return f"{sign}{size[:-digits]}.{size[-digits:]}" if digits else f"{sign}{size}"


def minor_for_people(amount_minor: int, currency: str, digits: int) -> str:
    """-120450, "EUR", 2 -> "−1,204.50 EUR", with a real minus."""
    plain = minor_text(abs(amount_minor), digits)
    whole, point, fraction = plain.partition(".")
    return f"{MINUS if amount_minor < 0 else ''}{int(whole):,}{point}{fraction} {currency}"
