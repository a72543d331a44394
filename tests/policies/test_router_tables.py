"""Do versions of the router's tables go into force, go back and keep their pins?"""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.db import DatabaseError, transaction
from django.utils import timezone

from billing import router_learning
from billing.evidence import Judgement, record_evidence
from billing.models import Evidence
from gateway.snapshots import load_snapshot
from gateway.worker_configuration import WorkerConfiguration
from policies import cataloguing, router_tables
from policies.autorouter.estimating import find_rating
from policies.autorouter.tables import empty_tables
from policies.errors import InUseError, InvalidValueError, NotFoundError
from policies.model_ratings import RatedModel, cheapest_usd_per_mtok, with_catalog_ratings
from policies.models import ChangeEvent, RouterTable
from tests.make_configuration import make_deployment, make_model, make_price

ACTOR = "olga"
WORKLOAD = "00112233445566ff"


def document(quality: float) -> dict[str, Any]:
    """Tables whose knowledge is one workload."""
    return {
        **empty_tables().to_document(),
        "workloads": {WORKLOAD: {"n": 10, "level": quality, "models": {"m": [10, 0.1, 0.01]}}},
    }


def create(quality: float = 0.5, **fields: Any) -> RouterTable:
    return router_tables.create_table(document=document(quality), actor=ACTOR, **fields)


def pins() -> dict[str, str]:
    return dict(router_tables.read_tables(router_tables.find_active()).pins)


@pytest.mark.django_db
def test_a_candidate_decides_nothing_until_it_is_activated() -> None:
    table = create(note="learnt from 10 judgements")
    assert (table.number, table.state) == (1, "candidate")
    assert load_snapshot().router.version == 0
    router_tables.activate(table=table, actor=ACTOR)
    assert load_snapshot().router.version == 1
    assert load_snapshot().router.workloads[WORKLOAD].level == 0.5
    events = ChangeEvent.objects.filter(object_type="router_table").order_by("id")
    assert [event.action for event in events] == ["create", "activate"]


@pytest.mark.django_db
def test_one_version_is_in_force_and_the_one_before_comes_back_in_one_step() -> None:
    first, second = create(0.5), create(0.6)
    for table in (first, second):
        router_tables.activate(table=table, actor=ACTOR)
    assert RouterTable.objects.filter(state="active").get().number == 2
    router_tables.change_setting(activates_itself=True, actor=ACTOR)
    assert router_tables.roll_back(actor=ACTOR).number == 1
    assert not router_tables.activates_itself(), "or the next version would undo it"
    assert load_snapshot().router.workloads[WORKLOAD].level == 0.5


@pytest.mark.django_db
def test_going_back_from_the_first_version_leaves_ratings_alone() -> None:
    with pytest.raises(NotFoundError):
        router_tables.roll_back(actor=ACTOR)
    router_tables.activate(table=create(), actor=ACTOR)
    back = router_tables.roll_back(actor=ACTOR)
    assert router_tables.read_tables(back).workloads == {}
    assert router_tables.roll_back(actor=ACTOR).document["workloads"]


@pytest.mark.django_db
def test_a_version_that_failed_its_evaluation_cannot_go_into_force() -> None:
    table = create(gate={"passes": False, "reasons": ["worse on 3 workloads"], "numbers": {"aiq": 0.5}})
    assert table.state == "rejected"
    with pytest.raises(InUseError):
        router_tables.activate(table=table, actor=ACTOR)
    with pytest.raises(InUseError):
        router_tables.activate(table=router_tables.reject(table=create(), actor=ACTOR), actor=ACTOR)


@pytest.mark.django_db
def test_a_pin_is_a_version_of_its_own_and_outlives_activation_and_rollback() -> None:
    make_model(name="m")
    first = create(0.5)
    router_tables.activate(table=first, actor=ACTOR)
    waiting = create(0.6)
    pinned = router_tables.set_workload_pin(workload=WORKLOAD, model="m", actor=ACTOR)
    assert pinned is not None
    assert (pinned.number, pinned.state, pins()) == (3, "active", {WORKLOAD: "m"})
    in_force = router_tables.activate(table=waiting, actor=ACTOR)
    assert (in_force.number, pins()) == (4, {WORKLOAD: "m"})
    assert in_force.document["workloads"][WORKLOAD]["level"] == 0.6
    back = router_tables.roll_back(actor=ACTOR)
    assert back.document["workloads"][WORKLOAD]["level"] == 0.5
    assert pins() == {WORKLOAD: "m"}
    assert create(0.7).document["pins"] == {WORKLOAD: "m"}
    router_tables.set_workload_pin(workload=WORKLOAD, model=None, actor=ACTOR)
    assert pins() == {}
    assert router_tables.find_tables(3).pins == {WORKLOAD: "m"}  # type: ignore[union-attr]


@pytest.mark.django_db
def test_a_pin_that_changes_nothing_or_names_nothing_makes_no_version() -> None:
    assert router_tables.set_workload_pin(workload=WORKLOAD, model=None, actor=ACTOR) is None
    with pytest.raises(NotFoundError):
        router_tables.set_workload_pin(workload=WORKLOAD, model="nothing", actor=ACTOR)
    with pytest.raises(InvalidValueError):
        router_tables.set_workload_pin(workload="../etc", model=None, actor=ACTOR)
    assert not RouterTable.objects.exists()


@pytest.mark.django_db
def test_a_document_of_another_kind_is_refused() -> None:
    for foreign in ({"format": 99}, {"format": 1, "workloads": 3}, {}):
        with pytest.raises(InvalidValueError):
            router_tables.create_table(document=foreign, actor=ACTOR)


@pytest.mark.django_db
@pytest.mark.parametrize("field", [{"document": {}}, {"number": 9}, {"note": "x"}])
def test_the_database_refuses_to_change_or_delete_a_version(field: dict[str, Any]) -> None:
    table = create()
    with pytest.raises(DatabaseError), transaction.atomic():
        RouterTable.objects.filter(pk=table.pk).update(**field)
    with pytest.raises(DatabaseError), transaction.atomic():
        table.delete()


@pytest.mark.django_db
def test_an_operators_rating_counts_at_once_and_an_unknown_model_has_its_price_neighbours() -> None:
    rated = make_deployment(name="rated", model=make_model(name="house-large"))
    unknown = make_deployment(name="unknown", model=make_model(name="nobody-knows-it"))
    for deployment in (rated, unknown):
        make_price(deployment=deployment, rates={"input_usd_per_mtok": "2", "output_usd_per_mtok": "8"})
    cataloguing.change_model(
        model=rated.model, actor=ACTOR, rating=0.7, rating_source="own evaluation, May", rating_date=None
    )
    tables = load_snapshot().router
    found = tables.ratings["house-large"]
    assert (found.quality, found.source, found.is_guess, found.usd_per_mtok) == (
        0.7,
        "own evaluation, May",
        False,
        3.5,
    )
    guess = find_rating("nobody-knows-it", 3.5, tables)
    assert (guess.quality, guess.is_guess) == (0.7, True)


@pytest.mark.django_db
def test_a_rating_that_is_taken_back_is_gone_whatever_was_learnt_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_deployment(model=make_model(name="house-large", rating=0.7)).model
    monkeypatch.setattr(router_learning, "MIN_HELD_OUT", 1)
    record_evidence(
        Judgement(Evidence.Source.FEEDBACK, model.pk, 1.0, timezone.now(), workload=WORKLOAD, pair_id=str(n))
        for n in range(20)
    )
    learnt = router_learning.learn_version(now=timezone.now(), actor=ACTOR)
    assert learnt.table is not None
    router_tables.activate(table=learnt.table, actor=ACTOR)
    assert load_snapshot().router.ratings["house-large"].quality == 0.7
    cataloguing.change_model(model=model, actor=ACTOR, rating=None)
    router = load_snapshot().router
    assert (router.version, "house-large" in router.ratings) == (1, False)


@pytest.mark.django_db
def test_the_tables_in_force_are_read_once() -> None:
    assert router_tables.read_active(None).key is None
    router_tables.activate(table=create(), actor=ACTOR)
    known = router_tables.read_active(None)
    assert router_tables.read_active(known).tables is known.tables
    router_tables.activate(table=create(0.7), actor=ACTOR)
    assert router_tables.read_active(known).tables.version == 2


@pytest.mark.django_db
@pytest.mark.parametrize("rating", [-0.1, 1.1, float("nan")])
def test_a_rating_lies_between_0_and_1(rating: float) -> None:
    with pytest.raises(InvalidValueError):
        cataloguing.create_model(name="m", actor=ACTOR, rating=rating)


def test_public_ratings_get_the_catalogs_price_and_the_router_forgets_what_it_computed() -> None:
    before = empty_tables()
    before.memo["x"] = 1
    after = with_catalog_ratings(before, [RatedModel("gpt-4o", None, "", None, 4.375)])
    assert after.ratings["gpt-4o"].usd_per_mtok == 4.375
    assert after.memo == {}
    assert cheapest_usd_per_mtok([(None, None), (1_000_000_000, 5_000_000_000), (9_000_000_000, 0)]) == 2.0
    assert cheapest_usd_per_mtok([]) is None


@pytest.mark.django_db(transaction=True)
def test_a_new_version_is_in_force_in_a_worker_within_two_seconds() -> None:
    worker = WorkerConfiguration()
    try:
        router_tables.activate(table=create(), actor=ACTOR)
        deadline_s = time.monotonic() + 2
        while worker.snapshot.router.version != 1 and time.monotonic() < deadline_s:
            time.sleep(0.02)
        assert worker.snapshot.router.version == 1
    finally:
        worker.close()
