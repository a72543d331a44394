"""Does evidence become a version that was judged, and only then?"""

from __future__ import annotations

import datetime as dt
import uuid
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from billing import router_learning
from billing.catalog_ratings import read_router_now
from billing.check_evidence import list_check_evidence
from billing.evidence import Judgement, record_evidence
from billing.evidence_sizes import read_input_tokens, read_mean_input_tokens
from billing.models import Evidence
from billing.router_gate import Side, gate
from billing.router_learning import count_new_evidence, learn_version
from billing.workload_usage import collect_workloads
from policies import router_tables
from policies.autorouter.answered import Judged as HeldBack
from policies.autorouter.learning import Evidence as Judged
from policies.autorouter.learning import learn
from policies.autorouter.tables import empty_tables
from policies.models import Model, RouterTable
from tests import make
from tests.make_configuration import make_deployment, make_model, make_price

pytestmark = pytest.mark.django_db

WORKLOAD = "00112233445566ff"
ACTOR = "olga"
NOW = dt.datetime(2026, 7, 1, 12, tzinfo=dt.UTC)


def judge(
    model: Model, qualities: list[float], *, begin: int = 0, source: Any = Evidence.Source.EVALUATION
) -> None:
    record_evidence(
        Judgement(
            source, model.pk, quality, NOW, workload=WORKLOAD, task_type="code", pair_id=f"case {begin + n}"
        )
        for n, quality in enumerate(qualities)
    )


def traffic(
    tmp_path: Path, world: make.World, count: int, at: dt.datetime, worker: str, **outcome: Any
) -> None:
    lines: list[Any] = []
    for _ in range(count):
        request_id = make.request_id_at(at)
        features = {"workload": WORKLOAD, "task_type": "code"}
        lines += [
            make.intent_line(world, request_id, features=features, decision={"strategy": "auto"}),
            make.outcome_line(world, request_id, **outcome),
        ]
    make.ingest(tmp_path, lines, worker=worker)


def test_judgements_become_a_candidate_that_was_judged_on_what_it_had_not_seen() -> None:
    good, bad = make_model(name="good"), make_model(name="bad")
    judge(good, [1.0] * 50)
    judge(bad, [0.0] * 50)
    assert count_new_evidence(None) == 100
    learnt = learn_version(now=NOW, actor=ACTOR)
    assert learnt.table is not None
    assert (learnt.table.state, learnt.evidence_count) == ("candidate", 100)
    gate_result = learnt.table.gate or {}
    assert gate_result["passes"]
    assert gate_result["numbers"]["held_back_judgements"] == 100
    # Models without a price are not compared by what they would cost.
    assert gate_result["numbers"]["requests_answered_by_several"] == 0
    assert not gate_result["is_thin"]
    found = router_tables.read_tables(learnt.table).workloads[WORKLOAD].models
    assert found["good"].difference - found["bad"].difference == pytest.approx(1.0, abs=0.01)
    assert router_tables.find_active() is None
    # Nothing came since: no further version.
    assert learn_version(now=NOW, actor=ACTOR).table is None
    router_tables.activate(table=learnt.table, actor=ACTOR)
    assert count_new_evidence(router_tables.find_active()) == 0


def test_a_version_that_passes_goes_into_force_by_itself_only_where_that_is_chosen() -> None:
    router_tables.change_setting(activates_itself=True, actor=ACTOR)
    judge(make_model(), [1.0] * 60)
    learnt = learn_version(now=NOW, actor=ACTOR)
    assert learnt.table is not None
    assert learnt.table.state == "active"


def test_one_workloads_callers_do_not_outvote_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router_learning, "MAX_OF_WORKLOAD", 60)
    judge(make_model(), [1.0] * 100)
    assert learn_version(now=NOW, actor=ACTOR).evidence_count == 60


def test_few_judgements_make_no_version() -> None:
    judge(make_model(), [1.0] * 12)
    learnt = learn_version(now=NOW, actor=ACTOR)
    assert learnt.table is None
    assert "more judgements are needed" in learnt.reason


def test_a_version_that_foresees_worse_is_rejected_and_stays_out_of_force() -> None:
    model = make_model()
    judge(model, [1.0] * 100)
    first = learn_version(now=NOW, actor=ACTOR).table
    assert first is not None
    router_tables.activate(table=first, actor=ACTOR)
    # Tables that were told the opposite, judged on answers as good as before.
    rows = [
        Judged(WORKLOAD, "code", model.name, quality, at_unix_s=NOW.timestamp(), pair_id="")
        for quality in [1.0] * 30
    ]
    misled = learn(
        [row._replace(quality=0.0) for row in rows], priors=empty_tables(), now_unix_s=NOW.timestamp()
    )
    result = gate(
        candidate=Side([misled], {}),
        current=Side([router_tables.read_tables(first)], {}),
        held_out=[HeldBack(row, 0) for row in rows],
        deployments={},
    )
    assert not result.passes
    assert "worse than the version in force" in result.reasons[0]
    table = router_tables.create_table(
        document=misled.to_document(), actor=ACTOR, gate={"passes": False, "reasons": [], "numbers": {}}
    )
    assert table.state == RouterTable.State.REJECTED


def test_a_version_is_compared_by_what_it_routes_and_proves_its_default() -> None:
    small, large = make_model(name="small"), make_model(name="large")
    for model, rates in ((small, ("0.1", "0.4")), (large, ("5", "20"))):
        make_price(
            deployment=make_deployment(model=model),
            rates={"input_usd_per_mtok": rates[0], "output_usd_per_mtok": rates[1]},
            effective_from=NOW - dt.timedelta(days=1),
        )
    # The small model is right in eight of ten, the large one always.
    judge(small, [float(number % 10 < 8) for number in range(240)])
    judge(large, [1.0] * 240)
    router_tables.change_setting(activates_itself=True, actor=ACTOR)
    first = learn_version(now=NOW, actor=ACTOR).table
    assert first is not None
    assert first.state == "active"
    assert "the ratings alone" in (first.gate or {})["reasons"][1]
    assert "240 of 500 input tokens, which is assumed" in (first.gate or {})["reasons"][2]
    numbers = (first.gate or {})["numbers"]
    assert (numbers["held_back_judgements"], numbers["requests_answered_by_several"]) == (480, 240)
    assert numbers["aiq_new"] >= numbers["aiq_in_force"]
    assert numbers["default_quality_new"] == numbers["best_single_quality"] == 1.0
    default = router_tables.read_tables(first).default
    assert default is not None
    assert 0.05 < default.tau < 0.3

    # Feedback on one model alone that says what was known: nobody can tell whether that routes better.
    judge(large, [1.0] * 39 + [0.0], begin=1000, source=Evidence.Source.FEEDBACK)
    second = learn_version(now=NOW, actor=ACTOR).table
    assert second is not None
    assert (second.state, (second.gate or {})["is_thin"]) == ("candidate", True)
    assert "the version in force" in (second.gate or {})["reasons"][0]
    assert "Whether it routes better is not known" in (second.gate or {})["reasons"][1]


def test_judgements_about_recorded_requests_cost_what_the_records_say(tmp_path: Path) -> None:
    world = make.world()
    lines: list[Any] = []
    recorded = [make.request_id_at(NOW + dt.timedelta(seconds=n)) for n in range(3)]
    for number, request_id in enumerate(recorded):
        usage = make.usage_line(input=1000 * (number + 1))
        lines += [make.intent_line(world, request_id), make.outcome_line(world, request_id, usage=usage)]
    make.ingest(tmp_path, lines)
    ids = [uuid.UUID(request_id) for request_id in recorded]
    strangers = [uuid.UUID(make.request_id_at(NOW)), uuid.uuid4()]
    assert read_input_tokens([*ids, *strangers]) == dict(zip(ids, (1000, 2000, 3000), strict=True))
    assert read_input_tokens([]) == {}
    traffic(tmp_path, world, 4, NOW, "worker-2", usage=make.usage_line(input=700))
    collect_workloads(now=NOW)
    assert read_mean_input_tokens(since=NOW.date()) == {WORKLOAD: 700.0}
    assert read_mean_input_tokens(since=NOW.date() + dt.timedelta(days=1)) == {}


def test_running_means_alone_are_news_once_and_again_when_they_move(tmp_path: Path) -> None:
    world = make.world()
    traffic(tmp_path, world, 25, NOW, "worker-1")
    learnt = learn_version(now=NOW, actor=ACTOR)
    assert learnt.table is not None
    tables = router_tables.read_tables(learnt.table)
    model = world.deployment.model.name
    assert tables.workload_output_tokens[WORKLOAD, model] == (500.0, 25.0)
    assert tables.type_output_tokens["code", model].mean == 500.0
    assert tables.latencies[WORKLOAD, model].p50_ms == pytest.approx(12.3, abs=0.1)
    assert tables.latencies["all", model].n == 25.0
    assert learn_version(now=NOW, actor=ACTOR).table is None
    traffic(tmp_path, world, 5, NOW, "worker-2")
    assert learn_version(now=NOW, actor=ACTOR).table is None
    traffic(tmp_path, world, 30, NOW, "worker-3", usage=make.usage_line(output=5000))
    assert learn_version(now=NOW, actor=ACTOR).table is not None


def test_failed_checks_count_in_proportion_to_what_was_checked(tmp_path: Path) -> None:
    now = timezone.now()
    sound, failing = make.world(), make.world()
    traffic(tmp_path, sound, 20, now, "worker-1")
    traffic(tmp_path, failing, 15, now, "worker-2")
    (attempt,) = make.outcome_line(failing, make.request_id_at(now))["attempts"]
    traffic(tmp_path, failing, 5, now, "worker-3", attempts=[{**attempt, "check": "empty"}])
    collect_workloads(now=now)
    found = list_check_evidence(now=now, router=read_router_now(now))
    quality = {row.model: row.quality for row in found}
    # 5 failed of the 20 served and once more by themselves, at the guessed quality of an unrated model.
    usual = quality[sound.deployment.model.name]
    assert quality[failing.deployment.model.name] == pytest.approx(usual * 0.8)
    assert {row.source for row in found} == {"check"}
    tables = learn(found, priors=empty_tables(), now_unix_s=now.timestamp())
    models = tables.workloads[WORKLOAD].models
    assert models[failing.deployment.model.name].difference < models[sound.deployment.model.name].difference


def test_workloads_without_a_failed_check_bring_no_check_evidence(tmp_path: Path) -> None:
    now = timezone.now()
    traffic(tmp_path, make.world(), 3, now, "worker-1")
    collect_workloads(now=now)
    assert list_check_evidence(now=now, router=read_router_now(now)) == []
