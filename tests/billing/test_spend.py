"""Is every total of spend the same number: on the page, in the CSV, in the XLSX, in the query layer, in the records?"""

from __future__ import annotations

import csv
import datetime as dt
import io
import zipfile
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl
from xml.etree import ElementTree

import pytest
from django.db.models import Sum
from django.test import Client
from django.utils import timezone

from billing import reports
from billing.request_listing import filter_requests
from billing.spend import read_spend
from billing.spend_questions import GROUPINGS, Question, read_period, read_question
from billing.spreadsheets import Column, Sheet, as_csv, as_xlsx
from billing.views.requests import read_filters
from policies.models import ApiKey, Tenant
from policies.permissions import Role
from tests import make
from tests.console_people import client_of, operator

pytestmark = pytest.mark.django_db

TODAY = dt.date(2026, 5, 10)
DAY = dt.timedelta(days=1)
NANO = Decimal(10**9)


def at(day: dt.date, hour: int = 12) -> dt.datetime:
    return dt.datetime(day.year, day.month, day.day, hour, tzinfo=dt.UTC)


def lines_on(world: make.World, day: dt.date, **outcome: Any) -> list[dict[str, Any]]:
    return make.request_lines(world, make.request_id_at(at(day)), **outcome)


def fill(data_dir: Path, today: dt.date) -> tuple[make.World, make.World]:
    """Two tenants over two periods of a week: all that makes sums go wrong, on both ends of each."""
    one, other = make.world("one"), make.world("=other")
    unknown = make.usage_line(kind="unknown", input=None, output=None)
    big = make.usage_line(input=10**9, cache_read=0, output=1)
    refused = make.request_id_at(at(today))
    lines = [
        *lines_on(one, today),
        *lines_on(one, today - 6 * DAY, usage=make.usage_line(kind="estimated", reasoning=40)),
        *lines_on(one, today - 7 * DAY),  # the period before
        *lines_on(one, today - 13 * DAY, cost=None, price=None, unpriced=True),
        *lines_on(one, today - 14 * DAY),  # before both
        *lines_on(
            other, today - DAY, usage=big, cost=50_000_000_200, status="error", error="upstream_timeout"
        ),
        *lines_on(other, today - DAY, cost=None, price=None, unpriced=True),
        *lines_on(other, today - 2 * DAY, usage=unknown, cost=None, price=None),
        make.intent_line(other, refused, policy=None, version=None),
        make.outcome_line(
            other,
            refused,
            status="refused",
            http=503,
            deployment=None,
            usage=None,
            price=None,
            cost=None,
            attempts=[],
        ),
    ]
    make.ingest(data_dir, lines)
    return one, other


@pytest.fixture
def worlds(tmp_path: Path) -> tuple[make.World, make.World]:
    return fill(tmp_path, TODAY)


def ask(address: str = "period=7d", today: dt.date = TODAY) -> Question:
    return read_question(dict(parse_qsl(address)), today=today)


def records_of(link: str) -> tuple[int, int]:
    """Count and cost of the requests that the request list shows at this address."""
    found = filter_requests(read_filters(dict(parse_qsl(link))))
    return found.count(), int(found.aggregate(cost=Sum("cost_nanousd"))["cost"] or 0)


@pytest.mark.parametrize("by", GROUPINGS)
def test_however_it_is_cut_the_total_is_that_of_rows_days_query_layer_and_records(
    worlds: tuple[make.World, make.World], by: str
) -> None:
    spend = read_spend(ask(f"period=7d&by={by}"))
    expected = reports.totals(first_day=TODAY - 6 * DAY, last_day=TODAY)
    before = reports.totals(first_day=TODAY - 13 * DAY, last_day=TODAY - 7 * DAY)
    assert spend.total.totals == expected
    assert expected.cost_nanousd == 2 * make.COST_NANOUSD + 50_000_000_200
    assert (spend.total.before.cost_nanousd, spend.total.before.unpriced_count) == (make.COST_NANOUSD, 1)
    assert spend.total.before.request_count == before.request_count == 2
    assert (
        sum(spend.day_totals_nanousd)
        == sum(one.total_nanousd for one in spend.series)
        == expected.cost_nanousd
    )
    assert records_of(spend.question.requests_link()) == (expected.request_count, expected.cost_nanousd)
    for row in spend.rows:
        assert row.totals.request_count or row.before.request_count or row.day
        link = spend.question.requests_link(day=row.day, row_id=row.id if row.day is None else "all")
        assert records_of(link) == (row.totals.request_count, row.totals.cost_nanousd), row.name


@pytest.mark.parametrize("by", ["tenant", "project", "key", "model", "provider", "deployment", "policy"])
def test_a_row_opens_into_exactly_its_own_and_at_last_into_its_requests(
    worlds: tuple[make.World, make.World], by: str
) -> None:
    spend = read_spend(ask(f"period=7d&by={by}"))
    assert len(spend.rows) >= 2
    for row in spend.rows:
        question, steps = ask(spend.question.link_into(row.id)), 0
        while True:
            inner = read_spend(question)
            assert inner.total.totals == row.totals
            if question.by == "day":
                break
            steps += 1
            (only,) = [one for one in inner.rows if one.totals.cost_nanousd == row.totals.cost_nanousd][:1]
            if only.totals != row.totals:
                break
            question = ask(question.link_into(only.id))
        assert steps <= 3
        assert records_of(question.requests_link()) == (
            inner.total.totals.request_count,
            row.totals.cost_nanousd,
        )


def xlsx_rows(content: bytes, sheet: int = 1) -> list[list[Any]]:
    """Rows of a workbook as a spreadsheet reads them: numbers as doubles, texts as texts; formulas fail."""
    space = {"m": "http://schemas.openxmlformats.org/spreadsheetml/2006/main"}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        shared = ElementTree.fromstring(archive.read("xl/sharedStrings.xml"))
        texts = [
            "".join(part.text or "" for part in one.iter() if part.text)
            for one in shared.findall("m:si", space)
        ]
        page = ElementTree.fromstring(archive.read(f"xl/worksheets/sheet{sheet}.xml"))
    assert page.find(".//m:f", space) is None, "a formula"
    rows = []
    for row in page.iterfind(".//m:row", space):
        cells: list[Any] = []
        for cell in row.findall("m:c", space):
            value = cell.find("m:v", space)
            if value is None or value.text is None:
                cells.append(None)
            else:
                cells.append(texts[int(value.text)] if cell.get("t") == "s" else float(value.text))
        rows.append(cells)
    return rows


@pytest.mark.parametrize("by", GROUPINGS)
def test_page_csv_xlsx_and_query_layer_show_the_same_numbers(tmp_path: Path, by: str) -> None:
    today = timezone.now().date()
    fill(tmp_path, today)
    expected = reports.totals(first_day=today - 6 * DAY, last_day=today)
    client, address = operator(), f"?period=7d&by={by}"
    page = client.get(f"/spend{address}").content.decode()
    rows = list(csv.DictReader(io.StringIO(client.get(f"/spend/export.csv{address}").content.decode())))
    sheet = xlsx_rows(client.get(f"/spend/export.xlsx{address}").content)
    *parts, total = rows
    assert total[by] == "Total"
    for name in ("request_count", "unpriced_count", "estimated_count", "unknown_count", "input_tokens",
                 "cache_read_tokens", "output_tokens", "reasoning_tokens", "error_count", "cost_nanousd"):  # fmt: skip
        assert int(total[name]) == getattr(expected, name) == sum(int(row[name]) for row in parts), name
        place = sheet[0].index(name)
        assert sheet[-1][place] == getattr(expected, name) == sum(row[place] for row in sheet[1:-1]), name
    assert Decimal(total["cost_usd"]) * NANO == expected.cost_nanousd
    assert round(Decimal(str(sheet[-1][sheet[0].index("cost_usd")])) * NANO) == expected.cost_nanousd
    assert [row[0] for row in sheet[1:-1]] == [row[by].removeprefix("'") for row in parts]
    assert "$50.00" in page
    footer = page[page.rindex("<tfoot>") :]
    assert f">{expected.request_count:,}<" in footer
    assert f"{expected.unpriced_count} unpriced" in footer
    assert f"{expected.input_tokens:,}" in footer


def test_files_neutralise_formulas_and_keep_amounts_exact_that_doubles_cannot() -> None:
    columns = (Column("name", "text"), Column("cost_usd", "usd"), Column("cost_nanousd", "count"))
    huge = 2**53 + 1
    rows = [["=1+1", -5, -5], ["@x", huge, huge], ["-tab\t", 0, 0], ["plain", None, None]]
    sheet = Sheet("Spend", columns, rows, ["Total", huge - 5, huge - 5], [("Report", "=evil()")])
    lines = as_csv(sheet).splitlines()
    assert lines[1:5] == ["'=1+1,-0.000000005,-5", f"'@x,9007199.254740993,{huge}", "'-tab\t,0,0", "plain,,"]
    found = xlsx_rows(as_xlsx(sheet))
    assert found[1] == ["=1+1", -5e-9, -5.0]
    assert found[2][2] == str(huge)
    assert found[4] == ["plain", None, None]
    assert xlsx_rows(as_xlsx(sheet), sheet=2) == [["Report", "=evil()"]]


def test_a_tenant_named_like_a_formula_does_not_run_in_a_spreadsheet(tmp_path: Path) -> None:
    world = make.world()
    Tenant.objects.filter(pk=world.tenant.pk).update(name="=cmd|'/c calc'!A0")
    make.ingest(tmp_path, make.request_lines(world))
    assert "\r\n'=cmd|" in operator().get("/spend/export.csv?by=tenant").content.decode()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ({"period": "today"}, ("2026-03-31", "2026-03-31", "2026-03-30", "2026-03-30")),
        ({"period": "7d"}, ("2026-03-25", "2026-03-31", "2026-03-18", "2026-03-24")),
        ({}, ("2026-03-02", "2026-03-31", "2026-01-31", "2026-03-01")),
        # February has no 31st: all of it.
        ({"period": "this-month"}, ("2026-03-01", "2026-03-31", "2026-02-01", "2026-02-28")),
        ({"period": "last-month"}, ("2026-02-01", "2026-02-28", "2026-01-01", "2026-01-31")),
        (
            {"from": "2026-03-01", "to": "2026-03-03"},
            ("2026-03-01", "2026-03-03", "2026-02-26", "2026-02-28"),
        ),
        ({"period": "custom", "from": "2026-03-03", "to": "2026-03-01"}, None),
        ({"period": "custom", "from": "2024-01-01", "to": "2026-03-01"}, None),
        ({"period": "custom", "from": "=1", "to": ""}, None),
        ({"period": "forever"}, None),
    ],
)
def test_periods_and_what_they_are_compared_with(
    address: dict[str, str], expected: tuple[str, ...] | None
) -> None:
    period = read_period(address, today=dt.date(2026, 3, 31))
    assert (period and tuple(day.isoformat() for day in period[1:])) == expected


def test_an_address_survives_the_way_through_links_and_nonsense_is_not_asked(
    worlds: tuple[make.World, make.World],
) -> None:
    question = ask("from=2026-05-01&to=2026-05-10&by=model&tenant=7&policy=0&key=x&project=%C2%B2")
    assert question.filters == {"tenant": 7, "policy": 0}
    assert ask(question.link()) == question
    assert ask(question.link(tenant=None)).filters == {"policy": 0}
    assert ask(question.period_link("today")).period.day_count == 1
    page = operator().get("/spend?period=nonsense&by=nonsense&page=99999999999").content.decode()
    assert "make no sense" in page


def test_many_keys_take_pages_and_a_fixed_number_of_queries_and_the_total_is_of_all(
    tmp_path: Path, django_assert_max_num_queries: Any
) -> None:
    world = make.world()
    lines = []
    for number in range(103):
        key = ApiKey.objects.create(
            project=world.project,
            name=f"k{number:03}",
            secret_hash=bytes([1, number]) * 16,
            secret_hint="pm-…",
        )
        own = replace(world, key=key)
        lines += make.request_lines(own)
    make.ingest(tmp_path, lines)
    client = operator()
    with django_assert_max_num_queries(15):
        first = client.get("/spend?by=key").content.decode()
    second = client.get("/spend?by=key&page=2").content.decode()
    assert (first.count("row-link"), second.count("row-link")) == (100, 3)
    assert "96 others" in first
    for page in (first, second):
        assert "of 103" in page
        assert ">103<" in page[page.rindex("<tfoot>") :]
    assert len(client.get("/spend/export.csv?by=key").content.decode().splitlines()) == 105


def test_finance_and_viewers_may_read_spend_and_its_files_and_strangers_nothing(tmp_path: Path) -> None:
    make.ingest(tmp_path, make.request_lines(make.world()))
    for path in ("/spend", "/spend/export.csv", "/spend/export.xlsx"):
        for role in Role:
            assert client_of(role).get(path).status_code == 200
        assert client_of(None).get(path).status_code == 403
        assert Client().get(path).status_code == 302
        assert client_of(Role.FINANCE).post(path).status_code == 405
    assert operator().get("/spend/export.pdf").status_code == 404
