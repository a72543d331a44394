"""Is a backtest started, watched, read and cancelled over HTTP?"""

from __future__ import annotations

from typing import Any

import pytest

from billing.models import Backtest, BacktestState
from policies import publishing
from policies.models import Policy
from tests.make_configuration import make_deployment
from tests.policies.api.callers import Caller, caller_with
from tests.policies.api.test_resources import places, problem_of, sound_document

pytestmark = pytest.mark.django_db


@pytest.fixture
def caller() -> Caller:
    return caller_with("read", "policies")


@pytest.fixture
def policy() -> Policy:
    make_deployment(name="smol@local")
    policy = publishing.create_policy(public_id="acme/chat", actor="a test")
    publishing.publish(policy=policy, actor="a test", document=sound_document("smol@local"))
    return policy


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Workers that were asked; a test has none."""
    found: list[Any] = []
    monkeypatch.setattr("celery.current_app.send_task", lambda *args, **kwargs: found.append((args, kwargs)))
    return found


def test_a_backtest_of_the_draft_is_started_watched_and_read(caller: Caller, policy: Policy) -> None:
    started = caller.send("POST", f"policies/{policy.pk}/backtests", {"days": 3})
    assert started.status_code == 201
    place = started["Location"]
    row = caller.read(place)
    assert (row["state"], row["days"], row["version"], row["result"]) == ("waiting", 3, 1, None)
    assert row["started_by"].startswith("token:")
    again = caller.send("POST", f"policies/{policy.pk}/backtests", {})
    assert "under way" in problem_of(again, 409, "refused")["detail"]
    Backtest.objects.update(state=BacktestState.DONE, result={"count": 7})
    assert caller.read(place)["result"] == {"count": 7}
    listed = caller.read(f"policies/{policy.pk}/backtests")["items"]
    assert [found["id"] for found in listed] == [row["id"]]
    assert "result" not in listed[0]


def test_a_backtest_is_cancelled_and_one_that_runs_is_told_to_stop(caller: Caller, policy: Policy) -> None:
    path = f"policies/{policy.pk}/backtests"
    waiting = caller.send("POST", path, {"version": 1})["Location"]
    cancelled = caller.send("POST", f"{waiting}/cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert "token:" in cancelled.json()["error"]
    running = caller.send("POST", path, {})["Location"]
    Backtest.objects.filter(state="waiting").update(state="running", heartbeat_at="2099-01-01T00:00Z")
    told = caller.send("POST", f"{running}/cancel")
    assert (told.status_code, told.json()["is_cancel_wanted"]) == (202, True)
    assert caller.send("POST", f"{waiting}/cancel").json() == cancelled.json()


def test_what_cannot_run_is_refused(caller: Caller, policy: Policy) -> None:
    path = f"policies/{policy.pk}/backtests"
    for body, place in (({"version": 9}, "version"), ({"days": 0}, "days"), ({"days": 9999}, "days")):
        assert places(problem_of(caller.send("POST", path, body), 422, "invalid-value")) == [place]
    publishing.save_draft(policy=policy, document={"rules": []}, expected_revision=2, actor="a test")
    problem_of(caller.send("POST", path, {}), 422, "unsound-policy")
    assert not Backtest.objects.exists()


def test_a_backtest_says_whose_requests_it_runs_over(caller: Caller, policy: Policy) -> None:
    other = publishing.create_policy(public_id="acme/other", actor="a test")
    path = f"policies/{policy.pk}/backtests"
    refused = caller.send("POST", path, {"traffic_policy_id": 99_999})
    assert places(problem_of(refused, 422, "invalid-value")) == ["traffic_policy_id"]
    row = caller.read(caller.send("POST", path, {"traffic_policy_id": other.pk})["Location"])
    assert (row["traffic_policy_id"], row["traffic_policy"]) == (other.pk, "acme/other")
    Backtest.objects.update(traffic=None, state=BacktestState.DONE)
    old = caller.read(path)["items"][0]
    assert (old["traffic_policy_id"], old["traffic_policy"]) == (policy.pk, "acme/chat")
