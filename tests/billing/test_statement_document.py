"""Does a statement add up, and does it survive being written down?"""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.minor_units import digits_of, minor_for_people, minor_of, minor_text, nano_of_minor
from billing.statement_document import (
    CreditDrawn,
    StatementError,
    build_line,
    from_json,
    list_faults,
    sum_taxes,
    to_json,
)
from tests.make_statement import statement


def test_the_sums_are_those_of_the_example_reckoned_by_hand() -> None:
    document = statement(2, currency="USD", rate="1")
    # 1.234567891 -> 1.23 at 19 %, 2.469135782 -> 2.47 at 7 %
    assert [line.amount_minor for line in document.lines] == [123, 247]
    assert document.subtotal_minor == 370
    assert [(tax.base_minor, tax.amount_minor) for tax in document.taxes] == [(123, 23), (247, 17)]
    assert (document.tax_minor, document.total_minor, document.due_minor) == (40, 410, 310)
    assert document.rounding_nano == 3_700_000_000 - 1_234_567_891 - 2_469_135_782
    assert document.amount_nanousd == 1_234_567_891 + 2_469_135_782


@given(
    st.integers(-(10**18), 10**18),
    st.decimals("0.0001", "20000", places=4),
    st.sampled_from(["USD", "EUR", "JPY", "KWD"]),
)
def test_a_line_is_rounded_once_and_half_away_from_zero(amount: int, rate: Decimal, currency: str) -> None:
    digits = digits_of(currency)
    minor = minor_of(amount, rate, digits)
    assert minor == -minor_of(-amount, rate, digits)  # a credited line is the line, negated
    off = abs(Fraction(amount) * Fraction(rate) - nano_of_minor(minor, digits))
    assert off * 2 <= 10 ** (9 - digits)


def test_a_half_goes_up() -> None:
    assert minor_of(5_000_000, Decimal(1), 2) == 1
    assert minor_of(4_999_999, Decimal(1), 2) == 0
    assert minor_of(-5_000_000, Decimal(1), 2) == -1


def test_tax_is_rounded_once_per_rate_not_per_line() -> None:
    lines = [
        build_line(
            position=number,
            description="x",
            amount_nanousd=20_000_000,
            exchange_rate=Decimal(1),
            currency="USD",
            tax_ratio=Decimal("0.19"),
        )
        for number in range(1, 11)
    ]
    # By line it would be ten times 0.38 cents, rounded to nothing.
    assert [tax.amount_minor for tax in sum_taxes(lines)] == [4]


@pytest.mark.parametrize("line_count", [0, 1, 7])
@pytest.mark.parametrize(
    ("currency", "rate"), [("USD", "1"), ("EUR", "0.92"), ("JPY", "151.3"), ("KWD", "0.307")]
)
def test_a_document_survives_json(line_count: int, currency: str, rate: str) -> None:
    document = statement(line_count, currency=currency, rate=rate)
    assert from_json(json.loads(json.dumps(to_json(document)))) == document


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"subtotal_minor": 1}, "the subtotal is not the sum"),
    ({"taxes": ()}, "the taxes are not those of the lines"),
    ({"total_minor": 1}, "the total is not subtotal and tax"),
    ({"due_minor": 1}, "the amount due is not"),
    ({"credits": (CreditDrawn("a gift", 1_000_000),)}, "credits are more than the total"),
    ({"exchange_rate": Decimal("0.93")}, "line 1 is not its amount"),
    ({"exchange_rate": Decimal("NaN")}, "the exchange rate is not above zero"),
    ({"currency": "JPY"}, "JPY has 0 digits"),
    ({"currency": "USD"}, "the exchange rate of USD is not 1"),
    ({"number": ""}, "without a number or a date"),
    ({"kind": "credit_note"}, "names no invoice"),
    ({"schema_version": 2}, "schema version 2"),
]


@pytest.mark.parametrize(("change", "said"), CHANGES)
def test_what_does_not_add_up_is_said(change: dict[str, Any], said: str) -> None:
    assert list_faults(statement()) == []
    assert any(said in fault for fault in list_faults(replace(statement(), **change)))


def test_a_line_that_was_changed_in_the_file_is_found() -> None:
    written = to_json(statement())
    written["lines"][2]["amount_minor"] += 1
    with pytest.raises(StatementError, match="line 3 is not its amount rounded once"):
        from_json(written)


@pytest.mark.parametrize("broken", [{}, {"schema_version": 1}, {"schema_version": 1, "lines": [{}]}])
def test_what_is_no_statement_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(StatementError):
        from_json(broken)


def test_amounts_are_written_with_the_digits_of_the_currency() -> None:
    assert minor_text(-5, 2) == "-0.05"
    assert minor_text(1204, 0) == "1204"
    assert minor_for_people(-123_456_789, "EUR", 2) == "−1,234,567.89 EUR"
    assert minor_for_people(1_234_567, "JPY", 0) == "1,234,567 JPY"
    assert minor_for_people(1, "KWD", 3) == "0.001 KWD"
