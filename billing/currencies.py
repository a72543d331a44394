"""In which currencies can be billed, and how are amounts of them read and written?

Pure. The codes are those of ISO 4217 (list one, maintained by SIX for ISO; active currencies that are commonly billed
in); how many digits each has after the point: billing.minor_units. Amounts are integers in billionths (nano).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from billing.minor_units import NANO_DIGITS, digits_of, round_half_up
from billing.money import MINUS, MoneyError, format_usd, parse_usd
from policies.errors import InvalidValueError

CURRENCIES: Final[dict[str, str]] = {
    "USD": "US dollar",
    "AED": "UAE dirham",
    "ARS": "Argentine peso",
    "AUD": "Australian dollar",
    "BHD": "Bahraini dinar",
    "BRL": "Brazilian real",
    "CAD": "Canadian dollar",
    "CHF": "Swiss franc",
    "CLP": "Chilean peso",
    "CNY": "Chinese yuan",
    "COP": "Colombian peso",
    "CZK": "Czech koruna",
    "DKK": "Danish krone",
    "EGP": "Egyptian pound",
    "EUR": "euro",
    "GBP": "pound sterling",
    "HKD": "Hong Kong dollar",
    "HUF": "Hungarian forint",
    "IDR": "Indonesian rupiah",
    "ILS": "Israeli new shekel",
    "INR": "Indian rupee",
    "ISK": "Icelandic króna",
    "JOD": "Jordanian dinar",
    "JPY": "Japanese yen",
    "KES": "Kenyan shilling",
    "KRW": "South Korean won",
    "KWD": "Kuwaiti dinar",
    "MAD": "Moroccan dirham",
    "MXN": "Mexican peso",
    "MYR": "Malaysian ringgit",
    "NGN": "Nigerian naira",
    "NOK": "Norwegian krone",
    "NZD": "New Zealand dollar",
    "OMR": "Omani rial",
    "PEN": "Peruvian sol",
    "PHP": "Philippine peso",
    "PKR": "Pakistani rupee",
    "PLN": "Polish złoty",
    "QAR": "Qatari riyal",
    "RON": "Romanian leu",
    "RSD": "Serbian dinar",
    "SAR": "Saudi riyal",
    "SEK": "Swedish krona",
    "SGD": "Singapore dollar",
    "THB": "Thai baht",
    "TND": "Tunisian dinar",
    "TRY": "Turkish lira",
    "TWD": "New Taiwan dollar",
    "UAH": "Ukrainian hryvnia",
    "UYU": "Uruguayan peso",
    "VND": "Vietnamese dong",
    "ZAR": "South African rand",
}


def check_currency(currency: str) -> None:
    """Raise InvalidValueError unless it is a code that can be billed in."""
    if currency not in CURRENCIES:
        raise InvalidValueError({"currency": [f"{currency!r} is not a currency known here, for example EUR"]})


def minor_unit_nano(currency: str) -> int:
    """How many billionths its smallest unit is: 10,000,000 for a cent, 1,000,000,000 for a yen."""
    unit: int = 10 ** (NANO_DIGITS - digits_of(currency))
    return unit


def parse_amount(text: str, currency: str) -> int:
    """Read "1,204.50" as billionths. Raises MoneyError, also for what is finer than the currency's smallest unit."""
    nano = parse_usd(
        text.strip().removesuffix(currency).removeprefix("$" if currency == "USD" else "").strip()
    )
    if nano % minor_unit_nano(currency):
        digits = digits_of(currency)
        raise MoneyError(f"{currency} has {digits or 'no'} digits after the point")
    return nano


def format_amount(nano: int, currency: str) -> str:
    """Write an amount for people: $12.50, 12.50 EUR, 1,204 JPY. What is finer than the smallest unit stays visible."""
    if currency == "USD":
        return format_usd(nano)
    digits, sign, size = digits_of(currency), MINUS if nano < 0 else "", abs(nano)
    whole, fraction = divmod(size, 10**NANO_DIGITS)
    written = f"{fraction:09d}".rstrip("0").ljust(digits, "0")
    return f"{sign}{whole:,}{'.' if written else ''}{written} {currency}"


def round_amount(nano: int, currency: str) -> int:
    """To the currency's smallest unit, half up: for estimates that are shown."""
    unit = minor_unit_nano(currency)
    return round_half_up(Fraction(nano, unit)) * unit
