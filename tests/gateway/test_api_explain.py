"""Does the management API say what would become of a request, without storing or sending anything?"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from policies import publishing
from policies.models import ChangeEvent, Policy
from tests import make
from tests.make_configuration import make_deployment, make_key, make_model, make_tenant
from tests.policies.api.callers import Caller, caller_with
from tests.policies.api.test_resources import places, problem_of

pytestmark = pytest.mark.django_db

SECRET_TEXT = "the merger is on friday"
BODY = {"messages": [{"role": "user", "content": SECRET_TEXT}], "metadata": {"team": "legal"}}


@pytest.fixture
def caller() -> Caller:
    return caller_with("policies")


@pytest.fixture
def policy() -> Policy:
    model = make_model(name="smol")
    for name in ("one@local", "two@local"):
        make_deployment(name=name, model=model)
    row = publishing.create_policy(public_id="acme/chat", actor="a test")
    rules = [
        {"name": "legal", "when": 'tags.team == "legal"', "strategy": "weighted", "deployments": BOTH},
        {"name": "rest", "deployments": ["one@local"]},
    ]
    publishing.save_draft(policy=row, document={"rules": rules}, expected_revision=1, actor="a test")
    return row


BOTH = ["one@local", "two@local"]


def test_a_request_is_tried_under_the_draft(caller: Caller, policy: Policy) -> None:
    tenant = make_tenant()
    events = ChangeEvent.objects.count()
    path = f"policies/{policy.pk}/explain"
    answer = caller.send("POST", path, {"request": BODY, "tenant_id": tenant.pk, "draw": 0.9})
    assert answer.status_code == 200, answer.content
    found = answer.json()
    assert (found["policy"]["id"], found["policy"]["is_draft"]) == ("acme/chat", True)
    assert [(rule["name"], rule["outcome"], rule["is_reached"]) for rule in found["rules"]] == [
        ("legal", "matched", True),
        ("rest", "matched", False),
    ]
    assert found["order"] == ["two@local", "one@local"]
    first = caller.send("POST", path, {"request": BODY, "tenant_id": tenant.pk, "draw": 0.1}).json()
    assert first["order"] == ["one@local", "two@local"]
    assert SECRET_TEXT not in answer.content.decode()
    assert ChangeEvent.objects.count() == events


def test_a_key_may_be_named_and_a_version_or_rules_that_are_stored_nowhere(
    caller: Caller, policy: Policy
) -> None:
    publishing.publish(policy=policy, actor="a test")
    key, _ = make_key()
    path = f"policies/{policy.pk}/explain"
    body = {"request": {"messages": BODY["messages"]}, "key_id": key.pk}
    assert caller.send("POST", path, {**body, "version": 1}).json()["rule"] == "rest"
    document = {"rules": [{"name": "mine", "deployments": ["two@local"]}]}
    mine = caller.send("POST", path, {**body, "document": document}).json()
    assert (mine["rule"], mine["order"]) == ("mine", ["two@local"])
    unsound = {"rules": [{"name": "mine", "when": "nonsense >", "deployments": ["two@local"]}]}
    problem = problem_of(caller.send("POST", path, {**body, "document": unsound}), 422, "unsound-policy")
    assert places(problem) == ["rules[0].when"]


def test_a_logged_request_is_tried_again(caller: Caller, tmp_path: Path) -> None:
    world = make.world()
    lines = make.request_lines(world)
    make.ingest(tmp_path, lines)
    document = {"rules": [{"name": "all", "deployments": [world.deployment.name]}]}
    path = f"policies/{world.policy.pk}/explain"
    found = caller.send("POST", path, {"logged_request_id": lines[0]["id"], "document": document}).json()
    assert found["order"] == [world.deployment.name]
    unknown = caller.send("POST", path, {"logged_request_id": str(uuid.uuid4()), "document": document})
    assert places(problem_of(unknown, 422, "invalid-value")) == ["logged_request_id"]


def test_what_cannot_be_tried_is_refused(caller: Caller, policy: Policy) -> None:
    whose = {"tenant_id": make_tenant().pk}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "request"),
        ({"request": BODY, "logged_request_id": str(uuid.uuid4())}, "request"),
        ({"request": BODY}, "key_id"),
        ({"request": BODY, "tenant_id": 999_999}, "tenant_id"),
        ({"request": {"messages": "no list"}, **whose}, "request"),
        ({"request": ["no object"], **whose}, "request"),
        ({"request": BODY, **whose, "version": 9}, "version"),
        ({"request": BODY, **whose, "draw": 1}, "draw"),
    ]
    for body, place in wrong:
        answer = caller.send("POST", f"policies/{policy.pk}/explain", body)
        assert places(problem_of(answer, 422, "invalid-value")) == [place], body
