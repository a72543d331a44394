"""Does a policy's page count what its rules took, what failed, and how two versions did?"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from django.utils import timezone

from billing.policy_traffic import RuleTraffic, read_policy_traffic, read_version_traffic
from policies.models import PolicyVersion
from tests import make
from tests.console_people import operator

pytestmark = pytest.mark.django_db

NOW = dt.datetime(2026, 5, 10, 14, 30, tzinfo=dt.UTC)


def test_rules_are_counted_over_the_last_day_with_conditions_that_failed(tmp_path: Path) -> None:
    world, other = make.world(), make.world("other")
    failed = {"trace": ["a", ["broken", "failed", "no such overload"], ["rest", "matched"]]}
    lines = []
    for hours, at_work, rule, decision in [
        (1, world, "a", {"trace": [["a", "matched"]]}),
        (2, world, "rest", failed),
        (3, world, "rest", failed),
        (4, world, "", {}),
        (26, world, "a", {}),
        (1, other, "a", {}),
    ]:
        request_id = make.request_id_at(NOW - dt.timedelta(hours=hours))
        lines += [
            make.intent_line(at_work, request_id, rule=rule, decision=decision),
            make.outcome_line(at_work, request_id),
        ]
    make.ingest(tmp_path, lines)
    traffic = read_policy_traffic(world.policy.pk, now=NOW)
    assert (traffic.request_count, traffic.is_cut) == (4, False)
    assert traffic.by_rule == {
        "a": RuleTraffic(1, 0.25),
        "rest": RuleTraffic(2, 0.5),
        "": RuleTraffic(1, 0.25),
        "broken": RuleTraffic(0, 0.0, 2, "no such overload"),
    }


def test_two_versions_are_compared_over_the_same_time(tmp_path: Path) -> None:
    world = make.world()
    canary = PolicyVersion.objects.create(policy=world.policy, number=2, document={"rules": []})
    lines = []
    for minutes, version, outcome in [
        (5, world.version.pk, {"ms": 100.0}),
        (6, world.version.pk, {"ms": 300.0, "cost": None, "price": None, "unpriced": True}),
        (7, canary.pk, {"status": "error", "error": "upstream_timeout", "ms": 50.0}),
        (90, canary.pk, {}),
    ]:
        request_id = make.request_id_at(NOW - dt.timedelta(minutes=minutes))
        lines += [
            make.intent_line(world, request_id, version=version),
            make.outcome_line(world, request_id, **outcome),
        ]
    make.ingest(tmp_path, lines)
    found = read_version_traffic(
        world.policy.pk, [world.version.pk, canary.pk], since=NOW - dt.timedelta(hours=1), now=NOW
    )
    live, tried = found[world.version.pk], found[canary.pk]
    assert (live.request_count, live.error_ratio, live.mean_cost_nanousd) == (2, 0.0, make.COST_NANOUSD)
    assert live.p50_duration_ms == 200.0
    assert (tried.request_count, tried.error_ratio) == (1, 1.0)


def test_the_page_shows_a_canary_beside_the_live_version_with_what_one_request_cost(tmp_path: Path) -> None:
    world, now = make.world(), timezone.now()
    world.policy.live_version = world.version
    world.policy.canary_version = PolicyVersion.objects.create(
        policy=world.policy, number=2, document=world.version.document
    )
    world.policy.canary_percent, world.policy.canary_started_at = 20.0, now - dt.timedelta(hours=1)
    world.policy.save()
    lines = []
    # A mean that is no whole number of nano-USD: two of the one amount, one of the other.
    for minutes, version, cost in [
        (2, world.version.pk, 1_000),
        (3, world.version.pk, 1_000),
        (4, world.version.pk, 1_001),
        (5, world.policy.canary_version.pk, 2_500),
    ]:
        request_id = make.request_id_at(now - dt.timedelta(minutes=minutes))
        lines += [
            make.intent_line(world, request_id, version=version),
            make.outcome_line(world, request_id, cost=cost),
        ]
    make.ingest(tmp_path, lines)
    page = operator().get(f"/policies/{world.policy.pk}").content.decode()
    assert 'data-label="cost of one">$0.000001<' in page
    assert 'data-label="cost of one">$0.0000025<' in page
