"""What does the page of a statement show: lines in groups, each linked to the spend and requests behind it?

Pure, over a document and the deployments of its lines. Spend counts late usage on the day it was posted, as the
statement does; the list of requests goes by their own time, so late lines link to Spend alone.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlencode

from billing.minor_units import minor_for_people
from billing.money import usd_decimal
from billing.spend_questions import DAY
from billing.statement_document import StatementDocument, StatementLine
from billing.statement_pdf import decimal_text, group_lines, minor_text_grouped, rate_text, ratio_text

# Lines of these kinds are usage that Spend shows in the statement's month.
USAGE_KINDS = ("usage", "late", "correction")


class Served(NamedTuple):
    """Which deployment and model a line is of."""

    deployment_id: int
    model_id: int


class ShownLine(NamedTuple):
    """One line as it is written, and the query string of Spend that sums to it and its sisters."""

    line: StatementLine
    rate: str
    amount: str
    exact: str
    spend_query: str


class ShownGroup(NamedTuple):
    """The lines of a model. Without a query there is nothing to link to."""

    title: str
    lines: list[ShownLine]
    subtotal: str
    spend_query: str
    requests_query: str


class ShownRow(NamedTuple):
    """A row of the totals."""

    name: str
    amount: str
    is_strong: bool = False
    spend_query: str = ""


def build_groups(document: StatementDocument, served: Mapping[int, Served]) -> list[ShownGroup]:
    """The lines in groups; `served` by position."""
    groups = []
    for title, lines in group_lines(document.lines):
        first = served.get(lines[0].position) if lines[0].kind in USAGE_KINDS else None
        is_own_time = lines[0].kind == "usage"
        groups.append(
            ShownGroup(
                title or "Without a model",
                [_shown(line, document, served.get(line.position)) for line in lines],
                minor_text_grouped(sum(line.amount_minor for line in lines), document.minor_digits),
                spend_query(document, model=first.model_id, by="key") if first else "",
                requests_query(document, served=first.model_id) if first and is_own_time else "",
            )
        )
    return groups


def build_totals(document: StatementDocument) -> list[ShownRow]:
    """Subtotal, taxes, total, credits, due."""

    def money(amount_minor: int) -> str:
        return minor_for_people(amount_minor, document.currency, document.minor_digits)

    rows = [ShownRow("Subtotal", money(document.subtotal_minor), False, spend_query(document, by="model"))]
    if document.kind == "credit_note":
        rows[0] = rows[0]._replace(spend_query="")
    for tax in document.taxes:
        said = f"{document.tax_name} {ratio_text(tax.tax_ratio)} of {money(tax.base_minor)}"
        rows.append(ShownRow(said, money(tax.amount_minor)))
    rows.append(ShownRow("Total", money(document.total_minor), True))
    rows += [ShownRow(credit.description, money(-credit.amount_minor)) for credit in document.credits]
    if document.credits:
        owed = "Amount due" if document.due_minor >= 0 else "In the tenant's favour"
        rows.append(ShownRow(owed, money(abs(document.due_minor)), True))
    return rows


def spend_query(document: StatementDocument, *, by: str, **filters: int) -> str:
    """Spend of the statement's tenant and days."""
    days = {"period": "custom", "from": str(document.first_day), "to": str(document.last_day)}
    return urlencode({**days, "by": by, "tenant": document.tenant_id, **filters})


def requests_query(document: StatementDocument, **filters: int) -> str:
    """The requests of the statement's tenant and days."""
    times = {"since": _midnight(document.first_day), "until": _midnight(document.last_day + DAY)}
    return urlencode({"tenant": document.tenant_id, **filters, **times})


def exact_text(nanousd: int) -> str:
    """An amount with all its digits."""
    return f"{decimal_text(usd_decimal(nanousd))} USD"


def _midnight(day: dt.date) -> str:
    return f"{day}T00:00:00Z"


def _shown(line: StatementLine, document: StatementDocument, served: Served | None) -> ShownLine:
    is_usage = served is not None and line.kind in USAGE_KINDS
    return ShownLine(
        line,
        rate_text(line),
        minor_text_grouped(line.amount_minor, document.minor_digits),
        exact_text(line.amount_nanousd),
        spend_query(document, deployment=served.deployment_id, by="day") if served and is_usage else "",
    )
