"""Two save the same row at the same moment, each as both had read it: is the second told, wherever it is edited?"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
from django.db import connection, transaction
from django.test import Client
from django.urls import URLPattern, resolve, reverse

from billing.alert_recipients import add_recipient, change_recipient
from billing.billing_profiles import change_profile
from billing.budgets import change_budget, create_budget
from billing.models import Budget, SavedView
from billing.saved_views import change_view
from gateway.urls import urlpatterns
from policies import cataloguing, publishing, tenancy_changes
from policies.models import ChangeEvent, Provider
from policies.permissions import Role
from policies.rate_limits import set_rate_limit
from tests import make
from tests.console_people import operator, person

WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


class Edit(NamedTuple):
    """A form over a row: what the first editor does by a verb, and what the second types over it."""

    address: str
    theirs: Callable[[], object]
    mine: dict[str, Any]


def list_edits(world: make.World, view: SavedView) -> list[Edit]:
    """One of every form of the console and the back office over a row that several people may edit."""
    tenant, deployment, policy = world.tenant, world.deployment, world.policy
    budget = create_budget(tenant=tenant, window=Budget.Window.DAY, limit_nanousd=10**9, actor="a test")
    recipient, _ = add_recipient(tenant=tenant, channel="email", address="fin@example.com", actor="a test")
    limit = set_rate_limit(owner=tenant, actor="a test", concurrent=5)
    assert limit is not None

    def change_tenant(region: str) -> Callable[[], object]:
        return lambda: tenancy_changes.change_tenant(tenant=tenant, actor="ann", allowed_regions=[region])

    def change_model(tokens: int) -> Callable[[], object]:
        return lambda: cataloguing.change_model(model=deployment.model, actor="ann", context_tokens=tokens)

    def change_deployment(region: str) -> Callable[[], object]:
        return lambda: cataloguing.change_deployment(deployment=deployment, actor="ann", region=region)

    def change_provider(is_private: bool) -> Callable[[], object]:
        return lambda: cataloguing.change_provider(
            provider=deployment.provider, actor="ann", extra_headers={"X-Private": str(is_private)}
        )

    def rename_project(name: str) -> Callable[[], object]:
        return lambda: tenancy_changes.change_project(project=world.project, actor="ann", name=name)

    return [
        Edit(reverse("tenant-edit", args=[tenant.pk]), change_tenant("eu"), {"retention_limit": "none"}),
        Edit(reverse("project-edit", args=[world.project.pk]), rename_project("theirs"), {"name": "mine"}),
        Edit(
            reverse("provider-edit", args=[deployment.provider_id]),
            change_provider(False),
            {"takes_stream_options": ""},
        ),
        Edit(reverse("model-edit", args=[deployment.model_id]), change_model(7), {"description": "mine"}),
        Edit(
            reverse("deployment-edit", args=[deployment.pk]), change_deployment("eu"), {"retention": "none"}
        ),
        Edit(
            reverse("policy-about", args=[policy.pk]),
            lambda: publishing.change_policy(policy=policy, actor="ann", requires_approval=True),
            {"description": "mine"},
        ),
        Edit(
            reverse("budget-edit", args=[budget.pk]),
            lambda: change_budget(budget=budget, actor="ann", limit_nanousd=7 * 10**9),
            {"limit_usd": "9"},
        ),
        Edit(
            reverse("budget-recipient-edit", args=[recipient.pk]),
            lambda: change_recipient(recipient=recipient, actor="ann", address="theirs@example.com"),
            {"address": "mine@example.com"},
        ),
        Edit(
            reverse("rate-limit-edit", args=[limit.pk]),
            lambda: set_rate_limit(owner=tenant, actor="ann", concurrent=6),
            {"concurrent": "7"},
        ),
        Edit(
            reverse("saved-view-edit", args=[view.pk]),
            lambda: change_view(view=view, actor="ann", name="theirs", is_shared=True),
            {"name": "mine"},
        ),
        Edit(
            reverse("billing-profile", args=[tenant.pk]),
            lambda: change_profile(tenant=tenant, actor="ann", email="theirs@example.com"),
            {"legal_name": "mine"},
        ),
        Edit(
            reverse("issuer-details"),
            lambda: change_profile(tenant=None, actor="ann", email="theirs@example.com"),
            {"legal_name": "mine"},
        ),
        Edit(admin_address("tenant", tenant), change_tenant("us"), {"retention_limit": "none"}),
        Edit(admin_address("project", world.project), rename_project("theirs-too"), {"name": "mine"}),
        Edit(
            admin_address("provider", deployment.provider),
            change_provider(True),
            {"takes_stream_options": ""},
        ),
        Edit(admin_address("model", deployment.model), change_model(8), {"description": "mine"}),
        Edit(admin_address("deployment", deployment), change_deployment("us"), {"retention": "none"}),
    ]


def admin_address(table: str, row: Any) -> str:
    return f"/admin/policies/{table}/{row.pk}/change/"


def open_form(client: Client, address: str) -> dict[str, Any]:
    """What a browser would send of the form as it was opened."""
    context = client.get(address).context
    form = context["form"] if "form" in context else context["adminform"].form
    values = {field.html_name: field.value() for field in form}
    if "seen" in context:  # the back office writes it beside its form
        values["seen"] = context["seen"]
    sent = {name: "on" if value is True else value for name, value in values.items()}
    sent = {
        name: ", ".join(v) if isinstance(v, list) and name != "tenants" else v for name, v in sent.items()
    }
    return {name: value for name, value in sent.items() if value not in (None, False)}


def list_views(patterns: Any = urlpatterns) -> list[Any]:
    """All views of the console."""
    return [
        view
        for pattern in patterns
        for view in (
            [pattern.callback] if isinstance(pattern, URLPattern) else list_views(pattern.url_patterns)
        )
    ]


@pytest.mark.django_db
def test_every_form_over_a_row_is_tried_here() -> None:
    over_a_row = {
        view
        for view in list_views()
        if inspect.isfunction(view) and "stored=" in inspect.getsource(inspect.unwrap(view))
    }
    tried = {resolve(edit.address).func for edit in list_edits(make.world(), make_view())}
    assert over_a_row <= tried
    assert len(over_a_row) >= 11


@pytest.mark.django_db
def test_who_ticks_tenants_of_a_policy_leaves_alone_what_others_did_to_them() -> None:
    one, other = make.world(), make.world()
    tenancy_changes.set_tenant_policies(
        tenant=one.tenant, public_ids=[one.policy.public_id, other.policy.public_id], actor="ann"
    )
    tenancy_changes.change_tenants_of(
        policy=one.policy, added=[other.tenant.name], removed=[one.tenant.name, "gone"], actor="ann"
    )
    assert list(one.tenant.policies.all()) == [other.policy]
    assert list(one.policy.tenants.all()) == [other.tenant]
    before = count_events()
    tenancy_changes.change_tenants_of(policy=one.policy, added=[other.tenant.name], removed=[], actor="ann")
    assert count_events() == before, "nothing changed, so nothing is recorded"


def make_view() -> SavedView:
    owner = person(Role.OPERATOR)
    return SavedView.objects.create(owner=owner, name="v", page="spend", query="", is_shared=True)


def test_the_second_of_two_simultaneous_editors_is_told(transactional_db: None) -> None:
    world = make.world()
    Provider.objects.update(allow_private_network=True)
    browser = operator()
    view = make_view()
    with ThreadPoolExecutor(1) as threads:
        for address, theirs, mine in list_edits(world, view):
            sent = {**open_form(browser, address), **mine}
            assert sent["seen"], address

            def save(address: str = address, sent: dict[str, Any] = sent) -> Any:
                try:
                    return browser.post(address, sent)
                finally:
                    connection.close()

            events_before = count_events()
            with transaction.atomic():
                theirs()
                saving = threads.submit(save)
                wait_until_blocked(saving)
            answer = saving.result(10)
            page = answer.content.decode()
            assert "Somebody changed this since you opened it" in page, (
                address,
                answer.status_code,
                page[:300],
            )
            assert count_events() == events_before + 1, f"{address}: only the first one's change is there"


def count_events() -> int:
    return ChangeEvent.objects.count()


def wait_until_blocked(saving: Future[Any]) -> None:
    """Return once another session waits for a lock of this one, or has answered without one."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not saving.done():
        with connection.cursor() as cursor:
            cursor.execute(WAITING)
            if cursor.fetchone()[0]:
                return
        time.sleep(0.005)
