"""Does an operator start, watch, cancel and read a backtest in the browser?"""

from __future__ import annotations

from pathlib import Path

import pytest
from django.utils import timezone

from billing import backtesting
from billing.models import Backtest
from gateway.snapshots import load_snapshot
from policies import publishing
from policies.models import Policy
from policies.permissions import Role
from tests import make_traffic
from tests.console_people import client_of, operator
from tests.make_traffic import RULES, Site

pytestmark = pytest.mark.django_db


@pytest.fixture
def site() -> Site:
    return make_traffic.site(now=timezone.now())


def draft(policy: Policy) -> None:
    publishing.save_draft(
        policy=policy,
        document={"rules": [{"name": "all", "deployments": ["small@b"]}]},
        expected_revision=policy.draft.revision,
        actor="ada",
    )


def test_a_backtest_of_the_draft_is_started_polled_and_read(site: Site, tmp_path: Path) -> None:
    site.record(tmp_path, 60)
    draft(site.policy)
    client, policy = operator(), site.policy
    page = client.get(f"/policies/{policy.pk}/backtests")
    assert '<option value="draft">' in page.content.decode()
    started = client.post(f"/policies/{policy.pk}/backtests/start", {"source": "draft", "days": "7"})
    run = Backtest.objects.get()
    assert started["Location"] == f"/backtests/{run.pk}"
    assert (run.label, run.started_by.startswith("operator"), run.version) == (
        "draft, revision 3",
        True,
        None,
    )
    page_of = f"/backtests/{run.pk}"
    assert 'hx-trigger="every 1s"' in client.get(page_of).content.decode()
    again = client.post(f"/policies/{policy.pk}/backtests/start", {"source": "draft", "days": "7"})
    assert again["Location"] == page_of, "one of a policy runs at a time"
    backtesting.run_backtest(run.pk, load_snapshot=load_snapshot)
    fragment = client.get(page_of, headers={"HX-Request": "true"}).content.decode()
    assert "hx-trigger" not in fragment, "polling stops with the run"
    for text in ("small@b", "How these numbers come about", "globex", 'href="/requests/'):
        assert text in fragment
    publishes = f'href="/policies/{policy.pk}/publish"'
    assert publishes in client.get(page_of).content.decode()
    listed = client.get(f"/policies/{policy.pk}/backtests").content.decode()
    assert f'href="{page_of}"' in listed
    rerun = client.post(
        f"/policies/{policy.pk}/backtests/start", {"source": "again", "run": run.pk, "days": "1"}
    )
    newest = Backtest.objects.latest("pk")
    assert rerun["Location"] == f"/backtests/{newest.pk}"
    assert (newest.document, newest.label) == (run.document, run.label)
    publishing.publish(policy=policy, actor="ada")
    assert publishes not in client.get(page_of).content.decode(), "it is live now"


def test_a_version_is_run_too_and_a_run_is_cancelled(site: Site) -> None:
    client = operator()
    chosen = client.get(f"/policies/{site.policy.pk}/backtests?source=1").content.decode()
    assert '<option value="1" selected>' in chosen
    client.post(f"/policies/{site.policy.pk}/backtests/start", {"source": "1", "days": "7"})
    run = Backtest.objects.get()
    assert (run.label, run.document["rules"][0]["name"]) == ("version 1 (live)", RULES[0]["name"])
    client.post(f"/backtests/{run.pk}/cancel")
    run.refresh_from_db()
    assert run.state == "cancelled"
    assert "Cancelled before it began" in client.get(f"/backtests/{run.pk}").content.decode()


@pytest.mark.parametrize(
    "sent",
    [{"source": "99"}, {"source": "draft", "days": "0"}, {"source": "again", "run": "7"}, {"days": "x"}],
)
def test_what_cannot_be_started_says_why(site: Site, sent: dict[str, str]) -> None:
    answer = operator().post(f"/policies/{site.policy.pk}/backtests/start", sent, follow=True)
    assert "Nothing was started" in answer.content.decode()
    assert not Backtest.objects.exists()


def test_an_empty_period_a_failure_and_a_dead_process_are_told_in_words(site: Site) -> None:
    client = operator()
    run = backtesting.start_backtest(policy=site.policy, document={"rules": RULES}, days=1, actor="ada")
    backtesting.run_backtest(run.pk, load_snapshot=load_snapshot)
    assert "No request in this period" in client.get(f"/backtests/{run.pk}").content.decode()
    Backtest.objects.filter(pk=run.pk).update(state="failed", error="ValueError: odd", result=None)
    assert "ValueError: odd" in client.get(f"/backtests/{run.pk}").content.decode()
    Backtest.objects.filter(pk=run.pk).update(state="running", heartbeat_at=run.since)
    assert "Its process died" in client.get(f"/backtests/{run.pk}").content.decode()


def test_a_viewer_reads_and_starts_nothing(site: Site) -> None:
    viewer = client_of(Role.VIEWER)
    page = viewer.get(f"/policies/{site.policy.pk}/backtests").content.decode()
    assert "No backtest yet" in page
    assert "Run backtest" not in page


def test_a_policy_without_requests_is_run_over_those_of_another(site: Site, tmp_path: Path) -> None:
    site.record(tmp_path, 30)
    policy = publishing.create_policy(public_id="acme/new", actor="ada")
    draft(policy)
    client = operator()
    page = client.get(f"/policies/{policy.pk}/backtests").content.decode()
    chosen = f'<option value="{site.policy.pk}" selected>{site.policy.public_id}: 30 in 7 days'
    assert chosen in page and f'<option value="{policy.pk}">acme/new, this policy: 0 in 7 days' in page
    client.post(f"/policies/{policy.pk}/backtests/start", {"source": "draft"})
    run = Backtest.objects.get()
    assert (run.policy, run.source) == (policy, site.policy)
    backtesting.run_backtest(run.pk, load_snapshot=load_snapshot)
    found = client.get(f"/backtests/{run.pk}").content.decode()
    assert f'on the requests of <a href="/policies/{site.policy.pk}">' in found
    assert f"?policy={site.policy.pk}&amp;since=" in found
    assert (
        f"on the requests of {site.policy.public_id}" in client.get(f"/policies/{policy.pk}").content.decode()
    )
    client.post(f"/policies/{policy.pk}/backtests/start", {"source": "again", "run": run.pk, "days": "7"})
    assert Backtest.objects.latest("pk").source == site.policy
    Backtest.objects.latest("pk").delete()
    client.post(
        f"/policies/{policy.pk}/backtests/start", {"source": "draft", "traffic": policy.pk, "days": "7"}
    )
    assert Backtest.objects.latest("pk").source == policy
    Backtest.objects.latest("pk").delete()
    refused = {"source": "draft", "traffic": "999999", "days": "7"}
    answer = client.post(f"/policies/{policy.pk}/backtests/start", refused, follow=True)
    assert "there is no such policy" in answer.content.decode()
    assert Backtest.objects.count() == 1
