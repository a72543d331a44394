"""Is an operator told what a draft would do to tenants, and which deployments have no price?"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from billing.pricing import add_price
from policies import cataloguing, publishing, tenancy_changes
from policies.document_checks import Problem
from policies.draft_checks import list_problems
from policies.models import Deployment, Policy
from policies.publishing import PolicyError
from tests.make_configuration import make_deployment, make_tenant

pytestmark = pytest.mark.django_db
ACTOR = "ada"


@pytest.fixture
def policy() -> Policy:
    for name, region in (("eu1", "eu"), ("us1", "us"), ("us2", "us")):
        deployment = make_deployment(name=name, region=region)
        add_price(deployment=deployment, rates={"input_usd_per_mtok": Decimal(1)}, actor=ACTOR)
    row = publishing.create_policy(public_id="acme/auto", actor=ACTOR)
    for tenant, regions in (("free", []), ("strict", ["eu"]), ("other", ["eu"])):
        made = make_tenant(name=tenant, allowed_regions=regions)
        tenancy_changes.set_tenant_policies(tenant=made, public_ids=["acme/auto"], actor=ACTOR)
    return row


def document(*rules: list[str], **settings: Any) -> dict[str, Any]:
    named = [
        {"name": f"rule {i}", "when": "" if i == len(rules) - 1 else f"turn == {i}", "deployments": names}
        for i, names in enumerate(rules)
    ]
    return {"rules": named, **settings}


def told(found: list[Problem]) -> list[tuple[str, str, str]]:
    return [(problem.path, problem.severity, problem.message) for problem in found]


def test_a_draft_that_serves_everybody_has_no_problems(policy: Policy) -> None:
    assert list_problems(document(["us1", "eu1"], ["eu1"]), policy=policy) == []


def test_a_tenant_without_any_deployment_is_an_error_and_forbids_publishing(policy: Policy) -> None:
    found = told(list_problems(document(["us1"], ["us2"]), policy=policy))
    assert [(path, severity) for path, severity, _ in found] == [("rules", "error")]
    assert "tenants other, strict" in found[0][2]
    assert "(eu)" in found[0][2]
    with pytest.raises(PolicyError, match="no deployment could serve"):
        publishing.publish(policy=policy, actor=ACTOR, document=document(["us1"]))
    assert list_problems(document(["us1"])) == []


def test_a_rule_without_a_deployment_for_a_tenant_is_a_warning(policy: Policy) -> None:
    found = told(list_problems(document(["us1"], ["eu1"]), policy=policy))
    assert [(path, severity) for path, severity, _ in found] == [("rules[0].deployments", "warning")]
    assert "tenants other, strict" in found[0][2]


def test_a_tenant_whose_limit_of_retention_no_deployment_keeps_is_an_error(policy: Policy) -> None:
    careful = make_tenant(name="careful", retention_limit="none")
    tenancy_changes.set_tenant_policies(tenant=careful, public_ids=["acme/auto"], actor=ACTOR)
    found = told(list_problems(document(["eu1"]), policy=policy))
    assert [(path, severity) for path, severity, _ in found] == [("rules", "error")]
    assert "careful" in found[0][2] and "keep prompts as they ask (none)" in found[0][2]
    Deployment.objects.filter(name="eu1").update(retention="none")
    assert list_problems(document(["eu1"]), policy=policy) == []


def test_a_rule_that_is_off_serves_nobody(policy: Policy) -> None:
    off = document(["eu1"], ["us1"])
    off["rules"][0]["is_enabled"] = False
    assert [p.severity for p in list_problems(off, policy=policy)] == ["error"]


def test_what_is_switched_off_serves_nobody(policy: Policy) -> None:
    cataloguing.change_deployment(
        deployment=Deployment.objects.get(name="eu1"), actor=ACTOR, is_enabled=False
    )
    found = told(list_problems(document(["eu1"]), policy=policy))
    assert [(path, severity) for path, severity, _ in found] == [
        ("rules[0].deployments[0]", "warning"),
        ("rules", "error"),
        ("rules", "error"),
    ]


def test_a_deployment_without_a_price_is_a_warning_where_it_is_named(policy: Policy) -> None:
    make_deployment(name="new", region="eu")
    found = list_problems(
        {"rules": [{"name": "r", "deployments": ["eu1"], "fallbacks": ["new"]}]}, policy=policy
    )
    assert [(p.path, p.severity) for p in found] == [("rules[0].fallbacks[0]", "warning")]
    assert "no price" in found[0].message


def test_a_policy_in_the_place_of_a_deployment_is_named_as_such(policy: Policy) -> None:
    (problem,) = list_problems({"rules": [{"name": "r", "deployments": ["eu1"], "fallbacks": ["acme/auto"]}]})
    assert (problem.path, problem.severity) == ("rules[0].fallbacks[0]", "error")
    assert "is a policy" in problem.message


def test_a_condition_that_does_not_compile_cannot_be_saved(policy: Policy) -> None:
    broken = document(["eu1"])
    broken["rules"][0]["when"] = " turn >"
    with pytest.raises(PolicyError) as refused:
        publishing.save_draft(policy=policy, document=broken, expected_revision=1, actor=ACTOR)
    assert [(p.path, p.column) for p in refused.value.problems] == [("rules[0].when", 8)]


@pytest.mark.parametrize(
    "odd", [None, [], {"rules": 5}, {"rules": [5, {"deployments": 5, "fallbacks": [[]]}]}, {"rules": [{}]}]
)
def test_any_document_is_checked_without_failing(policy: Policy, odd: Any) -> None:
    assert list_problems(odd, policy=policy)
