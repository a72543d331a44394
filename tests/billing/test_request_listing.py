"""Are requests found by every filter, and paged without a gap or a repetition?"""

from __future__ import annotations

import datetime as dt
import uuid
from pathlib import Path
from typing import Any

import pytest

from billing.models import RequestRecord
from billing.request_listing import RequestFilters, list_requests
from gateway.dataplane.request_ids import make_request_id
from tests import make

pytestmark = pytest.mark.django_db
NOON = dt.datetime(2026, 5, 31, 23, 59, 59, tzinfo=dt.UTC)


def ids(**filters: Any) -> set[str]:
    return {str(record.id) for record in list_requests(filters=RequestFilters(**filters)).records}


def test_pages_follow_each_other_newest_first_over_the_turn_of_a_month(tmp_path: Path) -> None:
    world = make.world()
    # Several in one millisecond, on both sides of midnight of the first of June.
    times = [NOON + dt.timedelta(milliseconds=250 * (index // 3)) for index in range(25)]
    make.ingest(
        tmp_path, [line for at in times for line in make.request_lines(world, make.request_id_at(at))]
    )
    seen: list[RequestRecord] = []
    after = None
    while True:
        page = list_requests(filters=RequestFilters(tenant_id=world.tenant.pk), after=after, limit=4)
        seen += page.records
        after = page.next_after
        if after is None:
            break
    assert seen == list(RequestRecord.objects.order_by("-started_at", "-id"))
    assert len(seen) == 25


def test_every_filter_finds_its_own_and_nothing_else(tmp_path: Path) -> None:
    one, other = make.world(), make.world()
    plain = make.request_lines(one)
    failed = make.request_lines(one, status="error", error="upstream_timeout")
    unpriced = make.request_lines(other, cost=None, price=None, unpriced=True)
    make.ingest(tmp_path, [*plain, *failed, *unpriced])
    a, b, c = plain[0]["id"], failed[0]["id"], unpriced[0]["id"]
    assert ids() == {a, b, c}
    assert ids(tenant_id=one.tenant.pk) == ids(project_id=one.project.pk) == ids(key_id=one.key.pk) == {a, b}
    assert ids(deployment_id=other.deployment.pk) == ids(provider_id=other.deployment.provider_id) == {c}
    assert ids(policy_id=other.policy.pk) == {c}
    assert ids(model=other.deployment.model.name) == ids(model=other.policy.public_id) == {c}
    assert ids(status="error") == ids(error_code="upstream_timeout") == {b}
    assert ids(is_unpriced=True) == {c}
    assert ids(is_unpriced=False, status="ok") == {a}
    assert ids(request_id=uuid.UUID(a)) == {a}
    started_at = RequestRecord.objects.get(id=a).started_at
    assert a in ids(since=started_at)
    assert a not in ids(until=started_at)
    assert ids(tenant_id=0) == ids(model="no such") == ids(request_id=uuid.uuid4()) == set()


def test_a_foreign_id_as_a_place_in_the_list_gives_an_empty_page() -> None:
    assert list_requests(filters=RequestFilters(), after=uuid.uuid4()).records == ()
    assert list_requests(filters=RequestFilters(), after=uuid.UUID(make_request_id())).next_after is None


def test_a_page_with_all_names_costs_a_fixed_number_of_queries(
    tmp_path: Path, django_assert_max_num_queries: Any
) -> None:
    make.ingest(tmp_path, [line for _ in range(8) for line in make.request_lines(make.world())])
    with django_assert_max_num_queries(9):
        page = list_requests(filters=RequestFilters())
        names = {
            (
                record.tenant.name,
                str(record.api_key.name),
                record.deployment and record.deployment.provider.name,
                record.policy and record.policy.public_id,
            )
            for record in page.records
        }
    assert len(names) == 8
