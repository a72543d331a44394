"""Does what a shadow request told become a pair of evidence, once, that the router learns from?"""

from __future__ import annotations

import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from billing import shadow_budget
from billing.catalog_ratings import read_router_now
from billing.ingesting import Ingester
from billing.models import Evidence, RequestRecord, WorkloadUsage
from billing.router_report import read_report
from billing.workload_usage import collect_workloads
from gateway.dataplane.request_ids import make_request_id
from policies.autorouter import learning
from policies.autorouter.tables import empty_tables
from policies.models import Deployment
from tests import make
from tests.console_people import viewer
from tests.make_configuration import make_tenant

pytestmark = pytest.mark.django_db


def shadow_line(deployments: list[int], **fields: Any) -> dict[str, Any]:
    return {
        "k": "shadow",
        "v": 1,
        "id": make_request_id(),
        "request": make_request_id(),
        "workload": "00112233445566ff",
        "task_type": "code",
        "cost": 70,
        "answers": [
            {"deployment": pk, "quality": quality, "detail": "other_answer", "output": 5, "ms": 12.5}
            for pk, quality in zip(deployments, (0.25, 0.75), strict=True)
        ],
        **fields,
    }


def two_deployments() -> list[Deployment]:
    return [make.world().deployment, make.world().deployment]


def test_a_shadow_line_becomes_two_rows_of_one_pair_however_often_it_comes(tmp_path: Path) -> None:
    served, other = two_deployments()
    line = shadow_line([served.pk, other.pk])
    make.ingest(tmp_path, [line])
    make.ingest(tmp_path, [line, line], worker="worker-2")
    rows = Evidence.objects.order_by("quality")
    assert [(row.source, row.pair_id, row.workload, row.task_type) for row in rows] == [
        ("shadow", line["request"], "00112233445566ff", "code")
    ] * 2
    assert [(row.model_id, row.quality, row.cost_nanousd) for row in rows] == [
        (served.model_id, 0.25, 0),
        (other.model_id, 0.75, 70),
    ]
    assert [row.request_id for row in rows] == [uuid.UUID(line["request"]), uuid.UUID(line["id"])]
    assert {(row.output_tokens, row.latency_ms, row.detail) for row in rows} == {(5, 12.5, "other_answer")}


def test_half_a_comparison_is_no_evidence(tmp_path: Path) -> None:
    served, _ = two_deployments()
    make.ingest(tmp_path, [shadow_line([served.pk, 999_999])])
    assert not Evidence.objects.exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "none"},
        {"request": None},
        {"answers": []},
        {"answers": [1, 2]},
        {"answers": [{"deployment": 1, "quality": 1.5}] * 2},
        {"answers": [{"deployment": 1, "quality": True}] * 2},
        {"cost": -1},
        {"v": 2},
    ],
)
def test_a_shadow_line_that_cannot_be_stored_is_put_aside(tmp_path: Path, fields: dict[str, Any]) -> None:
    line = {**shadow_line([1, 2]), **fields}
    make.segment(tmp_path, [line])
    ingester = Ingester(tmp_path)
    ingester.ingest_available()
    assert ingester.counters.rejected_count == 1
    assert not Evidence.objects.exists()


def test_shadow_requests_are_recorded_and_are_no_workload_of_the_router(tmp_path: Path) -> None:
    world = make.world()
    ids = [make_request_id(), make_request_id()]
    features: list[dict[str, Any]] = [{"workload": "00112233445566ff"}, {"shadow_of": ids[0]}]
    make.ingest(
        tmp_path,
        [
            line
            for request_id, seen in zip(ids, features, strict=True)
            for line in (
                make.intent_line(world, request_id, features=seen),
                make.outcome_line(world, request_id),
            )
        ],
    )
    assert RequestRecord.objects.count() == 2
    collect_workloads(now=timezone.now())
    assert WorkloadUsage.objects.get().request_count == 1


def test_the_router_learns_differences_from_shadows_with_less_weight_than_from_people() -> None:
    rows = [
        learning.Evidence("w", "code", model, quality, pair_id=f"pair {number}", source="shadow")
        for number in range(40)
        for model, quality in (("a", 0.9), ("b", 0.6))
    ]
    learnt = learning.learn(rows, priors=empty_tables(), now_unix_s=0.0).workloads["w"]
    assert learnt.models["a"].difference - learnt.models["b"].difference == pytest.approx(0.3)
    assert learnt.models["a"].n == pytest.approx(10)


def test_savings_are_net_of_all_shadow_requests_also_of_those_that_told_nothing(tmp_path: Path) -> None:
    deployments = two_deployments()
    tenant = make_tenant(shadow_percent=5, shadow_daily_budget_usd=Decimal(1))
    now = timezone.now()
    make.ingest(tmp_path, [shadow_line([one.pk for one in deployments])])
    assert shadow_budget.reserve(tenant.pk, now.date(), 400)
    shadow_budget.settle(tenant.pk, now.date(), reserved_nanousd=400, cost_nanousd=100)
    report = read_report(read_router_now(now), since=now.date())
    assert report.evaluation_nanousd == 100


def test_a_shadows_page_leads_to_the_request_that_it_is_the_shadow_of(tmp_path: Path) -> None:
    world, ids = make.world(), [make_request_id(), make_request_id()]
    for request_id, seen in zip(ids, ({}, {"shadow_of": ids[0]}), strict=True):
        lines = [
            make.intent_line(world, request_id, features=seen),
            make.outcome_line(world, request_id),
        ]
        make.ingest(tmp_path, lines, worker=request_id)
    page = viewer().get(reverse("request", args=[ids[1]])).content.decode()
    assert f'href="{reverse("request", args=[ids[0]])}"' in page
