"""How does a statement look as a PDF?

Pure: the same document gives the same bytes, in any process (fixed dates, no clock, no system font). Every text is
escaped: names are names, never markup. `statement_text` knows which font prints which script; a note tells what none
can.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import groupby
from threading import Lock
from typing import Any, Final

from reportlab.lib.colors import HexColor
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    BaseDocTemplate,
    Frame,
    PageTemplate,
    Paragraph,
    Spacer,
    Table,
    TableStyle,
)
from reportlab.platypus.doctemplate import LayoutError

from billing.minor_units import minor_for_people
from billing.money import MINUS, grouped, usd_decimal
from billing.statement_document import Party, StatementDocument, StatementLine
from billing.statement_text import BOLD, PLAIN, Printer, list_runs, seen, use_font, width_of

INK, QUIET, RULE, SHADE = HexColor("#1d273b"), HexColor("#5b6675"), HexColor("#d5dbe3"), HexColor("#f4f6f9")
MARGIN = 18 * mm
WIDTH = A4[0] - 2 * MARGIN
# Number, what, quantity, unit price, amount.
COLUMNS = (10 * mm, 0.0, 29 * mm, 37 * mm, 27 * mm)
LINE_COLUMNS = [COLUMNS[0], WIDTH - sum(COLUMNS), *COLUMNS[2:]]
TITLES: Final = {"invoice": "Invoice", "credit_note": "Credit note"}
REPLACED_NOTE: Final = (
    "Some characters cannot be printed in this document and stand without their accents or as “?”; "
    "the CSV and JSON files have them as they are."
)
KINDS: Final = {"late": "Late usage", "correction": "Corrections", "credit": "Credited"}
# ReportLab fills a font's subset while it writes: two threads must not.
_WRITING = Lock()


def _style(name: str, font: str = PLAIN, size: float = 8.5, **rest: Any) -> ParagraphStyle:
    rest.setdefault("textColor", INK)
    return ParagraphStyle(
        name, fontName=font, fontSize=size, leading=size * 1.35, splitLongWords=1, wordWrap=None, **rest
    )


BODY = _style("body")
STRONG = _style("strong", BOLD)
SMALL = _style("small", size=7.5, textColor=QUIET)
NUMBER = _style("number", alignment=TA_RIGHT)
STRONG_NUMBER = _style("strong number", BOLD, alignment=TA_RIGHT)
QUIET_TEXT = _style("quiet", textColor=QUIET)
QUIET_NUMBER = _style("quiet number", alignment=TA_RIGHT, textColor=QUIET)
HEAD = _style("head", BOLD, 7.5, textColor=QUIET)
HEAD_NUMBER = _style("head number", BOLD, 7.5, textColor=QUIET, alignment=TA_RIGHT)
TITLE = _style("title", BOLD, 19, alignment=TA_RIGHT)
NAME = _style("name", BOLD, 12)


def write_pdf(document: StatementDocument) -> bytes:
    """The statement as a PDF file."""
    with _WRITING:
        for font in (PLAIN, BOLD):
            use_font(font)
        printer = Printer()
        try:
            return _write(document, printer, keeps_totals_together=True)
        except LayoutError:
            # Credits by the dozen, or names as long as a page: then they go on on the next one.
            return _write(document, printer, keeps_totals_together=False)


def _write(document: StatementDocument, printer: Printer, *, keeps_totals_together: bool) -> bytes:
    buffer = io.BytesIO()
    story = [
        *_heading(document, printer),
        Spacer(1, 8 * mm),
        _table(document, printer, keeps_totals_together=keeps_totals_together),
        *_notes(document, printer),
    ]
    if printer.has_replaced:
        story += [Spacer(1, 2 * mm), Paragraph(REPLACED_NOTE, SMALL)]
    name = printer.text(f"{title_of(document)} {document.number}".strip())
    paper = BaseDocTemplate(
        buffer,
        pagesize=A4,
        pageTemplates=[PageTemplate("page", [_frame()])],
        title=name,
        author=printer.text(document.issuer.name),
        subject=printer.text(f"{document.tenant_name}, {_period(document)}"),
        creator="Pointsman",
        lang="en",
        invariant=1,
    )
    footer = printer.text(f"{document.issuer.name[:60]} · {name} · {document.recipient.name[:60]}")
    paper.build(story, canvasmaker=_numbered(footer))
    return buffer.getvalue()


def _frame() -> Frame:
    foot, head = 20 * mm, 16 * mm
    none = {"leftPadding": 0, "rightPadding": 0, "topPadding": 0, "bottomPadding": 0}
    return Frame(MARGIN, foot, WIDTH, A4[1] - foot - head, **none)


def title_of(document: StatementDocument) -> str:
    """ "Draft invoice", "Credit note"."""
    title = TITLES[document.kind]
    if document.state in ("draft", "reviewed"):
        return f"Draft {title.lower()}"
    return f"{title} (void)" if document.state == "void" else title


def describe(line: StatementLine) -> str:
    """What a line is of: one model may be served by several deployments, at prices of their own."""
    return f"{line.description} · {line.deployment}" if line.deployment else line.description


def rate_text(line: StatementLine) -> str:
    """The unit price with its unit: "2.50 / 1M"; "0.01 each"; "0.24 / hour"."""
    return "" if line.unit_usd is None else unit_text(line.unit_usd, line.unit_size)


def unit_text(unit_usd: Decimal, unit_size: int) -> str:
    """A price with the units that it is for."""
    size = {1: " each", 3600: " / hour", 1_000_000: " / 1M"}.get(unit_size, f" / {unit_size:,}")
    return f"{decimal_text(unit_usd)}{size}"


def decimal_text(number: Decimal) -> str:
    """With two digits after the point at least, and no zero at the end beyond them."""
    whole, _, fraction = format(abs(number), "f").partition(".")
    return f"{MINUS if number < 0 else ''}{int(whole):,}.{fraction.rstrip('0').ljust(2, '0')}"


def ratio_text(ratio: Decimal) -> str:
    """0.19 -> "19 %"; 0.077 -> "7.7 %"."""
    percent = format((ratio * 100).normalize(), "f")
    return f"{percent} %"


def _heading(document: StatementDocument, printer: Printer) -> list[Any]:
    facts = [("Number", document.number or "given when it is issued")]
    if document.corrects_number:
        facts.append(("Corrects", f"Invoice {document.corrects_number}"))
    facts.append(("Period (UTC)", _period(document)))
    if document.issued_on:
        facts.append(("Date", document.issued_on.isoformat()))
    if document.due_on:
        facts.append(("Due", document.due_on.isoformat()))
    facts.append(("Currency", document.currency))
    facts.append(("Tenant", document.tenant_name))
    half = WIDTH / 2
    top = Table(
        [[_party(document.issuer, printer, NAME), printer.cell(title_of(document), TITLE)]],
        colWidths=[half, half],
        style=_plain_style(),
    )
    known = Table(
        [[printer.cell(name, SMALL), printer.cell(value, BODY)] for name, value in facts],
        colWidths=[26 * mm, half - 26 * mm],
        style=_plain_style(("TOPPADDING", (0, 0), (-1, -1), 0.6), ("BOTTOMPADDING", (0, 0), (-1, -1), 0.6)),
    )
    billed = [Paragraph("Billed to", SMALL), *_party(document.recipient, printer, STRONG)]
    return [
        top,
        Spacer(1, 10 * mm),
        Table([[billed, known]], colWidths=[half, half], style=_plain_style()),
    ]


def _party(party: Party, printer: Printer, name_style: ParagraphStyle) -> list[Paragraph]:
    rows = [printer.cell(party.name, name_style), *(printer.cell(one, BODY) for one in party.address)]
    if party.tax_id:
        rows.append(printer.cell(f"Tax ID {party.tax_id}", BODY))
    if party.email:
        rows.append(printer.cell(party.email, BODY))
    return rows


def _table(document: StatementDocument, printer: Printer, *, keeps_totals_together: bool) -> Table:
    """The lines under a head that every page repeats, then the totals: on one page with the last line at least."""
    unit = f"Amount ({document.currency})"
    heads = [("#", HEAD), ("What", HEAD)]
    heads += [(text, HEAD_NUMBER) for text in ("Quantity", "Unit price (USD)", unit)]
    rows: list[list[Any]] = [[printer.cell(text, style) for text, style in heads]]
    styles: list[tuple[Any, ...]] = []
    last_line = _add_lines(rows, styles, document, printer)
    first_total = len(rows)
    for name, text, is_strong in _totals(document):
        said = printer.cell(name, STRONG_NUMBER if is_strong else QUIET_NUMBER)
        styles += [("SPAN", (0, len(rows)), (2, len(rows))), ("SPAN", (3, len(rows)), (4, len(rows)))]
        rows.append([said, "", "", printer.cell(text, STRONG_NUMBER if is_strong else NUMBER), ""])
    if keeps_totals_together:
        styles.append(("NOSPLIT", (0, last_line), (-1, -1)))
    table = Table(rows, colWidths=LINE_COLUMNS, repeatRows=1)
    table.setStyle(
        TableStyle(
            [
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("LINEBELOW", (0, 0), (-1, 0), 0.8, INK),
                ("LINEBELOW", (0, 1), (-1, first_total - 1), 0.3, RULE),
                ("LINEABOVE", (3, -1), (-1, -1), 0.8, INK),
                ("LEFTPADDING", (0, 0), (-1, -1), 2),
                ("RIGHTPADDING", (0, 0), (-1, -1), 2),
                ("TOPPADDING", (0, 0), (-1, -1), 2.4),
                ("TOPPADDING", (0, first_total), (-1, first_total), 4 * mm),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 2.8),
                *styles,
            ]
        )
    )
    return table


def _add_lines(
    rows: list[list[Any]], styles: list[tuple[Any, ...]], document: StatementDocument, printer: Printer
) -> int:
    """Add the lines, under each model that has several a subtotal; return in which row the last line stands."""
    last_line = len(rows)
    for title, lines in group_lines(document.lines):
        if title:
            styles.append(("BACKGROUND", (0, len(rows)), (-1, len(rows)), SHADE))
            rows.append(["", printer.cell(title, STRONG), "", "", ""])
        rows += [_row(line, document, printer) for line in lines]
        last_line = len(rows) - 1
        if len(lines) > 1:
            amount = minor_text_grouped(sum(line.amount_minor for line in lines), document.minor_digits)
            said = printer.cell(f"Subtotal {title}".strip(), QUIET_TEXT)
            rows.append(["", said, "", "", printer.cell(amount, STRONG_NUMBER)])
    if not document.lines:
        rows.append(["", printer.cell("Nothing was used in this period.", BODY), "", "", ""])
    return last_line


def group_lines(lines: Sequence[StatementLine]) -> Iterator[tuple[str, list[StatementLine]]]:
    """Lines that follow each other and are of one model and kind, under a title that says both."""
    for (kind, late_of, model), group in groupby(
        lines, key=lambda line: (line.kind, line.late_of, line.model)
    ):
        of = f" of {late_of:%Y-%m}" if late_of else ""
        said = f"{KINDS[kind]}{of}" if kind in KINDS else ""
        yield " · ".join(part for part in (said, model) if part), list(group)


def _what(line: StatementLine, printer: Printer) -> Any:
    said = printer.cell(describe(line), BODY)
    return [said, printer.cell(line.priced_by, SMALL)] if line.priced_by else said


def _row(line: StatementLine, document: StatementDocument, printer: Printer) -> list[Any]:
    return [
        printer.cell(str(line.position), SMALL),
        _what(line, printer),
        printer.cell("" if line.quantity is None else grouped(line.quantity), NUMBER),
        printer.cell(rate_text(line), NUMBER),
        printer.cell(minor_text_grouped(line.amount_minor, document.minor_digits), NUMBER),
    ]


def _totals(document: StatementDocument) -> list[tuple[str, str, bool]]:
    """What stands below the lines, each with its amount, and whether it is strong."""

    def money(amount_minor: int) -> str:
        return minor_for_people(amount_minor, document.currency, document.minor_digits)

    rows = [("Subtotal", money(document.subtotal_minor), False)]
    for tax in document.taxes:
        said = f"{document.tax_name} {ratio_text(tax.tax_ratio)} of {money(tax.base_minor)}"
        rows.append((said, money(tax.amount_minor), False))
    rows.append(("Total", money(document.total_minor), True))
    for credit in document.credits:
        rows.append((credit.description, money(-credit.amount_minor), False))
    owed = "Amount due" if document.due_minor >= 0 else "In your favour"
    return [*rows, (owed, money(abs(document.due_minor)), True)]


def _notes(document: StatementDocument, printer: Printer) -> list[Any]:
    texts = list(_exchange_texts(document))
    texts += [note.text for note in document.notes]
    rows: list[Any] = [Spacer(1, 8 * mm)]
    rows.append(printer.cell("Notes", HEAD))
    rows += [printer.cell(text, SMALL) for text in texts]
    return rows


def _exchange_texts(document: StatementDocument) -> Iterable[str]:
    exact = f"{decimal_text(usd_decimal(document.amount_nanousd))} USD"
    if document.currency != "USD":
        on = f", the rate of {document.exchange_rate_on}" if document.exchange_rate_on else ""
        rate = decimal_text(document.exchange_rate)
        yield f"1 USD = {rate} {document.currency}{on}. The lines are {exact} before rounding."
    else:
        yield f"The lines are {exact} before rounding."
    yield "Each line is rounded once, half up. Days begin and end in UTC."


def _period(document: StatementDocument) -> str:
    return f"{document.first_day.isoformat()} to {document.last_day.isoformat()}"


def minor_text_grouped(amount_minor: int, digits: int) -> str:
    """For a column whose head names the currency: "−1,204.50"."""
    return minor_for_people(amount_minor, "", digits).rstrip()


def _plain_style(*more: tuple[Any, ...]) -> TableStyle:
    return TableStyle(
        [
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LEFTPADDING", (0, 0), (-1, -1), 0),
            ("RIGHTPADDING", (0, 0), (-1, -1), 0),
            *more,
        ]
    )


def _numbered(footer: str) -> type[Canvas]:
    """A canvas that writes the foot of its pages when it knows how many there are."""

    class Numbered(Canvas):  # type: ignore[misc]  # ReportLab has no types
        def __init__(self, *rest: Any, **named: Any) -> None:
            super().__init__(*rest, **named)
            self._pages: list[dict[str, Any]] = []

        def showPage(self) -> None:  # noqa: N802  (ReportLab's name)
            self._pages.append(dict(self.__dict__))
            self._startPage()

        def save(self) -> None:
            for number, page in enumerate(self._pages, 1):
                self.__dict__.update(page)
                self._foot(f"Page {number} of {len(self._pages)}")
                super().showPage()
            super().save()

        def _foot(self, place: str) -> None:
            self.setStrokeColor(RULE)
            self.setLineWidth(0.4)
            self.line(MARGIN, 15 * mm, A4[0] - MARGIN, 15 * mm)
            self.setFont(PLAIN, 7)
            self.setFillColor(QUIET)
            width = pdfmetrics.stringWidth(place, PLAIN, 7)
            said = footer
            while width_of(said, PLAIN, 7) > WIDTH - width - 10:
                said = f"{said[:-2]}…"
            at = MARGIN
            for font, part in list_runs(seen(said, "L"), PLAIN):
                self.setFont(font, 7)
                self.drawString(at, 11 * mm, part)
                at += pdfmetrics.stringWidth(part, font, 7)
            self.setFont(PLAIN, 7)
            self.drawRightString(A4[0] - MARGIN, 11 * mm, place)

    return Numbered
