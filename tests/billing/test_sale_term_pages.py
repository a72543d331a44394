"""Can finance add, look at and end what tenants are charged, in the browser, and is nonsense refused with a reason?"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pytest
from django.utils import timezone

from billing.models import Price, SaleTerm
from billing.money import format_usd
from billing.sale_standing import estimate_month, last_month, list_entries, list_standing
from billing.sale_terms import add_term, load_sale_terms
from policies.permissions import Role
from tests import make
from tests.console_people import client_of

pytestmark = pytest.mark.django_db
NEW = {"tenant": "", "model": "", "deployment": "", "meter": "", "kind": "markup", "percent": "20",
       "effective_from": "", "note": "contract 7"}  # fmt: skip


def ingest_last_month(tmp_path: Path, *worlds: make.World) -> None:
    day = last_month(timezone.now().date())[0]
    at = dt.datetime(day.year, day.month, 2, tzinfo=dt.UTC)
    pairs = [make.request_lines(world, make.request_id_at(at)) for world in worlds]
    make.ingest(tmp_path, [line for pair in pairs for line in pair])


def test_finance_looks_at_a_term_adds_it_and_ends_it(tmp_path: Path) -> None:
    world = make.world()
    ingest_last_month(tmp_path, world)
    client = client_of(Role.FINANCE)
    assert "Charged what it costs" in client.get("/prices/sale").content.decode()
    asked = {**NEW, "tenant": world.tenant.pk}
    shown = client.post("/prices/sale/new", {**asked, "preview": "1"}).content.decode()
    assert format_usd(169_200) in shown
    assert not SaleTerm.objects.exists()
    assert client.post("/prices/sale/new", asked).status_code == 302
    term = SaleTerm.objects.get()
    assert (term.factor, term.tenant, term.created_by[:7]) == (Decimal("1.2"), world.tenant, "finance")
    page = client.get("/prices/sale").content.decode()
    assert "+20 %" in page
    assert "contract 7" in page
    assert f"/prices/sale/end?tenant={world.tenant.pk}&amp;model=&amp;deployment=&amp;meter=" in page
    ended = client.post("/prices/sale/end", {"tenant": world.tenant.pk, "note": "it is over"})
    assert ended.status_code == 302
    assert list_standing(list_entries(), now=timezone.now()) == []
    assert "Nothing is in force" in client.get("/prices/sale").content.decode()
    again = client.post("/prices/sale/end", {"tenant": world.tenant.pk, "note": ""})
    assert (again.status_code, "nothing to end" in again.content.decode()) == (422, True)


def test_an_own_price_is_added_from_now_on_and_what_comes_next_is_shown(tmp_path: Path) -> None:
    world = make.world()
    client = client_of(Role.OPERATOR)
    form = {
        "tenant": world.tenant.pk,
        "deployment": world.deployment.pk,
        "input_usd_per_mtok": "3",
        "source": "deal",
    }
    late = {**form, "effective_from": "2020-01-01T00:00"}
    refused = client.post("/prices/sale/price/new", late)
    assert (refused.status_code, "now or later" in refused.content.decode()) == (422, True)
    assert "given back by a credit note" in refused.content.decode()
    assert client.post("/prices/sale/price/new", form).status_code == 302
    assert Price.objects.get(book="sale").tenant == world.tenant
    next_year = timezone.now().year + 1
    halved = {
        **NEW,
        "tenant": world.tenant.pk,
        "deployment": world.deployment.pk,
        "kind": "discount",
        "percent": "50",
    }
    client.post("/prices/sale/new", {**halved, "effective_from": f"{next_year}-01-01T00:00"})
    (one,) = list_standing(list_entries(), now=timezone.now())
    assert one.now is not None
    assert one.following is not None
    assert (one.now.rates, one.following.factor) == ({"input_usd_per_mtok": "3"}, Decimal("0.5"))
    assert "-50 %" in client.get("/prices/sale").content.decode()


@pytest.mark.parametrize(
    "wrong",
    [
        {"percent": "-1"}, {"percent": "NaN"}, {"percent": "1e400"}, {"percent": "9901"}, {"percent": ""},
        {"kind": "discount", "percent": "100.1"}, {"meter": "tokens"}, {"tenant": "77777"},
        {"effective_from": "2020-01-01T00:00"}, {"percent": "1.12345"},
    ],
)  # fmt: skip
def test_wrong_terms_are_refused_in_the_form(wrong: dict[str, str]) -> None:
    answer = client_of(Role.FINANCE).post("/prices/sale/new", {**NEW, **wrong})
    assert answer.status_code == 422
    assert "text-red" in answer.content.decode()
    assert not SaleTerm.objects.exists()


def test_viewers_do_not_see_what_is_charged_whom() -> None:
    client = client_of(Role.VIEWER)
    for address in ("/prices/sale", "/prices/sale/new", "/prices/sale/price/new", "/prices/sale/end"):
        assert client.get(address).status_code == 403
    assert "/prices/sale" not in client.get("/prices").content.decode()


def test_last_month_is_estimated_at_factors_meters_and_own_prices(tmp_path: Path) -> None:
    acme, other, plain = make.world("acme"), make.world("other"), make.world("plain")
    ingest_last_month(tmp_path, acme, acme, other, plain)
    add_term(factor=Decimal("1.5"), tenant=acme.tenant, actor="fiona")
    add_term(factor=Decimal(0), tenant=other.tenant, meter="cache_read", actor="fiona")
    now = timezone.now() + dt.timedelta(seconds=1)
    found = {one.tenant_id: one for one in estimate_month(load_sale_terms(), at=now, today=now.date())}
    cost = make.COST_NANOUSD
    assert found[acme.tenant.pk][2:] == (2 * cost, 2 * cost, 3 * cost)
    assert found[other.tenant.pk][2:] == (cost, cost, cost - 1_000)  # 200 cached tokens of 5 nano-USD
    assert found[plain.tenant.pk][2:] == (cost, cost, cost)
