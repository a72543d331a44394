"""Do sale terms of a file become dated rows that never change, and does a file end only what it made?"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pytest
from django.db import transaction
from django.utils import timezone

from billing.models import Price, SaleTerm
from billing.sale_book import SaleScope
from billing.sale_terms import add_term, load_sale_terms
from gateway.configuration_file.exporting import export_text
from gateway.configuration_file.values import FileError
from policies.models import ChangeEvent, Deployment, Tenant
from tests import make
from tests.gateway.configuration_file.test_applying import apply, changes_of

pytestmark = pytest.mark.django_db

CATALOG = """
providers: [{name: p, base_url: "https://x.example.com"}]
models: [{name: m}, {name: n}]
deployments: [{name: d, model: m, provider: p, prices: [
    {input_usd_per_mtok: "1", effective_from: 2026-01-01},
    {input_usd_per_mtok: "3", effective_from: 2026-01-01, book: sale}]}]
tenants: [{name: acme}, {name: other}]
"""
TERMS = """
sale_terms:
  - {factor: 1.1, effective_from: 2026-01-01}
  - {factor: "1.05", effective_from: 2099-01-01, note: by contract}
  - {tenant: acme, factor: 1.2}
  - {tenant: acme, model: n, meter: output, factor: 0.5}
  - {tenant: other, deployment: d, price: {input_usd_per_mtok: "0.90"}}
"""


def millionths(tenant: str) -> int | None:
    held = load_sale_terms().find(
        tenant_id=Tenant.objects.get(name=tenant).pk,
        deployment_id=Deployment.objects.get().pk,
        at=timezone.now(),
    )
    return held.factor_millionths if held and held.price is None else None


def test_terms_are_added_once_and_another_factor_is_a_new_term() -> None:
    apply(CATALOG)
    assert changes_of(apply(TERMS)) == [
        "add      sale_term  all tenants, all models  factor 1.1 from 2026-01-01T00:00:00+00:00",
        "add      sale_term  all tenants, all models  factor 1.05 from 2099-01-01T00:00:00+00:00",
        "add      sale_term  acme, all models  factor 1.2",
        "add      sale_term  acme, n, output  factor 0.5",
        "add      sale_term  other, d  input_usd_per_mtok 0.9",
    ]
    events = ChangeEvent.objects.count()
    for text in (TERMS, export_text()):
        assert changes_of(apply(text)) == []
    assert ChangeEvent.objects.count() == events
    assert millionths("acme") == 1_200_000
    changed = TERMS.replace("factor: 1.2", "factor: 1.3").replace("0.90", "0.80")
    plan = changes_of(apply(changed, is_plan=True))
    assert plan == ["add      sale_term  acme, all models  factor 1.3",
                    "add      sale_term  other, d  input_usd_per_mtok 0.8"]  # fmt: skip
    assert changes_of(apply(changed)) == plan
    rows = SaleTerm.objects.filter(tenant__name="acme", model=None).order_by("id")
    assert [row.factor for row in rows] == [Decimal("1.2"), Decimal("1.3")]
    assert Price.objects.filter(tenant__name="other").count() == 2
    ended = "sale_terms: [{tenant: acme, ends: true}]"
    assert changes_of(apply(ended)) == ["end      sale_term  acme, all models"]
    assert changes_of(apply(ended)) == []
    assert changes_of(apply(export_text())) == []


def test_an_export_sets_up_an_empty_installation_with_the_terms_that_hold() -> None:
    with transaction.atomic():
        apply(CATALOG + TERMS)
        apply("sale_terms: [{tenant: acme, ends: true}, {deployment: d, ends: true}]")
        text = export_text()
        held = [millionths("acme"), millionths("other")]
        transaction.set_rollback(True)
    apply(text)
    assert [millionths("acme"), millionths("other")] == held == [1_100_000, None]
    assert changes_of(apply(text)) == []
    assert changes_of(apply(export_text())) == []


def test_prune_ends_what_the_file_made_and_nobody_elses() -> None:
    apply(CATALOG)
    apply(TERMS)
    other = Tenant.objects.get(name="other")
    add_term(tenant=other, factor=Decimal(3), actor="fiona")
    kept = CATALOG + "sale_terms: [{tenant: acme, factor: 1.2}]"
    outcome = changes_of(apply(kept, with_prune=True))
    assert outcome == [
        "end      sale_term  all tenants, all models  as soon as it begins, 2099-01-01",
        "end      sale_term  other, d",
        "end      sale_term  acme, n, output",
        "end      sale_term  all tenants, all models",
    ]
    assert changes_of(apply(kept, with_prune=True)) == []
    assert (millionths("acme"), millionths("other")) == (1_200_000, 3_000_000)
    book = load_sale_terms()
    in_2100 = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
    nobody = SaleScope(None, None, None)
    held = book.find_entry(nobody, in_2100)
    assert held is not None and held.is_end


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ("{factor: 1, ends: true}", ""),
        ("{tenant: acme}", ""),
        ("{factor: nan}", ".factor"),
        ("{factor: many}", ".factor"),
        ("{factor: 101}", ".factor"),
        ("{factor: 1.2345678}", ".factor"),
        ("{factor: 1, meter: words}", ".meter"),
        ("{factor: 1, model: m, deployment: d}", ".model"),
        ("{factor: 1, tenant: nobody}", ""),
        ("{tenant: acme, price: {input_usd_per_mtok: 1}}", ".price"),
        ("{deployment: d, price: {input_usd_per_mtok: 1}}", ".price"),
        ("{tenant: acme, deployment: d, price: {}}", ".price"),
        ("{tenant: acme, deployment: d, price: {input_usd_per_mtok: 1, book: sale}}", ".price.book"),
        ("{factor: 1, effective_from: 2026-01-01T00:00:00}", ".effective_from"),
    ],
)
def test_terms_that_make_no_sense_are_refused_with_their_place(wrong: str, path: str) -> None:
    apply(CATALOG)
    with pytest.raises(FileError) as refusal:
        apply(f"sale_terms: [{wrong}]")
    assert [problem.path for problem in refusal.value.problems] == [f"sale_terms[0]{path}"]
    assert not SaleTerm.objects.exists()


def test_the_same_scope_twice_a_dated_change_and_a_past_with_requests_are_refused(tmp_path: Path) -> None:
    world = make.world("acme")
    tenant, name = world.tenant.name, world.deployment.name
    with pytest.raises(FileError, match=r"sale_terms\[1\]: there are already terms"):
        apply("sale_terms: [{factor: 1}, {factor: 2}]")
    dated = f"sale_terms: [{{tenant: {tenant}, deployment: {name}, factor: 2, effective_from: 2099-01-01}}]"
    apply(dated)
    with pytest.raises(FileError, match=r"sale_terms\[0\]\.effective_from: terms are never changed"):
        apply(dated.replace("factor: 2,", "factor: 3,"))
    past = f"sale_terms: [{{tenant: {tenant}, factor: 2, effective_from: 2025-01-01}}]"
    request_id = make.request_id_at(timezone.now() - dt.timedelta(minutes=1))
    make.ingest(tmp_path, make.request_lines(world, request_id))
    with pytest.raises(FileError, match=r"sale_terms\[0\]\.effective_from: requests since then are recorded"):
        apply(past)
