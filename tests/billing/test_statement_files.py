"""Do a statement's files hold all of it, always in the same bytes, whatever the names are?"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from pypdf import PdfReader

from billing.minor_units import minor_for_people
from billing.statement_document import Party, StatementDocument, from_json
from billing.statement_files import file_name, write_csv, write_json
from billing.statement_pdf import REPLACED_NOTE, decimal_text, write_pdf
from billing.statement_text import has_right_to_left
from tests.make_statement import statement

FORMULA = '=HYPERLINK("http://x.example","pay here")'
MARKUP = "<b>bold</b> & <para> </font> <img src='/etc/hostname'/>"
RTL = "\u202eevil\u202c שלום 你好 Łódź"
ONE_WORD = "W" * 300
SCRIPTS = (
    "Łódź Győr Žižkov", "Ελληνική Εταιρεία ΑΕ", "ООО «Пример»", "חברת הדוגמה (Example) 2026",
    "شركة المثال التجارية", "示例科技有限公司（北京）" * 3, "株式会社サンプル・テクノロジー", "주식회사 예제",
)  # fmt: skip


def read_pages(pdf: bytes) -> list[str]:
    return [page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages]


@pytest.mark.parametrize("line_count", [0, 1, 400])
def test_a_pdf_holds_every_line_the_totals_and_its_page_numbers(line_count: int) -> None:
    document = statement(line_count)
    pages = read_pages(write_pdf(document))
    text = "\n".join(pages)
    for line in document.lines:
        assert re.search(rf"no\. {line.position}\b", text), line
        assert f"{line.quantity:,}" in text
        assert f"{line.amount_minor / 100:,.2f}" in text
    for amount in (document.subtotal_minor, document.total_minor, document.due_minor):
        assert minor_for_people(amount, "EUR", 2) in text
    for expected in (
        "Gateway Ltd",
        "GB123",
        "Käufer & Söhne €",
        "DE123",
        "2026-0001",
        "2026-11-16",
        "1 USD = 0.92 EUR",
    ):
        assert expected in text
    assert [f"Page {number} of {len(pages)}" in page for number, page in enumerate(pages, 1)] == [True] * len(
        pages
    )
    assert ("Late usage of 2026-09 · model-2" in text) == (line_count == 400)
    if line_count < 400:
        assert len(pages) == 1
    else:
        assert len(pages) > 8
        assert all("Quantity" in page for page in pages if re.search(r"no\. \d", page))


def test_the_totals_stand_on_one_page_with_the_last_line_however_many_there_are() -> None:
    for line_count in range(8, 30):
        pages = read_pages(write_pdf(statement(line_count)))
        (last,) = [page for page in pages if "Amount due" in page]
        assert re.search(rf"no\. {line_count}\b", last), line_count
        assert re.search(r"Tax 19 %.*Total", last, re.DOTALL), line_count


def test_totals_that_are_longer_than_a_page_go_on_on_the_next() -> None:
    document = statement(3)
    credits = document.credits[:1] * 60
    pages = read_pages(write_pdf(replace(document, credits=credits)))
    assert len(pages) == 3
    assert "".join(pages).count("Credit Käufer & Söhne €") == 60
    assert "Amount due" in pages[1]


def test_the_same_statement_is_the_same_bytes_in_another_process() -> None:
    here = hashlib.sha256(write_pdf(statement(12))).hexdigest()
    assert here == hashlib.sha256(write_pdf(statement(12))).hexdigest()
    code = (
        "import hashlib; from tests.make_statement import statement; from billing.statement_pdf import write_pdf;"
        "write_pdf(statement(3, name='something else first'));"
        "print(hashlib.sha256(write_pdf(statement(12))).hexdigest())"
    )
    root = Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == here
    assert hashlib.sha256(write_pdf(statement(11))).hexdigest() != here


@pytest.mark.parametrize(
    "name", [FORMULA, MARKUP, ONE_WORD, "", "a\0b\nc", "x" * 5_000, "東" * 5_000, "ש" * 5_000]
)
def test_a_name_is_printed_as_it_is_and_never_as_markup(name: str) -> None:
    issuer = Party(name, ("1 Main Street",))
    text = "".join(read_pages(write_pdf(statement(3, name=name, issuer=issuer))))
    if name in (FORMULA, MARKUP, ONE_WORD):
        assert re.sub(r"\s", "", name) in re.sub(r"\s", "", text)
    assert "6.82 EUR" in text  # 1.14 + 2.27 + 3.41


def test_what_the_font_does_not_know_is_replaced_and_the_reader_told() -> None:
    text = "".join(read_pages(write_pdf(statement(3, name=RTL))))
    assert "?evil?" in text and "你好 Łódź" in text
    assert REPLACED_NOTE[:40] in text
    assert "?????" in "".join(read_pages(write_pdf(statement(3, name="สวัสดี"))))


def test_names_in_other_scripts_are_printed_and_the_same_bytes_each_time() -> None:
    documents = {name: statement(1, name=name, tenant_name=name) for name in SCRIPTS}
    pdfs = {name: write_pdf(document) for name, document in documents.items()}
    # In another order, as what a font was used for before must not matter.
    assert pdfs == {name: write_pdf(documents[name]) for name in reversed(documents)}
    for name, pdf in pdfs.items():
        text = "".join(read_pages(pdf))
        assert (REPLACED_NOTE[:40] in text, "??" in text) == (False, False), name
        # Hebrew and Arabic stand as they are seen; each letter of the others as it was written.
        if not has_right_to_left(name):
            assert re.sub(r"\s", "", name) in re.sub(r"\s", "", text)


def test_amounts_below_zero_have_a_real_minus_on_paper_and_a_hyphen_in_files() -> None:
    document = statement(3)
    text = "".join(read_pages(write_pdf(document)))
    assert "−1.00 EUR" in text and "-1.00" not in text
    assert b"-1.00" in write_csv(document) and "−".encode() not in write_csv(document)
    assert decimal_text(Decimal("-0.5")) == "−0.50", "also where the whole part is zero"


def test_a_draft_says_so_and_has_no_number() -> None:
    draft = statement(state="draft", number="", issued_on=None, due_on=None)
    text = "".join(read_pages(write_pdf(draft)))
    assert "Draft invoice" in text
    assert "given when it is issued" in text


def rows_of(document: StatementDocument) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(write_csv(document).decode())))


def test_the_csv_has_every_line_and_its_rows_add_up() -> None:
    document = statement(40)
    rows = rows_of(document)
    cents = {kind: [int(row["amount"].replace(".", "")) for row in rows if row["row"] == kind] for kind in
             ("line", "subtotal", "tax", "total", "credit", "due")}  # fmt: skip
    assert len(cents["line"]) == 40
    assert sum(cents["line"]) == cents["subtotal"][0] == document.subtotal_minor
    assert cents["subtotal"][0] + sum(cents["tax"]) == cents["total"][0]
    assert cents["total"][0] + sum(cents["credit"]) == cents["due"][0] == document.due_minor
    assert rows[0]["amount_usd_exact"] == "1.234567891"


def test_no_cell_of_the_csv_is_a_formula_but_amounts_stay_numbers() -> None:
    rows = rows_of(statement(3, name=FORMULA))
    assert rows[0]["model"] == f"'{FORMULA}"
    assert [row["amount"] for row in rows if row["row"] == "credit"] == ["-1.00"]


@pytest.mark.parametrize("name", [FORMULA, RTL, ONE_WORD])
def test_the_json_is_the_document(name: str) -> None:
    document = statement(5, name=name)
    assert from_json(json.loads(write_json(document))) == document


def test_file_names_are_plain() -> None:
    assert file_name(statement(1), "pdf") == "invoice-2026-0001.pdf"
    draft = statement(1, state="draft", number="", issued_on=None, tenant_name='../"x\r\ny')
    assert file_name(draft, "csv") == "invoice-draft-..-x-y-2026-10.csv"
