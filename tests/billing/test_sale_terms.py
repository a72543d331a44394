"""Is every record charged by the terms of its time, are wrong terms refused, and do all sums follow?"""

from __future__ import annotations

import datetime as dt
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models import Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from billing import pricing
from billing.models import (
    Adjustment,
    MeterByDay,
    MeterDay,
    RequestRecord,
    SaleTerm,
    UsageByDay,
    UsageByKeyDay,
)
from billing.rerating import Question, rerate
from billing.sale_terms import add_term, end_term, has_terms
from billing.summing_meters import sum_meters
from billing.verifying import verify
from policies.errors import InvalidValueError, NameTakenError
from policies.models import ChangeEvent
from tests import make

pytestmark = pytest.mark.django_db
UNPRICED: dict[str, Any] = {"price": None, "cost": None, "unpriced": True}


def later(hours: float = 1) -> dt.datetime:
    return timezone.now() + dt.timedelta(hours=hours)


def lines(world: make.World, at: dt.datetime | None = None, **outcome: Any) -> list[dict[str, Any]]:
    return make.request_lines(world, make.request_id_at(at or later()), **outcome)


def factor(text: str, **scope: Any) -> SaleTerm:
    return add_term(factor=Decimal(text), actor="fiona", **scope)


def differences() -> list[tuple[str, str, str]]:
    return [(one.kind, one.stored, one.expected) for one in verify(now=timezone.now()).differences]


def test_a_record_is_charged_by_the_terms_of_its_time_and_others_keep_no_charge(tmp_path: Path) -> None:
    acme, other = make.world("acme"), make.world("other")
    assert not has_terms()
    before = timezone.now() - dt.timedelta(minutes=1)
    factor("1.2", tenant=acme.tenant)
    factor("0", tenant=acme.tenant, model=acme.deployment.model, effective_from=later(2))
    assert has_terms()
    make.ingest(
        tmp_path,
        [*lines(acme, before), *lines(acme), *lines(acme, later(3)), *lines(acme, **UNPRICED), *lines(other)],
    )
    charges = RequestRecord.objects.order_by("tenant_id", "started_at", "is_unpriced")
    assert list(charges.values_list("charge_nanousd", flat=True)) == [None, 169_200, None, 0, None]
    by_tenant = UsageByDay.objects.order_by("tenant_id").values_list("tenant_id")
    assert dict(by_tenant.annotate(sum=Sum("charge_nanousd"))) == {
        acme.tenant.pk: make.COST_NANOUSD + 169_200,
        other.tenant.pk: make.COST_NANOUSD,
    }
    assert differences() == []


def test_a_charge_or_sum_that_is_not_what_the_terms_say_is_found(tmp_path: Path) -> None:
    acme, other = make.world("acme"), make.world("other")
    factor("2", tenant=acme.tenant)
    make.ingest(tmp_path, [*lines(acme), *lines(other)])
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE billing_requestrecord DISABLE TRIGGER append_only")
        cursor.execute("UPDATE billing_requestrecord SET charge_nanousd = 5")
    UsageByKeyDay.objects.filter(tenant=other.tenant).update(charge_nanousd=6)
    found = differences()
    cost = str(make.COST_NANOUSD)
    assert ("request charge", "5", str(2 * make.COST_NANOUSD)) in found
    assert ("request charge", "5", cost) in found
    assert ("usage_by_day.charge_nanousd", cost, "5") in found
    assert ("usage_by_key_day.charge_nanousd", "6", "5") in found


def test_an_own_price_is_charged_from_when_it_was_added_and_can_be_ended(tmp_path: Path) -> None:
    world = make.world()
    yesterday = timezone.now() - dt.timedelta(days=1)
    rates = {"input_usd_per_mtok": "1", "output_usd_per_mtok": "2"}
    for tenant in (world.tenant, None):
        pricing.add_price(
            deployment=world.deployment, rates=rates, actor="fiona", book="sale", tenant=tenant,
            effective_from=yesterday,
        )  # fmt: skip
        rates = {"input_usd_per_mtok": "9", "output_usd_per_mtok": "9"}
    end_term(tenant=world.tenant, deployment=world.deployment, effective_from=later(2), actor="fiona")
    with pytest.raises(InvalidValueError):
        pricing.add_price(deployment=world.deployment, rates=rates, actor="fiona", tenant=world.tenant)
    make.ingest(tmp_path, [*lines(world, yesterday), *lines(world), *lines(world, later(3))])
    charges = RequestRecord.objects.order_by("started_at").values_list("charge_nanousd", flat=True)
    assert list(charges) == [None, 2_000_000, 13_500_000]
    assert differences() == []


def test_terms_begin_after_requests_that_a_clock_ahead_recorded_so_that_charges_can_be_proved(
    tmp_path: Path,
) -> None:
    acme, other = make.world("acme"), make.world("other")
    factor("1.2", tenant=acme.tenant)
    ahead = later(0.5).replace(microsecond=123_000)
    make.ingest(tmp_path, [*lines(acme, ahead), *lines(other, later(48))], worker="a")
    assert factor("1.5", tenant=acme.tenant).effective_from == ahead + dt.timedelta(milliseconds=1)
    price = pricing.add_price(
        deployment=acme.deployment, tenant=acme.tenant, rates=make.RATES, actor="fiona", book="sale"
    )
    assert price.effective_from == ahead + dt.timedelta(milliseconds=1)
    for begins in (later(0.25), ahead):
        with pytest.raises(InvalidValueError, match="the clock of its gateway is ahead"):
            factor("1.3", tenant=acme.tenant, model=acme.deployment.model, effective_from=begins)
        with pytest.raises(InvalidValueError, match="the clock of its gateway is ahead"):
            pricing.add_own_price(
                deployment=acme.deployment, tenant=None, rates=make.RATES, actor="x", effective_from=begins
            )
    # Whom no such request is of has terms from now on, and a clock that is days ahead keeps nobody waiting.
    assert factor("1.4", tenant=other.tenant).effective_from < later(0.1)
    make.ingest(tmp_path, [*lines(acme, later(1)), *lines(other, later(0.2))], worker="b")
    assert [one[0] for one in differences()] == ["request charge"]  # that of the days ahead, as is known


def test_wrong_terms_are_refused_and_none_is_ever_changed(tmp_path: Path) -> None:
    world = make.world()
    for text in ("-0.1", "NaN", "Infinity", "100.000001", "1.2345678"):
        with pytest.raises(InvalidValueError):
            factor(text)
        with pytest.raises(DatabaseError), transaction.atomic():
            connection.cursor().execute(
                "INSERT INTO billing_saleterm (meter, factor, effective_from, note, created_at, created_by)"
                " VALUES ('', %s::numeric, now(), '', now(), 'x')",
                ["101" if text == "1.2345678" else text],
            )
    with pytest.raises(InvalidValueError, match="now or later"):
        factor("2", effective_from=timezone.now() - dt.timedelta(seconds=1))
    with pytest.raises(InvalidValueError, match="time zone"):
        factor("2", effective_from=dt.datetime(2030, 1, 1))  # noqa: DTZ001  (that is the point)
    with pytest.raises(InvalidValueError, match="not of both"):
        factor("2", model=world.deployment.model, deployment=world.deployment)
    with pytest.raises(InvalidValueError, match="not one of"):
        factor("2", meter="tokens")
    with pytest.raises(InvalidValueError, match="nothing to end"):
        end_term(tenant=world.tenant, actor="fiona")
    # As of an earlier time only where nothing is recorded since, of this tenant or of anybody.
    make.ingest(tmp_path, lines(world, timezone.now() - dt.timedelta(hours=2)))
    for scope in ({"tenant": world.tenant}, {}):
        with pytest.raises(InvalidValueError, match="since then are recorded"):
            factor("2", at=timezone.now() - dt.timedelta(hours=3), **scope)
    begins = later()
    term = factor("2", tenant=world.tenant, effective_from=begins)
    with pytest.raises(NameTakenError):
        factor("3", tenant=world.tenant, effective_from=begins)
    with pytest.raises(InvalidValueError, match="nothing to end"):
        end_term(tenant=world.tenant, actor="fiona")  # it has not begun
    for change in ("UPDATE billing_saleterm SET factor = 3", "DELETE FROM billing_saleterm"):
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            connection.cursor().execute(change)
    event = ChangeEvent.objects.get(object_type="sale_term")
    assert (event.actor, event.object_id) == ("fiona", term.pk)
    assert event.after is not None
    assert event.after["factor"] == "2"


def test_a_request_that_is_priced_afterwards_is_charged_by_the_terms_of_its_time(tmp_path: Path) -> None:
    world = make.world()
    factor("1.5", tenant=world.tenant)
    at = later(0.01)
    make.ingest(tmp_path, [*lines(world, at, **UNPRICED), *lines(world, at)])
    rerate(Question(at.date(), at.date()), actor="fiona", reason="the list came late", now=timezone.now())
    assert sorted(Adjustment.objects.values_list("number", "charge_nanousd")) == [(1, 0), (2, 211_500)]
    for rollup in (UsageByDay, UsageByKeyDay):
        sums = rollup.objects.aggregate(cost=Sum("cost_nanousd"), charge=Sum("charge_nanousd"))
        assert sums == {"cost": 2 * make.COST_NANOUSD, "charge": 2 * 211_500}
    assert differences() == []


def test_records_and_adjustments_sum_to_every_rollup_after_random_traffic_that_comes_twice(
    tmp_path: Path,
) -> None:
    draw = random.Random(7)
    worlds = [make.world() for _ in range(3)]
    factor("1.17", meter="output")
    factor("0.333333", tenant=worlds[1].tenant)
    factor("1.000001", tenant=worlds[1].tenant, effective_from=later(3))
    journal = []
    for _ in range(60):
        outcome: dict[str, Any] = draw.choice(
            [{}, {}, UNPRICED, {"cost": None, "usage": make.usage_line(kind="unknown")}]
        )
        journal.append(lines(draw.choice(worlds), later(draw.uniform(0.1, 6)), **outcome))
    for number in (1, 2):  # all of it comes twice
        draw.shuffle(journal)
        flat = [line for pair in journal for line in pair]
        make.ingest(tmp_path, flat, worker=f"worker-{number}")
    today = timezone.now().date()
    rerate(Question(today, today + dt.timedelta(days=1)), actor="fiona", reason="late", now=timezone.now())
    kept = RequestRecord.objects.aggregate(sum=Sum(Coalesce("charge_nanousd", "cost_nanousd")))["sum"]
    adjusted = Adjustment.objects.aggregate(sum=Sum("charge_nanousd"))["sum"]
    assert RequestRecord.objects.count() == 60
    assert adjusted
    for rollup in (UsageByDay, UsageByKeyDay):
        assert rollup.objects.aggregate(sum=Sum("charge_nanousd"))["sum"] == kept + adjusted
    sum_meters(first_day=today, last_day=today + dt.timedelta(days=1))
    assert MeterByDay.objects.aggregate(sum=Sum("charge_nanousd"))["sum"] == kept + adjusted
    assert not MeterDay.objects.filter(matches=False).exists()
    assert differences() == []
