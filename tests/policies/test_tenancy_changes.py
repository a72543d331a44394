"""Are tenants and projects written by one verb each, checked and logged?"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from policies import tenancy_changes
from policies.errors import InUseError, InvalidValueError, NameTakenError, NotFoundError
from policies.models import ChangeEvent, Policy
from tests.make_configuration import ACTOR, make_key, make_project, make_tenant

pytestmark = pytest.mark.django_db


def test_a_tenant_is_created_changed_and_logged() -> None:
    tenant = make_tenant(time_zone="Europe/Berlin", allowed_regions=["us", "eu", "eu"])
    assert tenant.allowed_regions == ["eu", "us"]
    tenancy_changes.change_tenant(tenant=tenant, actor="ann", is_enabled=False, time_zone="Europe/Berlin")
    event = ChangeEvent.objects.get(action="change")
    assert (event.before, event.after) == ({"is_enabled": True}, {"is_enabled": False})


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"name": "no spaces"}, "name"),
        ({"name": ""}, "name"),
        ({"allowed_regions": "eu"}, "allowed_regions"),
        ({"allowed_regions": [""]}, "allowed_regions"),
    ],
)
def test_a_wrong_tenant_is_refused_by_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidValueError) as refusal:
        make_tenant(**fields)
    assert field in refusal.value.problems


def test_shadow_sampling_is_off_until_it_has_a_share_and_a_budget() -> None:
    tenant = make_tenant()
    assert (tenant.shadow_percent, tenant.shadow_daily_budget_usd) == (0, 0)
    tenant = tenancy_changes.change_tenant(
        tenant=tenant, actor=ACTOR, shadow_percent=5, shadow_daily_budget_usd=Decimal("2.50")
    )
    event = ChangeEvent.objects.get(action="change")
    assert event.after == {"shadow_percent": 5.0, "shadow_daily_budget_usd": "2.50"}
    for fields, field in (
        ({"shadow_daily_budget_usd": Decimal(0)}, "shadow_daily_budget_usd"),
        ({"shadow_percent": 101}, "shadow_percent"),
        ({"shadow_percent": 0, "shadow_daily_budget_usd": Decimal(-1)}, "shadow_daily_budget_usd"),
    ):
        with pytest.raises(InvalidValueError) as refusal:
            tenancy_changes.change_tenant(tenant=tenant, actor=ACTOR, **fields)
        assert list(refusal.value.problems) == [field]


def test_a_tenants_policies_are_set_as_a_whole() -> None:
    tenant = make_tenant()
    for public_id in ("a/one", "a/two"):
        Policy.objects.create(public_id=public_id)
    tenancy_changes.set_tenant_policies(tenant=tenant, public_ids=["a/two", "a/one"], actor=ACTOR)
    tenancy_changes.set_tenant_policies(tenant=tenant, public_ids=["a/one", "a/two"], actor=ACTOR)
    tenancy_changes.set_tenant_policies(tenant=tenant, public_ids=["a/two"], actor=ACTOR)
    events = list(ChangeEvent.objects.filter(action="change").order_by("id").values_list("after", flat=True))
    assert events == [{"policies": ["a/one", "a/two"]}, {"policies": ["a/two"]}]
    with pytest.raises(NotFoundError, match="a/three"):
        tenancy_changes.set_tenant_policies(tenant=tenant, public_ids=["a/three"], actor=ACTOR)


def test_a_project_name_is_unique_within_its_tenant_only() -> None:
    project = make_project(name="web")
    make_project(name="web")
    with pytest.raises(NameTakenError, match=f"{project.tenant.name}/web"):
        make_project(name="web", tenant=project.tenant)


def test_a_project_is_changed_and_logged() -> None:
    project = make_project(name="web")
    tenancy_changes.change_project(project=project, actor=ACTOR, is_enabled=False)
    assert ChangeEvent.objects.get(action="change").object_name == f"{project.tenant.name}/web"
    with pytest.raises(InvalidValueError, match="tenant"):
        tenancy_changes.change_project(project=project, actor=ACTOR, tenant=make_tenant())


def test_what_has_keys_or_projects_cannot_be_deleted() -> None:
    key, _ = make_key()
    with pytest.raises(InUseError, match="1 API keys"):
        tenancy_changes.delete_project(project=key.project, actor=ACTOR)
    with pytest.raises(InUseError, match="1 projects"):
        tenancy_changes.delete_tenant(tenant=key.project.tenant, actor=ACTOR)
    project = make_project()
    tenancy_changes.delete_project(project=project, actor=ACTOR)
    tenancy_changes.delete_tenant(tenant=project.tenant, actor=ACTOR)


def test_a_tenant_chooses_which_labels_its_spend_is_summed_by() -> None:
    tenant = tenancy_changes.create_tenant(
        name="labelled", actor=ACTOR, reported_tags=[" team ", "team", "feature"]
    )
    assert (tenant.reported_tags, tenant.reports_end_users) == (["team", "feature"], False)
    tenancy_changes.change_tenant(tenant=tenant, actor=ACTOR, reports_end_users=True)
    for wrong in ("team", [""], [5], [f"t{number}" for number in range(11)]):
        with pytest.raises(InvalidValueError):
            tenancy_changes.change_tenant(tenant=tenant, actor=ACTOR, reported_tags=wrong)
