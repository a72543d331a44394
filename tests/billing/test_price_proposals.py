"""Does a price take effect only when a person approved exactly what was shown?"""

from __future__ import annotations

import datetime as dt
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from billing.models import Price, PriceProposal, ProposedPrice
from billing.price_proposals import StaleProposalError, approve, count_waiting, make_proposal, reject
from billing.price_sources import csv_file
from billing.pricing import find_price_in_force
from billing.rate_changes import list_changes
from policies.errors import NotFoundError
from policies.models import ChangeEvent, Deployment
from tests.make_configuration import make_deployment, make_price, make_provider

pytestmark = pytest.mark.django_db
NOW = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)


def propose(text: str, *, now: dt.datetime = NOW) -> PriceProposal:
    names = set(Deployment.objects.values_list("name", flat=True))
    source = csv_file.read_file(text.encode(), name="contract.csv", deployments=names)
    return make_proposal(source, actor="fiona", now=now)


def priced(name: str = "a@x", **rates: str) -> Deployment:
    deployment = make_deployment(name=name)
    make_price(
        deployment=deployment,
        rates=rates or {"input_usd_per_mtok": "1"},
        effective_from=NOW - dt.timedelta(days=30),
    )
    return deployment


HEAD = "deployment,input_usd_per_mtok\n"


def test_a_proposal_changes_nothing_until_its_rows_are_approved() -> None:
    one, other, same = priced("a@x"), priced("b@x"), priced("c@x")
    make_deployment(name="d@x")
    proposal = propose(HEAD + "a@x,2\nb@x,3\nc@x,1.0\n")
    assert [(row.deployment.name, row.rates) for row in proposal.rows.all()] == [
        ("a@x", {"input_usd_per_mtok": "2"}),
        ("b@x", {"input_usd_per_mtok": "3"}),
    ]
    assert [(f["deployment"], f["finding"]) for f in proposal.findings] == [
        ("c@x", "same"),
        ("d@x", "unlisted"),
    ]
    assert Price.objects.count() == 3
    assert count_waiting() == 2
    first = proposal.rows.get(deployment=one)
    (price,) = approve(proposal=proposal, row_ids=[first.pk], actor="olga", now=NOW)
    assert find_price_in_force(deployment=one, at=NOW) == price
    assert (price.effective_from, price.created_by, price.source[:12]) == (NOW, "olga", "contract.csv")
    rejected = proposal.rows.get(deployment=other)
    assert (
        reject(proposal=proposal, row_ids=[rejected.pk], actor="olga", now=NOW, reason="wrong contract") == 1
    )
    assert Price.objects.filter(deployment__in=[other, same]).count() == 2
    assert count_waiting() == 0
    assert list(proposal.rows.values_list("state", "decided_by")) == [
        ("approved", "olga"),
        ("rejected", "olga"),
    ]
    events = ChangeEvent.objects.filter(object_type="price_proposal").values_list("action", flat=True)
    assert sorted(events) == ["approve", "propose", "reject"]


def test_a_row_is_decided_once_and_all_rows_of_a_call_or_none() -> None:
    priced("a@x"), priced("b@x")
    proposal = propose(HEAD + "a@x,2\nb@x,3\n")
    one, other = proposal.rows.all()
    approve(proposal=proposal, row_ids=[one.pk], actor="olga", now=NOW)
    for ids in ([one.pk, other.pk], [], [10**9]):
        with pytest.raises(NotFoundError):
            approve(proposal=proposal, row_ids=ids, actor="olga", now=NOW)
        with pytest.raises(NotFoundError):
            reject(proposal=proposal, row_ids=ids, actor="olga", now=NOW)
    assert count_waiting() == 1
    assert Price.objects.count() == 3


def test_a_price_that_changed_since_makes_a_row_stale() -> None:
    deployment = priced()
    proposal = propose(HEAD + "a@x,2\n")
    make_price(deployment=deployment, effective_from=NOW)
    with pytest.raises(StaleProposalError):
        approve(
            proposal=proposal, row_ids=[proposal.rows.get().pk], actor="olga", now=NOW + dt.timedelta(hours=1)
        )
    assert Price.objects.count() == 2


def test_a_newer_proposal_takes_the_place_of_what_waits() -> None:
    priced()
    older = propose(HEAD + "a@x,2\n")
    newer = propose(HEAD + "a@x,3\n")
    assert older.rows.get().state == ProposedPrice.State.SUPERSEDED
    assert newer.rows.get().state == ProposedPrice.State.WAITING
    with pytest.raises(NotFoundError):
        approve(proposal=older, row_ids=[older.rows.get().pk], actor="olga", now=NOW)


def test_prices_of_several_dates_can_be_approved_one_after_the_other() -> None:
    deployment = priced()
    proposal = propose(
        "deployment,effective_from,input_usd_per_mtok\na@x,,2\na@x,2027-01-01,3\na@x,2026-11-01,4\n"
    )
    rows = {row.rates["input_usd_per_mtok"]: row.pk for row in proposal.rows.all()}
    for rate in ("2", "3", "4"):
        approve(proposal=proposal, row_ids=[rows[rate]], actor="olga", now=NOW)
    for at, rate in ((NOW, "2"), (NOW + dt.timedelta(days=60), "3"), (NOW - dt.timedelta(days=2), "4")):
        price = find_price_in_force(deployment=deployment, at=at)
        assert price is not None
        assert price.rates == {"input_usd_per_mtok": rate}


def test_a_price_that_is_followed_by_another_says_how_long_it_holds() -> None:
    deployment = priced()
    make_price(deployment=deployment, effective_from=NOW + dt.timedelta(days=10))
    (row,) = propose(HEAD + "a@x,2\n").rows.all()
    assert row.notes == ["holds until 2026-11-30 12:00 UTC, when the next price begins"]


def test_a_price_from_a_moment_that_has_one_is_said_and_not_proposed() -> None:
    priced()
    proposal = propose("deployment,effective_from,input_usd_per_mtok\na@x,2026-10-21T12:00:00Z,2\n")
    assert not proposal.rows.exists()
    assert "never changed" in proposal.findings[0]["text"]


def test_changes_are_told_rate_by_rate_and_slips_are_doubted() -> None:
    before = {"input_usd_per_mtok": "1", "output_usd_per_mtok": "5", "reasoning_usd_per_mtok": "2"}
    after = {"input_usd_per_mtok": "1.1", "output_usd_per_mtok": "0.005", "input_usd_per_mtok>200000": "2"}
    changes = list_changes(before, after)
    assert [(change.name, change.is_doubtful) for change in changes] == [
        ("input_usd_per_mtok", False),
        ("input_usd_per_mtok>200000", False),
        ("output_usd_per_mtok", True),
        ("reasoning_usd_per_mtok", False),
    ]
    assert changes[0].ratio == pytest.approx(0.1)
    assert [change.ratio for change in changes[1::2]] == [None, None]
    assert all(not change.is_doubtful for change in list_changes(None, after))
    assert list_changes(None, {"input_usd_per_mtok": "250000"})[0].is_doubtful


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("prices", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_proposes_from_the_package_and_says_what_it_did_not_find() -> None:
    openai = make_provider(base_url="https://api.openai.com/v1")
    make_deployment(name="mini@openai", provider=openai, upstream_model="gpt-4o-mini")
    make_deployment(name="local")
    said = run("sync", "--from", "genai-prices", "--match", "local=openai/gpt-4o")
    assert "mini@openai as openai/gpt-4o-mini" in said
    assert "input_usd_per_mtok: not stated -> 0.15" in said
    assert "local as openai/gpt-4o" in said
    assert "Nothing has changed: approve it at /prices/proposals/" in said
    assert not Price.objects.exists()
    assert "local: unlisted: no provider" in run("sync", "--from", "genai-prices")


def test_the_command_compares_lists_with_each_other_and_with_what_is_in_force(tmp_path: Path) -> None:
    openai = make_provider(base_url="https://api.openai.com/v1")
    deployment = make_deployment(name="mini@openai", provider=openai, upstream_model="gpt-4o-mini")
    make_price(deployment=deployment, rates={"input_usd_per_mtok": "0.2", "output_usd_per_mtok": "0.6"})
    path = tmp_path / "prices.json"
    path.write_text('{"gpt-4o-mini": {"litellm_provider": "openai", "input_cost_per_token": 3e-07}}')
    said = run("compare", "--litellm-json", str(path))
    assert "mini@openai: input_usd_per_mtok: in force 0.2, genai-prices" in said
    assert "0.15, LiteLLM file prices.json" in said
    assert "output_usd_per_mtok" not in said
    assert "1 of 1 deployments" in said
    assert not PriceProposal.objects.exists()


def test_the_command_refuses_a_wrong_file_and_proposes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "contract.csv"
    path.write_text("deployment,input_usd_per_mtok\nnobody,1\n")
    with pytest.raises(CommandError, match="line 2: there is no deployment"):
        run("sync", "--from", "csv", str(path))
    with pytest.raises(CommandError, match="cannot be read"):
        run("sync", "--from", "csv", str(tmp_path / "missing.csv"))
    with pytest.raises(CommandError, match="needs a file"):
        run("sync", "--from", "litellm-json")
    with pytest.raises(CommandError, match="DEPLOYMENT=PROVIDER/MODEL"):
        run("sync", "--from", "genai-prices", "--match", "nobody=openai/gpt-4o")
    assert not PriceProposal.objects.exists()
