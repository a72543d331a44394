"""What stands on a statement (an invoice or a credit note), and does it add up?

Pure: no Django, no database. The document is frozen when the statement is issued; PDF, CSV, JSON and the page are
all written from it, so they cannot differ. How its amounts come about:

    line.amount_minor   line.amount_nanousd x exchange_rate, rounded once, half up, to the currency's minor units
    subtotal_minor      the sum of line.amount_minor
    taxes               one per tax_ratio: base = the sum of its lines, tax rounded once, half up
    total_minor         subtotal + taxes
    credits             prepaid credit that was drawn: it pays, so it comes after tax and changes no tax
    due_minor           total - credits

A credit note has the same form with negative quantities and amounts; credit that it gives back is negative too. Its tax
may differ by one minor unit, so that the credit notes of an invoice give back its tax exactly.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any, Final, Literal

from billing.minor_units import digits_of, minor_of, nano_of, nano_of_minor, round_half_up

SCHEMA_VERSION: Final = 1
Kind = Literal["invoice", "credit_note"]
State = Literal["draft", "reviewed", "issued", "paid", "void"]
# late: usage of a closed month that came afterwards; correction: what re-rating changed in a closed month;
# credit: a line of a credit note.
LineKind = Literal["usage", "late", "correction", "credit"]
NoteKind = Literal["late", "unpriced", "estimated", "unknown", "correction", "information"]
USD: Final = "USD"
_SAID_SINCE: Final = ("priced_by", "sale_term_id", "sale_price_id")


class StatementError(ValueError):
    """The document does not add up, or is of another form. Says all that is wrong."""


@dataclass(frozen=True, slots=True)
class Party:
    """Who bills or who is billed. `address` is what stands under the name, line by line."""

    name: str
    address: tuple[str, ...] = ()
    tax_id: str = ""
    email: str = ""


@dataclass(frozen=True, slots=True)
class StatementLine:
    """One meter of one model at one price. `unit_usd` is per `unit_size` units (a million tokens, one request)."""

    position: int
    description: str
    amount_nanousd: int
    amount_nano: int  # in billionths of the statement's currency
    amount_minor: int
    kind: LineKind = "usage"
    model: str = ""
    provider: str = ""
    deployment: str = ""
    meter: str = ""
    service_tier: str = ""
    price_id: int | None = None
    quantity: int | None = None
    unit_usd: Decimal | None = None
    unit_size: int = 1_000_000
    tax_ratio: Decimal = Decimal(0)
    # By what it was charged, in words; empty on statements of before this was said, which stay as they are.
    priced_by: str = ""
    sale_term_id: int | None = None
    sale_price_id: int | None = None
    late_of: dt.date | None = None  # the first day of the closed month that late usage is of
    # The line of the corrected invoice, on a credit note.
    corrects_position: int | None = None


@dataclass(frozen=True, slots=True)
class TaxLine:
    """The tax of all lines of one rate."""

    tax_ratio: Decimal
    base_minor: int
    amount_minor: int


@dataclass(frozen=True, slots=True)
class CreditDrawn:
    """Prepaid credit that pays a part. Positive; negative where a credit note gives it back."""

    description: str
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Note:
    """What a reader has to know: late usage, unpriced requests, the reason of a credit note."""

    kind: NoteKind
    text: str
    request_count: int | None = None
    amount_nanousd: int | None = None


@dataclass(frozen=True, slots=True)
class StatementDocument:
    """A whole statement. `number` is empty and dates are None until it is issued; its days are UTC, both included."""

    kind: Kind
    state: State
    number: str
    tenant_id: int
    tenant_name: str
    issuer: Party
    recipient: Party
    first_day: dt.date
    last_day: dt.date
    currency: str
    minor_digits: int
    exchange_rate: Decimal  # how much of the currency one USD is; 1 for USD
    lines: tuple[StatementLine, ...]
    subtotal_minor: int
    taxes: tuple[TaxLine, ...]
    total_minor: int
    credits: tuple[CreditDrawn, ...]
    due_minor: int
    exchange_rate_on: dt.date | None = None
    issued_on: dt.date | None = None
    due_on: dt.date | None = None
    corrects_number: str = ""
    tax_name: str = "Tax"  # what the recipient's country calls it
    notes: tuple[Note, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def amount_nanousd(self) -> int:
        """The exact sum of all lines, before any rounding."""
        return sum(line.amount_nanousd for line in self.lines)

    @property
    def tax_minor(self) -> int:
        return sum(tax.amount_minor for tax in self.taxes)

    @property
    def credits_minor(self) -> int:
        return sum(credit.amount_minor for credit in self.credits)

    @property
    def rounding_nano(self) -> int:
        """What rounding the lines added, in billionths of the currency. Kept, so that the ledger can say it."""
        return sum(
            nano_of_minor(line.amount_minor, self.minor_digits) - line.amount_nano for line in self.lines
        )


def build_line(
    *,
    position: int,
    description: str,
    amount_nanousd: int,
    exchange_rate: Decimal,
    currency: str,
    **rest: Any,
) -> StatementLine:
    """A line with its amount in the currency, rounded here and nowhere else. `rest`: the line's other members."""
    return StatementLine(
        position=position,
        description=description,
        amount_nanousd=amount_nanousd,
        amount_nano=nano_of(amount_nanousd, exchange_rate),
        amount_minor=minor_of(amount_nanousd, exchange_rate, digits_of(currency)),
        **rest,
    )


def build_statement(
    *,
    currency: str,
    exchange_rate: Decimal,
    lines: Iterable[StatementLine],
    credits_drawn: Iterable[CreditDrawn] = (),
    taxes: tuple[TaxLine, ...] | None = None,
    **rest: Any,
) -> StatementDocument:
    """The document with its sums. Give it lines of `build_line`; to know how much credit to draw, build it without
    credits first. `taxes`: those of a credit note, where its own rounding would give back too much. Raises
    StatementError."""
    listed, credits = tuple(lines), tuple(credits_drawn)
    subtotal = sum(line.amount_minor for line in listed)
    taxes = sum_taxes(listed) if taxes is None else taxes
    total = subtotal + sum(tax.amount_minor for tax in taxes)
    document = StatementDocument(
        currency=currency,
        minor_digits=digits_of(currency),
        exchange_rate=exchange_rate,
        lines=listed,
        subtotal_minor=subtotal,
        taxes=taxes,
        total_minor=total,
        credits=credits,
        due_minor=total - sum(credit.amount_minor for credit in credits),
        **rest,
    )
    check(document)
    return document


def sum_taxes(lines: Iterable[StatementLine]) -> tuple[TaxLine, ...]:
    """One tax line per rate, the highest first; rates of zero have none."""
    bases: dict[Decimal, int] = {}
    for line in lines:
        if line.tax_ratio:
            bases[line.tax_ratio] = bases.get(line.tax_ratio, 0) + line.amount_minor
    return tuple(
        TaxLine(ratio, base, round_half_up(base * Fraction(ratio)))
        for ratio, base in sorted(bases.items(), reverse=True)
    )


def check(document: StatementDocument) -> None:
    """Raise StatementError when anything does not add up."""
    if found := list_faults(document):
        raise StatementError("; ".join(found))


def list_faults(document: StatementDocument) -> list[str]:
    """All that does not add up, in sentences. Empty: the document holds."""
    found = [*_form_faults(document)]
    if found:
        return found  # sums of a wrong form say nothing
    for line in document.lines:
        found += _line_faults(line, document)
    if document.subtotal_minor != sum(line.amount_minor for line in document.lines):
        found.append("the subtotal is not the sum of the lines")
    if not _taxes_hold(document):
        found.append("the taxes are not those of the lines")
    if document.total_minor != document.subtotal_minor + document.tax_minor:
        found.append("the total is not subtotal and tax")
    if document.due_minor != document.total_minor - document.credits_minor:
        found.append("the amount due is not the total without the credits")
    # Whoever owes 100 cannot draw 120, and what is given back is at most what was billed.
    sign = -1 if document.kind == "credit_note" else 1
    drawn = sign * document.credits_minor
    if document.credits and not (0 <= drawn <= max(0, sign * document.total_minor)):
        found.append("the credits are more than the total, or of the wrong sign")
    return found


def _taxes_hold(document: StatementDocument) -> bool:
    own, expected = document.taxes, sum_taxes(document.lines)
    if document.kind != "credit_note" or len(own) != len(expected):
        return own == expected
    return all(
        one[:2] == other[:2] and abs(one[2] - other[2]) <= 1
        for one, other in zip(map(astuple, own), map(astuple, expected), strict=True)
    )


def _form_faults(document: StatementDocument) -> list[str]:
    found = []
    if document.schema_version != SCHEMA_VERSION:
        found.append(f"schema version {document.schema_version} is not {SCHEMA_VERSION}")
    if not document.exchange_rate.is_finite() or document.exchange_rate <= 0:
        found.append("the exchange rate is not above zero")
    elif document.currency == USD and document.exchange_rate != 1:
        found.append("the exchange rate of USD is not 1")
    if document.minor_digits != digits_of(document.currency):
        found.append(f"{document.currency} has {digits_of(document.currency)} digits after the point")
    if document.first_day > document.last_day:
        found.append("the period ends before it begins")
    if [line.position for line in document.lines] != list(range(1, len(document.lines) + 1)):
        found.append("the lines are not numbered from 1")
    if document.state not in ("draft", "reviewed") and (not document.number or document.issued_on is None):
        found.append("it is issued without a number or a date")
    if document.kind == "credit_note" and not document.corrects_number:
        found.append("the credit note names no invoice")
    if any(not line.tax_ratio.is_finite() or line.tax_ratio < 0 for line in document.lines):
        found.append("a tax rate is below zero")
    return found


def _line_faults(line: StatementLine, document: StatementDocument) -> list[str]:
    found = []
    if line.amount_nano != nano_of(line.amount_nanousd, document.exchange_rate):
        found.append(f"line {line.position} is not its amount of USD in {document.currency}")
    if line.amount_minor != minor_of(line.amount_nanousd, document.exchange_rate, document.minor_digits):
        found.append(f"line {line.position} is not its amount rounded once")
    return found


def to_json(document: StatementDocument) -> dict[str, Any]:
    """The document as JSON knows it: days and decimals are texts, amounts whole numbers."""
    written: dict[str, Any] = _plain(asdict(document))
    # Statements of before lines said it stay byte for byte what they were, in JSON too.
    for line in written["lines"]:
        for name in _SAID_SINCE:
            if not line[name]:
                del line[name]
    return written


def from_json(written: Mapping[str, Any]) -> StatementDocument:
    """Read what `to_json` wrote, and check it. Raises StatementError."""
    if written.get("schema_version") != SCHEMA_VERSION:
        raise StatementError(f"schema version {written.get('schema_version')} is not {SCHEMA_VERSION}")
    try:
        document = StatementDocument(
            **{
                **written,
                "issuer": _party(written["issuer"]),
                "recipient": _party(written["recipient"]),
                "lines": tuple(_line(one) for one in written["lines"]),
                "taxes": tuple(
                    TaxLine(**{**one, "tax_ratio": Decimal(one["tax_ratio"])}) for one in written["taxes"]
                ),
                "credits": tuple(CreditDrawn(**one) for one in written["credits"]),
                "notes": tuple(Note(**one) for one in written["notes"]),
                "exchange_rate": Decimal(written["exchange_rate"]),
                **{
                    name: dt.date.fromisoformat(written[name]) if written[name] else None
                    for name in ("first_day", "last_day", "issued_on", "due_on", "exchange_rate_on")
                },
            }
        )
    except (KeyError, TypeError, ValueError, InvalidOperation) as broken:
        raise StatementError(f"this is not a statement: {broken!r}") from broken
    check(document)
    return document


def _party(written: Mapping[str, Any]) -> Party:
    return Party(**{**written, "address": tuple(written["address"])})


def _line(written: Mapping[str, Any]) -> StatementLine:
    unit, late_of = written["unit_usd"], written["late_of"]
    return StatementLine(
        **{
            **written,
            "tax_ratio": Decimal(written["tax_ratio"]),
            "unit_usd": None if unit is None else Decimal(unit),
            "late_of": dt.date.fromisoformat(late_of) if late_of else None,
        }
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    if isinstance(value, Decimal):
        return format(value, "f")
    return value.isoformat() if isinstance(value, dt.date) else value
