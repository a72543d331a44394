"""What does a cell of a bill say: an amount, a count, a day, a name? What is none of them is refused.

Pure.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from billing.provider_bills.bill import BillError
from billing.usage import MAX_TOKENS

MAX_USD: Final = Decimal(100_000_000)
MAX_NAME: Final = 300
_NUMBER = re.compile(r"(?:\d{1,18}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,2})?", re.ASCII)
_NEGATIVE = re.compile(r"-\s*(?:\d|\.\d).*")
_NOT_FINITE = frozenset({"nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"})
# What a spreadsheet would calculate.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a CSV file, or one result of a JSON answer. `is_text`: all values are texts, as in CSV.

    `whole` is all that stands there, read or not: two that are equal are one that came twice.
    """

    place: str
    values: Mapping[str, Any]
    is_text: bool
    whole: str

    def text(self, name: str) -> str:
        """A name, empty when there is none."""
        value = self.values.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise BillError(f"{name} is {_shown(value)}, not a text")
        text = value.strip()
        if self.is_text and text.startswith(_FORMULA):
            raise BillError(f"{name}: {_shown(text)} is a formula, not a name")
        if len(text) > MAX_NAME or not text.isprintable():
            raise BillError(f"{name}: {_shown(text)} is no name")
        return text

    def amount(self, name: str) -> tuple[Decimal, Decimal] | None:
        """An amount of money and half of its last digit; None when the cell is empty. Texts are fine in JSON too."""
        number = self._number(name, may_be_text=True)
        if number is None:
            return None
        if number > MAX_USD:
            raise BillError(f"{name}: {_shown(self.values[name])} is more than {MAX_USD:,}")
        exponent = number.as_tuple().exponent
        # A binary float has 15 digits that mean something: only few decimals say that somebody rounded.
        digits = -exponent if isinstance(exponent, int) and exponent < 0 else 0
        return number, Decimal(5).scaleb(-digits - 1) if self.is_text and digits <= 4 else Decimal(0)

    def count(self, name: str) -> int | None:
        """A whole number; None when the cell is empty."""
        number = self._number(name, may_be_text=self.is_text)
        if number is None:
            return None
        if number > MAX_TOKENS:
            raise BillError(f"{name}: {_shown(self.values[name])} is more than anybody uses ({MAX_TOKENS:,})")
        if number != number.to_integral_value():
            raise BillError(f"{name}: {_shown(self.values[name])} is not a whole number")
        return int(number)

    def day(self, name: str) -> dt.date:
        """The UTC day of a date, a time or Unix seconds."""
        value = self.values.get(name)
        if isinstance(value, Decimal) and value == value.to_integral_value():
            value = int(value)
        if isinstance(value, str):
            text = value.strip()
            value = int(text) if text.isascii() and text.isdecimal() and 9 <= len(text) <= 10 else text
        if isinstance(value, int) and not isinstance(value, bool):
            if not 0 <= value < 10_000_000_000:
                raise BillError(f"{name}: {_shown(value)} is no time in seconds")
            day = dt.datetime.fromtimestamp(value, dt.UTC).date()
        elif isinstance(value, str) and value:
            day = _read_day(value, name)
        else:
            raise BillError(f"{name} is missing: a line needs its day")
        if not 2020 <= day.year <= 2100:
            raise BillError(f"{name}: {day} is not between the years 2020 and 2100")
        return day

    def _number(self, name: str, *, may_be_text: bool) -> Decimal | None:
        value = self.values.get(name)
        if value is None or (isinstance(value, str) and self.is_text and not value.strip()):
            return None
        if isinstance(value, bool) or not isinstance(value, (int, Decimal, str)):
            raise BillError(f"{name} is {_shown(value)}, not a number")
        if isinstance(value, str):
            if not may_be_text:
                raise BillError(f"{name}: {_shown(value)} is a text, not a number")
            return _read_number(value.strip(), name)
        number = Decimal(value)
        if not number.is_finite():
            raise BillError(f"{name}: {value} is not a finite number")
        if number < 0:
            raise BillError(_negative(name, str(value)))
        return number


def _read_number(text: str, name: str) -> Decimal:
    if text.lower() in _NOT_FINITE:
        raise BillError(f"{name}: {_shown(text)} is not a finite number")
    if _NEGATIVE.fullmatch(text):
        raise BillError(_negative(name, text))
    if text.startswith(_FORMULA):
        raise BillError(f"{name}: {_shown(text)} is a formula, not a number")
    if not _NUMBER.fullmatch(text):
        raise BillError(f"{name}: {_shown(text)} is not a plain number such as 1234.56")
    return Decimal(text)


def _read_day(text: str, name: str) -> dt.date:
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError:
        raise BillError(f"{name}: {_shown(text)} is no date, for example 2026-01-31") from None
    return (at.astimezone(dt.UTC) if at.tzinfo else at).date()


def _negative(name: str, text: str) -> str:
    return f"{name}: {_shown(text)} is negative; credits and corrections are no usage, leave them out"


def _shown(value: object) -> str:
    return repr(value if not isinstance(value, (Decimal, int)) else str(value))[:60]
