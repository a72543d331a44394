"""Can a month be closed, and a statement issued, paid, made void and credited, on the pages alone?"""

from __future__ import annotations

import datetime as dt
import hashlib
import html
import re
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from billing import closing, invoicing
from billing.closing import close_period
from billing.models import Invoice, InvoiceState, PeriodClosing
from billing.partitions import add_months
from billing.periods import find_closed_until
from billing.statement_listing import list_months
from billing.statement_view import spend_query
from billing.views import closing as closing_page
from tests import make
from tests.billing.test_invoicing import COST, add_requests, drafted, spend
from tests.console_people import finance, viewer

pytestmark = pytest.mark.django_db
# The month before the last one: whatever day it is, it is over and was waited for.
MONTH = add_months(timezone.now().date().replace(day=1), -2)
AT = dt.datetime(MONTH.year, MONTH.month, 7, 12, tzinfo=dt.UTC)
MONTH_TEXT = f"{MONTH:%Y-%m}"


def issued(tmp_path: Path, *, count: int = 2) -> Invoice:
    world = spend(tmp_path, count=count, at=AT)
    close_period(month=MONTH, actor="fiona", now=timezone.now())
    return Invoice.objects.get(tenant=world.tenant)


def text_of(response: Any) -> str:
    return html.unescape(re.sub(r"<[^>]+>", " ", response.content.decode()))


def open_month(client: Client) -> str:
    """The card of the list about the month that is open; the page loads it afterwards."""
    page = client.get(reverse("statements")).content.decode()
    (address,) = re.findall(r'id="open-month" hx-get="([^"]+)"', page)
    assert "<h1" in client.get(address).content.decode()
    return client.get(address, headers={"HX-Request": "true"}).content.decode()


def post(client: Client, step: str, invoice: Invoice, **data: Any) -> str:
    response = client.post(reverse(f"statement-{step}", args=[invoice.pk]), data, follow=True)
    return text_of(response)


def test_the_list_says_which_month_is_open_and_what_closing_it_would_bill(tmp_path: Path) -> None:
    spend(tmp_path, at=AT)
    card = open_month(finance())
    assert f"{MONTH:%B %Y}" in card
    assert "can be closed" in card
    assert "$141.00 charged to 1 tenant." in card
    assert [one.state for one in list_months(today=timezone.now().date())] == ["running", "open", "open"]
    assert f'href="{reverse("statement-close", args=[MONTH_TEXT])}"' in card


def test_when_all_that_is_over_is_closed_the_list_shows_the_open_month(tmp_path: Path) -> None:
    world = spend(tmp_path, at=AT)
    for month in (MONTH, add_months(MONTH, 1)):
        close_period(month=month, actor="fiona", now=timezone.now(), grace_days=0)
    add_requests(tmp_path, world, at=timezone.now())
    card = open_month(finance())
    assert "$141.00 charged to 1 tenant so far" in card
    assert "Every month before it is closed" in card


def test_a_month_is_closed_from_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = spend(tmp_path, at=AT)
    asked: list[int] = []
    monkeypatch.setattr(closing_page, "ask_a_worker", asked.append)
    client, here = finance(), reverse("statement-close", args=[MONTH_TEXT])
    assert "Nothing keeps it from being closed" in text_of(client.get(here))
    client.post(here, {"confirm_name": "2001-01"})
    assert not PeriodClosing.objects.exists()
    assert "Waits for a worker" in text_of(client.post(here, {"confirm_name": MONTH_TEXT}, follow=True))
    assert client.get(here).content.decode().count("hx-trigger") == 1
    closing.run_closing(asked[0], now=timezone.now())
    fragment = client.get(here, headers={"HX-Request": "true"}).content.decode()
    assert "is closed" in fragment
    assert "<html" not in fragment
    assert "hx-trigger" not in fragment  # it stops asking
    assert "1 invoice issued" in fragment
    assert find_closed_until() == add_months(MONTH, 1)
    assert f"Close {add_months(MONTH, 1):%B %Y}" in open_month(client)
    assert "INV-000001" in text_of(client.get(reverse("statements") + f"?tenant={world.tenant.pk}"))


def test_what_keeps_a_month_open_links_to_where_it_is_mended(tmp_path: Path) -> None:
    world = spend(tmp_path, at=AT)
    add_requests(tmp_path, world, at=AT, price=None, cost=None, unpriced=True)
    add_requests(tmp_path, world, at=timezone.now() - dt.timedelta(seconds=1))
    drafted(world, MONTH)
    client = finance()
    page = client.get(reverse("statement-close", args=[MONTH_TEXT])).content.decode()
    assert f'href="{reverse("unpriced")}"' in page
    assert f"month={MONTH_TEXT}&amp;state=draft" in page
    running = reverse("statement-close", args=[f"{timezone.now():%Y-%m}"])
    page = client.get(running).content.decode()
    assert "It ends on" in page
    assert 'name="confirm_name"' not in page
    client.post(running, {"confirm_name": f"{timezone.now():%Y-%m}"})
    assert not PeriodClosing.objects.exists()


def test_days_to_wait_can_be_chosen(tmp_path: Path) -> None:
    spend(tmp_path, at=AT)
    page = finance().get(reverse("statement-close", args=[f"{add_months(MONTH, 1):%Y-%m}"]) + "?grace=60")
    assert "Late records are waited for until" in text_of(page)
    assert 'name="confirm_name"' not in page.content.decode()


def test_from_a_draft_to_paid(tmp_path: Path) -> None:
    world = spend(tmp_path, at=AT)
    client = finance()
    sent = {"tenant": world.tenant.pk, "month": MONTH_TEXT}
    said = text_of(client.post(reverse("statement-new"), sent, follow=True))
    invoice = Invoice.objects.get()
    assert "Would be due" in said
    assert "141.00 USD" in said
    post(client, "review", invoice)
    assert "Issue…" not in text_of(client.get(reverse("statement", args=[invoice.pk])))  # its month is open
    add_requests(tmp_path, world, at=AT)
    assert "It is up to date again" in post(client, "draft", invoice)
    assert "282.00 USD" in post(client, "review", invoice)
    assert "was reviewed" not in close_period(month=MONTH, actor="f", now=timezone.now()).error
    invoice.refresh_from_db()
    assert invoice.state == InvoiceState.ISSUED
    assert "Nothing changed" in post(client, "pay", invoice, confirm_name="INV-1")
    said = post(client, "pay", invoice, confirm_name="INV-000001", reference="bank 7")
    assert "Paid, nothing is due" in said
    assert "bank 7" in said
    invoice.refresh_from_db()
    assert (invoice.state, invoice.payment_reference) == (InvoiceState.PAID, "bank 7")


def test_a_statement_that_was_left_is_issued_by_hand(tmp_path: Path) -> None:
    invoice = issued(tmp_path)
    client = finance()
    assert "why" in post(client, "void", invoice, confirm_name="INV-000001")  # without a reason
    said = post(client, "void", invoice, confirm_name="INV-000001", reason="wrong address")
    assert "Void, nothing is due" in said
    again = invoicing.draft(tenant=invoice.tenant, month=MONTH, actor="fiona", now=timezone.now())
    assert again is not None
    post(client, "review", again)
    post(client, "issue", again, confirm_name="INV-000002")  # not known yet
    again.refresh_from_db()
    assert again.number is None
    name = f"{again.tenant.name} {MONTH_TEXT}"
    assert "It is issued" in post(client, "issue", again, confirm_name=name)
    again.refresh_from_db()
    assert again.number_text == "INV-000002"


def test_a_credit_note_over_one_line(tmp_path: Path) -> None:
    invoice = issued(tmp_path)
    client = finance()
    here = reverse("statement-credit", args=[invoice.pk])
    assert client.get(here).content.decode().count('name="line"') == invoice.lines.count() == 3
    sent: dict[str, Any] = {"line": ["2"], "reason": "cache was free", "confirm_name": "INV-000001"}
    assert client.post(here, {**sent, "confirm_name": "INV"}).status_code == 422
    assert client.post(here, {**sent, "reason": " "}).status_code == 422
    assert "choose at least one line" in text_of(client.post(here, {**sent, "line": []}))
    assert not invoice.credit_notes.exists()
    said = text_of(client.post(here, sent, follow=True))
    line = invoice.lines.get(position=2)
    assert "CN-000001" in said
    assert "cache was free" in said
    assert invoice.credit_notes.get().total_minor == -line.amount_minor
    rest = f"{(invoice.due_minor - line.amount_minor) / 100:,.2f} USD"
    assert rest in text_of(client.get(reverse("statement", args=[invoice.pk])))
    assert rest in text_of(client.get(reverse("statements")))
    assert client.get(here).content.decode().count('name="line"') == 2
    assert "Void…" not in text_of(client.get(reverse("statement", args=[invoice.pk])))


def test_a_credit_note_over_a_part_of_a_line(tmp_path: Path) -> None:
    invoice = issued(tmp_path)
    client = finance()
    here = reverse("statement-credit", args=[invoice.pk])
    sent: dict[str, Any] = {"line": ["2"], "reason": "agreed", "confirm_name": "INV-000001"}
    for wrong in ("x", "0.001", "1e999999999", "NaN", "-1", "0", "2.01"):
        answer = client.post(here, {**sent, "amount-2": wrong})
        assert (answer.status_code, "line 2" in text_of(answer).lower()) == (422, True), wrong
        assert f'value="{wrong}"' in answer.content.decode()
    assert not invoice.credit_notes.exists()
    said = text_of(client.post(here, {**sent, "amount-1": "9", "amount-2": "0.75"}, follow=True))
    assert "a part" in said
    assert invoice.credit_notes.get().total_minor == -75
    page = client.get(here).content.decode()
    assert ('value="1.25"' in page, "a part is credited already" in page) == (True, True)


def test_a_credit_note_over_units_is_worked_out_before_it_is_issued(tmp_path: Path) -> None:
    invoice = issued(tmp_path)
    client = finance()
    here = reverse("statement-credit", args=[invoice.pk])
    line = invoice.lines.get(position=2)
    sent: dict[str, Any] = {
        "line": ["2"],
        "reason": "agreed",
        "confirm_name": "INV-000001",
        "amount-2": "2.00",
    }
    for wrong in ("x", "1.5", "-1", "0", str(line.quantity + 1)):
        answer = client.post(here, {**sent, "units-2": wrong})
        assert (answer.status_code, "line 2" in text_of(answer).lower()) == (422, True), wrong
    assert "not both" in text_of(client.post(here, {**sent, "units-2": "100", "amount-2": "1"}))
    shown = client.post(here, {**sent, "units-2": "100", "preview": "1", "confirm_name": ""})
    assert shown.status_code == 200
    assert "0.50 USD" in text_of(shown) and "Nothing is issued yet" in text_of(shown)
    assert 'name="units-2" value="100"' in shown.content.decode()
    assert not invoice.credit_notes.exists()
    assert client.post(here, {**sent, "units-2": "100"}, follow=True).status_code == 200
    note = invoice.credit_notes.get()
    assert (note.total_minor, note.lines.get().quantity) == (-50, -100)
    shown = text_of(client.get(reverse("statement", args=[note.pk])))
    assert "−100" in shown and "−0.50" in shown and "-100" not in shown
    assert "-100," in b"".join(client.get(reverse("statement-file", args=[note.pk, "csv"]))).decode()
    page = text_of(client.get(here))
    assert f"{line.quantity - 100:,}" in page


def test_every_amount_links_to_spend_that_says_the_same(tmp_path: Path) -> None:
    invoice = issued(tmp_path, count=3)
    page = finance().get(reverse("statement", args=[invoice.pk]))
    (group,) = page.context["groups"]
    assert sum(shown.line.amount_nanousd for shown in group.lines) == 3 * COST
    queries = {group.spend_query, spend_query(page.context["document"], by="model")}
    queries |= {shown.spend_query for shown in group.lines}
    assert len(queries) == 3
    for query in queries:
        assert f"?{html.escape(query)}" in page.content.decode()
        spent = finance().get(f"{reverse('spend')}?{query}").context["spend"].total.totals
        assert (spent.charge_nanousd, spent.request_count) == (3 * COST, 3)
    listed = text_of(finance().get(f"{reverse('requests')}?{group.requests_query}"))
    assert listed.count("$141.00") == 3


def test_files_are_those_of_the_issued_document(tmp_path: Path) -> None:
    invoice = issued(tmp_path)
    client = viewer()
    files = {
        kind: client.get(reverse("statement-file", args=[invoice.pk, kind]))
        for kind in ("pdf", "csv", "json")
    }
    assert hashlib.sha256(files["pdf"].content).hexdigest() == invoice.pdf_sha256
    assert files["pdf"]["Content-Disposition"] == 'attachment; filename="invoice-INV-000001.pdf"'
    assert b"total,,,,,,,,,,,,,,282.00,USD" in files["csv"].content
    assert files["json"].json() == invoice.document
    assert client.get(reverse("statement-file", args=[invoice.pk, "exe"])).status_code == 404


def test_a_pdf_that_another_version_wrote_is_given_with_a_warning(tmp_path: Path) -> None:
    invoice = issued(tmp_path)
    client, name = viewer(), "billing.views.statements.find_statement"
    with pytest.MonkeyPatch.context() as patched:
        invoice.pdf_sha256 = "0" * 64
        patched.setattr(name, lambda pk: invoice)
        assert client.get(reverse("statement-file", args=[invoice.pk, "pdf"])).status_code == 200
        assert "is not the one that was issued" in text_of(client.get(reverse("statements")))
        patched.setattr("billing.views.statements.find_pdf", lambda row: None)  # issued before PDFs were kept
        assert client.get(reverse("statement-file", args=[invoice.pk, "pdf"])).status_code == 200
    assert "another version wrote it" in text_of(client.get(reverse("statements")))


def test_a_viewer_looks_and_changes_nothing(tmp_path: Path) -> None:
    invoice = issued(tmp_path)
    client = viewer()
    page = client.get(reverse("statement", args=[invoice.pk])).content.decode()
    assert "data-open-dialog" not in page
    assert "Credit note" not in page
    assert (
        'name="confirm_name"'
        not in client.get(reverse("statement-close", args=[MONTH_TEXT])).content.decode()
    )
    for step in ("draft", "review", "issue", "pay", "void", "credit"):
        assert client.post(reverse(f"statement-{step}", args=[invoice.pk])).status_code == 403
    assert client.post(reverse("statement-close", args=[MONTH_TEXT])).status_code == 403


def test_names_are_text_on_the_pages(tmp_path: Path) -> None:
    world = make.world("<img src=x>")
    spend(tmp_path, at=AT, world=world)
    invoice = drafted(world, MONTH)
    for address in (reverse("statements"), reverse("statement", args=[invoice.pk])):
        page = finance().get(address).content.decode()
        assert "<img" not in page
        assert "&lt;img src=x&gt;" in page


@pytest.mark.parametrize(
    "query", ["month=2025-13&tenant=x&state=nonsense", "page=9999999", "month=&tenant=", "page=x"]
)
def test_an_address_that_makes_no_sense_shows_all(tmp_path: Path, query: str) -> None:
    issued(tmp_path)
    assert "INV-000001" in text_of(finance().get(f"{reverse('statements')}?{query}"))


def test_a_page_of_no_month_is_not_there() -> None:
    for text in ("2026-13", "x", "0001-01", "20261"):
        assert finance().get(reverse("statement-close", args=[text])).status_code == 404
