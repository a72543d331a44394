"""Is a row changed through the management API only as its caller has read it, where the caller says so?"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.db import connection

from billing.alert_recipients import add_recipient
from billing.budgets import create_budget
from billing.models import Budget
from policies import cataloguing, publishing
from policies.api.resources import GuardedView
from policies.models import Policy, Provider, Tenant
from policies.rate_limits import set_rate_limit
from tests import make
from tests.make_configuration import make_tenant
from tests.policies.api.callers import Caller, caller_with
from tests.policies.api.test_access import OPERATIONS, VIEWS
from tests.policies.api.test_resources import problem_of

# A canary has no address to read it at; a draft has a revision, and has to be named.
UNGUARDED = {"change_canary", "stop_canary", "save_draft"}


def make_world() -> make.World:
    """One row of everything, with a provider at an address that may be saved again."""
    world = make.world()
    Provider.objects.update(allow_private_network=True)
    return world


@pytest.mark.django_db
def test_every_row_that_can_be_changed_is_changed_only_as_it_was_read() -> None:
    world = make_world()
    caller = caller_with()
    key, deployment = world.key, world.deployment
    limit = set_rate_limit(owner=world.tenant, actor="a test", concurrent=5)
    budget = create_budget(tenant=world.tenant, window=Budget.Window.DAY, limit_nanousd=10**9, actor="a test")
    policy = publishing.create_policy(public_id="acme/guarded", actor="a test")
    recipient, _ = add_recipient(
        tenant=world.tenant, channel="email", address="fin@example.com", actor="a test"
    )
    assert limit is not None
    changes: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        f"tenants/{world.tenant.pk}": ({"time_zone": "Europe/Berlin"}, {"allowed_regions": ["eu"]}),
        f"tenants/{world.tenant.pk}/billing": ({"legal_name": "A"}, {"payment_days": 3}),
        "issuer": ({"legal_name": "A"}, {"email": "a@example.com"}),
        f"projects/{key.project_id}": ({"is_enabled": False}, {"is_enabled": True}),
        f"keys/{key.pk}": ({"owner": "ann"}, {"is_pinned": True}),
        f"providers/{deployment.provider_id}": ({"is_enabled": False}, {"takes_stream_options": False}),
        f"models/{deployment.model_id}": ({"description": "x"}, {"context_tokens": 5}),
        f"deployments/{deployment.pk}": ({"region": "eu"}, {"is_enabled": False}),
        f"rate-limits/{limit.pk}": ({"concurrent": 6}, {"requests_per_minute": 7}),
        f"budgets/{budget.pk}": ({"limit_usd": "2"}, {"is_enabled": False}),
        f"policies/{policy.pk}": ({"description": "x"}, {"is_enabled": False}),
        f"alert-recipients/{recipient.pk}": ({"address": "a@example.com"}, {"address": "b@example.com"}),
    }
    for path, (theirs, mine) in changes.items():
        etag = caller.get(path)["ETag"]
        assert caller.get(path)["ETag"] == etag, path
        saved = caller.send("PATCH", path, theirs, If_Match=etag)
        assert (saved.status_code, saved["ETag"] != etag) == (200, True), (path, saved.content)
        refused = caller.send("PATCH", path, mine, If_Match=etag)
        assert problem_of(refused, 412, "stale-row")["current"] == saved.json() == caller.read(path), path
        assert refused["ETag"] == saved["ETag"]
        again = caller.send("PATCH", path, mine, If_Match=refused["ETag"])
        assert (again.status_code, {**again.json(), **mine}) == (200, again.json()), path
        assert caller.send("PATCH", path, theirs).status_code == 200, "who names none means it so"
        assert caller.send("PATCH", path, mine, If_Match="*").status_code == 200
    guarded = {view for _, view in VIEWS if issubclass(view, GuardedView) and view.is_guarded}
    assert len(guarded) == len(changes), "a resource that this test does not know"


def test_no_operation_that_changes_a_row_goes_unguarded() -> None:
    guarded = {
        operation.name
        for _, view in VIEWS
        if getattr(view, "is_guarded", False)
        for operation in view.operations.values()
    }
    changing = {operation.name for method, _, operation in OPERATIONS if method in ("PUT", "PATCH", "DELETE")}
    assert changing - guarded == UNGUARDED


@pytest.mark.django_db
def test_what_was_changed_since_it_was_read_is_not_deleted() -> None:
    caller = caller_with()
    path = f"tenants/{make_tenant(name='acme').pk}"
    etag = caller.get(path)["ETag"]
    caller.send("PATCH", path, {"retention_limit": "none"})
    problem_of(caller.send("DELETE", path, If_Match=etag), 412, "stale-row")
    assert Tenant.objects.exists()
    assert caller.send("DELETE", path, If_Match=caller.get(path)["ETag"]).status_code == 204


@pytest.mark.django_db
def test_a_new_credential_counts_as_a_change_and_what_others_do_beside_a_row_does_not() -> None:
    world = make_world()
    caller = caller_with()
    path = f"providers/{world.deployment.provider_id}"
    etag = caller.get(path)["ETag"]
    cataloguing.change_provider(provider=world.deployment.provider, actor="ann", credential="sk-other")
    problem_of(caller.send("PATCH", path, {"is_enabled": False}, If_Match=etag), 412, "stale-row")
    policy = publishing.create_policy(public_id="acme/beside", actor="a test")
    etag = caller.get(f"policies/{policy.pk}")["ETag"]
    rule = {"name": "all", "deployments": [world.deployment.name]}
    publishing.publish(policy=policy, actor="ann", document={"rules": [rule]})
    sent = caller.send("PATCH", f"policies/{policy.pk}", {"description": "x"}, If_Match=etag)
    assert (sent.status_code, sent.json()["live_version"]) == (200, 1)


def test_of_two_who_have_read_the_same_one_changes_it(transactional_db: None) -> None:
    policy = publishing.create_policy(public_id="acme/raced", actor="a test")
    path = f"policies/{policy.pk}"
    callers = [caller_with() for _ in range(4)]
    etag = callers[0].get(path)["ETag"]
    together = Barrier(len(callers))

    def change(caller: Caller) -> int:
        together.wait(10)
        try:
            sent = caller.send("PATCH", path, {"description": caller.headers["Authorization"]}, If_Match=etag)
            return int(sent.status_code)
        finally:
            connection.close()

    with ThreadPoolExecutor(len(callers)) as threads:
        codes = sorted(threads.map(change, callers))
    assert codes == [200, 412, 412, 412]
    assert Policy.objects.get(pk=policy.pk).description != ""
