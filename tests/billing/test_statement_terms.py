"""Does every line of a statement name the price or sale term by which it was charged, and no old one change?"""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse

from billing import pricing
from billing.credit_notes import write_credit_note
from billing.models import InvoiceLine, MeterByDay, SaleTerm
from billing.sale_terms import add_term
from billing.statement_document import from_json, to_json
from billing.statement_files import write_csv
from billing.statement_pdf import write_pdf
from billing.verifying import verify
from tests import make
from tests.billing.test_invoicing import NOON, NOW, add_requests, close, drafted, issued, spend
from tests.billing.test_statement_files import read_pages
from tests.console_people import viewer
from tests.make_statement import statement

pytestmark = pytest.mark.django_db


def term(world: make.World, factor: str, day: int, **scope: Any) -> SaleTerm:
    begins = dt.datetime(2025, 10, day, tzinfo=dt.UTC)
    return add_term(
        tenant=world.tenant, factor=Decimal(factor), effective_from=begins, at=begins, actor="fiona", **scope
    )


def sold(tmp_path: Path) -> tuple[make.World, dict[str, int]]:
    """A request at cost, one at a markup with another one for answers, one after the markup changed."""
    world = make.world()
    ids = {
        "first": term(world, "1.2", 5).pk,
        "output": term(world, "2", 5, meter="output").pk,
        "second": term(world, "1.3", 9).pk,
    }
    spend(tmp_path, world=world, at=NOON - dt.timedelta(days=5))
    for days in (0, 5):
        add_requests(tmp_path, world, at=NOON + dt.timedelta(days=days))
    return world, ids | {"price": world.price.pk}


def test_lines_name_the_term_of_their_meter_and_what_was_charged_at_cost_names_the_price(
    tmp_path: Path,
) -> None:
    world, ids = sold(tmp_path)
    price = f"price {ids['price']}"
    first = f"{price}, sale term {ids['first']} from 2025-10-05"
    output = f"{price}, sale term {ids['output']} from 2025-10-05"
    second = f"{price}, sale term {ids['second']} from 2025-10-09"
    close()
    invoice = issued(world)
    lines = from_json(invoice.document).lines
    assert [(line.meter, line.unit_usd, line.priced_by) for line in lines] == [
        ("input", 50_000, price), ("input", 60_000, first), ("input", 65_000, second),
        ("cache_read", 5_000, price), ("cache_read", 6_000, first), ("cache_read", 6_500, second),
        ("output", 200_000, price), ("output", 400_000, output),
    ]  # fmt: skip
    stored = InvoiceLine.objects.filter(invoice=invoice).order_by("position")
    assert list(stored.values_list("sale_term_id", flat=True)) == [line.sale_term_id for line in lines]
    assert verify(now=NOW).differences == ()
    note = write_credit_note(invoice=invoice, actor="fiona", now=NOW, reason="wrong", positions=[2])
    assert [line.priced_by for line in from_json(note.document).lines] == [first]


def test_page_and_files_say_it_and_nobody_is_told_the_factor(tmp_path: Path) -> None:
    world, ids = sold(tmp_path)
    invoice = drafted(world)
    said = f"price {ids['price']}, sale term {ids['first']} from 2025-10-05"
    page = viewer().get(reverse("statement", args=[invoice.pk])).content.decode()
    assert said in page
    document = from_json(invoice.document)
    assert said in " ".join(" ".join(read_pages(write_pdf(document))).split())
    rows = list(csv.DictReader(io.StringIO(write_csv(document).decode())))
    assert {row["priced_by"] for row in rows if row["sale_term_id"] == str(ids["first"])} == {said}
    assert "1.2" not in json.dumps([line["priced_by"] for line in invoice.document["lines"]])


def test_an_own_price_is_named_in_place_of_the_price_that_providers_charge(tmp_path: Path) -> None:
    world = make.world()
    own = pricing.add_price(
        deployment=world.deployment, tenant=world.tenant, book="sale", actor="fiona",
        rates={"input_usd_per_mtok": "7", "output_usd_per_mtok": "9"},
    )  # fmt: skip
    now = dt.datetime.now(dt.UTC)
    spend(tmp_path, world=world, at=now + dt.timedelta(seconds=1))
    invoice = drafted(world, now.date().replace(day=1))
    assert {(line["priced_by"], line["sale_price_id"]) for line in invoice.document["lines"]} == {
        (f"sale price {own.pk} from {now:%Y-%m-%d}", own.pk)
    }
    assert not MeterByDay.objects.filter(sale_rate="", sale_price__isnull=False).exists()


def test_what_rounds_to_nothing_says_that_nothing_is_to_be_paid(tmp_path: Path) -> None:
    world = make.world()
    make.ingest(tmp_path, make.request_lines(world, make.request_id_at(NOON)))
    invoice = drafted(world)
    (note,) = invoice.document["notes"]
    assert (invoice.total_minor, invoice.amount_nanousd) == (0, make.COST_NANOUSD)
    assert note["text"].startswith("All lines are 0.000141 USD before rounding")
    page = viewer().get(reverse("statement", args=[invoice.pk])).content.decode()
    assert "nothing is to be paid" in " ".join(page.split())


def test_a_statement_of_before_stays_as_it_was_written() -> None:
    document = statement()
    written = to_json(document)
    assert "priced_by" not in written["lines"][0]
    assert to_json(from_json(written)) == written
    assert write_pdf(from_json(written)) == write_pdf(document)
