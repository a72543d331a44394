"""How does a statement become a file: PDF, CSV, JSON?

Pure. All three are written from the same document. CSV has a row for each line, tax and credit; texts that a
spreadsheet would run get an apostrophe; amounts are exact decimals. JSON is the whole document and its schema version.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from billing.exporting import neutralised
from billing.minor_units import minor_text
from billing.money import usd_text
from billing.statement_document import StatementDocument, to_json
from billing.statement_pdf import write_pdf

COLUMNS: Final = (
    "statement",
    "kind",
    "row",
    "position",
    "line_kind",
    "description",
    "model",
    "provider",
    "deployment",
    "meter",
    "service_tier",
    "price_id",
    "quantity",
    "unit_usd",
    "unit_size",
    "tax_ratio",
    "amount",
    "currency",
    "amount_usd_exact",
    "late_of",
    "corrects_position",
    "priced_by",
    "sale_term_id",
    "sale_price_id",
)
ROW_SUBTOTAL, ROW_TOTAL, ROW_DUE = "subtotal", "total", "due"


class FileKind(NamedTuple):
    """What a download is: its media type and how it is written."""

    media_type: str
    write: Callable[[StatementDocument], bytes]


def write_csv(document: StatementDocument) -> bytes:
    """Lines, then subtotal, taxes, total, credits and what is due, each a row that says which it is."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, restval="", lineterminator="\r\n")
    writer.writeheader()
    for row in _rows(document):
        common = {"statement": document.number, "kind": document.kind, "currency": document.currency}
        writer.writerow({name: _cell(value) for name, value in {**common, **row}.items()})
    return buffer.getvalue().encode()


def write_json(document: StatementDocument) -> bytes:
    """The whole document; `from_json` reads it again."""
    return (json.dumps(to_json(document), ensure_ascii=False, indent=2) + "\n").encode()


FILES: Final[dict[str, FileKind]] = {
    "pdf": FileKind("application/pdf", write_pdf),
    "csv": FileKind("text/csv; charset=utf-8", write_csv),
    "json": FileKind("application/json", write_json),
}


def file_name(document: StatementDocument, file_format: str) -> str:
    """A name for the download that every system takes: "invoice-2026-0001.pdf"."""
    name = document.number or f"draft-{document.tenant_name}-{document.first_day:%Y-%m}"
    safe = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.")[:80]
    return f"{document.kind.replace('_', '-')}-{safe}.{file_format}"


def _rows(document: StatementDocument) -> Iterator[dict[str, Any]]:
    def money(amount_minor: int) -> Amount:
        return Amount(minor_text(amount_minor, document.minor_digits))

    for line in document.lines:
        yield {
            "row": "line",
            "position": line.position,
            "line_kind": line.kind,
            "description": line.description,
            "model": line.model,
            "provider": line.provider,
            "deployment": line.deployment,
            "meter": line.meter,
            "service_tier": line.service_tier,
            "price_id": line.price_id,
            "priced_by": line.priced_by,
            "sale_term_id": line.sale_term_id,
            "sale_price_id": line.sale_price_id,
            "quantity": line.quantity,
            "unit_usd": None if line.unit_usd is None else Amount(format(line.unit_usd, "f")),
            "unit_size": line.unit_size,
            "tax_ratio": Amount(format(line.tax_ratio, "f")),
            "amount": money(line.amount_minor),
            "amount_usd_exact": Amount(usd_text(line.amount_nanousd)),
            "late_of": line.late_of,
            "corrects_position": line.corrects_position,
        }
    exact = Amount(usd_text(document.amount_nanousd))
    yield {"row": ROW_SUBTOTAL, "amount": money(document.subtotal_minor), "amount_usd_exact": exact}
    for tax in document.taxes:
        ratio = Amount(format(tax.tax_ratio, "f"))
        yield {"row": "tax", "tax_ratio": ratio, "amount": money(tax.amount_minor)}
    yield {"row": ROW_TOTAL, "amount": money(document.total_minor)}
    for credit in document.credits:
        yield {"row": "credit", "description": credit.description, "amount": money(-credit.amount_minor)}
    yield {"row": ROW_DUE, "amount": money(document.due_minor)}


class Amount(str):
    """A number that was written here: its minus is no formula."""

    __slots__ = ()


def _cell(value: Any) -> Any:
    return neutralised(value) if isinstance(value, str) and not isinstance(value, Amount) else value
