"""Are seeded requests as exact as recorded ones, the same every time, and kept away from real traffic?"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from django.db.models import Count, Sum

from billing import reports
from billing.models import RequestRecord, UsageByLabelDay
from billing.request_times import attempt_id_of, started_at_of
from billing.seeding_traffic import Plan, seed_traffic
from billing.summing_meters import list_unmatched_days, sum_meters
from billing.verifying import verify
from policies.errors import InvalidValueError
from tests import make

pytestmark = pytest.mark.django_db
NOW = dt.datetime(2026, 5, 10, 12, tzinfo=dt.UTC)


def test_what_is_seeded_is_what_it_claims_to_be_to_the_nano_usd() -> None:
    plan = Plan(request_count=3_000, month_count=2, ends_at=NOW, tenant_count=3, key_count=20)
    assert list(seed_traffic(plan, actor="ada")) == [3_000]
    found = verify(now=NOW)
    assert found.is_ok, found.differences
    assert found.attempt_count == RequestRecord.objects.count() == 3_000
    counts = dict(RequestRecord.objects.values_list("status").annotate(Count("pk")))
    assert 20 < counts["error"] < 120
    assert RequestRecord.objects.filter(is_unpriced=True).exists()
    total = reports.totals(first_day=plan.begins_at.date(), last_day=NOW.date())
    assert total.request_count == 3_000
    assert total.cost_nanousd == RequestRecord.objects.aggregate(sum=Sum("cost_nanousd"))["sum"] > 0
    rules = UsageByLabelDay.objects.filter(label__kind="rule")
    assert rules.aggregate(sum=Sum("request_count"))["sum"] == 3_000
    for record in RequestRecord.objects.all()[:20]:
        assert started_at_of(record.pk) == record.started_at
        assert attempt_id_of(record.pk, 1).int == record.pk.int + 1
    sum_meters(first_day=NOW.date() - dt.timedelta(days=3), last_day=NOW.date())
    assert list_unmatched_days(first_day=NOW.date() - dt.timedelta(days=3), last_day=NOW.date()) == []


def test_the_same_seed_makes_the_same_requests() -> None:
    columns = ("id", "status", "input_tokens", "cost_nanousd", "rule", "tags")
    made = []
    for seed in (7, 7, 8):
        with transaction.atomic():
            list(seed_traffic(Plan(200, 1, NOW, 2, 4, seed), actor="ada"))
            made.append(list(RequestRecord.objects.order_by("id").values_list(*columns)))
            transaction.set_rollback(True)
    assert made[0] == made[1] != made[2]
    assert len(made[2]) == 200


def test_real_traffic_is_not_mixed_with_what_never_was(tmp_path: Path) -> None:
    make.ingest(tmp_path, make.request_lines(make.world()))
    with pytest.raises(CommandError, match="holds recorded requests"):
        call_command("seed_traffic", "--requests", "10")
    call_command("seed_traffic", "--requests", "10", "--months", "1", "--force")
    assert RequestRecord.objects.count() == 11
    with pytest.raises(InvalidValueError):
        list(seed_traffic(Plan(10, 1, NOW, 5, 4, 9), actor="ada"))
