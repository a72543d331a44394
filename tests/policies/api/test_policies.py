"""Can a program edit, publish and roll back a policy without losing anybody's work?"""

from __future__ import annotations

import pytest
from django.test import Client

from policies import publishing
from policies.management_tokens import Scope, issue_token
from policies.models import Policy, PolicyVersion
from policies.permissions import Role
from tests.console_people import person
from tests.make_configuration import make_deployment, make_model
from tests.policies.api.callers import Caller, caller_with
from tests.policies.api.test_resources import places, problem_of, sound_document

pytestmark = pytest.mark.django_db


@pytest.fixture
def caller() -> Caller:
    return caller_with()


@pytest.fixture
def policy() -> Policy:
    make_deployment(name="smol@local", model=make_model(name="smol"))
    return publishing.create_policy(public_id="acme/chat", actor="a test")


def test_a_policy_is_added_edited_published_and_rolled_back(caller: Caller) -> None:
    make_deployment(name="smol@local")
    added = caller.send("POST", "policies", {"public_id": "acme/chat", "description": "For the site"})
    place = added["Location"]
    assert added.json()["live_version"] is None
    draft = caller.get(f"{place}/draft")
    assert (draft["ETag"], draft.json()["revision"]) == ('"1"', 1)
    saved = caller.send(
        "PUT", f"{place}/draft", {"document": sound_document("smol@local")}, If_Match=draft["ETag"]
    )
    assert (saved.status_code, saved["ETag"]) == (200, '"2"')
    assert {problem["severity"] for problem in saved.json()["problems"]} <= {"warning"}
    assert saved.json()["edited_by"].startswith("token:")
    first = caller.send("POST", f"{place}/publish", {"note": "begin"}, If_Match=saved["ETag"])
    assert first.status_code == 201
    assert (first.json()["number"], first.json()["note"], first.json()["is_live"]) == (1, "begin", True)
    assert caller.read(first["Location"]) == first.json()
    for path, body in (("publish", {"note": "a note alone"}), ("rollback", {"version": 1})):
        problem_of(caller.send("POST", f"{place}/{path}", body), 409, "nothing-to-publish")
    draft = caller.get(f"{place}/draft")
    changed = {"document": sound_document("smol@local", timeout_s=5)}
    caller.send("PUT", f"{place}/draft", changed, If_Match=draft["ETag"])
    assert caller.send("POST", f"{place}/publish", {}).json()["number"] == 2
    back = caller.send("POST", f"{place}/rollback", {"version": 1}).json()
    assert (back["number"], back["document"]) == (3, first.json()["document"])
    assert caller.read(place)["live_version"] == 3
    versions = caller.read(f"{place}/versions?limit=2")
    assert [(row["number"], row["is_live"]) for row in versions["items"]] == [(3, True), (2, False)]
    assert [row["number"] for row in caller.read(versions["next"])["items"]] == [1]
    problem_of(caller.send("POST", f"{place}/rollback", {"version": 9}), 422, "invalid-value")
    problem_of(caller.get(f"{place}/versions/9"), 404, "not-found")
    problem_of(caller.send("DELETE", place), 409, "in-use")
    assert caller.send("PATCH", place, {"is_enabled": False}).json()["is_enabled"] is False


def test_the_second_of_two_editors_sees_the_firsts_change_and_loses_nothing(
    caller: Caller, policy: Policy
) -> None:
    path = f"policies/{policy.pk}/draft"
    etag = caller.get(path)["ETag"]
    mine = caller.send("PUT", path, {"document": sound_document("smol@local", 1)}, If_Match=etag)
    assert mine.status_code == 200
    theirs = {"document": sound_document("smol@local", 2)}
    other = caller_with("read", "policies")
    refused = other.send("PUT", path, theirs, If_Match=etag)
    problem = problem_of(refused, 412, "stale-draft")
    assert problem["document"] == mine.json()["document"]
    assert problem["edited_by"] == mine.json()["edited_by"]
    assert [(row["kind"], row["rule"]) for row in problem["differences"]] == [("changed", "all")]
    assert refused["ETag"] == mine["ETag"] == f'"{problem["revision"]}"'
    assert caller.read(path)["document"] == mine.json()["document"], "nothing was stored"
    assert other.send("PUT", path, theirs, If_Match=refused["ETag"]).status_code == 200


def test_a_draft_is_not_changed_by_who_has_not_read_it(caller: Caller, policy: Policy) -> None:
    path = f"policies/{policy.pk}/draft"
    body = {"document": sound_document("smol@local")}
    problem_of(caller.send("PUT", path, body), 428, "precondition-required")
    for wrong in ('"0"', 'W/"1"', "1", '"1', '"11"', '"1x"'):
        problem_of(caller.send("PUT", path, body, If_Match=wrong), 412, "stale-draft")
    assert caller.send("PUT", path, body, If_Match='"7", "1"').status_code == 200
    assert caller.send("PUT", path, body, If_Match="*").status_code == 200


def test_a_draft_that_is_known_is_not_sent_again(caller: Caller, policy: Policy) -> None:
    path = f"policies/{policy.pk}/draft"
    etag = caller.get(path)["ETag"]
    for header in (etag, f"W/{etag}", f'"0", {etag}', "*"):
        unchanged = caller.get(path, If_None_Match=header)
        assert (unchanged.status_code, unchanged.content, unchanged["ETag"]) == (304, b"", etag)
    assert caller.get(path, If_None_Match='"0"').status_code == 200


def test_only_the_draft_that_was_looked_at_is_published(caller: Caller, policy: Policy) -> None:
    path = f"policies/{policy.pk}"
    caller.send("PUT", f"{path}/draft", {"document": sound_document("smol@local")}, If_Match='"1"')
    problem_of(caller.send("POST", f"{path}/publish", {}, If_Match='"1"'), 412, "stale-draft")
    assert not PolicyVersion.objects.exists()
    assert caller.send("POST", f"{path}/publish", {}, If_Match='"2"').status_code == 201


def test_an_unsound_draft_is_kept_and_not_published(caller: Caller, policy: Policy) -> None:
    path = f"policies/{policy.pk}"
    document = {"rules": [{"name": "long", "when": "input_tokens > 9", "deployments": ["no@where"]}]}
    saved = caller.send("PUT", f"{path}/draft", {"document": document}, If_Match='"1"')
    assert saved.status_code == 200
    problem = problem_of(caller.send("POST", f"{path}/publish", {}), 422, "unsound-policy")
    assert problem["errors"] == saved.json()["problems"]
    severities = {error["path"]: error["severity"] for error in problem["errors"]}
    assert severities == {"rules[0].deployments[0]": "error", "rules": "warning"}
    assert not PolicyVersion.objects.exists()


def test_a_condition_that_does_not_compile_is_refused_at_its_column(caller: Caller, policy: Policy) -> None:
    path = f"policies/{policy.pk}/draft"
    document = {"rules": [{"name": "long", "when": "input_tokens > nonsense", "deployments": ["smol@local"]}]}
    refused = caller.send("PUT", path, {"document": document}, If_Match='"1"')
    (error,) = problem_of(refused, 422, "unsound-policy")["errors"]
    assert (error["path"], error["column"], error["severity"]) == ("rules[0].when", 16, "error")
    assert caller.get(path)["ETag"] == '"1"'


def test_a_draft_is_compared_with_what_is_live(caller: Caller, policy: Policy) -> None:
    path = f"policies/{policy.pk}"
    publishing.publish(policy=policy, actor="a test", document=sound_document("smol@local"))
    same = caller.read(f"{path}/draft/differences")
    assert (same["live_version"], same["differences"]) == (1, [])
    etag = f'"{same["revision"]}"'
    document = {"rules": [*sound_document("smol@local", 5)["rules"], {"name": "never", "deployments": []}]}
    caller.send("PUT", f"{path}/draft", {"document": document}, If_Match=etag)
    found = caller.read(f"{path}/draft/differences")["differences"]
    assert [(row["kind"], row["rule"]) for row in found] == [("changed", "all"), ("added", "never")]
    assert all(sentence.endswith(".") for row in found for sentence in row["sentences"])


def test_what_cannot_be_a_document_is_refused(caller: Caller, policy: Policy) -> None:
    path = f"policies/{policy.pk}/draft"
    for wrong in ([], "x", None):
        refused = caller.send("PUT", path, {"document": wrong}, If_Match='"1"')
        assert places(problem_of(refused, 422, "invalid-value")) == ["document"]
    deep: dict[str, object] = {}
    for _ in range(20):
        deep = {"rules": deep}
    problem_of(caller.send("PUT", path, {"document": deep}, If_Match='"1"'), 422, "unsound-policy")
    problem_of(caller.send("POST", "policies", {"public_id": "with space"}), 422, "unsound-policy")
    problem_of(caller.send("POST", "policies", {"public_id": "smol"}), 409, "name-taken")


def test_a_policy_from_before_drafts_has_an_empty_one(caller: Caller) -> None:
    policy = Policy.objects.create(public_id="acme/old")
    path = f"policies/{policy.pk}/draft"
    assert caller.get(path)["ETag"] == '"1"'
    assert caller.send("PUT", path, {"document": {"rules": []}}, If_Match='"1"')["ETag"] == '"2"'
    assert caller.send("DELETE", f"policies/{policy.pk}").status_code == 204


def test_what_is_in_force_at_once_needs_the_scope_to_publish(policy: Policy) -> None:
    editor = caller_with("policies")
    path = f"policies/{policy.pk}"
    for body in ({"is_enabled": False}, {"requires_approval": True}):
        refused = editor.send("PATCH", path, {**body, "description": "x"})
        assert problem_of(refused, 403, "forbidden")["scope"] == "publish"
    policy.refresh_from_db()
    assert (policy.is_enabled, policy.requires_approval, policy.description) == (True, False, "")
    assert editor.send("PATCH", path, {"description": "x"}).status_code == 200


def test_a_canary_is_started_changed_promoted_and_stopped(caller: Caller, policy: Policy) -> None:
    path = f"policies/{policy.pk}"
    publishing.publish(policy=policy, actor="a test", document=sound_document("smol@local"))
    draft = caller.get(f"{path}/draft")
    document = {"document": sound_document("smol@local", 5)}
    caller.send("PUT", f"{path}/draft", document, If_Match=draft["ETag"])
    wrong = caller.send("POST", f"{path}/canary", {"percent": 0})
    assert places(problem_of(wrong, 422, "invalid-value")) == ["percent"]
    problem_of(
        caller.send("POST", f"{path}/canary", {"percent": 5}, If_Match=draft["ETag"]), 412, "stale-draft"
    )
    started = caller.send("POST", f"{path}/canary", {"percent": 5, "note": "try"}).json()
    assert (started["number"], started["is_live"], started["is_canary"]) == (2, False, True)
    problem_of(caller.send("POST", f"{path}/publish", {}), 409, "canary-running")
    assert caller.send("PATCH", f"{path}/canary", {"percent": 50}).json()["canary_percent"] == 50.0
    assert caller.read(path)["canary_version"] == 2
    promoted = caller.send("POST", f"{path}/canary/promote").json()
    assert (promoted["number"], promoted["is_live"], promoted["is_canary"]) == (2, True, False)
    problem_of(caller.send("DELETE", f"{path}/canary"), 409, "refused")
    etag = caller.get(f"{path}/draft")["ETag"]
    caller.send("PUT", f"{path}/draft", {"document": sound_document("smol@local", 9)}, If_Match=etag)
    caller.send("POST", f"{path}/canary", {"percent": 1})
    assert caller.send("DELETE", f"{path}/canary").status_code == 204
    assert caller.read(path)["live_version"] == 2


def test_a_token_asks_and_a_person_who_did_not_issue_it_approves(policy: Policy) -> None:
    olga, oscar = person(Role.OPERATOR), person(Role.OPERATOR)
    _, secret = issue_token(name="ci", scopes=list(Scope), actor=olga.get_username())
    caller = Caller(secret)
    path = f"policies/{policy.pk}"
    assert caller.send("PATCH", path, {"requires_approval": True}).json()["requires_approval"] is True
    caller.send("PUT", f"{path}/draft", {"document": sound_document("smol@local")}, If_Match='"1"')
    problem_of(caller.send("POST", f"{path}/publish", {}), 409, "approval-needed")
    problem_of(caller.send("PATCH", path, {"requires_approval": False}), 403, "forbidden")
    asked = caller.send("POST", f"{path}/publication-requests", {"note": "please"})
    assert asked.status_code == 201
    place = asked["Location"]
    assert caller.read(place)["status"] == "pending"
    problem_of(caller.send("POST", f"{place}/approve", {}), 403, "forbidden")
    signed_in = {}
    for someone in (olga, oscar):
        client = Client()
        client.force_login(someone)
        signed_in[someone.get_username()] = Caller(client=client)
    own = signed_in[olga.get_username()].send("POST", f"{place}/approve", {})
    assert "yourself" in problem_of(own, 409, "refused")["detail"]
    approved = signed_in[oscar.get_username()].send("POST", f"{place}/approve", {"note": "fine"})
    assert approved.status_code == 201
    version = approved.json()
    assert (version["published_by"], version["approved_by"]) == ("token:ci", oscar.get_username())
    assert caller.read(place)["version"] == 1
    problem_of(caller.send("POST", f"{place}/reject", {}), 409, "refused")
    etag = caller.get(f"{path}/draft")["ETag"]
    caller.send("PUT", f"{path}/draft", {"document": sound_document("smol@local", 5)}, If_Match=etag)
    second = caller.send("POST", f"{path}/publication-requests", {})["Location"]
    assert caller.send("POST", f"{second}/reject", {"note": "no"}).json()["status"] == "rejected"
    statuses = [row["status"] for row in caller.read(f"{path}/publication-requests")["items"]]
    assert statuses == ["rejected", "approved"]
