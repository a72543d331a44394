"""Does the home page say whether it is healthy, what today costs and what needs a person?"""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path

import pytest
from django.conf import settings
from django.utils import timezone

from billing.ingesting import Ingester
from billing.recent_reports import today_summary
from gateway import health_board
from gateway.needs_attention import count_journal_backlog_bytes
from gateway.views.home import list_attention, list_figures, relative_change
from policies.models import PublicationRequest
from tests import make
from tests.console_people import finance, operator, viewer

pytestmark = pytest.mark.django_db


def test_a_new_installation_is_shown_how_to_send_its_first_request() -> None:
    html = operator().get("/").content.decode()
    assert "Send the first request" in html
    assert f"curl -s {settings.POINTSMAN_PUBLIC_URL}/v1/chat/completions" in html


def test_todays_requests_failures_spend_and_keys_are_summed(tmp_path: Path) -> None:
    world = make.world()
    lines = [
        *make.request_lines(world),
        *make.request_lines(world),
        *make.request_lines(world, status="error", http=502, error="provider_error"),
        *make.request_lines(world, price=None, cost=None, unpriced=True),
    ]
    make.ingest(tmp_path, lines)
    context = viewer().get("/").context
    figures = {figure["title"]: figure for figure in context["figures"]}
    assert figures["Requests"]["value"] == 4
    assert figures["Failed"]["value"] == 0.25
    assert figures["Spend"]["value"] == 3 * make.COST_NANOUSD
    assert figures["Spend"]["unpriced"] == 1
    (row,) = context["today"].top_keys
    assert (row.id, row.totals.request_count) == (world.key.pk, 4)
    assert any("1 request without a price" in item["title"] for item in context["attention"])


def test_requests_of_earlier_days_without_a_price_need_somebody_too(tmp_path: Path) -> None:
    world = make.world()
    at = timezone.now() - dt.timedelta(days=20)
    make.ingest(
        tmp_path, make.request_lines(world, make.request_id_at(at), price=None, cost=None, unpriced=True)
    )
    page = viewer().get("/")
    (item,) = [item for item in page.context["attention"] if item["state"] == "unpriced"]
    assert item["title"] == "1 request without a price"
    assert "1 unpriced" in page.content.decode()


def test_yesterday_is_counted_until_the_same_time_of_day(tmp_path: Path) -> None:
    world = make.world()
    now = timezone.now()
    early, late = now - dt.timedelta(hours=25), now - dt.timedelta(hours=22)
    is_yesterday = early.date() == now.date() - dt.timedelta(days=1)
    lines = []
    for at in (early, late):
        lines += make.request_lines(world, make.request_id_at(at))
    make.ingest(tmp_path, lines)
    figures = {figure["title"]: figure for figure in viewer().get("/").context["figures"]}
    assert figures["Requests"]["before"] == (1 if is_yesterday else 0)


def test_a_deployment_that_is_out_needs_somebody_and_counts_in_the_menu() -> None:
    world = make.world()
    data_dir = Path(settings.POINTSMAN_DATA_DIR)
    state = {
        "state": "ejected",
        "until": time.time() + 30,
        "requests": 20,
        "failures": 20,
        "first_token_ms": None,
    }
    health = {str(world.deployment.pk): {**state, "reason": "20 of 20 calls failed"}}
    health_board.write_report(data_dir, "test-worker", {"health": health})
    try:
        html = operator().get("/").content.decode()
        providers = operator().get("/providers").content.decode()
        deployment = operator().get(f"/deployments/{world.deployment.pk}").content.decode()
    finally:
        health_board.remove_report(data_dir, "test-worker")
    assert "1 down" in html
    assert "ejected" in providers
    assert "20 of 20 calls failed" in deployment


def test_what_the_ingester_has_not_read_is_the_backlog(tmp_path: Path) -> None:
    path = make.segment(tmp_path, make.request_lines(make.world()))
    assert count_journal_backlog_bytes(tmp_path) == path.stat().st_size
    Ingester(tmp_path).ingest_available()
    assert count_journal_backlog_bytes(tmp_path) == 0


@pytest.mark.parametrize(
    ("now", "before", "text"),
    [(5, 0, ""), (112, 100, "+12 %"), (97, 100, "−3 %"), (420, 100, "×4.2"), (1, 1, "±0 %")],
)
def test_a_change_against_yesterday_is_written_for_people(now: int, before: int, text: str) -> None:
    assert relative_change(now, before) == text


def test_a_draft_that_waits_for_another_operator_needs_somebody() -> None:
    policy = make.world().policy
    policy.requires_approval = True
    policy.save()
    PublicationRequest.objects.create(policy=policy, document={}, note="latency first", requested_by="ada")
    items = list_attention(today_summary(timezone.now()))
    assert {
        "state": "to_approve",
        "title": f"ada asks to publish {policy.public_id}",
        "text": "latency first",
        "url": f"/policies/{policy.pk}",
    } in items


def test_the_key_whose_spend_grew_unusually_is_named_to_who_can_set_it_a_budget(tmp_path: Path) -> None:
    world, now = make.world(), timezone.now()
    days = (1, 1, 2, 2, 9)
    lines = [make.request_lines(world, make.request_id_at(now - dt.timedelta(days=ago))) for ago in days]
    make.ingest(tmp_path, [line for pair in lines for line in pair])
    for person, is_told in ((operator(), True), (finance(), True), (viewer(), False)):
        items = [one for one in person.get("/").context["attention"] if one["state"] == "grew"]
        assert bool(items) == is_told
    (item,) = [one for one in operator().get("/").context["attention"] if one["state"] == "grew"]
    assert item["title"] == f"{world.tenant}/web/dev spends unusually much"
    assert item["text"].endswith("in the last 7 days, 4.0 times as much as before.")
    (row,) = operator().get(item["url"]).context["report"].unusual
    assert row.key.pk == world.key.pk


def test_the_number_of_failed_requests_opens_exactly_those(tmp_path: Path) -> None:
    world = make.world()
    outcomes: list[dict[str, object]] = [
        {},
        {"status": "error", "http": 502, "error": "provider_error"},
        {"status": "refused", "http": 402, "error": "budget_exceeded"},
        {"status": "cancelled"},
    ]
    make.ingest(tmp_path, [line for outcome in outcomes for line in make.request_lines(world, **outcome)])
    figures = {figure["title"]: figure for figure in list_figures(today_summary(timezone.now()))}
    assert figures["Failed"]["detail"] == "2 requests"
    opened = operator().get(figures["Failed"]["url"])
    assert sorted(row.status for row in opened.context["page"].records) == ["error", "refused"]
    assert [chip.value for chip in opened.context["chips"] if chip.name == "status"] == ["any failure"]
    assert len(operator().get(figures["Requests"]["url"]).context["page"].records) == 4
