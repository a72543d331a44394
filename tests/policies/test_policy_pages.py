"""Can an operator create, edit, publish and roll back a policy in the console, beside another who does the same?"""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from billing.models import Backtest, BacktestState
from policies import publishing
from policies.models import Policy, PublicationRequest
from policies.permissions import Role
from tests.console_people import client_of, operator
from tests.make_configuration import make_deployment, make_price, make_tenant

pytestmark = pytest.mark.django_db


def rule(name: str, **members: Any) -> dict[str, Any]:
    return {
        "name": name,
        "when": "",
        "strategy": "priority",
        "deployments": [{"name": "a", "weight": 1}],
        **members,
    }


def form(*rules: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"baseline": "", "session_stickiness": False, "rules": list(rules), **members}


@pytest.fixture
def policy() -> Policy:
    for name in ("a", "b"):
        make_price(deployment=make_deployment(name=name))
    policy = publishing.create_policy(public_id="acme/support", actor="ada")
    tenant = make_tenant()
    tenant.policies.add(policy)
    return policy


def ask(client: Client, policy: Policy, what: str, **sent: Any) -> Any:
    response = client.post(f"/policies/{policy.pk}/{what}", sent, content_type="application/json")
    return response.status_code, response.json()


def save(client: Client, policy: Policy, content: dict[str, Any], revision: int, **sent: Any) -> Any:
    return ask(client, policy, "save", form=content, base=sent.get("base", form()), revision=revision)


def publish(client: Client, policy: Policy, **sent: Any) -> Any:
    sent = {"revision": policy.draft.revision, "note": "as agreed", "warnings_read": "1", **sent}
    response = client.post(f"/policies/{policy.pk}/publish", sent)
    policy.refresh_from_db()
    return response


def test_a_policy_is_created_with_its_tenants_and_opens_in_the_editor() -> None:
    tenant, other = make_tenant(), make_tenant()
    client = operator()
    sent = {"public_id": "acme/new", "description": "for tests", "tenants": [tenant.name]}
    response = client.post("/policies/new", sent)
    policy = Policy.objects.get(public_id="acme/new")
    assert response["Location"] == f"/policies/{policy.pk}/edit"
    assert list(policy.tenants.all()) == [tenant]
    client.post(f"/policies/{policy.pk}/about", {"tenants": [other.name], "requires_approval": "on"})
    policy.refresh_from_db()
    assert (list(policy.tenants.all()), policy.requires_approval, policy.description) == ([other], True, "")
    taken = client.post("/policies/new", sent)
    assert taken.status_code == 422
    assert "acme/new" in str(taken.context["form"].errors)


def test_a_policy_can_be_deleted_until_it_is_published(policy: Policy) -> None:
    client = operator()
    used = client.post(f"/policies/{policy.pk}/delete", follow=True)
    assert "is used by tenants" in used.content.decode()
    policy.tenants.clear()
    client.post(f"/policies/{policy.pk}/delete")
    assert not Policy.objects.exists()


def test_what_stands_in_the_form_is_checked_at_its_place_and_compiled(policy: Policy) -> None:
    group: dict[str, Any] = {"join": "or", "rows": [{"field": "has_images", "operator": "is", "value": True},
                                    {"field": "input_tokens", "operator": "gt", "value": None}]}  # fmt: skip
    rows, text = rule("rows", group=group), rule("text", when="has_tools && nonsense", group=None)
    status, answer = ask(operator(), policy, "check", form=form(rows, text, rule("rest")))
    assert status == 200
    places = {problem["path"]: problem for problem in answer["problems"]}
    assert "whole number" in places["rules[0].when.rows[1]"]["message"] or "number" in str(places)
    assert places["rules[1].when"]["column"] == 14
    group["rows"][1]["value"] = 4000
    _, answer = ask(operator(), policy, "check", form=form(rows, rule("rest")))
    assert answer["problems"] == []
    assert answer["conditions"][0]["when"] == "has_images || input_tokens > 4000"
    assert [change["kind"] for change in answer["changes"]] == ["added", "added"]
    assert ask(operator(), policy, "check")[0] == 400


def test_a_condition_that_does_not_compile_is_not_saved(policy: Policy) -> None:
    status, answer = save(operator(), policy, form(rule("bad", when="nonsense")), 1)
    assert (status, answer["problems"][0]["path"]) == (422, "rules[0].when")
    assert policy.draft.document["rules"] == []


def test_the_second_editor_sees_the_first_ones_change_and_loses_nothing(policy: Policy) -> None:
    first, second = operator(), operator()
    base = form(rule("rest"))
    assert save(first, policy, base, 1)[1]["revision"] == 2
    theirs = form(rule("vision", when="has_images"), rule("rest"), baseline="")
    mine = form(rule("rest", when="has_tools"), rule("mine"))
    assert save(first, policy, theirs, 2, base=base)[1]["revision"] == 3
    status, conflict = save(second, policy, mine, 2, base=base)
    assert status == 409
    assert [change["rule"] for change in conflict["their_changes"]] == ["vision"]
    assert [(edit["kind"], edit["rule"]) for edit in conflict["my_edits"]] == [
        ("changed", "rest"),
        ("added", "mine"),
    ]
    assert all(edit["sentences"] for edit in conflict["my_edits"])
    keys = [edit["key"] for edit in conflict["my_edits"]]
    _, merged = ask(second, policy, "merge", form=mine, base=base, chosen=keys)
    names = [(one["name"], one["when"]) for one in merged["form"]["rules"]]
    assert names == [("vision", "has_images"), ("rest", "has_tools"), ("mine", "")]
    assert save(second, policy, merged["form"], merged["revision"], base=merged["base"])[0] == 200
    _, theirs_only = ask(second, policy, "merge", form=mine, base=base, chosen=[])
    assert [one["name"] for one in theirs_only["form"]["rules"]] == ["vision", "rest", "mine"]


def test_a_draft_that_was_only_published_meanwhile_is_no_conflict(policy: Policy) -> None:
    client = operator()
    base = form(rule("rest"))
    save(client, policy, base, 1)
    policy.draft.refresh_from_db()
    publish(client, policy)
    policy.draft.refresh_from_db()
    assert policy.draft.revision == 3  # written out
    assert save(client, policy, form(rule("rest", when="has_tools")), 2, base=base)[0] == 200


def test_publishing_asks_about_warnings_and_publishes_only_what_was_shown(policy: Policy) -> None:
    client = operator()
    save(client, policy, form(rule("tools", when="has_tools")), 1)
    policy.draft.refresh_from_db()
    page = client.get(f"/policies/{policy.pk}/publish").content.decode()
    assert "no rule matches always" in page
    assert publish(client, policy, warnings_read="").status_code == 422
    assert publish(client, policy, revision=1).status_code == 422
    assert policy.live_version is None
    assert publish(client, policy).status_code == 302
    assert policy.live_version is not None
    assert (policy.live_version.number, policy.live_version.note) == (1, "as agreed")


def test_a_canary_is_shown_beside_the_live_version_and_promoted_or_stopped(policy: Policy) -> None:
    client = operator()
    save(client, policy, form(rule("rest")), 1)
    policy.draft.refresh_from_db()
    publish(client, policy)
    address = f"/policies/{policy.pk}"
    for action, live_number in (("stop", 1), ("promote", 3)):
        document = form(rule("rest", timeout_s=live_number))
        save(client, policy, document, policy.draft.revision)
        policy.draft.refresh_from_db()
        assert publish(client, policy, share="canary", percent="101").status_code == 422
        publish(client, policy, share="canary", percent="5")
        assert (policy.canary_percent, "Promote the canary" in client.get(address).content.decode()) == (
            5,
            True,
        )
        client.post(f"{address}/canary", {"action": "share", "percent": "25"})
        client.post(f"{address}/canary", {"action": action})
        policy.refresh_from_db()
        assert policy.live_version is not None
        assert (policy.canary_version, policy.live_version.number) == (None, live_number)


def test_with_four_eyes_another_operator_publishes(policy: Policy) -> None:
    publishing.change_policy(policy=policy, actor="ada", requires_approval=True)
    one, other = operator(), operator()
    save(one, policy, form(rule("rest")), 1)
    policy.draft.refresh_from_db()
    publish(one, policy)
    assert policy.live_version is None
    pending = PublicationRequest.objects.get(policy=policy)
    address = f"/policies/{policy.pk}"
    assert "Take it back" in one.get(address).content.decode()
    assert "waits for approval" in one.get("/policies").content.decode()
    one.post(f"{address}/approval", {"request": pending.pk, "action": "approve"})
    policy.refresh_from_db()
    assert policy.live_version is None
    assert "Approve and publish" in other.get(address).content.decode()
    other.post(f"{address}/approval", {"request": pending.pk, "action": "approve"})
    policy.refresh_from_db()
    assert policy.live_version is not None


def test_rolling_back_names_what_changes_and_takes_one_click(policy: Policy) -> None:
    client = operator()
    for name in ("first", "second"):
        save(client, policy, form(rule(name)), policy.draft.revision)
        policy.draft.refresh_from_db()
        publish(client, policy)
    address = f"/policies/{policy.pk}"
    page = client.get(f"{address}?version=1&roll_back=1").content.decode()
    dialog = re.search(r'<dialog id="roll-back".*?</dialog>', page, re.DOTALL)
    assert dialog is not None
    assert "data-open-now" in dialog[0]
    assert "first" in dialog[0]
    client.post(f"{address}/roll-back", {"version": "1"})
    policy.refresh_from_db()
    assert policy.live_version is not None
    assert (policy.live_version.number, policy.live_version.document["rules"][0]["name"]) == (3, "first")
    for number in ("", "9", "x"):
        client.post(f"{address}/roll-back", {"version": number})
    policy.refresh_from_db()
    assert policy.live_version.number == 3


def test_what_is_live_is_not_offered_for_publishing_or_rolling_back(policy: Policy) -> None:
    client = operator()
    address = f"/policies/{policy.pk}"
    for name in ("first", "second", "first"):
        save(client, policy, form(rule(name)), policy.draft.revision)
        policy.draft.refresh_from_db()
        assert "Publish as version" in client.get(f"{address}/publish").content.decode()
        publish(client, policy)
        policy.draft.refresh_from_db()
    page = client.get(f"{address}/publish").content.decode()
    assert "Nothing to publish" in page
    assert "Publish as version" not in page
    refused = publish(client, policy)
    assert refused.status_code == 422
    assert "The draft is what is live: there is nothing to publish" in refused.content.decode()
    page = client.get(f"{address}?version=1&roll_back=1").content.decode()
    assert "v1, same as what is live" in page
    assert "roll-back" not in page
    assert re.findall(r"\?version=(\d)&amp;roll_back=1", page) == ["2"]
    client.post(f"{address}/roll-back", {"version": "1"})
    assert policy.versions.count() == 3


def test_a_draft_from_elsewhere_that_is_odd_still_opens(policy: Policy) -> None:
    odd = {
        "rules": [{"name": 7, "deployments": ["a", {"weight": "x"}], "fallbacks": "b", "extra": [1]}, "text"]
    }
    policy.draft.document = odd
    policy.draft.save()
    response = operator().get(f"/policies/{policy.pk}/edit")
    (shown,) = response.context["editor"]["form"]["rules"]
    assert shown["deployments"] == [{"name": "a", "weight": 1}, {"name": "", "weight": "x"}]
    assert (shown["name"], shown["fallbacks"], shown["extra"]) == ("", [], [1])


def test_the_draft_is_shown_with_what_its_backtest_found(policy: Policy) -> None:
    client = operator()
    save(client, policy, form(rule("rest")), 1)
    policy.draft.refresh_from_db()
    address = f"/policies/{policy.pk}"
    assert "Backtest the draft" in client.get(address).content.decode()
    now = timezone.now()
    cost = {"then": 100, "now": 82}
    found = {"count": 50, "moved": 5, "no_candidate": 2, "cost": cost}
    run = Backtest.objects.create(
        policy=policy,
        document=policy.draft.document,
        label="draft",
        days=7,
        since=now,
        until=now,
        state=BacktestState.DONE,
        result=found,
    )
    page = client.get(address).content.decode()
    assert "10.0 %" in page
    assert f"/backtests/{run.pk}" in page
    save(client, policy, form(rule("other")), policy.draft.revision)
    assert "Backtest the draft" in client.get(address).content.decode()


def test_people_who_only_read_see_the_policy_and_no_button_that_changes_it(policy: Policy) -> None:
    publish_client = operator()
    save(publish_client, policy, form(rule("rest")), 1)
    policy.draft.refresh_from_db()
    publish(publish_client, policy)
    page = client_of(Role.VIEWER).get(f"/policies/{policy.pk}").content.decode()
    for word in ("Edit draft", "Publish…", "Roll back", "Disable"):
        assert word not in page


def test_the_editor_is_told_the_share_of_each_rule(policy: Policy) -> None:
    address = f"/policies/{policy.pk}/traffic"
    assert operator().get(address).json() == {"shares": {}}
    assert client_of(None).get(address).status_code == 403


def test_publishing_locks_the_policy_before_its_draft_as_everywhere(policy: Policy) -> None:
    """In another order, two who publish at once would each wait for the other."""
    client = operator()
    save(client, policy, form(rule("rest")), 1)
    policy.draft.refresh_from_db()
    with CaptureQueriesContext(connection) as queries:
        assert publish(client, policy).status_code == 302
    locks = [query["sql"] for query in queries if "FOR UPDATE" in query["sql"]]
    tables = [sql.partition(' FROM "')[2].partition('"')[0] for sql in locks]
    assert tables[:2] == ["policies_policy", "policies_policydraft"]
