"""Do the meters of a day say exactly what its records cost, also after late records and re-rating?"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db.models import F, Sum
from django.utils import timezone

from billing import rerating
from billing.models import (
    LatePosting,
    MeterByDay,
    MeterDay,
    PeriodLock,
    UsageByDay,
    UsageByKeyDay,
)
from billing.rerating import Question, rerate
from billing.sale_terms import add_term
from billing.summing_meters import list_unmatched_days, sum_meters
from billing.verifying import verify
from policies.cataloguing import change_deployment
from policies.errors import InUseError
from policies.models import Model
from tests import make

pytestmark = pytest.mark.django_db
OCTOBER = dt.date(2025, 10, 1)
NOVEMBER = dt.date(2025, 11, 1)
DAY = dt.date(2025, 10, 7)
NOON = dt.datetime(2025, 10, 7, 12, tzinfo=dt.UTC)
NOW = dt.datetime(2025, 11, 5, tzinfo=dt.UTC)
UNPRICED: dict[str, Any] = {"price": None, "cost": None, "unpriced": True}


def lines(world: make.World, at: dt.datetime = NOON, **outcome: Any) -> list[dict[str, Any]]:
    return make.request_lines(world, make.request_id_at(at), **outcome)


def sums(**of: Any) -> dict[str, tuple[int, int, int]]:
    rows = (
        MeterByDay.objects.filter(**of)
        .values_list("meter")
        .annotate(Sum("quantity"), Sum("cost_nanousd"), Sum("charge_nanousd"))
    )
    return {row[0]: row[1:] for row in rows.order_by("meter")}


def close_until(day: dt.date) -> None:
    PeriodLock.objects.update_or_create(id=1, defaults={"closed_until": day})


def test_meters_are_the_lines_of_the_records_and_summing_again_changes_nothing(tmp_path: Path) -> None:
    world = make.world()
    make.ingest(tmp_path, [*lines(world), *lines(world), *lines(world, **UNPRICED)])
    sum_meters(first_day=DAY, last_day=DAY)
    assert sums() == {
        "cache_read": (400, 2_000, 2_000),
        "input": (1_600, 80_000, 80_000),
        "output": (1_000, 200_000, 200_000),
    }
    row = MeterByDay.objects.get(meter="input")
    assert (row.day, row.cost_rate, row.sale_rate, row.price, row.late_of) == (
        DAY, "0.05", "0.05", world.price, None,
    )  # fmt: skip
    assert MeterDay.objects.get().matches
    before = set(MeterByDay.objects.values_list("pk", flat=True))
    sum_meters(first_day=DAY, last_day=DAY)
    assert set(MeterByDay.objects.values_list("pk", flat=True)) == before
    make.ingest(tmp_path, lines(world), worker="worker-2")
    assert list_unmatched_days(first_day=DAY, last_day=DAY) == [(DAY, world.tenant.pk, True)]
    sum_meters(first_day=DAY, last_day=DAY, tenant_id=make.world().tenant.pk)
    assert sums()["input"][0] == 1_600
    sum_meters(first_day=DAY, last_day=DAY, tenant_id=world.tenant.pk)
    assert sums()["input"] == (2_400, 120_000, 120_000)
    assert list_unmatched_days(first_day=DAY, last_day=DAY) == []


def test_a_failed_attempt_that_cost_something_counts_with_its_own_price(tmp_path: Path) -> None:
    world = make.world()
    first, second = lines(world, cost=make.COST_NANOUSD + 50)
    tried = {**second["attempts"][0], "cost": 50, "usage": make.usage_line(input=1, output=0, cache_read=0)}
    second["attempts"] = [tried, {**second["attempts"][0], "n": 2, "cost": make.COST_NANOUSD}]
    make.ingest(tmp_path, [first, second])
    sum_meters(first_day=DAY, last_day=DAY)
    assert sums()["input"] == (801, 40_050, 40_050)
    assert MeterDay.objects.get().matches


def test_a_day_whose_rollup_says_something_else_does_not_match(tmp_path: Path) -> None:
    world = make.world()
    make.ingest(tmp_path, lines(world))
    for rollup in (UsageByDay, UsageByKeyDay):
        rollup._default_manager.update(cost_nanousd=F("cost_nanousd") + 1)
    sum_meters(first_day=DAY, last_day=DAY)
    assert not MeterDay.objects.get().matches
    assert list_unmatched_days(first_day=DAY, last_day=DAY) == [(DAY, world.tenant.pk, False)]


def test_re_rating_of_an_open_day_adds_its_meters_there(tmp_path: Path) -> None:
    world = make.world()
    make.ingest(tmp_path, [*lines(world, **UNPRICED), *lines(world)])
    sum_meters(first_day=DAY, last_day=DAY)
    rerate(Question(DAY, DAY), actor="fiona", reason="list", now=NOW)
    sum_meters(first_day=DAY, last_day=DAY)
    assert sums()["output"] == (1_000, 200_000, 200_000)
    assert not MeterByDay.objects.filter(is_correction=True).exists()
    assert MeterDay.objects.get().matches


def test_what_comes_for_a_closed_month_counts_on_the_first_open_day(tmp_path: Path) -> None:
    world = make.world()
    make.ingest(tmp_path, [*lines(world), *lines(world, **UNPRICED)])
    sum_meters(first_day=DAY, last_day=DAY)
    october = list(UsageByDay.objects.order_by("pk").values())
    close_until(NOVEMBER)
    late, late_unpriced = lines(world), lines(world, **UNPRICED)
    make.ingest(tmp_path, [*late, *late_unpriced], worker="worker-2")
    assert list(UsageByDay.objects.filter(day__lt=NOVEMBER).order_by("pk").values()) == october
    assert set(LatePosting.objects.values_list("number", "posted_on")) == {(0, NOVEMBER)}
    make.ingest(tmp_path, late, worker="worker-3")
    assert LatePosting.objects.count() == 2
    run = rerate(Question(DAY, DAY), actor="fiona", reason="list", now=NOW)
    assert run.request_count == 2
    sum_meters(first_day=OCTOBER, last_day=NOVEMBER)
    assert list_unmatched_days(first_day=OCTOBER, last_day=NOVEMBER) == []
    assert sums(day=DAY)["output"] == (500, 100_000, 100_000)
    assert sums(day=NOVEMBER, is_correction=False, late_of=OCTOBER)["output"] == (500, 100_000, 100_000)
    assert sums(day=NOVEMBER, is_correction=True, late_of=OCTOBER)["output"] == (1_000, 200_000, 200_000)
    assert verify(now=NOW).differences == ()
    assert UsageByDay.objects.aggregate(sum=Sum("unpriced_count"))["sum"] == 0


def test_a_deployment_that_was_charged_for_stays_with_its_model_where_models_have_terms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, unused = make.world(), make.world()
    monkeypatch.setattr(timezone, "now", lambda: NOON - dt.timedelta(days=1))
    other = Model.objects.create(name="other")
    make.ingest(tmp_path, lines(world, NOON - dt.timedelta(days=2)))
    assert change_deployment(deployment=world.deployment, model=other, actor="olga").model == other
    add_term(factor=Decimal("1.5"), model=other, actor="fiona")
    make.ingest(tmp_path, lines(world), worker="second")
    for model in (unused.deployment.model, world.deployment.model):
        with pytest.raises(InUseError, match="make a new deployment for"):
            change_deployment(deployment=world.deployment, model=model, actor="olga")
    change_deployment(deployment=unused.deployment, model=other, actor="olga")
    change_deployment(deployment=world.deployment, region="eu", actor="olga")
    sum_meters(first_day=OCTOBER, last_day=DAY)
    assert list_unmatched_days(first_day=OCTOBER, last_day=DAY) == []
    assert verify(now=NOW).differences == ()


def test_terms_that_begin_while_requests_get_their_price_hold_for_what_came_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make.world()
    monkeypatch.setattr(timezone, "now", lambda: NOON)
    find_days = rerating.find_days

    def find_days_slowly(question: Question) -> rerating.DaysAndKeys:
        # By now the run has read all terms; these requests come after others.
        add_term(factor=Decimal(2), tenant=world.tenant, actor="fiona")
        make.ingest(tmp_path, lines(world, NOON + dt.timedelta(seconds=1), **UNPRICED))
        return find_days(question)

    monkeypatch.setattr(rerating, "find_days", find_days_slowly)
    rerate(Question(DAY, DAY), actor="fiona", reason="list came late", now=NOW)
    sum_meters(first_day=OCTOBER, last_day=DAY)
    charged = UsageByDay.objects.aggregate(Sum("cost_nanousd"), Sum("charge_nanousd"))
    assert tuple(charged.values()) == (make.COST_NANOUSD, 2 * make.COST_NANOUSD)
    assert verify(now=NOW).differences == ()
