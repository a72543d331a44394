"""Does a policy go from draft to version and back without losing anything?"""

from __future__ import annotations

from typing import Any

import pytest
from django.db import DatabaseError, transaction

from policies import cataloguing, publishing, tenancy_changes
from policies.errors import ConfigurationError, InUseError, NameTakenError, NotFoundError
from policies.models import ChangeEvent, Deployment, Policy, PolicyVersion
from policies.publishing import NothingToPublishError, PolicyError, StaleDraftError
from tests.make_configuration import make_deployment, make_model, make_tenant

pytestmark = pytest.mark.django_db
ACTOR = "ada"


def document(*names: str, **rule: Any) -> dict[str, Any]:
    return {"rules": [{"name": "rest", "deployments": list(names), **rule}]}


@pytest.fixture
def policy() -> Policy:
    make_deployment(name="a")
    make_deployment(name="b")
    return publishing.create_policy(public_id="acme/auto", actor=ACTOR)


def save(policy: Policy, content: dict[str, Any], revision: int) -> int:
    return publishing.save_draft(
        policy=policy, document=content, expected_revision=revision, actor=ACTOR
    ).revision


def test_a_new_policy_has_an_empty_draft_and_no_live_version(policy: Policy) -> None:
    assert policy.live_version is None
    assert policy.draft.document == publishing.EMPTY_DOCUMENT
    assert ChangeEvent.objects.latest("id").action == "create"


@pytest.mark.parametrize("public_id", ["", "with space", "ümlaut", "x" * 201, "a\nb"])
def test_an_id_that_clients_cannot_send_is_refused(public_id: str) -> None:
    with pytest.raises(PolicyError):
        publishing.create_policy(public_id=public_id, actor=ACTOR)


def test_an_id_is_taken_by_policies_and_models(policy: Policy) -> None:
    make_model(name="smol")
    for public_id in ("acme/auto", "smol"):
        with pytest.raises(NameTakenError):
            publishing.create_policy(public_id=public_id, actor=ACTOR)


def test_the_second_of_two_editors_is_told_instead_of_overwriting(policy: Policy) -> None:
    assert save(policy, document("a"), 1) == 2
    with pytest.raises(StaleDraftError) as refused:
        save(policy, document("b"), 1)
    assert refused.value.revision == 2
    assert "ada" in str(refused.value)
    policy.draft.refresh_from_db()
    assert policy.draft.document == document("a")


def test_saving_the_same_again_changes_nothing(policy: Policy) -> None:
    save(policy, document("a"), 1)
    count = ChangeEvent.objects.count()
    assert save(policy, document("a"), 2) == 2
    assert ChangeEvent.objects.count() == count


def test_an_unfinished_draft_is_kept_but_not_published(policy: Policy) -> None:
    save(policy, document("nothing"), 1)
    with pytest.raises(PolicyError) as refused:
        publishing.publish(policy=policy, actor=ACTOR)
    assert [problem.path for problem in refused.value.problems] == ["rules[0].deployments[0]"]
    assert "there is no deployment named 'nothing'" in str(refused.value)
    assert not PolicyVersion.objects.exists()


@pytest.mark.parametrize(
    "content",
    [
        {"rules": "\0"},
        {"rules": "\ud800"},
        {"rules": float("nan")},
        {"rules": [[[[[[[[]]]]]]]]},
        {1: 2},
        {"rules": object()},
        [],
    ],
)
def test_what_the_database_cannot_hold_is_refused(policy: Policy, content: Any) -> None:
    with pytest.raises(PolicyError):
        save(policy, content, 1)


def test_publishing_makes_an_immutable_version_live(policy: Policy) -> None:
    save(policy, document("a"), 1)
    version = publishing.publish(policy=policy, actor=ACTOR, note="first")
    policy.refresh_from_db()
    assert policy.live_version == version
    assert (version.number, version.published_by, version.note) == (1, ACTOR, "first")
    assert version.document["rules"][0]["strategy"] == "priority"
    event = ChangeEvent.objects.latest("id")
    assert (event.action, event.object_type, event.object_name) == ("publish", "policy", "acme/auto")
    version.note = "other"
    with pytest.raises(DatabaseError), transaction.atomic():
        version.save()


def test_what_is_live_is_neither_published_again_nor_rolled_back_to(policy: Policy) -> None:
    publishing.publish(policy=policy, actor=ACTOR, document=document("a"))
    count = ChangeEvent.objects.count()
    with pytest.raises(NothingToPublishError, match="the draft is what is live"):
        publishing.publish(policy=policy, actor=ACTOR, note="a note alone")
    with pytest.raises(NothingToPublishError):
        publishing.publish(policy=policy, actor=ACTOR, document=document("a"))
    with pytest.raises(NothingToPublishError, match="the rules of version 1 are live"):
        publishing.roll_back(policy=policy, number=1, actor=ACTOR)
    assert (ChangeEvent.objects.count(), policy.versions.count()) == (count, 1)


def test_rolling_back_publishes_the_older_document_as_a_new_version(policy: Policy) -> None:
    publishing.publish(policy=policy, actor=ACTOR, document=document("a"))
    publishing.publish(policy=policy, actor=ACTOR, document=document("b"))
    version = publishing.roll_back(policy=policy, number=1, actor=ACTOR)
    policy.refresh_from_db()
    assert (version.number, policy.live_version) == (3, version)
    assert version.document["rules"][0]["deployments"][0]["name"] == "a"
    policy.draft.refresh_from_db()
    assert policy.draft.document == version.document
    assert [v.document["rules"][0]["deployments"][0]["name"] for v in policy.versions.order_by("number")] == [
        "a",
        "b",
        "a",
    ]


def test_rolling_back_to_nothing_or_to_what_is_no_longer_sound_is_refused(policy: Policy) -> None:
    publishing.publish(policy=policy, actor=ACTOR, document=document("a"))
    with pytest.raises(NotFoundError):
        publishing.roll_back(policy=policy, number=2, actor=ACTOR)
    live = publishing.publish(policy=policy, actor=ACTOR, document=document("b"))
    cataloguing.delete_deployment(deployment=Deployment.objects.get(name="a"), actor=ACTOR)
    with pytest.raises(PolicyError):
        publishing.roll_back(policy=policy, number=1, actor=ACTOR)
    policy.refresh_from_db()
    assert policy.live_version == live


def test_a_disabled_deployment_is_a_warning_and_can_be_published(policy: Policy) -> None:
    make = make_deployment(name="off")
    cataloguing.change_deployment(deployment=make, actor=ACTOR, is_enabled=False)
    assert [p.severity for p in publishing.list_problems(document("off"))] == ["warning"]
    assert publishing.publish(policy=policy, actor=ACTOR, document=document("off")).number == 1


def test_a_policy_is_switched_off_and_described(policy: Policy) -> None:
    publishing.change_policy(policy=policy, is_enabled=False, actor=ACTOR)
    changed = publishing.change_policy(policy=policy, actor=ACTOR, description="for support")
    assert (changed.is_enabled, changed.description) == (False, "for support")
    with pytest.raises(ConfigurationError):
        publishing.change_policy(policy=policy, actor=ACTOR, public_id="x")


def test_only_a_policy_without_history_is_deleted(policy: Policy) -> None:
    tenant = make_tenant()
    tenancy_changes.set_tenant_policies(tenant=tenant, public_ids=["acme/auto"], actor=ACTOR)
    with pytest.raises(InUseError):
        publishing.delete_policy(policy=policy, actor=ACTOR)
    tenancy_changes.set_tenant_policies(tenant=tenant, public_ids=[], actor=ACTOR)
    publishing.delete_policy(policy=policy, actor=ACTOR)
    assert not Policy.objects.exists()
    other = publishing.create_policy(public_id="acme/auto", actor=ACTOR)
    publishing.publish(policy=other, actor=ACTOR, document=document("a"))
    with pytest.raises(InUseError):
        publishing.delete_policy(policy=other, actor=ACTOR)
