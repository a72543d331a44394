"""How does a budget come to be, change and go, and what counts for it?"""

from __future__ import annotations

import datetime as dt
import uuid
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing import budgets, leasing
from billing.budget_scopes import load_deployment_budgets, load_scopes
from billing.models import AttemptsByDay, Budget, BudgetWindow
from billing.request_times import first_id_of
from policies import issuing
from policies.errors import InvalidValueError, NameTakenError
from policies.models import ApiKey, ChangeEvent, Tenant
from tests.make import (
    COST_NANOUSD,
    World,
    ingest,
    intent_line,
    outcome_line,
    request_id_at,
    request_lines,
    usage_line,
    world,
)
from tests.make_configuration import make_deployment, make_key, make_project, make_tenant

pytestmark = pytest.mark.django_db

USD = 1_000_000_000
NOW = dt.datetime(2026, 3, 18, 12, tzinfo=dt.UTC)


def make_budget(tenant: Tenant, **fields: object) -> Budget:
    arguments = {"window": "month", "limit_nanousd": 5 * USD, "actor": "finance", "now": NOW, **fields}
    return budgets.create_budget(tenant=tenant, **arguments)  # type: ignore[arg-type]


def record(data_dir: Path, world: World, at: dt.datetime, **outcome: object) -> None:
    request_id = request_id_at(at)
    ingest(data_dir, [intent_line(world, request_id), outcome_line(world, request_id, **outcome)])


def only_window(budget: Budget) -> BudgetWindow:
    return BudgetWindow.objects.get(budget=budget)


def test_a_new_budget_counts_what_its_window_has_cost_so_far(tmp_path: Path) -> None:
    made = world()
    record(tmp_path, made, NOW - dt.timedelta(days=2))
    record(tmp_path, made, NOW - dt.timedelta(days=40))
    month = make_budget(made.tenant)
    day = make_budget(made.tenant, api_key=made.key, window="day")
    assert only_window(month).spent_nanousd == COST_NANOUSD
    assert only_window(month).starts_at == dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    assert only_window(day).spent_nanousd == 0


def test_records_count_once_for_every_budget_of_their_key(tmp_path: Path) -> None:
    made = world()
    of_project = make_budget(made.tenant, project=made.project)
    of_key = make_budget(made.tenant, api_key=made.key, is_hard=False, window="total")
    other = make_budget(make_tenant())
    request_id = request_id_at(NOW + dt.timedelta(hours=1))
    lines = [intent_line(made, request_id), outcome_line(made, request_id)]
    ingest(tmp_path, [*lines, *lines])
    other_id = request_id_at(NOW + dt.timedelta(hours=2))
    # Once more, in one batch with a new one.
    ingest(tmp_path, [*lines, intent_line(made, other_id), outcome_line(made, other_id)], worker="worker-2")
    assert only_window(of_project).spent_nanousd == 2 * COST_NANOUSD
    assert only_window(of_key).spent_nanousd == 2 * COST_NANOUSD
    assert only_window(other).spent_nanousd == 0


def test_the_next_window_begins_at_nothing_and_late_records_go_to_theirs(tmp_path: Path) -> None:
    made = world()
    budget = make_budget(made.tenant)
    record(tmp_path, made, NOW + dt.timedelta(days=20))
    record(tmp_path, made, NOW + dt.timedelta(days=1))
    record(tmp_path, made, NOW - dt.timedelta(days=40))
    windows = BudgetWindow.objects.filter(budget=budget).order_by("starts_at")
    assert [(row.starts_at.month, row.spent_nanousd) for row in windows] == [
        (3, COST_NANOUSD),
        (4, COST_NANOUSD),
    ]


def test_a_budget_of_a_key_goes_with_it_when_it_is_rotated() -> None:
    key, _ = make_key()
    budget = make_budget(key.project.tenant, api_key=key)
    new, _ = issuing.rotate_key(key=key, overlap=dt.timedelta(days=1), actor="a test")
    scopes = load_scopes(only_in_force=True)
    for key_id in (key.pk, new.pk):
        found = scopes.find(key.project.tenant_id, key.project_id, key_id)
        assert [terms.id for terms in found] == [budget.pk]


def test_a_change_reaches_the_window_that_runs_and_the_audit_log() -> None:
    budget = make_budget(make_tenant(), now=None)
    budgets.change_budget(budget=budget, limit_nanousd=7 * USD, is_enabled=False, actor="finance")
    assert only_window(budget).limit_nanousd == 7 * USD
    event = ChangeEvent.objects.order_by("-id")[0]
    assert (event.object_type, event.action, event.before, event.after) == (
        "budget",
        "change",
        {"limit_usd": "5", "is_enabled": True},
        {"limit_usd": "7", "is_enabled": False},
    )
    assert load_scopes(only_in_force=True).tenant_ids.isdisjoint({budget.tenant_id})
    budgets.delete_budget(budget=budget, actor="finance")
    assert not BudgetWindow.objects.filter(budget_id=budget.pk).exists()


def test_a_lease_takes_only_what_is_left() -> None:
    """Whatever was read before: another worker may have been quicker."""
    window = only_window(make_budget(make_tenant(), limit_nanousd=100))
    name = leasing.WorkerName("home", "worker")

    def grow(nanousd: int) -> bool:
        return leasing.grow_lease(name=name, lease_id=str(uuid.uuid4()), window_id=window.pk, nanousd=nanousd)

    assert [grow(60), grow(41), grow(40), grow(1)] == [True, False, True, False]
    BudgetWindow.objects.filter(pk=window.pk).update(
        leased_nanousd=50, spent_nanousd=30, uncertain_nanousd=15
    )
    assert [grow(6), grow(5)] == [False, True]


def test_what_is_wrong_is_said() -> None:
    tenant = make_tenant()
    make_budget(tenant)
    with pytest.raises(NameTakenError, match="by month: change it"):
        make_budget(tenant)
    for wrong in (
        {"limit_nanousd": 0},
        {"window": "year"},
        {"project": make_project(), "window": "day"},
        {"api_key": ApiKey.objects.get(pk=make_key()[0].pk), "window": "day"},
    ):
        with pytest.raises(InvalidValueError):
            make_budget(tenant, **wrong)


def test_the_database_refuses_amounts_below_nothing() -> None:
    window = only_window(make_budget(make_tenant()))
    with pytest.raises(Exception, match="budget_window_amounts"), connection.cursor() as cursor:
        cursor.execute("UPDATE billing_budgetwindow SET leased_nanousd = -1 WHERE id = %s", [window.pk])


def test_a_budget_of_one_model_counts_what_that_model_did_cost_alone(tmp_path: Path) -> None:
    made = world()
    other = make_deployment()
    record(tmp_path, made, NOW - dt.timedelta(hours=1))
    own = make_budget(made.tenant, model=made.deployment.model, window="day")
    strange = make_budget(made.tenant, model=other.model, window="day", is_hard=False)
    everything = make_budget(made.tenant, window="day")
    assert [only_window(row).spent_nanousd for row in (own, strange, everything)] == [
        COST_NANOUSD,
        0,
        COST_NANOUSD,
    ]
    record(tmp_path, made, NOW + dt.timedelta(hours=1))
    assert [only_window(row).spent_nanousd for row in (own, strange, everything)] == [
        2 * COST_NANOUSD,
        0,
        2 * COST_NANOUSD,
    ]
    assert str(own) == f"{made.tenant} ({made.deployment.model}) each day"
    with pytest.raises(NameTakenError, match=f"for {made.deployment.model}: change it"):
        make_budget(made.tenant, model=made.deployment.model, window="day")
    terms = load_scopes(only_in_force=True).find(made.tenant.pk, made.project.pk, made.key.pk)
    assert [(one.id, one.model_id) for one in terms] == [
        (own.pk, made.deployment.model_id),
        (everything.pk, None),
    ]


@pytest.mark.parametrize("outcome", ["known", "unknown", "interrupted"])
def test_a_lease_of_a_models_budget_is_settled_with_what_that_model_did_cost(
    tmp_path: Path, outcome: str
) -> None:
    made = world()
    window = only_window(make_budget(made.tenant, model=made.deployment.model))
    lease = str(uuid.uuid4())
    name = leasing.WorkerName("home", "worker")
    held = 10 * COST_NANOUSD
    assert leasing.grow_lease(name=name, lease_id=lease, window_id=window.pk, nanousd=held)
    request_id = request_id_at(NOW + dt.timedelta(hours=1))
    model_id = made.deployment.model_id
    intent = intent_line(made, request_id, hold=0, leases=[], model_leases=[[lease, held, model_id]])
    ended = {
        "known": [outcome_line(made, request_id, model_uncertain=[])],
        "unknown": [outcome_line(made, request_id, cost=None, usage=usage_line(kind="unknown", input=None, output=None),
                                 model_uncertain=[[model_id, held]])],
        "interrupted": [],
    }[outcome]  # fmt: skip
    ingest(tmp_path, [intent, *ended])
    window.refresh_from_db()
    spent, uncertain = {"known": (COST_NANOUSD, 0), "unknown": (0, held), "interrupted": (0, held)}[outcome]
    assert (window.spent_nanousd, window.uncertain_nanousd) == (spent, uncertain)
    assert window.leased_nanousd == held - spent - uncertain


@pytest.mark.parametrize("outcome", ["known", "unknown", "interrupted"])
def test_a_lease_of_a_deployments_budget_is_settled_with_what_attempts_there_cost(
    tmp_path: Path, outcome: str
) -> None:
    made = world()
    window = only_window(deployment_budget(made))
    lease = str(uuid.uuid4())
    name = leasing.WorkerName("home", "worker")
    held = 10 * COST_NANOUSD
    assert leasing.grow_lease(name=name, lease_id=lease, window_id=window.pk, nanousd=held)
    request_id = request_id_at(NOW + dt.timedelta(hours=1))
    leases = [[lease, held, made.deployment.pk]]
    intent = intent_line(made, request_id, hold=0, leases=[], deployment_leases=leases)
    unknown = usage_line(kind="unknown", input=None, output=None)
    ended = {
        "known": [outcome_line(made, request_id, deployment_uncertain=[])],
        "unknown": [outcome_line(made, request_id, cost=None, usage=unknown,
                                 deployment_uncertain=[[made.deployment.pk, held]])],
        "interrupted": [],
    }[outcome]  # fmt: skip
    ingest(tmp_path, [intent, *ended])
    window.refresh_from_db()
    spent, uncertain = {"known": (COST_NANOUSD, 0), "unknown": (0, held), "interrupted": (0, held)}[outcome]
    assert (window.spent_nanousd, window.uncertain_nanousd) == (spent, uncertain)
    assert window.leased_nanousd == held - spent - uncertain


def test_a_deployments_budget_counts_all_callers_and_only_attempts_there(tmp_path: Path) -> None:
    made, other = world("acme"), world("umbrella")
    soft, hard = deployment_budget(made, is_hard=False), deployment_budget(made)
    elsewhere = deployment_budget(other)
    at = NOW + dt.timedelta(hours=1)
    lines = request_lines(made, request_id_at(at)) + request_lines(other, request_id_at(at))
    # A tenant without any budget, whose first attempt failed at the first deployment and cost something there.
    fallback = request_lines(other, request_id_at(at), cost=2 * COST_NANOUSD)
    (attempt,) = fallback[1]["attempts"]
    first = {**attempt, "n": 1, "deployment": made.deployment.pk, "cost": 5, "price": made.price.pk}
    fallback[1]["attempts"] = [first, {**attempt, "n": 2}]
    ingest(tmp_path, lines + fallback)
    assert only_window(soft).spent_nanousd == only_window(hard).spent_nanousd == COST_NANOUSD + 5
    assert only_window(elsewhere).spent_nanousd == COST_NANOUSD + 2 * COST_NANOUSD
    late = deployment_budget(made, window="week")
    assert only_window(late).spent_nanousd == COST_NANOUSD + 5
    assert load_scopes().find(made.tenant.pk, made.project.pk, made.key.pk) == ()
    in_force = load_deployment_budgets()
    assert [one.id for one in in_force[made.deployment.pk]] == [hard.pk, late.pk]
    assert hard.time_zone == "UTC" and str(hard) == f"deployment {made.deployment} each day"


@pytest.mark.parametrize("window", ["day", "week", "month"])
def test_a_deployments_budget_starts_from_sums_by_day_and_reads_no_attempt(
    tmp_path: Path, window: str
) -> None:
    made = world()
    ingest(
        tmp_path, [line for hours in (1, 2) for line in requests_at(made, NOW + dt.timedelta(hours=hours))]
    )
    with CaptureQueriesContext(connection) as asked:
        budget = deployment_budget(made, window=window)
    assert only_window(budget).spent_nanousd == 2 * COST_NANOUSD
    read = [one["sql"] for one in asked if "sum(" in one["sql"]]
    assert len(read) == 1 and "billing_attemptsbyday" in read[0]
    assert not [one["sql"] for one in asked if "billing_attemptrecord" in one["sql"]]
    assert not [one["sql"] for one in asked if "billing_requestrecord" in one["sql"]]


def test_a_total_of_a_deployment_counts_this_very_second_by_the_ids_of_requests(tmp_path: Path) -> None:
    made = world()
    seconds = (-1, 0.5, 2, 90_000)  # before; in the second in which it is made; by clocks that are ahead
    ingest(
        tmp_path,
        [line for s in seconds for line in requests_at(made, NOW + dt.timedelta(seconds=s))],
    )
    budget = deployment_budget(made, window="total", now=NOW + dt.timedelta(seconds=0.9))
    assert only_window(budget).spent_nanousd == 3 * COST_NANOUSD
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(
            "EXPLAIN SELECT sum(cost_nanousd) FROM billing_attemptrecord WHERE deployment_id = 1"
            " AND started_at >= %s AND started_at < %s AND request_id >= %s AND request_id < %s",
            [NOW, NOW + dt.timedelta(days=1), first_id_of(NOW), first_id_of(NOW + dt.timedelta(days=1))],
        )
        plan = " ".join(row[0] for row in cursor.fetchall())
    assert "Index Cond: ((request_id >=" in plan


def test_sums_of_attempts_are_filled_for_what_was_recorded_before(tmp_path: Path) -> None:
    made, other = world("acme"), world("umbrella")
    days = [NOW - dt.timedelta(days=1), NOW, NOW]
    ingest(
        tmp_path, [line for made_at in days for one in (made, other) for line in requests_at(one, made_at)]
    )
    counted = ("day", "deployment", "attempt_count", "cost_nanousd")
    rows = sorted(AttemptsByDay.objects.values_list(*counted))
    assert [row[2:] for row in rows] == [(1, COST_NANOUSD)] * 2 + [(2, 2 * COST_NANOUSD)] * 2
    AttemptsByDay.objects.all().delete()
    fill = import_module("billing.migrations.0031_fill_attempts_by_day")
    with connection.cursor() as cursor:
        cursor.execute(fill.FILL)
    assert sorted(AttemptsByDay.objects.values_list(*counted)) == rows


def requests_at(made: World, at: dt.datetime) -> list[dict[str, Any]]:
    return request_lines(made, request_id_at(at))


def test_a_deployments_budget_is_of_nobody_else() -> None:
    made = world()
    for fields in ({"tenant": made.tenant}, {"model": made.deployment.model}, {"api_key": made.key}):
        with pytest.raises(InvalidValueError):
            deployment_budget(made, **fields)
    with pytest.raises(InvalidValueError, match="name a tenant"):
        budgets.create_budget(window="day", limit_nanousd=1, actor="a test")
    deployment_budget(made)
    with pytest.raises(NameTakenError, match=f"deployment {made.deployment} has a hard budget by day"):
        deployment_budget(made)


def deployment_budget(made: World, **fields: Any) -> Budget:
    arguments = {"window": "day", "limit_nanousd": 10**9, "actor": "a test", "now": NOW, **fields}
    return budgets.create_budget(deployment=made.deployment, **arguments)
