"""Does Spend show what was charged, and the margin to those alone who may see it?"""

from __future__ import annotations

import csv
import datetime as dt
import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from billing import reports
from billing.reports import NONE, Scope
from billing.sale_terms import add_term
from billing.spend import read_spend
from billing.spend_questions import read_question
from policies.permissions import Role
from tests import make
from tests.console_people import client_of

pytestmark = pytest.mark.django_db
PAGES = ("/spend?by=tenant", "/spend?by=model", "/spend?by=day", "/spend/keys?period=30d")
FILES = ("/spend/export.csv?by=tenant", "/spend/export.csv?by=day", "/spend/keys/export.csv")


def ingest(tmp_path: Path, *worlds: make.World) -> None:
    lines = [make.request_lines(world, make.request_id_at(timezone.now())) for world in worlds]
    make.ingest(tmp_path, [line for pair in lines for line in pair])


def table(client: Client, address: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(client.get(address).content.decode())))


def superuser() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


def test_without_terms_nothing_says_charge_or_margin(tmp_path: Path) -> None:
    ingest(tmp_path, make.world())
    client = client_of(Role.FINANCE)
    for address in PAGES:
        page = client.get(address).content.decode()
        assert "harge</th>" not in page, address
        assert "margin" not in page, address
    for address in FILES:
        assert not [name for name in table(client, address)[0] if name.startswith(("charge", "margin"))]


@pytest.mark.parametrize("who", [Role.FINANCE, Role.OPERATOR, Role.VIEWER, "superuser"])
def test_charges_are_for_all_and_the_margin_for_finance_and_superusers(tmp_path: Path, who: Any) -> None:
    acme, other = make.world("acme"), make.world("other")
    add_term(factor=Decimal("1.25"), tenant=acme.tenant, actor="fiona")
    ingest(tmp_path, acme, other)
    # A request of the very millisecond in which the term began has not begun after it.
    lines = make.request_lines(acme, make.request_id_at(timezone.now() + dt.timedelta(seconds=1)))
    make.ingest(tmp_path, lines, worker="worker-2")
    total = reports.totals(
        first_day=timezone.now().date() - dt.timedelta(days=1), last_day=timezone.now().date()
    )
    assert total.charge_nanousd > total.cost_nanousd == 3 * make.COST_NANOUSD
    sees = who in (Role.FINANCE, "superuser")
    client = superuser() if who == "superuser" else client_of(who)
    for address in PAGES:
        page = client.get(address).content.decode()
        assert "harge</th>" in page, address
        assert ("margin $" in page) is sees, address
    for address in FILES:
        *rows, last = table(client, address)
        assert int(last["charge_nanousd"]) == total.charge_nanousd
        assert sum(int(row["charge_nanousd"]) for row in rows) == total.charge_nanousd
        assert [name for name in last if name.startswith("margin")] == (
            ["margin_usd", "margin_nanousd", "margin_ratio"] if sees else []
        )
        if sees:
            assert int(last["margin_nanousd"]) == total.charge_nanousd - total.cost_nanousd


def test_sums_by_key_and_sums_by_deployment_are_the_same_for_every_question(tmp_path: Path) -> None:
    acme, other = make.world("acme"), make.world("other")
    add_term(factor=Decimal("0.5"), actor="fiona")
    ingest(tmp_path, acme, acme, other)
    days: dict[str, Any] = {
        "first_day": timezone.now().date() - dt.timedelta(days=1),
        "last_day": timezone.now().date(),
    }
    whole = [
        group.totals for group in reports.group_by("deployment", **days) if group.id == acme.deployment.pk
    ]
    assert [reports.totals(**days, scope=Scope(tenant_id=acme.tenant.pk))] == whole
    assert [reports.totals(**days, scope=Scope(deployment_id=acme.deployment.pk))] == whole
    assert reports.totals(**days, scope=Scope(policy_id=NONE)).request_count == 0
    for by in ("tenant", "project", "key", "day", "model"):
        for only in ("", f"&tenant={acme.tenant.pk}", f"&model={acme.deployment.model_id}"):
            address = {"period": "7d", "by": by} | dict([only[1:].split("=")] if only else [])
            spend = read_spend(read_question(address, today=days["last_day"]))
            assert spend.total.totals.request_count == (2 if only else 3), (by, only)
