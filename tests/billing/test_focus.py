"""Is what tools for FOCUS read valid, complete, and to the cent what was invoiced?"""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db.models import Sum
from focus_data_toolkit import detect_focus_schema, lint_focus_1_4_structure
from focus_data_toolkit.model.validator import COND_MULTIPLE_PRICING_CATEGORIES, COND_UNIT_PRICING

from billing import invoicing, summing_meters
from billing.billing_profiles import change_profile
from billing.credit_notes import write_credit_note
from billing.exchange_rates import add_rate
from billing.export_files import open_row_file
from billing.export_tables import open_table
from billing.focus import VERSIONS, Account, Statement, Usage, closing_rows, usage_row
from billing.models import Invoice, PeriodLock, Price, UsageByDay
from billing.pricebook import PriceVersion, parse_rates
from billing.rating import total_nanousd
from billing.stored_usage import usage_from_json
from tests import make

MONTH = dt.date(2026, 5, 1)
NOW = dt.datetime(2026, 6, 3, tzinfo=dt.UTC)
COST_AND_USAGE = "Cost and Usage"
RATES = {
    **make.RATES,
    "reasoning_usd_per_mtok": "0.333333333",
    "usd_per_request": "0.0001",
    "input_usd_per_mtok>5000": "0.1",
    "input_usd_per_mtok@flex": "0.025",
}

# Of the requests of a day.
TAGS: dict[int, dict[str, str]] = {2: {"team": "=search", "env": "prod"}, 31: {"team": "mail"}}


def at(day: int) -> dt.datetime:
    return dt.datetime(2026, 5, day, 12, tzinfo=dt.UTC)


def fill(data_dir: Path) -> make.World:
    """A month of one tenant: cache, reasoning, a cliff, a service tier, an unpriced request."""
    world = make.world("=acme")
    world.price = Price.objects.create(
        deployment=world.deployment, rates=RATES, effective_from=dt.datetime(2026, 4, 1, tzinfo=dt.UTC)
    )
    version = PriceVersion(world.price.pk, world.deployment.pk, 0.0, parse_rates(RATES))
    lines: list[Any] = []
    for day, fields in (
        (1, {}),
        (1, {"cache_write": 100, "reasoning": 77}),
        (2, {"input": 123_457_891, "cache_read": 0}),
        (31, {"tier": "flex"}),
    ):
        usage = make.usage_line(**fields)
        stored = {
            "kind": "reported", "input_tokens": usage["input"], "output_tokens": usage["output"],
            "cache_read_tokens": usage["cache_read"], "cache_write_tokens": usage["cache_write"],
            "reasoning_tokens": usage["reasoning"], "service_tier": usage["tier"],
        }  # fmt: skip
        cost = total_nanousd(usage_from_json(stored), version)
        pair = make.request_lines(world, make.request_id_at(at(day)), usage=usage, cost=cost)
        pair[0]["tags"] = TAGS.get(day, {})
        lines += pair
    lines += make.request_lines(world, make.request_id_at(at(3)), cost=None, price=None, unpriced=True)
    make.ingest(data_dir, lines)
    return world


def rows_of(version: str = "1.4", tenant: int | str = "", tmp: Path | None = None) -> list[dict[str, str]]:
    """The file as a tool reads it."""
    table = open_table("focus", f"month=2026-05&version={version}&tenant={tenant}", "csv", now=NOW)
    table.count()
    assert tmp is not None
    file = open_row_file("csv", tmp / "focus.csv", table.columns, name="FOCUS")
    for row in table.rows:
        file.write(row)
    file.close()
    return list(csv.DictReader(io.StringIO((tmp / "focus.csv").read_text(), newline="")))


def issue(world: make.World, *, currency: str = "USD", rate: str = "", tax: str = "0") -> Invoice:
    """The month's invoice, as finance issues it once the month is closed."""
    change_profile(tenant=world.tenant, actor="fin", currency=currency, tax_ratio=Decimal(tax))
    if rate:
        add_rate(currency=currency, rate=rate, first_day=MONTH, source="a test", actor="fin")
    invoice = invoicing.draft(tenant=world.tenant, month=MONTH, actor="fin", now=NOW)
    assert invoice is not None
    PeriodLock.objects.update_or_create(id=1, defaults={"closed_until": dt.date(2026, 6, 1)})
    invoice = invoicing.review(invoice=invoice, actor="fin", now=NOW)
    return invoicing.issue(invoice=invoice, actor="fin", now=NOW)


@pytest.mark.django_db
@pytest.mark.parametrize("version", VERSIONS)
def test_the_toolkit_finds_nothing_wrong(tmp_path: Path, version: str) -> None:
    world = fill(tmp_path)
    issue(world, currency="EUR", rate="0.913700000001", tax="0.19")
    rows = rows_of(version, tmp=tmp_path)
    found = detect_focus_schema(rows[0].keys())
    assert (found.dataset, found.detected_version, found.exact_match) == (COST_AND_USAGE, version, True)
    # The toolkit has rules for 1.4 alone: 1.2 is held to them by what took the places of its two columns.
    old = {"ProviderName": "ServiceProviderName", "PublisherName": "HostProviderName"}
    renamed = [{old.get(name, name): value for name, value in row.items()} for row in rows]
    usage_only = [row for row in renamed if row["ChargeCategory"] == "Usage"]
    conditions = {COND_UNIT_PRICING, COND_MULTIPLE_PRICING_CATEGORIES}
    for some, supported in ((renamed, {COND_UNIT_PRICING}), (usage_only, conditions)):
        report = lint_focus_1_4_structure(COST_AND_USAGE, some, supported_conditions=supported)
        assert report.messages() == []
    assert {row["ChargeCategory"] for row in rows} == {"Usage", "Adjustment", "Tax"}


@pytest.mark.django_db
def test_requests_of_other_tags_are_in_rows_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, day = make.world(), at(9)
    teams = ["a", "a", "b", "c", ""]
    for number, team in enumerate(teams):
        pair = make.request_lines(world, make.request_id_at(day))
        pair[0]["tags"] = {"team": team, "trace": 7} if team else {}
        make.ingest(tmp_path, pair, worker=f"w{number}")
    monkeypatch.setattr(summing_meters, "MAX_TAG_SETS", 3)
    rows = [row for row in rows_of(tmp=tmp_path) if row["x_Meter"] == "output"]
    quantities = {row["Tags"]: int(Decimal(row["ConsumedQuantity"])) for row in rows}
    one = quantities['{"team":"b"}'] if '{"team":"b"}' in quantities else quantities['{"team":"c"}']
    # Three sets are held apart, whichever come first; what is beyond counts without tags, and nothing is lost.
    assert len(quantities) in (3, 4)
    assert sum(quantities.values()) == len(teams) * one
    assert {key for key in quantities if key} <= {'{"team":"a"}', '{"team":"b"}', '{"team":"c"}'}
    charged = sum(int(row["x_ChargeNanoUsd"]) for row in rows_of(tmp=tmp_path))
    assert charged == len(teams) * make.COST_NANOUSD


@pytest.mark.django_db
def test_tags_are_json_of_what_the_tenant_reports(tmp_path: Path) -> None:
    world = fill(tmp_path)
    issue(world)
    tags = {(row["ChargePeriodStart"][:10], row["Tags"]) for row in rows_of(tmp=tmp_path)}
    assert ("2026-05-02", '{"env":"prod","team":"=search"}') in tags
    assert ("2026-05-31", '{"team":"mail"}') in tags
    assert {text for day, text in tags if day == "2026-05-01"} == {""}


def test_the_toolkit_would_find_a_wrong_cost(tmp_path: Path) -> None:
    row = {key: str(value) for key, value in usage_row(_usage(), _ACCOUNT, None).items() if value is not None}
    row["ListCost"] = "1.1"
    report = lint_focus_1_4_structure(COST_AND_USAGE, [row])
    assert any(one.rule == "cost_not_unit_price_times_quantity" for one in report.violations)


@pytest.mark.django_db
@pytest.mark.parametrize(("currency", "rate"), [("USD", ""), ("EUR", "0.913700000001"), ("JPY", "155.55")])
def test_the_rows_of_an_invoice_sum_to_it_and_usage_to_spend(
    tmp_path: Path, currency: str, rate: str
) -> None:
    world, other = fill(tmp_path), make.world("other")
    make.ingest(tmp_path, make.request_lines(other, make.request_id_at(at(5))), worker="other")
    invoice = issue(world, currency=currency, rate=rate, tax="0.19")
    rows = rows_of(tmp=tmp_path)
    sums: dict[tuple[str, bool], Decimal] = defaultdict(Decimal)
    for row in rows:
        sums[row["InvoiceId"], row["ChargeCategory"] == "Tax"] += Decimal(row["BilledCost"])
    number = invoice.number_text
    assert sums[number, False] == Decimal(invoice.subtotal_minor).scaleb(-invoice.minor_digits), (
        "the net total"
    )
    assert sums[number, False] + sums[number, True] == Decimal(invoice.total_minor).scaleb(
        -invoice.minor_digits
    )
    assert {row["BillingCurrency"] for row in rows if row["InvoiceId"] == number} == {currency}
    assert sums["", False] == Decimal(make.COST_NANOUSD).scaleb(-9), "not invoiced yet"
    charged = sum(int(row["x_ChargeNanoUsd"]) for row in rows if row["ChargeCategory"] == "Usage")
    assert charged == UsageByDay.objects.aggregate(all=Sum("charge_nanousd"))["all"]
    texts = [row["ChargeDescription"] for row in rows if row["ChargeCategory"] == "Adjustment"]
    assert texts
    assert all(text.startswith("Rounding") for text in texts), texts


@pytest.mark.django_db
def test_credit_notes_are_corrections_and_what_is_void_was_never_invoiced(tmp_path: Path) -> None:
    invoice = issue(fill(tmp_path), tax="0.19")
    note = write_credit_note(invoice=invoice, actor="fin", now=NOW, reason="agreed")
    sums: dict[str, Decimal] = defaultdict(Decimal)
    rows = rows_of(tmp=tmp_path)
    for row in rows:
        sums[row["InvoiceId"]] += Decimal(row["BilledCost"])
    assert sums[note.number_text] == Decimal(note.total_minor).scaleb(-2) == -sums[invoice.number_text]
    assert lint_focus_1_4_structure(COST_AND_USAGE, rows).messages() == []
    Invoice.objects.filter(pk=invoice.pk).update(state="void", voided_at=NOW, voided_by="fin")
    Invoice.objects.filter(pk=note.pk).update(state="void", voided_at=NOW, voided_by="fin")
    assert {row["InvoiceId"] for row in rows_of(tmp=tmp_path)} == {""}


@pytest.mark.django_db
def test_a_row_is_a_day_key_model_meter_and_price_and_costs_are_told_apart(tmp_path: Path) -> None:
    world = fill(tmp_path)
    rows = rows_of(tenant=world.tenant.pk, tmp=tmp_path)
    places = [
        (row["ChargePeriodStart"], row["ResourceId"], row["x_Model"], row["SkuId"], row["SkuPriceId"])
        for row in rows
    ]
    assert len(set(places)) == len(places)
    assert {row["BillingAccountName"] for row in rows} == {f"'{world.tenant.name}"}, "a formula would run"
    cached = next(row for row in rows if row["x_CacheAction"] == "Read")
    assert (cached["ConsumedUnit"], cached["ConsumedQuantity"], cached["x_TokenDirection"]) == (
        "Tokens", "400", "Input",
    )  # fmt: skip
    assert (cached["ListUnitPrice"], cached["ListCost"]) == ("0.005", "0.000002")
    assert cached["SkuPriceId"].startswith(f"price-{world.price.pk}/")
    assert cached["x_PriceVersion"] == str(world.price.pk)
    assert {row["x_ServiceTier"] for row in rows if "-31T" in row["ChargePeriodStart"]} == {"flex"}
    by_sku: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        by_sku[row["SkuPriceId"]].add(row["ListUnitPrice"])
    assert all(len(prices) == 1 for prices in by_sku.values()), "one price id, one list price"


_ACCOUNT = Account(1, "acme", "Gateways Ltd")


def _usage(**fields: Any) -> Usage:
    usage = Usage(
        day=MONTH, project_id=1, project="web", key_id=1, key="dev", model="smol", deployment="smol@local",
        sku_deployment="smol@local", provider="local", price_id=7, meter="input", service_tier="",
        cost_rate="2", sale_rate="3", late_of=None, is_correction=False, quantity=500_000,
        cost_nanousd=1_000_000_000, charge_nanousd=1_500_000_001,
    )  # fmt: skip
    return usage._replace(**fields)


def test_list_contracted_and_billed_cost_mean_different_things() -> None:
    row = usage_row(_usage(), _ACCOUNT, None)
    costs = [row[name] for name in ("ListCost", "ContractedCost", "BilledCost", "EffectiveCost")]
    assert costs == [Decimal(1), Decimal("1.5"), Decimal("1.500000001"), Decimal("1.500000001")]
    # Units that the sale cuts otherwise are paid for in one row and charged in another, and consumed once.
    paid = usage_row(_usage(sale_rate="", charge_nanousd=0), _ACCOUNT, None)
    sold = usage_row(_usage(cost_rate="", cost_nanousd=0), _ACCOUNT, None)
    assert paid["ConsumedQuantity"] + sold["ConsumedQuantity"] == 500_000
    assert (paid["ListCost"], paid["ContractedCost"]) == (1, 0)
    assert (sold["ListCost"], sold["ContractedCost"]) == (0, Decimal("1.5"))


def test_what_an_invoice_has_and_usage_does_not_explain_is_no_rounding() -> None:
    statement = Statement("INV-000001", False, MONTH, "USD", 2, Decimal(1), 1_000, 0, 3, 1_000)
    rows = closing_rows(statement, _ACCOUNT, billed=Decimal("7.5"))
    assert [(row["ChargeDescription"].split(" ")[0], row["BilledCost"]) for row in rows] == [
        ("Rounding", Decimal("0.000001")),
        ("Difference", Decimal("2.499999")),
    ]
    note = statement._replace(number="CN-000001", is_credit_note=True, subtotal_minor=-500)
    (row,) = closing_rows(note, _ACCOUNT, billed=Decimal(0))
    assert (row["BilledCost"], row["ChargeClass"], row["InvoiceId"]) == (-5, "Correction", "CN-000001")
