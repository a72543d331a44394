"""Do four eyes see what goes live, and does a canary leave no trace when it is stopped?"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from gateway.snapshots import load_snapshot
from policies import approvals, canaries, publishing
from policies.approvals import OwnRequestError, RequestClosedError
from policies.canaries import NoCanaryError, OwnCanaryError
from policies.errors import ConfigurationError, InvalidValueError
from policies.models import ChangeEvent, Policy, PolicyVersion
from policies.publishing import ApprovalNeededError, CanaryRunningError, PolicyError
from tests.make_configuration import make_deployment

pytestmark = pytest.mark.django_db


def document(name: str) -> dict[str, Any]:
    return {"rules": [{"name": "rest", "deployments": [name]}]}


@pytest.fixture
def policy() -> Policy:
    make_deployment(name="a")
    make_deployment(name="b")
    row = publishing.create_policy(public_id="acme/auto", actor="ada")
    publishing.publish(policy=row, actor="ada", document=document("a"))
    return row


@pytest.fixture
def guarded(policy: Policy) -> Policy:
    publishing.change_policy(policy=policy, actor="ada", requires_approval=True)
    save(policy, "b")
    return policy


def save(policy: Policy, name: str) -> None:
    policy.draft.refresh_from_db()
    publishing.save_draft(
        policy=policy, document=document(name), expected_revision=policy.draft.revision, actor="ada"
    )


def live_name(policy: Policy) -> str:
    policy.refresh_from_db()
    assert policy.live_version is not None
    return str(policy.live_version.document["rules"][0]["deployments"][0]["name"])


def newest_action() -> str:
    return ChangeEvent.objects.latest("id").action


def test_what_needs_approval_is_published_by_two_people(guarded: Policy) -> None:
    with pytest.raises(ApprovalNeededError):
        publishing.publish(policy=guarded, actor="ada")
    request = approvals.request_publication(policy=guarded, actor="ada", note="cheaper")
    assert newest_action() == "request_publication"
    with pytest.raises(OwnRequestError):
        approvals.approve(request=request, actor="ada")
    assert live_name(guarded) == "a"
    version = approvals.approve(request=request, actor="bob", note="fine")
    assert live_name(guarded) == "b"
    assert (version.published_by, version.approved_by, version.note) == ("ada", "bob", "cheaper")
    request.refresh_from_db()
    assert (request.status, request.decided_by, request.version) == ("approved", "bob", version)
    assert list(ChangeEvent.objects.order_by("-id").values_list("action", "actor")[:2]) == [
        ("publish", "ada"),
        ("approve_publication", "bob"),
    ]
    with pytest.raises(RequestClosedError, match="approved by bob"):
        approvals.approve(request=request, actor="cyd")


def test_a_draft_that_changes_makes_what_was_asked_for_stale(guarded: Policy) -> None:
    request = approvals.request_publication(policy=guarded, actor="ada")
    save(guarded, "a")
    save(guarded, "b")
    with pytest.raises(RequestClosedError, match="ask again"):
        approvals.approve(request=request, actor="bob")
    assert live_name(guarded) == "a"
    assert approvals.find_pending(guarded) is None
    approvals.approve(request=approvals.request_publication(policy=guarded, actor="ada"), actor="bob")
    assert live_name(guarded) == "b"


def test_a_rejected_request_changes_nothing_and_another_can_follow(guarded: Policy) -> None:
    request = approvals.request_publication(policy=guarded, actor="ada")
    with pytest.raises(ConfigurationError, match="ada asked for this already"):
        approvals.request_publication(policy=guarded, actor="bob")
    approvals.reject(request=request, actor="bob", note="not today")
    assert (live_name(guarded), newest_action()) == ("a", "reject_publication")
    with pytest.raises(RequestClosedError):
        approvals.approve(request=request, actor="bob")
    taken_back = approvals.request_publication(policy=guarded, actor="ada")
    approvals.reject(request=taken_back, actor="ada")
    assert approvals.find_pending(guarded) is None


def test_there_must_be_something_sound_to_ask_for(guarded: Policy) -> None:
    save(guarded, "nothing")
    with pytest.raises(PolicyError):
        approvals.request_publication(policy=guarded, actor="ada")
    save(guarded, "a")
    publishing.change_policy(policy=guarded, actor="ada", requires_approval=False)
    with pytest.raises(ConfigurationError, match="without approval"):
        approvals.request_publication(policy=guarded, actor="ada")


def test_rolling_back_needs_no_approval(guarded: Policy) -> None:
    approvals.approve(request=approvals.request_publication(policy=guarded, actor="ada"), actor="bob")
    publishing.roll_back(policy=guarded, number=1, actor="ada")
    assert live_name(guarded) == "a"


def test_a_canary_serves_a_share_until_it_is_promoted(policy: Policy) -> None:
    save(policy, "b")
    version = canaries.start_canary(policy=policy, percent=5, actor="ada", note="try b")
    policy.refresh_from_db()
    assert (policy.canary_version, policy.canary_percent, live_name(policy)) == (version, 5.0, "a")
    assert policy.canary_started_at is not None
    canaries.set_canary_percent(policy=policy, percent=20, actor="ada")
    policy.refresh_from_db()
    assert policy.canary_percent == 20
    with pytest.raises(CanaryRunningError):
        canaries.start_canary(policy=policy, percent=5, actor="ada")
    with pytest.raises(CanaryRunningError):
        publishing.publish(policy=policy, actor="ada")
    canaries.promote_canary(policy=policy, actor="bob")
    assert (live_name(policy), policy.canary_version, policy.canary_percent) == ("b", None, 0.0)
    assert policy.live_version == version
    assert newest_action() == "promote_canary"


def test_under_four_eyes_who_asked_for_a_canary_may_only_narrow_or_stop_it(guarded: Policy) -> None:
    asked = approvals.request_publication(policy=guarded, actor="ada", canary_percent=10)
    approvals.approve(request=asked, actor="bob")
    for verb in (partial(canaries.set_canary_percent, percent=11), canaries.promote_canary):
        with pytest.raises(OwnCanaryError):
            verb(policy=guarded, actor="ada")
    canaries.set_canary_percent(policy=guarded, percent=5, actor="ada")
    canaries.set_canary_percent(policy=guarded, percent=50, actor="bob")
    canaries.promote_canary(policy=guarded, actor="cleo")
    assert live_name(guarded) == "b"


def test_workers_hear_of_a_canary_and_of_its_end(policy: Policy) -> None:
    save(policy, "b")
    version = canaries.start_canary(policy=policy, percent=12.5, actor="ada")
    routed = load_snapshot().policies["acme/auto"]
    assert routed.canary is not None
    assert (routed.version_number, routed.canary.version_id, routed.canary_percent) == (1, version.pk, 12.5)
    canaries.stop_canary(policy=policy, actor="ada")
    assert load_snapshot().policies["acme/auto"].canary is None


def test_a_stopped_canary_stays_among_the_versions(policy: Policy) -> None:
    save(policy, "b")
    version = canaries.start_canary(policy=policy, percent=5, actor="ada")
    canaries.stop_canary(policy=policy, actor="ada")
    assert (live_name(policy), policy.canary_version) == ("a", None)
    assert PolicyVersion.objects.filter(pk=version.pk).exists()
    for verb in (canaries.stop_canary, canaries.promote_canary):
        with pytest.raises(NoCanaryError):
            verb(policy=policy, actor="ada")
    assert publishing.publish(policy=policy, actor="ada").number == 3


def test_rolling_back_ends_a_canary(policy: Policy) -> None:
    save(policy, "b")
    canaries.start_canary(policy=policy, percent=5, actor="ada")
    publishing.roll_back(policy=policy, number=1, actor="ada")
    assert (live_name(policy), policy.canary_version) == ("a", None)


def test_a_canary_needs_a_live_version_another_draft_and_a_share(policy: Policy) -> None:
    with pytest.raises(ConfigurationError, match="what is live"):
        canaries.start_canary(policy=policy, percent=5, actor="ada")
    save(policy, "b")
    for percent in (0, -1, 100.5, float("nan"), True):
        with pytest.raises(InvalidValueError):
            canaries.start_canary(policy=policy, percent=percent, actor="ada")
    fresh = publishing.create_policy(public_id="acme/new", actor="ada")
    publishing.save_draft(policy=fresh, document=document("a"), expected_revision=1, actor="ada")
    with pytest.raises(ConfigurationError, match="no live version"):
        canaries.start_canary(policy=fresh, percent=5, actor="ada")


def test_a_guarded_canary_is_started_by_two_people(guarded: Policy) -> None:
    with pytest.raises(ApprovalNeededError):
        canaries.start_canary(policy=guarded, percent=5, actor="ada")
    request = approvals.request_publication(policy=guarded, actor="ada", canary_percent=5)
    version = approvals.approve(request=request, actor="bob")
    assert (live_name(guarded), guarded.canary_version, version.approved_by) == ("a", version, "bob")


def test_the_database_keeps_canaries_whole(policy: Policy) -> None:
    version = policy.versions.get(number=1)
    for broken in (
        {"canary_percent": 5},
        {"canary_version": version},
        {"canary_percent": 101, "canary_version": version},
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            Policy.objects.filter(pk=policy.pk).update(**broken)
