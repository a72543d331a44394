"""Is money written as people read it, read back exactly, and rounded once?"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.money import MoneyError, format_usd, parse_usd, round_to_cents, usd_decimal, usd_text

amounts = st.integers(min_value=-(10**18), max_value=10**18)


@pytest.mark.parametrize(
    ("nanousd", "text"),
    [
        (None, "unpriced"),
        (0, "$0.00"),
        (42_000, "$0.000042"),
        (1, "$0.000000001"),
        (1_230_000_000, "$1.23"),
        (1_204_500_000_000, "$1,204.50"),
        (123_456_789, "$0.123"),
        (300_000_000, "$0.30"),
        (999_600_000, "$1.00"),
        (1_005_000_000, "$1.01"),
        (-300_000_000, "−$0.30"),
        (-1_204_500_000_000, "−$1,204.50"),
    ],
)
def test_an_amount_is_written_with_the_digits_that_mean_something(nanousd: int | None, text: str) -> None:
    assert format_usd(nanousd) == text


@given(amounts)
def test_the_exact_text_is_read_back_as_the_same_amount(nanousd: int) -> None:
    assert parse_usd(usd_text(nanousd)) == nanousd
    assert Decimal(usd_text(nanousd)) == usd_decimal(nanousd)


@given(amounts)
def test_what_people_read_is_within_half_a_percent_or_half_a_cent(nanousd: int) -> None:
    shown = parse_usd(format_usd(nanousd))
    assert abs(shown - nanousd) <= max(abs(nanousd) // 200, 0 if abs(nanousd) < 10**9 else 5_000_000)


@given(amounts)
def test_cents_are_rounded_half_up(nanousd: int) -> None:
    exact = usd_decimal(nanousd) * 100
    assert round_to_cents(nanousd) == int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP))


@pytest.mark.parametrize("text", ["", "$", ".", "abc", "1e5", "NaN", "1,20.5", "0.0000000001", "٣", "9" * 30])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(MoneyError):
        parse_usd(text)


def test_amounts_are_read_with_sign_symbol_and_thousands() -> None:
    assert parse_usd(" -$1,204.50 ") == parse_usd("−$1,204.50") == -1_204_500_000_000
    assert parse_usd(".5") == 500_000_000
