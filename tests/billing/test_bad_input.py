"""Do numbers and clocks that lie, prices with holes, and tenants that go leave every total right?"""

from __future__ import annotations

import datetime as dt
import logging
from pathlib import Path
from typing import Any

import orjson
import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import Sum

from billing import pricing
from billing.models import Price, RequestRecord, UsageByDay, UsageByHour
from billing.rerating import Question, preview
from billing.verifying import verify
from policies import tenancy_changes
from policies.errors import InvalidValueError, NameTakenError
from policies.models import ApiKey, Project, Tenant
from tests import make

pytestmark = pytest.mark.django_db

NOON = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
GOOD = 141_000


def totals() -> tuple[int, int]:
    """What the rollups say: requests and cost, by day and by hour the same."""
    by_day, by_hour = (
        rows.objects.aggregate(requests=Sum("request_count"), cost=Sum("cost_nanousd"))
        for rows in (UsageByDay, UsageByHour)
    )
    assert by_day == by_hour
    return int(by_day["requests"] or 0), int(by_day["cost"] or 0)


def rejected(data_dir: Path) -> list[dict[str, Any]]:
    path = data_dir / "journal" / "rejected.jsonl"
    return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def is_right() -> bool:
    return verify(now=NOON).differences == ()


FIELDS = ("input", "output", "cache_read", "cache_write", "reasoning", "searches")
NO_COUNTS = (-1, 10**13, 1.5, "12", True, [1], 2**63)


def test_lines_with_a_number_that_is_none_are_put_aside_with_their_reason(tmp_path: Path) -> None:
    world = make.world()
    lines = make.request_lines(world, make.request_id_at(NOON))
    for field in FIELDS:
        for value in NO_COUNTS:
            usage = make.usage_line(**{field: value})
            lines += make.request_lines(world, make.request_id_at(NOON), usage=usage)
    make.ingest(tmp_path, lines)
    assert totals()[1] == GOOD
    reasons = [line["reason"] for line in rejected(tmp_path)]
    for field in FIELDS:
        assert sum(reason.startswith(f"{field}:") for reason in reasons) == len(NO_COUNTS), field
    assert is_right()


def test_numbers_that_json_does_not_have_are_put_aside(tmp_path: Path) -> None:
    world = make.world()
    lines: list[Any] = make.request_lines(world, make.request_id_at(NOON))
    for text in (b"NaN", b"Infinity", b"-Infinity", b"1e400"):
        intent, outcome = make.request_lines(world, make.request_id_at(NOON))
        broken = orjson.dumps(outcome).replace(b'"cost":141000', b'"cost":' + text)
        assert text in broken
        lines += [intent, broken]
    make.ingest(tmp_path, lines)
    assert totals()[1] == GOOD
    assert len([line for line in rejected(tmp_path) if line["reason"]]) >= 4
    assert is_right()


def test_usage_that_nobody_believed_is_unknown_and_in_no_sum(tmp_path: Path) -> None:
    world = make.world()
    unknown = make.usage_line(kind="unknown", input=None, output=None, cache_read=0)
    make.ingest(
        tmp_path,
        [
            *make.request_lines(world, make.request_id_at(NOON)),
            *make.request_lines(world, make.request_id_at(NOON), usage=unknown, cost=None, price=None),
        ],
    )
    assert totals() == (2, GOOD)
    row = UsageByDay.objects.aggregate(unknown=Sum("unknown_count"), unpriced=Sum("unpriced_count"))
    assert row == {"unknown": 1, "unpriced": 0}
    assert is_right()


def test_the_largest_usage_that_is_believed_still_fits_into_every_sum(tmp_path: Path) -> None:
    world = make.world()
    most = make.usage_line(input=10**12, output=10**12, cache_read=10**12)
    price = Price.objects.create(
        deployment=world.deployment, rates={"usd_per_request": "1000000"}, effective_from=NOON - DAY
    )
    lines = [
        line
        for _ in range(20)
        for line in make.request_lines(
            world, make.request_id_at(NOON), usage=most, price=price.pk, cost=10**15
        )
    ]
    make.ingest(tmp_path, lines)
    assert totals() == (20, 20 * 10**15)
    assert UsageByDay.objects.get().input_tokens == 20 * 10**12
    assert is_right()


def test_a_clock_that_was_set_back_counts_at_the_time_it_said(tmp_path: Path) -> None:
    world = make.world()
    back = [dt.timedelta(0), dt.timedelta(hours=1), DAY, 40 * DAY, 400 * DAY, dt.timedelta(0)]
    moments = [NOON - jump for jump in back]
    make.ingest(
        tmp_path, [line for at in moments for line in make.request_lines(world, make.request_id_at(at))]
    )
    assert totals() == (6, 6 * GOOD)
    assert set(UsageByDay.objects.values_list("day", flat=True)) == {at.date() for at in moments}
    assert is_right()


def test_requests_of_the_future_are_recorded_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = make.world()
    now = dt.datetime.now(dt.UTC)
    with caplog.at_level(logging.WARNING, logger="billing.ingesting"):
        make.ingest(tmp_path, make.request_lines(world, make.request_id_at(now - DAY)))
        assert "clock" not in caplog.text
        late = [
            line
            for days in (40, 50)
            for line in make.request_lines(world, make.request_id_at(now + days * DAY))
        ]
        make.ingest(tmp_path, late, worker="worker-2")
    assert "2 requests began after now, by up to 50 days: a clock is wrong" in caplog.text
    assert totals() == (3, 3 * GOOD)
    assert is_right()


@pytest.mark.parametrize("year", [1999, 2210])
def test_requests_of_another_age_are_put_aside(tmp_path: Path, year: int) -> None:
    world = make.world()
    lines = make.request_lines(world, make.request_id_at(dt.datetime(year, 1, 1, tzinfo=dt.UTC)))
    make.ingest(tmp_path, [*lines, *make.request_lines(world, make.request_id_at(NOON))])
    assert totals() == (1, GOOD)
    assert "not a request id of this gateway" in rejected(tmp_path)[0]["reason"]


def test_before_the_first_price_there_is_none_and_none_is_made_up(tmp_path: Path) -> None:
    world = make.world()
    early = dt.datetime(2024, 6, 1, tzinfo=dt.UTC)
    make.ingest(
        tmp_path, make.request_lines(world, make.request_id_at(early), price=None, cost=None, unpriced=True)
    )
    assert UsageByDay.objects.get().unpriced_count == 1
    assert totals() == (1, 0)
    hole = Question(early.date(), early.date(), takes_later_price=False)
    assert (preview(hole).all.request_count, preview(hole).left_count) == (0, 1)


def test_two_prices_cannot_begin_at_once_and_none_is_changed_afterwards() -> None:
    world = make.world()
    with pytest.raises(NameTakenError, match="already has a cost price that begins at"):
        pricing.add_price(
            deployment=world.deployment,
            rates=make.RATES,
            actor="f",
            effective_from=world.price.effective_from,
        )
    for rate in ("NaN", "Infinity", "-1", "1e9", "=1+1", ""):
        with pytest.raises(InvalidValueError, match="input_usd_per_mtok"):
            pricing.add_price(deployment=world.deployment, rates={"input_usd_per_mtok": rate}, actor="f")
    with pytest.raises(Exception, match="append-only"), transaction.atomic():
        Price.objects.filter(pk=world.price.pk).update(rates={"input_usd_per_mtok": "0"})
    with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO billing_price (deployment_id, book, rates, effective_from, source, created_at, created_by)"
            " SELECT deployment_id, book, rates, effective_from, '', now(), '' FROM billing_price WHERE id = %s",
            [world.price.pk],
        )
    assert Price.objects.count() == 1


def test_a_tenant_with_history_stays_and_one_that_went_costs_its_own_lines_only(tmp_path: Path) -> None:
    world, other = make.world(), make.world("gone")
    make.ingest(tmp_path, make.request_lines(world, make.request_id_at(NOON)))
    for row in (world.tenant, world.project, world.key):
        with pytest.raises(Exception, match=r"protected|projects|need"), transaction.atomic():
            if isinstance(row, Tenant):
                tenancy_changes.delete_tenant(tenant=row, actor="olga")
            else:
                row.delete()
    with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("DELETE FROM policies_tenant WHERE id = %s", [world.tenant.pk])
    assert (Tenant.objects.count(), totals()) == (2, (1, GOOD))
    # This one has none: it may go, and what is still on its way is put aside.
    late = make.request_lines(other, make.request_id_at(NOON))
    ApiKey.objects.filter(project__tenant=other.tenant).delete()
    Project.objects.filter(tenant=other.tenant).delete()
    tenancy_changes.delete_tenant(tenant=other.tenant, actor="olga")
    make.ingest(tmp_path, [*late, *make.request_lines(world, make.request_id_at(NOON))], worker="worker-2")
    assert totals() == (2, 2 * GOOD)
    assert {line["reason"] for line in rejected(tmp_path)}
    assert RequestRecord.objects.filter(tenant_id=other.tenant.pk).count() == 0
    assert is_right()
