"""Whose key spent what, which one grew, what did routing save, and where does the month end?"""

from __future__ import annotations

import csv
import datetime as dt
import io
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from billing import reports, workload_usage
from billing.catalog_ratings import read_router_now
from billing.models import Evidence, Price
from billing.reports import DayPoint, DayTotals, Spent
from billing.spend_forecast import forecast_month
from billing.spend_keys import SORTS, KeyRow, growth_of, list_unusual, read_key_spend
from billing.spend_questions import Question, read_question
from billing.spend_rows import Row
from billing.spend_savings import read_savings
from policies.models import ApiKey, Model, PolicyVersion
from tests import make
from tests.console_people import operator

TODAY = dt.date(2026, 5, 10)
DAY = dt.timedelta(days=1)


def at(day: dt.date) -> dt.datetime:
    return dt.datetime(day.year, day.month, day.day, 12, tzinfo=dt.UTC)


def ask(today: dt.date = TODAY, **parameters: str) -> Question:
    return read_question({"period": "7d", "by": "key", **parameters}, today=today)


def key_of(world: make.World, name: str, **fields: Any) -> make.World:
    digest = name.encode().ljust(32, b".")
    key = ApiKey.objects.create(
        project=world.project, name=name, secret_hash=digest, secret_hint=f"pm-{name}", **fields
    )
    return replace(world, key=key)


def spent(world: make.World, *days_ago: int, today: dt.date = TODAY, **outcome: Any) -> list[dict[str, Any]]:
    return [
        line
        for ago in days_ago
        for line in make.request_lines(world, make.request_id_at(at(today - DAY * ago)), **outcome)
    ]


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, make.World]:
    """Keys whose period of seven days tells a story; every request costs the same."""
    world = make.world()
    revoked = {"revoked_at": at(TODAY - DAY)}
    keys = {
        "steady": key_of(world, "steady", owner="Ada"),
        "doubled": key_of(world, "doubled", owner="bob"),
        "new": key_of(world, "new"),
        "gone": key_of(world, "gone", **revoked),
        "unused-revoked": key_of(world, "unused-revoked", **revoked),
        "heir": key_of(world, "heir"),
    }
    keys["rotated"] = key_of(world, "rotated", replaced_by=keys["heir"].key, **revoked)
    make.ingest(
        tmp_path,
        [
            *spent(keys["steady"], 1, 1, 2, 8, 9),
            *spent(keys["doubled"], 0, 1, 2, 3, 7, 13),
            *spent(keys["new"], 1),
            *spent(keys["gone"], 8),
            *spent(keys["rotated"], 7, 8),
            *spent(keys["heir"], 1, 2),
        ],
    )
    return keys


@pytest.mark.django_db
def test_every_key_is_there_with_both_periods_and_what_grew_is_marked(keys: dict[str, make.World]) -> None:
    report = read_key_spend(ask(), now=at(TODAY))
    found = {row.key.name: row for row in report.rows}
    assert set(found) == {"dev", "steady", "doubled", "new", "gone", "heir", "rotated"}
    assert {name: row.growth for name, row in found.items() if row.growth} == {
        "doubled": "grew",
        "new": "new",
    }
    assert found["doubled"].times == 2.0
    assert [row.key.name for row in report.rows][:2] == ["doubled", "steady"]
    assert found["dev"].row.totals == DayTotals()
    assert report.total.totals == reports.totals(first_day=TODAY - 6 * DAY, last_day=TODAY)
    before = reports.totals(first_day=TODAY - 13 * DAY, last_day=TODAY - 7 * DAY)
    assert report.total.before.cost_nanousd == before.cost_nanousd == 7 * make.COST_NANOUSD


@pytest.mark.django_db
def test_sorting_searching_and_showing_only_what_grew_change_neither_sums_nor_judgement(
    keys: dict[str, make.World], django_assert_max_num_queries: Any
) -> None:
    with django_assert_max_num_queries(6):
        by_owner = read_key_spend(ask(), now=at(TODAY), sort="owner", descending=False)
    assert [row.key.name for row in by_owner.rows][:2] == ["steady", "doubled"]
    (found,) = read_key_spend(ask(), now=at(TODAY), q="BOB").rows
    assert (found.key.name, found.growth) == ("doubled", "grew")
    unusual = read_key_spend(ask(), now=at(TODAY), only_unusual=True, sort="key", descending=False)
    assert [row.key.name for row in unusual.rows] == ["doubled", "new"]
    assert unusual.total.totals.request_count == 5
    assert not read_key_spend(ask(tenant="999999"), now=at(TODAY)).rows


@pytest.mark.django_db
def test_the_keys_that_grew_are_found_without_reading_all(
    keys: dict[str, make.World], django_assert_max_num_queries: Any
) -> None:
    with django_assert_max_num_queries(8):  # two are of the savepoint
        found = list_unusual(ask().period)
    assert [(row.key.name, row.growth) for row in found] == [("doubled", "grew"), ("new", "new")]
    assert found == list(read_key_spend(ask(), now=at(TODAY)).unusual)


@pytest.mark.django_db
@pytest.mark.parametrize("seed", range(6))
def test_they_are_the_same_keys_whatever_was_spent_and_rotated(tmp_path: Path, seed: int) -> None:
    draw, world = random.Random(seed), make.world()
    made = [key_of(world, f"key-{number}") for number in range(24)]
    for old, heir in zip(made[:8], draw.sample(made[8:], 8), strict=True):
        old.key.replaced_by, old.key.revoked_at = heir.key, at(TODAY - DAY)
        old.key.save()
    lines = []
    for one in made:
        for _ in range(draw.choice([0, 1, 2])):
            cost = draw.choice([1, 100, 300, 3_000, 10_000]) * make.COST_NANOUSD
            lines += spent(one, draw.randrange(14), cost=cost)
    make.ingest(tmp_path, lines)
    expected = list(read_key_spend(ask(), now=at(TODAY)).unusual)
    assert expected
    assert list_unusual(ask().period) == sorted(
        expected, key=lambda row: (-row.row.totals.cost_nanousd, row.name)
    )


@pytest.mark.django_db
@pytest.mark.parametrize("descending", [False, True])
def test_every_order_is_that_of_the_rows_it_shows_and_any_part_of_them_is_the_same_rows(
    keys: dict[str, make.World], descending: bool
) -> None:
    orders: dict[str, Callable[[KeyRow], Any]] = {
        "key": lambda row: row.name,
        "owner": lambda row: (row.key.owner == "", row.key.owner.lower()),
        "spend": lambda row: row.row.totals.cost_nanousd,
        "before": lambda row: row.row.before.cost_nanousd,
        "change": lambda row: row.row.change_nanousd,
        "requests": lambda row: row.row.totals.request_count,
    }
    assert set(orders) == set(SORTS)
    for sort, order in orders.items():
        rows = read_key_spend(ask(), now=at(TODAY), sort=sort, descending=descending).rows
        by_name = sorted(rows, key=lambda row: row.name)
        assert list(rows) == sorted(by_name, key=order, reverse=descending), sort
        assert [rows[place] for place in range(len(rows))] == [*rows[:3], *rows[3:]] == list(rows)


def growth(now: int, before: int, *, all_now: int = 1000, all_before: int = 1000, days: str = "7d") -> str:
    everything = Row(None, "", DayTotals(cost_nanousd=all_now), Spent(request_count=all_before))
    row = Row(1, "", DayTotals(cost_nanousd=now), Spent(cost_nanousd=before, request_count=int(before > 0)))
    period = ask(today=dt.date(2026, 3, 31), period=days).period
    return growth_of(row, everything=everything, period=period)[0]


def test_growth_is_judged_by_the_day_and_noise_is_left_alone() -> None:
    assert growth(20, 10) == "grew"
    assert growth(19, 10) == ""
    assert growth(18, 9) == ""  # nine more are less than 1 % of 1,000
    assert growth(0, 0) == growth(0, 10) == ""
    assert growth(50, 0) == "new"
    assert growth(49, 0) == ""
    assert growth(500, 0, all_before=0) == ""  # nobody spent before: all are new
    # All of March against all of February: 31 days against 28.
    assert growth(221, 100, days="this-month") == ""
    assert growth(222, 100, days="this-month") == "grew"


@pytest.mark.django_db
def test_the_page_and_its_file_show_the_same_keys_and_the_way_to_the_model(tmp_path: Path) -> None:
    today = timezone.now().date()
    world = key_of(make.world(), "=bot", owner="@ada")
    lines = [
        *spent(world, 1, 2, 3, today=today),
        *spent(world, 1, today=today, cost=None, price=None, unpriced=True),
    ]
    make.ingest(tmp_path, [*lines, *spent(world, 8, today=today)])
    client = operator()
    page = client.get("/spend/keys?period=7d").content.decode()
    assert "1 key grew unusually" in page
    assert "3.0 times as much a day" in page
    assert f"key={world.key.pk}" in page[page.index("row-link") :][:200].replace("&amp;", "&")
    answer = client.get("/spend/keys/export.csv?period=7d&sort=key").content.decode()
    bot, _, total = csv.DictReader(io.StringIO(answer))
    assert (bot["key"], bot["owner"], bot["unusual"]) == ("'=bot", "'@ada", "grew")
    assert bot["last_used_day"] == str(today - DAY)
    assert int(bot["cost_nanousd"]) == int(total["cost_nanousd"]) == 3 * make.COST_NANOUSD
    assert bot["unpriced_count"] == "1"
    assert client.get("/spend/keys/export.xlsx").content[:2] == b"PK"
    only = client.get("/spend/keys?period=7d&only=unusual&q=bot").content.decode()
    assert "of 1 key" in only
    assert "No key matches" in client.get("/spend/keys?q=%00zzz").content.decode()


def points(*costs: int, until: dt.date = TODAY) -> list[DayPoint]:
    """Days that end with `until`, each with its cost; a day of no cost had no request."""
    first = until - DAY * (len(costs) - 1)
    return [
        DayPoint(first + DAY * place, DayTotals(request_count=int(cost > 0), cost_nanousd=cost))
        for place, cost in enumerate(costs)
    ]


def test_the_forecast_is_what_was_spent_and_a_mean_day_for_each_that_is_left() -> None:
    found = forecast_month(points(0, 10, 20, 30, 40, 0, 50, 60, 5), spent_nanousd=1000, today=TODAY)
    assert found is not None
    # Of the seven whole days before today the mean is 30; today has 5 of it already; 21 days of May are left.
    assert found == (1000 + 25 + 21 * 30, 30, 7, 21, 0)
    young = forecast_month(points(0, 0, 0, 0, 0, 0, 10, 21, 100), spent_nanousd=131, today=TODAY)
    assert young is not None
    assert (young.mean_of_days, young.a_day_nanousd, young.total_nanousd) == (2, 16, 131 + 21 * 16)
    assert forecast_month(points(0, 0, 7), spent_nanousd=7, today=TODAY) is None
    last = forecast_month(
        points(10, 10, until=dt.date(2026, 5, 31)), spent_nanousd=310, today=dt.date(2026, 5, 31)
    )
    assert last is not None
    assert (last.days_left, last.total_nanousd) == (0, 310)


@pytest.mark.django_db
def test_savings_compare_with_the_baseline_of_each_policy_net_of_evaluations(tmp_path: Path) -> None:
    today = timezone.now().date()
    world, other = make.world(), make.world()
    # The baseline: ten times the price.
    large = replace(world, deployment=other.deployment)
    rates = {"input_usd_per_mtok": "0.50", "cache_read_usd_per_mtok": "0.05", "output_usd_per_mtok": "2.00"}
    large.price = Price.objects.create(
        deployment=large.deployment, rates=rates, effective_from=at(TODAY - 300 * DAY)
    )
    baseline = Model.objects.get(pk=large.deployment.model_id).name
    world.policy.live_version = PolicyVersion.objects.create(
        policy=world.policy, number=2, document={"rules": [], "baseline": baseline}
    )
    world.policy.save()
    lines = [
        *spent(world, 1, 1, today=today),
        *spent(world, 1, today=today, cost=None, price=None, unpriced=True),
    ]
    for intent in lines[::2]:
        intent["features"] |= {"workload": "00112233445566ff", "task_type": "code"}
    plain = spent(other, 1, today=today)
    make.ingest(tmp_path, [*lines, *spent(world, 1, today=today), *plain])
    workload_usage.collect_workloads(now=timezone.now())
    Evidence.objects.create(
        source="evaluation",
        at=at(today - DAY),
        model_id=world.deployment.model_id,
        quality=1.0,
        cost_nanousd=1000,
    )
    router = read_router_now(timezone.now())
    savings = read_savings(ask(today=today), router, today=today)
    found = {row.public_id: row for row in savings.rows}
    row = found[world.policy.public_id]
    assert (row.request_count, row.compared_count, row.paid_nanousd) == (4, 2, 2 * make.COST_NANOUSD)
    assert row.baseline_nanousd == 20 * make.COST_NANOUSD
    assert found[other.policy.public_id].baseline_nanousd is None
    assert savings.saved_nanousd == 18 * make.COST_NANOUSD - 1000
    narrowed = read_savings(ask(today=today, tenant=str(world.tenant.pk)), router, today=today)
    assert (narrowed.evaluation_nanousd, narrowed.saved_nanousd) == (None, 18 * make.COST_NANOUSD)
    client = operator()
    page = client.get("/spend/savings?period=7d").content.decode()
    assert "90 % of what the baseline would have cost" in page
    assert "granted the best share of cached input" in page
    refused = client.get(f"/spend/savings?period=7d&model={world.deployment.model_id}").content.decode()
    assert "Remove the filters by model" in refused
