"""Do the pages over requests, keys and prices show what was recorded?"""

from __future__ import annotations

import datetime as dt
import uuid
from pathlib import Path

import pytest
from django.utils import timezone

from billing.models import Price
from billing.request_view import find_request
from tests import make
from tests.console_people import finance, operator, viewer

pytestmark = pytest.mark.django_db


def record(data_dir: Path, world: make.World, count: int) -> list[str]:
    """Record this many requests, a second apart, the newest last; return their ids."""
    begun = timezone.now() - dt.timedelta(seconds=count + 5)
    ids = [make.request_id_at(begun + dt.timedelta(seconds=n)) for n in range(count)]
    lines = [line for request_id in ids for line in make.request_lines(world, request_id)]
    make.ingest(data_dir, lines)
    return ids


def shown(response: object) -> list[str]:
    return [str(row.id) for row in response.context["page"].records]  # type: ignore[attr-defined]


def test_pages_of_requests_follow_each_other_in_both_directions(tmp_path: Path) -> None:
    newest_first = record(tmp_path, make.world(), 120)[::-1]
    client = viewer()
    first = client.get("/requests")
    assert shown(first) == newest_first[:50]
    assert first.context["page"].next_before is None
    second = client.get(f"/requests?after={first.context['page'].next_after}")
    third = client.get(f"/requests?after={second.context['page'].next_after}")
    assert shown(second) + shown(third) == newest_first[50:]
    assert third.context["page"].next_after is None
    back = client.get(f"/requests?before={third.context['page'].next_before}")
    assert shown(back) == newest_first[50:100]
    assert shown(client.get(f"/requests?before={back.context['page'].next_before}")) == newest_first[:50]


def test_filters_live_in_the_address_and_each_can_be_taken_away(tmp_path: Path) -> None:
    world, other = make.world(), make.world()
    lines = [
        *make.request_lines(world),
        *make.request_lines(other, status="error", http=502, error="provider_error"),
        *make.request_lines(world, price=None, cost=None, unpriced=True),
    ]
    make.ingest(tmp_path, lines)
    client = finance()
    for query, count in {
        "": 3,
        f"tenant={world.tenant.pk}": 2,
        f"key={other.key.pk}": 1,
        f"provider={world.deployment.provider_id}": 2,
        f"model={world.deployment.model.name}": 2,
        "status=error": 1,
        "error=provider_error": 1,
        "unpriced=1": 1,
        f"tenant={world.tenant.pk}&status=error": 0,
        "since=2999-01-01T00:00": 0,
        "tenant=nonsense&since=nonsense": 3,
        "tenant=999999999999999999999999": 0,
    }.items():
        assert len(shown(client.get(f"/requests?{query}"))) == count, query
    page = client.get(f"/requests?tenant={world.tenant.pk}&status=ok")
    chips = {chip.name: (chip.value, chip.without) for chip in page.context["chips"]}
    assert chips["tenant"] == (world.tenant.name, "status=ok")
    assert chips["status"] == ("ok", f"tenant={world.tenant.pk}")


def test_the_live_list_sends_rows_only_when_there_are_new_ones(tmp_path: Path) -> None:
    world = make.world()
    record(tmp_path, world, 2)
    client = viewer()
    headers = {"HX-Request": "true"}
    seen = client.get("/requests", headers=headers).context["seen"]
    assert client.get(f"/requests?seen={seen}", headers=headers).status_code == 204
    make.ingest(tmp_path, make.request_lines(world), worker="worker-2")
    assert len(shown(client.get(f"/requests?seen={seen}", headers=headers))) == 3


def test_scores_that_are_kept_by_column_are_shown_as_rows(tmp_path: Path) -> None:
    world = make.world()
    name = world.deployment.name
    decision = {
        "path": "routed", "draw": 0.25, "rule": "rest", "strategy": "auto", "slider": 5.0, "tables": 3,
        "candidates": [name, "big@cloud"],
        "scores": {"q": [7321, 8000], "e": [240, 800], "c": [1230000, None], "t": [12345, None], "s": [70000, 60000]},
    }  # fmt: skip
    intent, outcome = make.request_lines(world)
    make.ingest(tmp_path, [{**intent, "decision": decision}, outcome])
    html = viewer().get(f"/requests/{intent['id']}").content.decode()
    assert f"Judged best: {name} quality 0.73 ± 0.02, $0.001230, 1234 ms, score 0.700." in html
    assert "quality 0.80 ± 0.08, unpriced" in html
    found = find_request(uuid.UUID(intent["id"]), key_id=None)
    assert found is not None
    assert found["decision"]["scores"] == [
        [name, 0.7321, 0.024, 1230000, 1234.5, 0.7],
        ["big@cloud", 0.8, 0.08, None, None, 0.6],
    ]


def test_a_request_shows_attempts_decision_usage_and_charge_lines_that_sum_up(tmp_path: Path) -> None:
    world = make.world()
    decision = {
        "path": "routed", "draw": 0.25, "policy": world.policy.public_id, "version": 1, "rule": "rest",
        "strategy": "priority", "candidates": [world.deployment.name], "dropped": [["big@cloud", "region"]],
        "trace": ["long prompts", ["rest", "matched"]],
    }  # fmt: skip
    intent, outcome = make.request_lines(world)
    make.ingest(tmp_path, [{**intent, "decision": decision}, outcome])
    response = viewer().get(f"/requests/{intent['id']}")
    html = response.content.decode()
    for text in (
        world.deployment.name,
        "its region is not among those the tenant allows",
        "rest",
        "$0.000141",
    ):
        assert text in html
    (charge,) = response.context["charges"]
    assert charge.is_same
    assert sum(line.nanousd for line in charge.lines) == charge.total_nanousd == make.COST_NANOUSD
    assert {rule["outcome"] for rule in response.context["rules"]} == {"skipped", "matched"}
    (span,) = response.context["spans"]
    assert 0 <= span.begin <= span.run_begin <= 100
    assert span.run_begin + span.run <= 100.001


def test_a_request_that_is_still_running_says_so_and_an_unknown_id_is_not_found(tmp_path: Path) -> None:
    world = make.world()
    intent = make.intent_line(world)
    make.ingest(tmp_path, [intent])
    html = viewer().get(f"/requests/{intent['id']}").content.decode()
    assert "running" in html or "interrupted" in html
    assert viewer().get(f"/requests/{uuid.uuid4()}").status_code == 404
    assert viewer().get(f"/requests/{make.request_id_at(timezone.now())}").status_code == 404


def test_the_search_field_opens_a_request_by_its_id(tmp_path: Path) -> None:
    (request_id,) = record(tmp_path, make.world(), 1)
    for address in (f"/find?q={request_id}", f"/requests?q={request_id}"):
        assert viewer().get(address)["Location"] == f"/requests/{request_id}"


def test_a_key_shows_what_it_spent_this_month_and_when_it_was_used(tmp_path: Path) -> None:
    world = make.world()
    make.ingest(tmp_path, [*make.request_lines(world), *make.request_lines(world)])
    (row,) = viewer().get("/keys").context["rows"]
    assert row["usage"].cost_nanousd == 2 * make.COST_NANOUSD
    assert row["last_used_on"] == timezone.now().date()
    assert "$0.000282" in viewer().get(f"/keys/{world.key.pk}").content.decode()


def test_finance_adds_a_price_that_takes_over_and_the_old_one_stays() -> None:
    world = make.world()
    address = f"/deployments/{world.deployment.pk}/prices/new"
    fields = {"input_usd_per_mtok": "0.10", "output_usd_per_mtok": "0.40", "source": "contract 7"}
    assert finance().post(address, fields).status_code == 302
    prices = list(Price.objects.filter(deployment=world.deployment).order_by("effective_from"))
    assert [price.rates["input_usd_per_mtok"] for price in prices] == ["0.05", "0.1"]
    page = viewer().get(f"/deployments/{world.deployment.pk}")
    assert page.context["row"].price == prices[1]
    assert operator().post(address, {"input_usd_per_mtok": "cheap"}).status_code == 422
    assert operator().post(address, {}).status_code == 422
    assert Price.objects.count() == 2
