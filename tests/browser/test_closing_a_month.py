"""Can finance find what grew, close last month, and correct it, all in the browser?

Two months of traffic (`tests.make_finance_months`); the person is of finance, not an operator.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from pypdf import PdfReader

from billing.partitions import add_months
from tests.browser.conftest import CHROMIUM, TIMEOUT_MS, Installation
from tests.make_finance_months import KEY, LATE_TENANT, PASSWORD, PERSON

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path(CHROMIUM).exists(), reason=f"no Chromium at {CHROMIUM}: apt-get install chromium"
    ),
]
CLOSING_MS = 30_000


@pytest.fixture
def desk(browser: Any, installation: Installation) -> Iterator[Any]:
    """A page on which finance is signed in; the test fails when the browser complained about anything."""
    seeded = installation.up.manage("shell", "-c", "from tests.make_finance_months import write; write()")
    assert seeded.returncode == 0, seeded.stderr[-2000:]
    context = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{installation.url}/")
    page.fill("#id_username", PERSON)
    page.fill("#id_password", PASSWORD)
    page.click("button[type=submit]")
    page.wait_for_url(f"{installation.url}/")
    yield page
    context.close()
    assert complaints == []


def download(page: Any, button: str) -> bytes:
    with page.expect_download() as waited:
        page.click(f".page-header a:has-text('{button}')")
    return bytes(Path(waited.value.path()).read_bytes())


def usd(text: str) -> float:
    return float(text.replace("$", "").replace("USD", "").replace(",", ""))


def open_from_menu(page: Any, title: str) -> None:
    page.click(f".menu-list a:has-text('{title}')")
    page.wait_for_selector(f"h1:has-text('{title}')")


def find_what_grew(page: Any) -> None:
    """Spend -> all keys of last month -> the one that stands out -> which model -> a file of exactly that."""
    open_from_menu(page, "Spend")
    page.click("a:has-text('Last month')")
    page.click(".page-header a:has-text('All keys')")
    assert KEY in page.inner_text(".alert-warning")
    grown = page.locator("tbody tr", has_text="times a day")
    assert grown.count() == 1
    assert KEY in grown.inner_text()
    grown.locator(".row-link").click()
    page.wait_for_selector("nav[aria-label='Group by'] .active:has-text('Model')")
    rows = {row["model"]: row for row in csv.DictReader(io.StringIO(download(page, "CSV").decode()))}
    change = {name: float(row["change_ratio"]) for name, row in rows.items() if row["change_ratio"]}
    assert max(change, key=lambda name: change[name]) == "large"
    assert change["large"] > 1  # more than twice as much


def close_last_month(page: Any, month: str) -> None:
    open_from_menu(page, "Statements")
    page.click("#open-month a:has-text('Close ')")
    if page.locator("#grace").count():  # on the first days of a month late records are waited for
        page.fill("#grace", "0")
        page.click("text=Look again")
    assert "2 requests have no price" in page.inner_text("main")
    page.fill("#confirm", month)
    page.click("button:has-text('Close ')")
    page.wait_for_selector("h3:has-text('is closed')", timeout=CLOSING_MS)
    page.click("text=Its statements")


def credit_the_first_line(page: Any) -> str:
    """Write the credit note that takes the first line off; return its amount."""
    page.click(".page-header a:has-text('Credit note')")
    number = page.inner_text("form[data-confirm-name] b.mono")
    boxes = page.locator("input[name=line]")
    for index in range(1, boxes.count()):
        boxes.nth(index).uncheck()
    taken = str(page.inner_text("tbody tr:first-child td[data-label=amount]"))
    page.fill("#reason", "the first day was a test")
    page.fill("#confirm", number)
    page.click("button:has-text('Issue the credit note')")
    page.wait_for_selector("h1:has-text('CN-')")
    return taken


def test_finance_closes_a_month_and_corrects_it(desk: Any, installation: Installation) -> None:
    page, month = desk, f"{add_months(timezone.now().date().replace(day=1), -1):%Y-%m}"
    find_what_grew(page)
    close_last_month(page, month)

    page.click("tr:has-text('acme') .row-link")
    number, due = page.inner_text("h1").split()[0], page.inner_text(".figure")
    text = "\n".join(one.extract_text() for one in PdfReader(io.BytesIO(download(page, "PDF"))).pages)
    for expected in (number, due, "acme", "Output tokens", "large@a", f"{month}-01"):
        assert expected in text
    taken = credit_the_first_line(page)
    assert f"Taken off {number}".lower() in page.inner_text("main").lower()
    assert usd(page.inner_text(".figure")) == usd(taken)
    page.click(f"a:has-text('{number}')")
    assert usd(page.inner_text(".figure")) == pytest.approx(usd(due) - usd(taken), abs=0.001)

    # What had no price gets one now: its month is closed, so it is on the next statement.
    open_from_menu(page, "Prices")
    page.goto(f"{installation.url}/prices/unpriced")
    page.fill("#id_reason", "the price list came late")
    page.click("button:has-text('Price the requests')")
    page.wait_for_selector("text=2 requests priced")
    open_from_menu(page, "Statements")
    page.click("text=Draft a statement")
    page.select_option("#id_tenant", label=LATE_TENANT)
    page.click("button:has-text('Draft it')")
    page.wait_for_selector(f"h1:has-text('{LATE_TENANT}')")
    shown = page.inner_text("main")
    assert f"Corrections of {month}" in shown
    assert "2 requests" in shown
    assert usd(page.inner_text(".figure")) > 0
    listed = page.goto(f"{installation.url}/statements?month={month}").text()
    assert "CN-000001" in listed
    assert installation.up.manage("verify_usage").returncode == 0
