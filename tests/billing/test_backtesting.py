"""Does a backtest say what a document would have done, and does the live version come out as it was recorded?"""

from __future__ import annotations

import datetime as dt
import itertools
import logging
from collections import Counter
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest
from django.utils import timezone

from billing import backtest_processes, backtest_reading, backtest_tally, backtesting
from billing.backtest_judging import Conversations
from billing.backtest_processes import cut
from billing.backtest_reading import Period, Slice, list_slices, read_rows
from billing.backtest_traffic import choose_source, list_sources
from billing.backtesting import BacktestRefused, cancel_backtest, find_unfinished, start_backtest
from billing.models import Backtest, RequestRecord
from gateway.snapshots import load_snapshot
from policies import cataloguing, router_tables
from policies.autorouter.tables import empty_tables
from policies.models import Model, Policy, Tenant
from policies.publishing import PolicyError, create_policy, publish
from policies.snapshot import RoutingSnapshot
from tests import make, make_traffic
from tests.make_traffic import RULES, Site

pytestmark = pytest.mark.django_db


@pytest.fixture
def bare_site() -> Site:
    """Without traffic."""
    return make_traffic.site(now=timezone.now())


@pytest.fixture
def site(bare_site: Site, tmp_path: Path) -> Site:
    bare_site.record(tmp_path, 300)
    return bare_site


def run(site: Site, rules: list[dict[str, Any]], days: int = 7) -> Backtest:
    made = start_backtest(
        policy=site.policy, document={"rules": rules}, days=days, actor="ada", now=site.until
    )
    backtesting.run_backtest(made.pk, load_snapshot=load_snapshot)
    made.refresh_from_db()
    assert made.state == "done", made.error
    return made


def test_the_live_version_comes_out_as_it_was_recorded(site: Site) -> None:
    made = run(site, RULES)
    result = made.result
    assert result["count"] == made.total_count == made.done_count == 300
    assert result["reproduction"] == {
        "checked": 300,
        "reproduced": 300,
        "missed": 0,
        "reasons": {},
        "sample": [],
    }
    assert (result["moved"], result["no_candidate"], result["not_compared"]) == (0, 0, {})
    cost = result["cost"]
    total = sum(RequestRecord.objects.values_list("cost_nanousd", flat=True))
    assert cost["then"] == cost["now"] == total and cost["low"] == cost["high"] == 0
    assert result["deployments"]
    assert all(row["then"] == row["now"] for row in result["deployments"])


def test_a_draft_moves_requests_to_where_it_sends_them_at_what_that_model_answers(site: Site) -> None:
    rules = [*RULES[:2], {"name": "rest", "strategy": "fixed", "deployments": ["large@a"]}]
    result = run(site, rules).result
    first = Counter(record["candidates"][0] for record in decisions())
    assert result["reproduction"] is None
    assert result["moved"] == first["small@a"] + first["small@b"] > 100
    assert {row["name"]: (row["then"], row["now"]) for row in result["models"]} == {
        "small": (result["moved"], 0),
        "large": (first["large@a"], 300),
    }
    assert Counter({(row["then"], row["now"]): row["count"] for row in result["moves"]}) == Counter(
        {(name, "large@a"): count for name, count in first.items() if name != "large@a"}
    )
    # Large answers have 400 tokens: at 2 and 8 USD a million the cost can be worked out by hand.
    moved = RequestRecord.objects.exclude(deployment__name="large@a")
    tokens = sum(moved.values_list("input_tokens", flat=True))
    now = tokens * 2000 + result["moved"] * 400 * 8000
    then = sum(moved.values_list("cost_nanousd", flat=True))
    cost = result["cost"]
    assert cost["difference"] == pytest.approx(now - then, rel=0.02)
    assert cost["low"] < now - then < cost["high"]
    assert cost["high"] - cost["low"] < 0.1 * cost["difference"]
    assert cost["difference"] == sum(row["difference"] for row in result["tenants"])
    assert result["latency"]["first_token"]["now_ms"] == pytest.approx(300)
    assert len(result["moved_sample"]) == 50
    assert all(RequestRecord.objects.filter(pk=row["id"]).exists() for row in result["moved_sample"])


def test_requests_that_a_draft_leaves_alone_are_counted_with_the_reason(site: Site) -> None:
    result = run(site, [{"name": "blind", "when": "message_count > 3", "deployments": ["small@b"]}]).result
    pictures = sum(1 for line in features() if line.get("has_images") and line["message_count"] > 3)
    unmatched = sum(1 for line in features() if line["message_count"] <= 3)
    assert result["reasons"] == {"no_rule": unmatched, "vision": pictures}
    assert result["no_candidate"] == unmatched + pictures == result["not_compared"]["no_candidate"]
    assert len(result["no_candidate_sample"]) == 20


def test_what_did_not_come_out_again_is_explained(site: Site) -> None:
    """A capability that is taken away after the fact changes past decisions, and says so."""
    pictures = sum(1 for line in features() if line.get("has_images"))
    cataloguing.change_model(model=Model.objects.get(name="large"), actor="ada", capabilities=["tools"])
    found = run(site, RULES).result["reproduction"]
    assert found["reasons"] == {"catalog_changed": pictures}
    assert found["reproduced"] == 300 - pictures
    assert {row["reason"] for row in found["sample"]} == {"catalog_changed"}
    assert all("candidates" in row["members"] for row in found["sample"])


def test_a_record_of_another_version_is_not_expected_to_come_out(site: Site, tmp_path: Path) -> None:
    changed = [{**RULES[2], "deployments": ["large@a"]}]
    publish(policy=site.policy, actor="ada", document={"rules": changed})
    site.record(tmp_path, 40, worker="worker-2", hours=12)
    found = run(site, changed).result["reproduction"]
    assert (found["checked"], found["reproduced"]) == (340, 40)
    assert found["reasons"] == {"other_version": 300}


AUTO = {"name": "rest", "strategy": "auto", "slider": 5, "deployments": ["small@a", "large@a", "small@b"]}


def test_conversations_and_the_automatic_router_come_out_again_too(tmp_path: Path) -> None:
    site = make_traffic.site(now=timezone.now(), conversations=40, rules=[RULES[0], AUTO])
    site.record(tmp_path, 300)
    kept = sum(1 for record in decisions() if record.get("pin", [""])[0] == "kept")
    assert kept > 100
    assert run(site, [RULES[0], AUTO]).result["reproduction"]["reproduced"] == 300
    # Another version of the router's tables is in force since, and knows something else; the old one is still there.
    first = router_tables.activate(
        table=router_tables.create_table(document=empty_tables().to_document(), actor="ada"), actor="ada"
    )
    site.record(tmp_path, 50, worker="worker-2", hours=1)
    loaded = {"format": 1, "ratings": {"small": {"quality": 0.9}, "large": {"quality": 0.2}}}
    router_tables.activate(table=router_tables.create_table(document=loaded, actor="ada"), actor="ada")
    assert {record.get("tables") for record in decisions()} >= {0, first.number}
    found = run(site, [RULES[0], AUTO]).result["reproduction"]
    assert (found["checked"], found["reproduced"], found["reasons"]) == (350, 350, {})


def test_a_sticky_draft_keeps_each_conversation_where_it_would_have_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backtest_tally, "SAMPLE_SIZE", 400)  # all that move, and not some
    site = make_traffic.site(
        now=timezone.now(), conversations=40, rules=[{"name": "all", "deployments": ["large@a"]}]
    )
    site.record(tmp_path, 400, hours=4)
    sticky = {"rules": [RULES[2]], "session_stickiness": True}
    made = start_backtest(policy=site.policy, document=sticky, days=1, actor="ada", now=site.until)
    backtesting.run_backtest(made.pk, load_snapshot=load_snapshot)
    made.refresh_from_db()
    conversation_of = {str(r.pk): r.features["conversation"] for r in RequestRecord.objects.all()}
    with_pictures = {line["conversation"] for line in features() if line.get("has_images")}
    moved = Counter(conversation_of[row["id"]] for row in made.result["moved_sample"])
    plain = set(conversation_of.values()) - with_pictures
    # Drawn anew for each request, hardly any conversation of ten would stay with one deployment.
    assert {moved[conversation] for conversation in plain} == {0, 10}


def test_a_conversation_is_forgotten_when_it_lay_too_long() -> None:
    began = make.request_id_at(dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC))
    soon = make.request_id_at(dt.datetime(2026, 5, 1, 17, 59, tzinfo=dt.UTC))
    late = make.request_id_at(dt.datetime(2026, 5, 1, 18, 1, tzinfo=dt.UTC))
    conversations = Conversations()
    conversations.keep("c", began, "small@a")
    found = [conversations.find("c", soon), conversations.find("c", late), conversations.find("d", soon)]
    assert found == ["small@a", "", ""]


def test_requests_recorded_without_a_feature_that_the_draft_reads_are_counted(site: Site) -> None:
    draft = [{"name": "code", "when": "task_type == 'code'", "deployments": ["large@a"]}, RULES[2]]
    assert run(site, draft).result["lacking"] == {"count": 300, "features": ["task_type"]}
    assert run(site, RULES).result["lacking"] is None


def test_hour_and_weekday_follow_from_the_request_in_the_time_zone_of_its_tenant(site: Site) -> None:
    Tenant.objects.filter(name="acme").update(time_zone="Pacific/Kiritimati")
    local = {"acme": ZoneInfo("Pacific/Kiritimati"), "globex": dt.UTC}
    draft = [{"name": "noon", "when": "hour >= 12", "deployments": ["small@b"]}, RULES[2]]
    expected = sum(
        1
        for record in RequestRecord.objects.select_related("tenant")
        if record.started_at.astimezone(local[record.tenant.name]).hour >= 12
    )
    rules = {row["name"]: row["now"] for row in run(site, draft).result["rules"]}
    assert rules["noon"] <= expected  # those with pictures are left with no deployment
    refused = run(site, draft).result["no_candidate"]
    assert rules["noon"] + refused == expected


def test_a_period_without_requests_gives_an_empty_result(bare_site: Site) -> None:
    result = run(bare_site, RULES).result
    assert (result["count"], result["cost"]["compared"], result["models"]) == (0, 0, [])


def test_one_backtest_of_a_policy_runs_at_a_time_and_a_broken_document_is_refused(bare_site: Site) -> None:
    first = start_backtest(policy=bare_site.policy, document={"rules": RULES}, days=7, actor="ada")
    assert first.state == "waiting"
    with pytest.raises(BacktestRefused, match="under way"):
        start_backtest(policy=bare_site.policy, document={"rules": RULES}, days=7, actor="ada")
    assert cancel_backtest(run=first, actor="ada")
    assert not cancel_backtest(run=first, actor="ada")
    backtesting.run_backtest(first.pk, load_snapshot=load_snapshot)
    first.refresh_from_db()
    assert (first.state, first.result) == ("cancelled", None)
    with pytest.raises(PolicyError):
        start_backtest(policy=bare_site.policy, document={"rules": []}, days=7, actor="ada")
    for days in (0, 93):
        with pytest.raises(BacktestRefused):
            start_backtest(policy=bare_site.policy, document={"rules": RULES}, days=days, actor="ada")


def test_a_run_is_cancelled_while_it_works(bare_site: Site) -> None:
    made = start_backtest(
        policy=bare_site.policy, document={"rules": RULES}, days=7, actor="ada", now=bare_site.until
    )

    def cancel_first() -> RoutingSnapshot:
        assert cancel_backtest(run=made, actor="bob")
        return load_snapshot()

    backtesting.run_backtest(made.pk, load_snapshot=cancel_first)
    made.refresh_from_db()
    assert (made.state, made.result, made.error) == ("cancelled", None, "cancelled by bob")


def test_a_run_whose_process_died_is_taken_up_again_and_at_last_fails(bare_site: Site) -> None:
    made = start_backtest(
        policy=bare_site.policy, document={"rules": RULES}, days=7, actor="ada", now=bare_site.until
    )

    def die() -> RoutingSnapshot:
        raise SystemExit  # as if the process had ended

    for _ in range(backtesting.MAX_CLAIMS):
        assert find_unfinished(now=timezone.now()) == [made.pk]
        with pytest.raises(SystemExit):
            backtesting.run_backtest(made.pk, load_snapshot=die)
        # It is taken for living at first, and nobody else may have it.
        assert find_unfinished(now=timezone.now()) == []
        backtesting.run_backtest(made.pk, load_snapshot=load_snapshot)
        made.refresh_from_db()
        assert made.state == "running"
        late = timezone.now() - dt.timedelta(seconds=backtesting.STALE_S + 1)
        Backtest.objects.filter(pk=made.pk).update(heartbeat_at=late)
    assert find_unfinished(now=timezone.now()) == []
    made.refresh_from_db()
    assert (made.state, "three times" in made.error) == ("failed", True)


def test_a_process_that_lost_its_claim_changes_nothing(bare_site: Site) -> None:
    made = start_backtest(
        policy=bare_site.policy, document={"rules": RULES}, days=7, actor="ada", now=bare_site.until
    )

    def lose_the_claim() -> RoutingSnapshot:
        Backtest.objects.filter(pk=made.pk).update(claim_count=9)
        return load_snapshot()

    backtesting.run_backtest(made.pk, load_snapshot=lose_the_claim)
    made.refresh_from_db()
    assert (made.state, made.done_count, made.result) == ("running", 0, None)


def test_an_error_is_kept_in_one_line(bare_site: Site, caplog: pytest.LogCaptureFixture) -> None:
    made = start_backtest(
        policy=bare_site.policy, document={"rules": RULES}, days=7, actor="ada", now=bare_site.until
    )

    def fail() -> RoutingSnapshot:
        raise ValueError("no catalog\nand more")

    with caplog.at_level(logging.CRITICAL, logger="billing.backtesting"):
        backtesting.run_backtest(made.pk, load_snapshot=fail)
    made.refresh_from_db()
    assert (made.state, made.error_detail) == ("failed", "ValueError: no catalog")
    assert "Try again" in made.error


def test_odd_characters_are_read_back(bare_site: Site, tmp_path: Path) -> None:
    odd = 'a\\b\tc"d\ne'
    lines = list(bare_site.lines(1, hours=1))
    lines[0]["tags"] = {"team": odd}
    lines[0]["features"]["task"] = odd
    make.ingest(tmp_path, lines, worker="worker-9")
    period = Period(bare_site.policy.pk, bare_site.until - dt.timedelta(hours=1), bare_site.until)
    (row,) = [row for row in read_rows(period) if row.id == lines[0]["id"]]
    assert orjson.loads(row.tags) == {"team": odd}
    assert orjson.loads(row.features)["task"] == odd


def test_slices_cover_the_period_without_overlap(site: Site) -> None:
    period = Period(site.policy.pk, site.until - dt.timedelta(days=2), site.until)
    slices = list_slices(period, records=40)
    assert len(slices) > 5
    assert sum(part.record_count for part in slices) == 300
    assert [len(list(read_rows(part.period))) for part in slices] == [part.record_count for part in slices]
    assert slices[0].period.since == period.since and slices[-1].period.until == period.until
    for before, after in itertools.pairwise(slices):
        assert before.period.until == after.period.since


@pytest.mark.django_db(transaction=True)
def test_two_processes_find_what_one_finds(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = [{"name": "rest", "strategy": "least_cost", "deployments": ["large@a", "small@b"]}]
    monkeypatch.setattr(backtest_reading, "SLICE_RECORDS", 20)
    alone = run(site, rules).result
    monkeypatch.setattr(backtest_processes, "MIN_RECORDS", 0)
    together = run(site, rules).result
    assert {**alone, "took_s": 0} == {**together, "took_s": 0}


def test_slices_are_shared_out_by_their_records_in_order() -> None:
    period = Period(1, dt.datetime(2026, 5, 1, tzinfo=dt.UTC), dt.datetime(2026, 5, 2, tzinfo=dt.UTC))
    slices = [Slice(period, count) for count in (5, 5, 30, 10, 10)]
    first, second = cut(slices, 2)
    assert first + second == slices
    assert [part.record_count for part in first] == [5, 5, 30]
    assert cut([], 2) == [[]]
    assert cut(slices[:1], 2) == [slices[:1]]


def decisions() -> list[dict[str, Any]]:
    return list(RequestRecord.objects.values_list("decision", flat=True))


def features() -> list[dict[str, Any]]:
    return list(RequestRecord.objects.values_list("features", flat=True))


def new_policy(site: Site, public_id: str = "acme/new") -> Policy:
    """A policy that nobody asked for yet, of the tenant that is first among the site's."""
    policy = create_policy(public_id=public_id, actor="ada")
    site.keys[0].project.tenant.policies.add(policy)
    return policy


def run_on(
    policy: Policy, rules: list[dict[str, Any]], site: Site, traffic: Policy | None = None
) -> Backtest:
    made = start_backtest(
        policy=policy, document={"rules": rules}, days=7, actor="ada", traffic=traffic, now=site.until
    )
    backtesting.run_backtest(made.pk, load_snapshot=load_snapshot)
    made.refresh_from_db()
    assert made.state == "done", made.error
    return made


def test_a_new_policy_is_run_over_the_requests_of_the_one_that_its_tenants_use(site: Site) -> None:
    policy = new_policy(site)
    rules = [
        {"name": "asked", "when": f"requested_model != '{policy.public_id}'", "deployments": ["small@b"]},
        *RULES[:2],
        {"name": "rest", "strategy": "auto", "deployments": ["small@a", "large@a"]},
    ]
    made = run_on(policy, rules, site)
    result = made.result
    assert (made.source, made.is_on_own_traffic) == (site.policy, False)
    assert result["count"] == 300 and result["no_candidate"] == 0
    assert result["reproduction"] is None, "none of its own decisions is among them"
    # Each is taken to ask for this policy, so the first rule takes none; the same two rules take the same requests.
    then, now = ({row["name"]: row[side] for row in result["rules"]} for side in ("then", "now"))
    assert now == then and "asked" not in now
    # The words of those requests were never looked at.
    assert result["lacking"]["count"] == 300 and "task_type" in result["lacking"]["features"]
    total = sum(RequestRecord.objects.values_list("cost_nanousd", flat=True))
    assert result["cost"]["then"] == total == sum(row["then"] for row in result["tenants"])


def test_the_same_document_as_another_policys_is_not_checked_against_its_decisions(site: Site) -> None:
    policy = new_policy(site)
    publish(policy=policy, actor="ada", document={"rules": RULES})
    made = run_on(policy, RULES, site)
    assert made.version is not None and made.result["reproduction"] is None
    assert (made.result["moved"], made.result["cost"]["difference"]) == (0, 0)


def test_whose_requests_are_likeliest(site: Site) -> None:
    """Its own, else of the policy that its tenants use most, else of the busiest; and any that is named."""
    policy, since = new_policy(site), site.until - dt.timedelta(days=7)
    assert choose_source(site.policy, since=since) == site.policy
    listed = [(source.policy.public_id, source.request_count) for source in list_sources(policy, since=since)]
    assert listed == [("acme/new", 0), (site.policy.public_id, 300)]
    lonely = create_policy(public_id="nobody/yet", actor="ada")
    assert choose_source(lonely, since=since) == site.policy
    assert choose_source(lonely, since=site.until + dt.timedelta(days=2)) == lonely, "nobody asked for any"
    made = run_on(policy, RULES, site, traffic=policy)
    assert (made.source, made.result["count"], made.result["lacking"]) == (policy, 0, None)
