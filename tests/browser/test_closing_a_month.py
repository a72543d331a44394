"""Can finance find what grew, close last month, and correct it, all in the browser?

On the demo, which brings months of traffic and has the month before last closed; the person is of finance, not an
operator.
"""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from pypdf import PdfReader

from billing.partitions import add_months
from tests.browser.conftest import CHROMIUM, TIMEOUT_MS, Installation

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path(CHROMIUM).exists(), reason=f"no Chromium at {CHROMIUM}: apt-get install chromium"
    ),
]
CLOSING_MS = 30_000
BOOKS_S = 120.0
PERSON, PASSWORD = "fiona", "a-password-for-tests"
TENANT, KEY, MODEL = "demo", "archive", "sim-large"
ADD_PERSON = f"""
from django.contrib.auth.models import User
from policies.permissions import Role, set_role
set_role(person=User.objects.create_user({PERSON!r}, password={PASSWORD!r}), role=Role.FINANCE, actor="olga")
"""


@pytest.fixture
def desk(browser: Any, installation: Installation) -> Iterator[Any]:
    """A page on which finance is signed in; the test fails when the browser complained about anything."""
    added = installation.up.manage("shell", "-c", ADD_PERSON)
    assert added.returncode == 0, added.stderr[-2000:]
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
    wait_for_the_books(page, installation)
    yield page
    context.close()
    assert complaints == []


def wait_for_the_books(page: Any, installation: Installation) -> None:
    """The demo's traffic comes after its start; its last step is a statement that is paid."""
    deadline = time.monotonic() + BOOKS_S
    while page.goto(f"{installation.url}/statements") and not page.locator("tr:has-text('paid')").count():
        assert time.monotonic() < deadline, page.inner_text("main")
        page.wait_for_timeout(500)


def download(page: Any, button: str) -> bytes:
    with page.expect_download() as waited:
        page.click(f".page-header a:has-text('{button}')")
    return bytes(Path(waited.value.path()).read_bytes())


def amount(text: str) -> float:
    return float(text.removesuffix("EUR").replace(",", ""))


def open_from_menu(page: Any, title: str) -> None:
    page.click(f".menu-list a:has-text('{title}')")
    page.wait_for_selector(f"h1:has-text('{title}')")


def find_what_grew(page: Any) -> None:
    """Spend -> all keys of seven days -> the one that stands out -> which model -> a file of exactly that."""
    open_from_menu(page, "Spend")
    page.click("a:has-text('7 days')")
    page.click(".page-header a:has-text('All keys')")
    assert KEY in page.inner_text(".alert-warning")
    grown = page.locator("tbody tr", has_text="times as much a day")
    assert grown.count() == 1
    assert KEY in grown.inner_text()
    grown.locator(".row-link").click()
    page.wait_for_selector("nav[aria-label='Group by'] .active:has-text('Model')")
    rows = {row["model"]: row for row in csv.DictReader(io.StringIO(download(page, "CSV").decode()))}
    # In money: of a model that was hardly used before, a little more is many times as much.
    rows.pop("Total", None)
    assert max(rows, key=lambda name: float(rows[name]["change_usd"] or 0)) == MODEL
    ratio = rows[MODEL]["change_ratio"]
    assert not ratio or float(ratio) > 1  # more than twice as much, or nothing before


def close_last_month(page: Any, month: str) -> None:
    open_from_menu(page, "Statements")
    page.click("#open-month a:has-text('Close ')")
    if page.locator("#grace").count():  # on the first days of a month late records are waited for
        page.fill("#grace", "0")
        page.click("text=Look again")
    assert re.search(r"\d+ requests have no price", page.inner_text("main"))
    page.fill("#confirm", month)
    page.click("button:has-text('Close ')")
    page.wait_for_selector("h3:has-text('is closed')", timeout=CLOSING_MS)
    page.wait_for_selector("h3:focus", timeout=TIMEOUT_MS)
    page.click("text=Its statements")


def credit_a_line(page: Any) -> float:
    """Write the credit note that takes one line off; return its amount, without tax."""
    page.click(".page-header a:has-text('Credit note')")
    number = page.inner_text("form[data-confirm-name] b.mono")
    lines = page.locator("tr:has(input[name=line])")
    chosen = lines.filter(has_text=MODEL).filter(has_text="Output tokens")
    for line in lines.all():
        line.locator("input[name=line]").uncheck()
    chosen.locator("input[name=line]").check()
    taken = amount(chosen.locator("td[data-label=left]").inner_text())
    page.fill("#reason", "the first day was a test")
    page.fill("#confirm", number)
    page.click("button:has-text('Issue the credit note')")
    page.wait_for_selector("h1:focus:has-text('CN-')")
    assert "is issued: it takes" in page.inner_text(f"#{page.get_attribute('h1', 'aria-describedby')}")
    return taken


def test_finance_closes_a_month_and_corrects_it(desk: Any, installation: Installation) -> None:
    page, month = desk, f"{add_months(timezone.now().date().replace(day=1), -1):%Y-%m}"
    find_what_grew(page)
    close_last_month(page, month)

    page.click(f"tr:has-text('{TENANT}') .row-link")
    number, due = page.inner_text("h1").split()[0], page.inner_text(".figure")
    text = "\n".join(one.extract_text() for one in PdfReader(io.BytesIO(download(page, "PDF"))).pages)
    for expected in (number, due, "Example Bicycles", "Output tokens", f"{MODEL}@simulated", f"{month}-01"):
        assert expected in text
    taken = 1.19 * credit_a_line(page)
    assert f"Taken off {number}".lower() in page.inner_text("main").lower()
    assert amount(page.inner_text(".figure")) == pytest.approx(taken, abs=0.01)
    page.click(f"a:has-text('{number}')")
    # What is more than was due goes back to the prepaid credit.
    assert amount(page.inner_text(".figure")) == pytest.approx(max(0.0, amount(due) - taken), abs=0.011)

    # What had no price gets one now: its month is closed, so it is on the next statement.
    open_from_menu(page, "Prices")
    page.goto(f"{installation.url}/prices/unpriced")
    page.fill("#id_reason", "the price list came late")
    page.click("button:has-text('Price the requests')")
    page.wait_for_selector("text=requests priced")
    page.wait_for_selector("h1:focus:has-text('Requests without a price')")
    open_from_menu(page, "Statements")
    page.click("text=Draft a statement")
    page.select_option("#id_tenant", label=TENANT)
    page.click("button:has-text('Draft it')")
    page.wait_for_selector(f"h1:has-text('{TENANT}')")
    shown = page.inner_text("main")
    assert f"Corrections of {month}" in shown
    assert "after that month was closed" in shown
    assert amount(page.inner_text(".figure")) > 0
    # What was taken out of the open month's count of unpriced requests is said, not shown as a count below zero.
    page.goto(f"{installation.url}/spend?period=this-month")
    assert re.search(r"\d+ of closed months priced", page.inner_text("main"))
    assert not re.search(r"[-−]\d+ unpriced", page.inner_text("main"))
    listed = page.goto(f"{installation.url}/statements?month={month}").text()
    assert "CN-000001" in listed
    assert installation.up.manage("verify_usage").returncode == 0
