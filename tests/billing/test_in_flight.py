"""Are running requests at the top of the list, and is what the client sent to find its request again on its page?"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from billing import in_flight
from billing.in_flight import list_in_flight
from billing.ingesting import Ingester
from billing.request_listing import RequestFilters
from gateway.journal import SegmentJournal
from tests import make
from tests.console_people import viewer

pytestmark = pytest.mark.django_db


class LivingWorker:
    """A worker that holds its journal's lock, and an ingester that reads it."""

    def __init__(self, data_dir: Path) -> None:
        self.journal = SegmentJournal(data_dir)
        self.ingester = Ingester(data_dir)

    def write(self, *lines: dict[str, Any]) -> None:
        for line in lines:
            self.journal.append(line)
        self.ingester.ingest_available()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[LivingWorker]:
    living = LivingWorker(tmp_path)
    yield living
    living.journal.close()


def rows_of(response: Any) -> list[tuple[str, str]]:
    return [(str(row.id), row.status) for row in response.context["rows"]]


def test_running_requests_stand_at_the_top_of_the_first_page_until_they_end(worker: LivingWorker) -> None:
    world = make.world()
    earlier = make.request_id_at(timezone.now() - dt.timedelta(seconds=5))
    ended, running = make.request_lines(world, earlier), make.intent_line(world, model="slow")
    worker.write(*ended, running)
    client = viewer()
    page = client.get("/requests")
    assert rows_of(page) == [(running["id"], "in_flight"), (ended[0]["id"], "ok")]
    assert ">running<" in page.content.decode()
    seen = page.context["seen"]
    assert client.get(f"/requests?seen={seen}", headers={"HX-Request": "true"}).status_code == 204
    worker.write(make.outcome_line(world, running["id"]))
    after = client.get(f"/requests?seen={seen}", headers={"HX-Request": "true"})
    assert rows_of(after) == [(running["id"], "ok"), (ended[0]["id"], "ok")]


def test_filters_leave_out_what_they_exclude(worker: LivingWorker) -> None:
    world, other = make.world(), make.world()
    lines = [make.intent_line(world, model="slow"), make.intent_line(other, model="quick")]
    worker.write(*lines)
    client = viewer()
    for query, count in {
        "": 2,
        "status=in_flight": 2,
        f"tenant={world.tenant.pk}": 1,
        f"key={other.key.pk}&status=in_flight": 1,
        f"policy={world.policy.pk}": 1,
        "model=slow": 1,
        "model=slow&status=ok": 0,
        "until=2020-01-01T00:00": 0,
        "since=2020-01-01T00:00": 2,
        # Nobody knows these yet of a running request.
        "status=error": 0,
        "error=timeout": 0,
        "unpriced=1": 0,
        f"deployment={world.deployment.pk}": 0,
        f"provider={world.deployment.provider_id}": 0,
    }.items():
        assert len(client.get(f"/requests?{query}").context["rows"]) == count, query
    later = client.get(f"/requests?after={lines[1]['id']}")
    assert rows_of(later) == []


def test_what_no_longer_fits_is_said(worker: LivingWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "MAX_SHOWN", 2)
    world = make.world()
    lines = [make.intent_line(world) for _ in range(3)]
    worker.write(*lines)
    found = list_in_flight(RequestFilters())
    assert [str(record.id) for record in found.records] == sorted(
        (line["id"] for line in lines), reverse=True
    )[:2]
    assert found.has_more
    assert "More requests are running" in viewer().get("/requests").content.decode()


def test_the_clients_own_ids_stand_on_the_page_and_not_among_the_features(worker: LivingWorker) -> None:
    world = make.world()
    lines = make.request_lines(world)
    lines[0]["features"] |= {"client": {"request_id": "req-7", "retry_count": "2"}}
    worker.write(*lines)
    page = viewer().get(f"/requests/{lines[0]['id']}")
    html = page.content.decode()
    assert "req-7" in html
    assert "retry count" in html
    assert "client" not in page.context["features"]
    assert page.context["record"]["features"]["client"]["request_id"] == "req-7"
