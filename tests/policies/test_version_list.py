"""What does the list of a policy's versions offer for each of them, and does the verb take exactly that?"""

from __future__ import annotations

import re

import pytest
from django.db import transaction

from policies import approvals, canaries, publishing
from policies.errors import ConfigurationError
from policies.models import Policy, PublicationRequest
from policies.publishing import NeverLiveError
from tests.console_people import operator
from tests.make_configuration import make_deployment
from tests.policies.api.callers import caller_with
from tests.policies.api.test_resources import problem_of

pytestmark = pytest.mark.django_db
ACTOR = "ada"


def save(policy: Policy, name: str) -> None:
    policy.draft.refresh_from_db()
    publishing.save_draft(
        policy=policy,
        document={"rules": [{"name": "rest", "deployments": [name]}]},
        expected_revision=policy.draft.revision,
        actor=ACTOR,
    )


@pytest.fixture
def policy() -> Policy:
    """Versions: 1 a, 2 b, 3 c (a canary that was stopped), 4 d (a canary that was promoted), 5 a again, live."""
    for name in "abcd":
        make_deployment(name=name)
    row = publishing.create_policy(public_id="acme/auto", actor=ACTOR)
    for name in "ab":
        save(row, name)
        publishing.publish(policy=row, actor=ACTOR)
    for name, end in (("c", canaries.stop_canary), ("d", canaries.promote_canary)):
        save(row, name)
        canaries.start_canary(policy=row, percent=5, actor=ACTOR)
        end(policy=row, actor=ACTOR)
    save(row, "a")
    publishing.publish(policy=row, actor=ACTOR)
    return row


def read_list(policy: Policy) -> dict[int, tuple[str, bool]]:
    """State and offer by number, as the page shows them; each version's own page and the verb must agree."""
    client = operator()
    page = client.get(f"/policies/{policy.pk}")
    offered = {
        int(number) for number in re.findall(r"\?version=(\d+)&amp;roll_back=1", page.content.decode())
    }
    found = {}
    for version, _, state, can_return in page.context["versions"]:
        assert can_return == (version.number in offered)
        own = client.get(f"/policies/{policy.pk}?version={version.number}").content.decode()
        assert ("Roll back to" in own) == can_return, version
        assert ("Edit draft" in own) != can_return, f"{version}: one way on"
        # Beside a canary, going back to the live version is what stopping the canary does.
        assert takes(policy, version.number) == can_return or state == "live", version
        found[version.number] = (state, can_return)
    return found


def takes(policy: Policy, number: int) -> bool:
    """Say whether the verb would roll back to this version; nothing stays changed."""
    with transaction.atomic():
        try:
            with transaction.atomic():
                publishing.roll_back(policy=policy, number=number, actor=ACTOR)
        except ConfigurationError:
            return False
        transaction.set_rollback(True)
    return True


EARLIER = {3: ("stopped canary", False), 4: ("", True)}


def test_only_what_was_live_and_is_other_than_what_is_live_can_come_back(policy: Policy) -> None:
    assert read_list(policy) == {1: ("", False), 2: ("", True), **EARLIER, 5: ("live", False)}


def test_beside_a_canary_each_version_that_was_live_can_come_back_to_end_it(policy: Policy) -> None:
    save(policy, "b")
    canaries.start_canary(policy=policy, percent=5, actor=ACTOR)
    policy.refresh_from_db()
    shown = read_list(policy)
    assert shown == {1: ("", True), 2: ("", True), **EARLIER, 5: ("live", False), 6: ("canary", False)}
    publishing.roll_back(policy=policy, number=2, actor=ACTOR)
    policy.refresh_from_db()
    assert read_list(policy) == {
        1: ("", True), 2: ("", False), **EARLIER, 5: ("", True), 6: ("stopped canary", False), 7: ("live", False)
    }  # fmt: skip


def test_what_awaits_approval_is_no_version_and_rolling_back_makes_it_stale(policy: Policy) -> None:
    publishing.change_policy(policy=policy, actor=ACTOR, requires_approval=True)
    save(policy, "b")
    approvals.request_publication(policy=policy, actor=ACTOR)
    policy.refresh_from_db()
    assert read_list(policy) == {1: ("", False), 2: ("", True), **EARLIER, 5: ("live", False)}
    publishing.roll_back(policy=policy, number=2, actor=ACTOR)
    assert PublicationRequest.objects.get().status == PublicationRequest.Status.STALE


def test_rolling_back_is_no_way_round_the_second_person_of_a_canary(policy: Policy) -> None:
    publishing.change_policy(policy=policy, actor=ACTOR, requires_approval=True)
    save(policy, "c")
    asked = approvals.request_publication(policy=policy, actor=ACTOR, canary_percent=1)
    canary = approvals.approve(request=asked, actor="bob")
    caller = caller_with()
    sent = caller.send("POST", f"policies/{policy.pk}/rollback", {"version": canary.number})
    assert "was never live" in problem_of(sent, 409, "never-live")["detail"]
    canaries.stop_canary(policy=policy, actor=ACTOR)
    with pytest.raises(NeverLiveError):
        publishing.roll_back(policy=policy, number=canary.number, actor=ACTOR)
    policy.refresh_from_db()
    assert policy.live_version is not None
    assert policy.live_version.number == 5
