"""Does the page "Auto router" show what the records and the tables say, and do its buttons do what they say?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.urls import reverse
from django.utils import timezone

from billing import router_learning
from billing.catalog_ratings import read_router_now
from billing.evidence import Judgement, record_evidence
from billing.models import Evidence
from billing.pricebook import PriceVersion
from billing.router_report import read_report
from billing.router_savings import ServedSum, baseline_nanousd, best_cached_ratio
from billing.workload_usage import collect_workloads
from policies import router_tables
from policies.autorouter.tables import empty_tables
from policies.models import ChangeEvent, RouterTable
from tests import make
from tests.console_people import finance, operator, viewer
from tests.make_configuration import make_deployment, make_model, make_price

pytestmark = pytest.mark.django_db

WORKLOAD = "00112233445566ff"
FLAT = {"input_usd_per_mtok": "1", "output_usd_per_mtok": "2"}


def sums(model: str, count: int, **fields: int) -> ServedSum:
    values = {
        "input_tokens": 1000 * count, "cache_read_tokens": 0, "output_tokens": 500 * count, "output_count": count,
        "cost_nanousd": 100 * count, "priced_count": count, **fields,
    }  # fmt: skip
    return ServedSum(model, count, **values)


def price(**rates: str) -> PriceVersion:
    return make.price_version(**(rates or FLAT))


def recorded(tmp_path: Path) -> make.World:
    """A workload of three requests, whose policy has a dearer model as its baseline."""
    world, now = make.world(), timezone.now()
    baseline = make_deployment(name="big@x", model=make_model(name="big"))
    make_price(deployment=baseline, rates={"input_usd_per_mtok": "1", "output_usd_per_mtok": "10"})
    version = world.policy.versions.create(number=2, document={"baseline": "big", "rules": []})
    world.policy.live_version = version
    world.policy.save()
    lines = []
    for _ in range(3):
        request_id = make.request_id_at(now)
        features = {"workload": WORKLOAD, "task_type": "code", "app": "IDE"}
        lines += [
            make.intent_line(world, request_id, features=features),
            make.outcome_line(world, request_id),
        ]
    make.ingest(tmp_path, lines)
    collect_workloads(now=now)
    return world


def test_the_baseline_is_rated_with_its_own_output_and_the_best_cache_of_any_model() -> None:
    served = [sums("small", 10, cache_read_tokens=5000), sums("big", 2, output_tokens=2000, cost_nanousd=9)]
    # 1,000 in, half of them cached at the full rate, and the 1,000 out that the baseline writes on average.
    assert baseline_nanousd(served, baseline="big", price=price()) == 10 * (1000 * 1000 + 1000 * 2000) + 9
    cached = price(**FLAT, cache_read_usd_per_mtok="0.1")
    assert baseline_nanousd(served, baseline="big", price=cached) == 10 * (500_000 + 50_000 + 2_000_000) + 9
    assert best_cached_ratio([]) == 0.0


def test_a_baseline_that_never_served_writes_as_much_as_was_written_and_unpriced_requests_are_left_out() -> (
    None
):
    served = [sums("small", 10, priced_count=4)]
    assert baseline_nanousd(served, baseline="big", price=price()) == 4 * (1000 * 1000 + 500 * 2000)


def test_a_report_names_the_workload_and_takes_evaluation_off_what_was_saved(tmp_path: Path) -> None:
    world, now = recorded(tmp_path), timezone.now()
    record_evidence(
        [
            Judgement(
                Evidence.Source.EVALUATION,
                world.deployment.model_id,
                1.0,
                now,
                workload=WORKLOAD,
                cost_nanousd=1000,
            )
        ]
    )
    report = read_report(read_router_now(now), since=now.date())
    (row,) = report.workloads
    paid, baseline = 3 * make.COST_NANOUSD, 3 * (1000 * 1000 + 500 * 10_000)
    assert (row.title, row.task_type, row.policies) == ("IDE", "code", (world.policy.public_id,))
    assert (row.cost_nanousd, row.baseline, row.baseline_nanousd) == (paid, "big", baseline)
    assert row.saved_nanousd == report.saved_nanousd == baseline - paid - 1000
    models = {model.model: model for model in row.models}
    assert models[world.deployment.model.name].share == 1.0
    assert models["big"].is_baseline
    assert models["big"].request_count == 0
    assert all(0 <= m.low <= m.place <= m.high <= 100 for m in row.models)
    assert read_report(read_router_now(now), since=now.date(), q="no such app").workloads == ()
    assert read_report(read_router_now(now), since=now.date(), q="ide").workload_count == 1


def test_a_pin_is_set_and_taken_away_on_the_workloads_page(tmp_path: Path) -> None:
    recorded(tmp_path)
    client, address = operator(), reverse("workload-pin", args=[WORKLOAD])
    page = client.post(address, {"model": "big"}, follow=True).content.decode()
    assert "pinned to big" in page
    assert "pinned" in viewer().get(reverse("router")).content.decode()
    client.post(address, {"model": ""})
    assert "pinned" not in client.get(reverse("workload", args=[WORKLOAD])).content.decode()
    assert (
        "no model named nothing" in client.post(address, {"model": "nothing"}, follow=True).content.decode()
    )
    assert [event.action for event in ChangeEvent.objects.filter(object_type="router_table")] == [
        "unpin",
        "pin",
    ]


def test_versions_are_put_into_force_turned_down_and_rolled_back_with_buttons() -> None:
    client = operator()
    first, second = (
        router_tables.create_table(
            document={**empty_tables().to_document(), "extra_types": {"legal": [word]}}, actor="x"
        )
        for word in ("clause", "court")
    )
    for table in (first, second):
        page = client.get(reverse("router-table", args=[table.pk])).content.decode()
        assert "Put into force" in page
        client.post(reverse("router-table-activate", args=[table.pk]))
    assert router_tables.find_active() == second
    client.post(reverse("router-table-back", args=[first.pk]))
    assert router_tables.find_active() == second, "the first is not in force any more: nothing happens"
    client.post(reverse("router-table-back", args=[second.pk]))
    assert router_tables.find_active() == first
    third = router_tables.create_table(document=empty_tables().to_document(), actor="x")
    client.post(reverse("router-table-reject", args=[third.pk]))
    assert RouterTable.objects.get(pk=third.pk).state == "rejected"
    page = client.post(reverse("router-table-activate", args=[third.pk]), follow=True).content.decode()
    assert "was turned down, and cannot go into force" in page


def test_the_menu_says_that_a_version_waits_until_it_is_decided_on() -> None:
    client = operator()
    assert "1 new<" not in client.get("/").content.decode()
    table = router_tables.create_table(document=empty_tables().to_document(), actor="x")
    assert "1 new<" in client.get("/").content.decode()
    assert f"Put version {table.number} into force" in client.get(reverse("router")).content.decode()
    client.post(reverse("router-table-activate", args=[table.pk]))
    assert "1 new<" not in client.get("/").content.decode()


def test_learning_and_the_setting_answer_what_they_did() -> None:
    client = operator()
    page = client.post(reverse("router-learn"), follow=True).content.decode()
    assert "No new version: nothing has come since the newest version." in page
    assert (
        "goes into force by itself"
        in client.post(reverse("router-setting"), {"activates_itself": "1"}, follow=True).content.decode()
    )


def test_learning_from_much_is_handed_to_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[object] = []
    monkeypatch.setattr(router_learning, "QUICK_EVIDENCE", 0)
    monkeypatch.setattr(
        "celery.app.task.Task.apply_async", lambda *args, **kwargs: handed.append(kwargs["args"])
    )
    record_evidence([Judgement(Evidence.Source.FEEDBACK, make_model().pk, 1.0, timezone.now())])
    client = operator()
    page = client.post(reverse("router-learn"), follow=True).content.decode()
    assert "is being learnt" in page
    assert len(handed) == 1

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no queue")

    monkeypatch.setattr("celery.app.task.Task.apply_async", refuse)
    assert "cannot be reached" in client.post(reverse("router-learn"), follow=True).content.decode()


def test_a_version_of_a_later_release_takes_no_page_down(caplog: pytest.LogCaptureFixture) -> None:
    RouterTable.objects.create(number=1, document={"format": 99}, state="active", activated_at=timezone.now())
    client = operator()
    for address in ("/router", reverse("router-table", args=[RouterTable.objects.get().pk])):
        assert client.get(address).status_code == 200
    assert "cannot be used" in caplog.text


def test_readers_see_everything_and_no_button(tmp_path: Path) -> None:
    recorded(tmp_path)
    table = router_tables.set_workload_pin(workload=WORKLOAD, model="big", actor="x")
    assert table is not None
    addresses = [
        reverse("router"),
        reverse("workload", args=[WORKLOAD]),
        reverse("router-table", args=[table.pk]),
    ]
    for client in (viewer(), finance()):
        for address in addresses:
            html = client.get(address).content.decode()
            content = html[html.index('id="content"') :]
            assert re.findall(r'<form method="post"', content) == []


def test_a_models_page_says_where_its_rating_comes_from_and_the_form_changes_it() -> None:
    client, model = operator(), make_model(name="nobody-knows-it")
    address = reverse("model", args=[model.pk])
    assert ">guess</span>" in client.get(address).content.decode()
    form = {
        "name": model.name,
        "rating": "0.62",
        "rating_source": "own evaluation",
        "rating_date": "2026-05-01",
    }
    client.post(reverse("model-edit", args=[model.pk]), form)
    page = client.get(address).content.decode()
    assert ">guess</span>" not in page
    assert "0.62" in page
    assert "own evaluation, 2026-05-01" in page
    assert client.post(reverse("model-edit", args=[model.pk]), {**form, "rating": "62"}).status_code == 422


@pytest.mark.parametrize("name", ["0000000000000000", "nonsense", "../audit"])
def test_a_workload_that_nobody_knows_is_not_found(name: str) -> None:
    assert operator().get(f"/router/workloads/{name}").status_code == 404


def test_the_page_of_a_version_shows_what_two_versions_came_to_side_by_side() -> None:
    numbers = {
        "held_back_judgements": 480, "typical_error_in_force": 0.42, "typical_error_new": 0.39, "aiq_in_force": 0.7011,
        "aiq_new": 0.7322, "aiq_lead_low": 0.0123, "aiq_lead_high": 0.0456, "best_single_quality": 0.81,
        "best_single_cost_usd": 1.5,
    }  # fmt: skip
    gate = {"passes": True, "is_thin": False, "reasons": ["It routes better."], "numbers": numbers}
    document = {
        **empty_tables().to_document(),
        "learnt_at_unix_s": 1,
        "default": {"tau": 0.055, "foreseen_loss": 0},
    }
    table = router_tables.create_table(document=document, actor="x", gate=gate)
    page = viewer().get(reverse("router-table", args=[table.pk])).content.decode()
    assert re.search(r"Quality over cost.*0\.7011.*0\.7322.*0\.0123 to 0\.0456", page, re.DOTALL)
    assert "Quality at the slider" not in page
    assert "beside the ratings alone" in page
    assert "tau 0.055, proven" in page
    thin = router_tables.create_table(
        document=empty_tables().to_document(), actor="x", gate={**gate, "is_thin": True}
    )
    assert "a person decides" in viewer().get(reverse("router-table", args=[thin.pk])).content.decode()
    assert "passed, thin evidence" in viewer().get(reverse("router")).content.decode()
