"""Are the sums by workload those of the records, whenever the records come?"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from billing.models import WorkloadDay, WorkloadUsage
from billing.workload_usage import KEEP_DAYS, collect_workloads, read_served
from tests import make

pytestmark = pytest.mark.django_db

WORKLOAD = "00112233445566ff"


def lines(
    world: make.World, at: dt.datetime, workload: str = WORKLOAD, **outcome: Any
) -> list[dict[str, Any]]:
    request_id = make.request_id_at(at)
    features = {"workload": workload, "task_type": "code", "app": "IDE"} if workload else {}
    return [
        make.intent_line(world, request_id, features=features, decision={"strategy": "auto"}),
        make.outcome_line(world, request_id, **outcome),
    ]


def test_a_days_records_become_one_row_for_each_workload_and_deployment(tmp_path: Path) -> None:
    world, now = make.world(), timezone.now()
    usage = make.usage_line(output=100)
    make.ingest(
        tmp_path,
        [
            *lines(world, now),
            *lines(world, now, usage=usage, cost=None, price=None, unpriced=True, ms=112.3),
            *lines(world, now, status="error"),
            *lines(world, now, workload=""),
        ],
    )
    assert collect_workloads(now=now) == [now.date()]
    row = WorkloadUsage.objects.get()
    assert (row.workload, row.task_type, row.app, row.api_key_id) == (WORKLOAD, "code", "IDE", world.key.pk)
    assert (row.request_count, row.checkable_count, row.priced_count) == (2, 2, 1)
    assert (row.input_tokens, row.cache_read_tokens) == (2000, 400)
    assert (row.output_tokens, row.output_count, row.cost_nanousd) == (600, 2, make.COST_NANOUSD)
    assert (row.latency_count, row.p50_ms) == (2, pytest.approx(62.3))


def test_late_records_are_found_and_days_without_news_are_left_alone(tmp_path: Path) -> None:
    world, now = make.world(), timezone.now()
    yesterday = now - dt.timedelta(days=1)
    make.ingest(tmp_path, lines(world, yesterday))
    assert collect_workloads(now=now) == [yesterday.date()]
    assert collect_workloads(now=now) == []
    make.ingest(tmp_path, lines(world, yesterday), worker="worker-2")
    assert collect_workloads(now=now, again_after=dt.timedelta(minutes=5)) == []
    assert collect_workloads(now=now) == [yesterday.date()]
    assert WorkloadUsage.objects.get().request_count == 2
    much_later = now + dt.timedelta(days=KEEP_DAYS + 1)
    assert collect_workloads(now=much_later) == []
    assert not WorkloadUsage.objects.exists()
    assert not WorkloadDay.objects.exists()


def test_what_a_model_did_is_weighted_by_its_requests_over_days(tmp_path: Path) -> None:
    world, now = make.world(), timezone.now()
    before = now - dt.timedelta(days=1)
    make.ingest(
        tmp_path,
        [*lines(world, now, ms=100.0), *lines(world, now, ms=100.0), *lines(world, before, ms=400.0)],
    )
    collect_workloads(now=now)
    model = world.deployment.model.name
    found = read_served(since=before.date())
    assert found.keys() == {(WORKLOAD, model)}
    served = found[WORKLOAD, model]
    assert (served.request_count, served.output_tokens, served.p50_ms) == (3, 1500, pytest.approx(200.0))
    assert read_served(since=before.date(), by=()).keys() == {(model,)}
    assert read_served(since=before.date(), by=("task_type",)).keys() == {("code", model)}
    assert read_served(since=now.date())[WORKLOAD, model].request_count == 2
