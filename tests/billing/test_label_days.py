"""Are the sums by one label read only while they are those of the day, whatever comes while they are made?"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from billing import label_days, rerating, tasks
from billing.label_days import list_due_days, split_days, sum_day
from billing.models import Label, LabelDay, UsageByKeyLabelDay, UsageByKeySetDay
from billing.spend import read_periods
from billing.spend_questions import read_question
from billing.verifying import verify
from tests import make

NOW = dt.datetime(2026, 5, 10, 12, tzinfo=dt.UTC)
TODAY = NOW.date()
DAY = dt.timedelta(days=1)


def come(data_dir: Path, world: make.World, *, days_ago: int, worker: str = "worker-1", **ended: Any) -> None:
    """One request of the team `a`."""
    request_id = make.request_id_at(NOW - days_ago * DAY)
    intent = make.intent_line(world, request_id, rule="short", tags={"team": "a"})
    make.ingest(data_dir, [intent, make.outcome_line(world, request_id, **ended)], worker=worker)


def read(*labels: str) -> tuple[int, int]:
    """Requests and nano-USD of all keys with these labels in the last week."""
    wanted = {
        name: str(Label.objects.get(value=label).pk)
        for name, label in zip(("label", "label2"), labels, strict=False)
    }
    asked = read_question({"by": "key", "period": "7d", **wanted}, today=TODAY)
    totals = read_periods(asked).total().totals
    return totals.request_count, totals.cost_nanousd


def whole_days() -> list[dt.date]:
    return split_days(TODAY - 30 * DAY, TODAY).whole


@pytest.mark.django_db
def test_a_day_is_read_from_its_sums_by_label_until_something_more_is_counted_on_it(tmp_path: Path) -> None:
    world = make.world()
    for days_ago in (3, 2, 0):
        come(tmp_path, world, days_ago=days_ago, cost=100)
    assert list_due_days(today=TODAY) == [TODAY - 2 * DAY, TODAY - 3 * DAY]
    assert all(sum_day(day) for day in list_due_days(today=TODAY))
    assert list_due_days(today=TODAY) == []
    assert split_days(TODAY - 30 * DAY, TODAY) == ([TODAY - 3 * DAY, TODAY - 2 * DAY], [TODAY])
    with CaptureQueriesContext(
        connection,
    ) as asked:
        assert read("a") == (3, 300)
    assert any("billing_usagebykeylabelday" in one["sql"] for one in asked.captured_queries)
    come(tmp_path, world, days_ago=3, cost=7, worker="worker-2")
    assert whole_days() == [TODAY - 2 * DAY]
    assert read("a") == read("short", "a") == (4, 307)
    assert sum_day(TODAY - 3 * DAY)
    assert read("a") == read("short") == read("short", "a") == (4, 307)


@pytest.mark.django_db
def test_what_gets_a_price_afterwards_is_counted_too(tmp_path: Path) -> None:
    world = make.world()
    come(tmp_path, world, days_ago=2, cost=None, price=None, unpriced=True)
    assert sum_day(TODAY - 2 * DAY)
    assert read("a") == (1, 0)
    rerating.rerate(rerating.Question(TODAY - 5 * DAY, TODAY), actor="fiona", reason="late price", now=NOW)
    assert whole_days() == []
    before = read("a")
    assert before[1] > 0
    assert sum_day(TODAY - 2 * DAY)
    assert read("a") == before


@pytest.mark.django_db
def test_verifying_finds_sums_by_label_that_are_not_those_of_the_day(tmp_path: Path) -> None:
    world = make.world()
    come(tmp_path, world, days_ago=2)
    sum_day(TODAY - 2 * DAY)
    assert verify(now=NOW).is_ok
    UsageByKeyLabelDay.objects.filter(label__value="a").update(cost_nanousd=1)
    UsageByKeyLabelDay.objects.filter(label__value="short").delete()
    UsageByKeySetDay.objects.update(output_tokens=F("output_tokens") + 1)
    found = {(one.kind, one.stored, one.expected) for one in verify(now=NOW).differences}
    assert ("usage_by_key_label_day.cost_nanousd", "1", "141000") in found
    assert ("usage_by_key_label_day.request_count", "0", "1") in found
    assert "usage_by_key_set_day.output_tokens" in {kind for kind, _, _ in found}
    LabelDay.objects.all().delete()  # nobody reads them now
    assert verify(now=NOW).is_ok


@pytest.mark.django_db
def test_the_task_sums_all_days_that_are_over(tmp_path: Path) -> None:
    world = make.world()
    come(tmp_path, world, days_ago=3)
    come(tmp_path, world, days_ago=1)
    tasks.sum_label_days()
    assert whole_days() == [TODAY - 3 * DAY, TODAY - DAY]


@pytest.mark.django_db(transaction=True)
def test_what_is_counted_while_a_day_is_summed_makes_it_due_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Committed after the sums were read, before they are called whole."""
    world = make.world()
    come(tmp_path, world, days_ago=2, cost=100)
    day, hold = TODAY - 2 * DAY, label_days._hold_making
    calls: list[int] = []

    def count_before_the_sums_are_read() -> None:
        hold()
        calls.append(1)
        if len(calls) == 2:
            in_a_thread(lambda: come(tmp_path, world, days_ago=2, cost=7, worker="worker-2"))

    monkeypatch.setattr(label_days, "_hold_making", count_before_the_sums_are_read)
    assert not sum_day(day)
    assert not UsageByKeyLabelDay.objects.exists() and not UsageByKeySetDay.objects.exists()
    assert read("a") == (2, 107)
    monkeypatch.undo()
    assert sum_day(day)
    assert (whole_days(), read("a")) == ([day], (2, 107))


@pytest.mark.django_db(transaction=True)
def test_a_day_is_announced_when_nobody_is_counting(tmp_path: Path) -> None:
    """Who began to count before the announcement does not see it, so it waits for them."""
    world = make.world()
    come(tmp_path, world, days_ago=2, cost=100)
    summed: list[bool] = []
    summing = threading.Thread(target=with_own_connection(lambda: summed.append(sum_day(TODAY - 2 * DAY))))
    with transaction.atomic():
        come(tmp_path, world, days_ago=2, cost=7, worker="worker-2")
        summing.start()
        summing.join(0.2)
        assert not summed
    summing.join(30)
    assert summed == [True]
    assert (whole_days(), read("a")) == ([TODAY - 2 * DAY], (2, 107))


def in_a_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=with_own_connection(work))
    thread.start()
    thread.join(30)


def with_own_connection(work: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        try:
            work()
        finally:
            connection.close()

    return run
