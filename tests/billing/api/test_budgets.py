"""Are budgets made, changed and watched over HTTP, as exact amounts?"""

from __future__ import annotations

from typing import Any

import pytest

from billing import leasing
from billing.models import Budget, BudgetWindow
from tests.make_configuration import make_deployment, make_key, make_model, make_tenant
from tests.policies.api.callers import caller_with
from tests.policies.api.test_resources import places, problem_of

pytestmark = pytest.mark.django_db


def test_a_budget_is_made_listed_changed_watched_and_deleted() -> None:
    key, _ = make_key()
    model = make_model()
    caller = caller_with("read", "budgets")
    body = {
        "tenant_id": key.project.tenant_id,
        "api_key_id": key.pk,
        "model_id": model.pk,
        "window": "month",
        "limit_usd": "12.5",
    }
    added = caller.send("POST", "budgets", body)
    assert added.status_code == 201, added.json()
    row = added.json()
    assert (row["limit_usd"], row["is_hard"], row["project_id"]) == ("12.5", True, key.project_id)
    assert caller.read(added["Location"]) == row
    problem_of(caller.send("POST", "budgets", body), 409, "name-taken")
    changed = caller.send("PATCH", added["Location"], {"limit_usd": "20", "is_enabled": False}).json()
    assert (changed["limit_usd"], changed["is_enabled"], changed["may_lower_limit"]) == ("20", False, True)
    refused = problem_of(caller.send("PATCH", added["Location"], {"window": "day"}), 422, "invalid-value")
    assert places(refused) == ["window"]
    name = leasing.WorkerName("home", "12-abc")
    lease_id = "11111111-1111-4111-8111-111111111111"
    window = BudgetWindow.objects.get()
    assert leasing.grow_lease(name=name, lease_id=lease_id, window_id=window.pk, nanousd=1_500_000_000)
    (shown,) = caller.read(f"budgets/{row['id']}/windows")["items"]
    assert (shown["limit_usd"], shown["spent_usd"], shown["leased_usd"]) == ("20", "0", "1.5")
    (lease,) = caller.read(f"budgets/{row['id']}/leases")["items"]
    assert (lease["worker"], lease["amount_usd"], lease["window_id"]) == ("12-abc", "1.5", window.pk)
    assert caller.send("DELETE", added["Location"]).status_code == 204
    assert not Budget.objects.exists()


def test_the_list_is_narrowed_by_whose_and_for_what() -> None:
    tenant, other, model = make_tenant(), make_tenant(), make_model()
    caller = caller_with("read", "budgets")
    for fields in ({}, {"window": "day"}, {"model_id": model.pk}, {"tenant_id": other.pk}):
        body = {"tenant_id": tenant.pk, "window": "month", "limit_usd": "1", **fields}
        assert caller.send("POST", "budgets", body).status_code == 201
    for query, count in (
        (f"tenant_id={tenant.pk}", 3),
        (f"model_id={model.pk}", 1),
        ("window=day", 1),
        ("", 4),
    ):
        assert len(caller.read(f"budgets?{query}")["items"]) == count, query


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("limit_usd", 12.5),
        ("limit_usd", "-1"),
        ("limit_usd", "much"),
        ("window", "year"),
        ("tenant_id", 10**9),
    ],
)
def test_what_is_wrong_is_told_at_its_member(member: str, value: Any) -> None:
    body = {"tenant_id": make_tenant().pk, "window": "month", "limit_usd": "1", member: value}
    refused = problem_of(caller_with("budgets").send("POST", "budgets", body), 422, "invalid-value")
    assert places(refused) == [member]


def test_a_token_for_prices_makes_no_budget() -> None:
    body = {"tenant_id": make_tenant().pk, "window": "month", "limit_usd": "1"}
    problem_of(caller_with("read", "prices").send("POST", "budgets", body), 403, "forbidden")


def test_a_budget_of_a_deployment_is_made_and_names_nobody_else() -> None:
    deployment, tenant = make_deployment(), make_tenant()
    caller = caller_with("read", "budgets")
    body = {"deployment_id": deployment.pk, "window": "day", "limit_usd": "5"}
    row = caller.send("POST", "budgets", body).json()
    assert (row["deployment_id"], row["tenant_id"], row["tenant"]) == (deployment.pk, None, None)
    assert row["time_zone"] == "UTC"
    assert [one["id"] for one in caller.read(f"budgets?deployment_id={deployment.pk}")["items"]] == [
        row["id"]
    ]
    refused = problem_of(
        caller.send("POST", "budgets", {**body, "tenant_id": tenant.pk}), 422, "invalid-value"
    )
    assert places(refused) == ["deployment_id"]
    refused = problem_of(
        caller.send("POST", "budgets", {"window": "day", "limit_usd": "5"}), 422, "invalid-value"
    )
    assert places(refused) == ["tenant_id"]
