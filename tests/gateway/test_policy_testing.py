"""Does the test panel say what would become of a request, without calling anybody and without keeping its text?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from policies import publishing
from policies.models import Policy
from tests import make
from tests.console_people import operator

pytestmark = pytest.mark.django_db


def rule(world: make.World, name: str, **members: Any) -> dict[str, Any]:
    return {"name": name, "deployments": [{"name": world.deployment.name, "weight": 1}], **members}


@pytest.fixture
def world() -> make.World:
    world = make.world()
    document = {"rules": [rule(world, "pictures", when="has_images"), rule(world, "rest")]}
    publishing.publish(policy=world.policy, document=document, actor="ada")
    return world


def explain(policy: Policy, **sent: str) -> Any:
    response = operator().post(f"/policies/{policy.pk}/try", sent, headers={"HX-Request": "true"})
    assert response.status_code == 200
    return response


def pasted(world: make.World, **sent: str) -> dict[str, str]:
    body = {"messages": [{"role": "user", "content": "a secret question"}]}
    return {"request": json.dumps(body), "caller": f"k{world.key.pk}", **sent}


def test_a_pasted_request_is_decided_against_the_form_and_not_against_what_is_live(world: make.World) -> None:
    form = {"rules": [rule(world, "tools", when="has_tools"), rule(world, "unsaved")]}
    response = explain(world.policy, form=json.dumps(form), **pasted(world))
    explanation = response.context["explanation"]
    assert explanation["rule"] == "unsaved"
    assert [(one["name"], one["outcome"]) for one in explanation["rules"]] == [
        ("tools", "skipped"),
        ("unsaved", "matched"),
    ]
    assert explanation["order"] == [world.deployment.name]
    html = response.content.decode()
    assert "Has tools: no" in html
    assert "may not use this policy yet" in html
    assert "secret question" not in html
    assert explain(world.policy, **pasted(world)).context["explanation"]["rule"] == "rest"


def test_a_logged_request_is_decided_from_its_recorded_features(world: make.World, tmp_path: Path) -> None:
    lines = make.request_lines(world)
    lines[0]["features"] = {"input_tokens": 12, "has_images": True}
    make.ingest(tmp_path, lines)
    panel = operator().get(f"/policies/{world.policy.pk}/try?logged={lines[0]['id']}").content.decode()
    assert f'value="{lines[0]["id"]}" selected' in panel
    explanation = explain(world.policy, logged=lines[0]["id"]).context["explanation"]
    assert (explanation["rule"], explanation["features"]["input_tokens"]) == ("pictures", 12)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"request": "{"}, "would refuse this request (400)"),
        ({"caller": "k999999"}, "there is no such tenant or key"),
        ({"draw": "2"}, "from 0 to less than 1"),
        ({"logged": "x"}, "no such logged request"),
        ({"form": "[]"}, "is not a policy"),
        (
            {"form": '{"rules": [{"name": "bad", "when": "nonsense", "deployments": ["a"]}]}'},
            "cannot be tried yet",
        ),
    ],
)
def test_what_cannot_be_decided_is_said_in_words(world: make.World, sent: dict[str, str], said: str) -> None:
    response = explain(world.policy, **pasted(world, **sent))
    assert said in response.context["failure"] or said in response.content.decode()
