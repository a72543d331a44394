"""Can a person see what prices would change, and decide, in the browser?"""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from billing.models import Price, PriceProposal, ProposedPrice
from billing.price_estimates import estimate, sum_last_days
from billing.price_sources import csv_file
from policies.permissions import Role
from tests import make
from tests.console_people import client_of, operator

pytestmark = pytest.mark.django_db


def upload(client: Client, text: str, *, kind: str = "csv") -> Any:
    file = SimpleUploadedFile("contract.csv", text.encode())
    return client.post(reverse("price-proposal-new"), {"kind": kind, "file": file, "match_list": ""})


def propose(client: Client, text: str) -> PriceProposal:
    upload(client, text)
    return PriceProposal.objects.latest("id")


def said(html: str) -> str:
    """A page's text, without tags and runs of white space."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def test_finance_uploads_a_file_sees_what_would_change_and_approves_it(tmp_path: Path) -> None:
    world = make.world()
    make.ingest(tmp_path, make.request_lines(world))
    finance = client_of(Role.FINANCE)
    proposal = propose(
        finance,
        "deployment,input_usd_per_mtok,cache_read_usd_per_mtok,output_usd_per_mtok\n"
        f"{world.deployment.name},0.10,0.005,0.20\n",
    )
    assert "1 to approve" in finance.get("/").content.decode()
    page = finance.get(reverse("price-proposal", args=[proposal.pk])).content.decode()
    assert "input / Mtok 0.05 0.10 +100 %" in said(page)
    # 800 x 100 + 200 x 5 + 500 x 200 nano-USD, recorded were 141,000.
    assert "1 request, recorded $0.000141; at this price $0.000181 (+28 %)" in said(page)
    row = proposal.rows.get()
    answer = finance.post(
        reverse("price-proposal-decide", args=[proposal.pk]),
        {"row": [row.pk], "decision": "approve"},
        follow=True,
    )
    assert "1 price is approved" in answer.content.decode()
    assert Price.objects.latest("id").rates["input_usd_per_mtok"] == "0.1"
    listed = said(finance.get(reverse("prices")).content.decode())
    assert "2 prices" in listed
    assert "to approve" not in listed


def test_prices_are_rejected_with_a_reason_that_others_read() -> None:
    world, client = make.world(), operator()
    proposal = propose(client, f"deployment,input_usd_per_mtok\n{world.deployment.name},9\n")
    address = reverse("price-proposal-decide", args=[proposal.pk])
    chosen = {"row": [proposal.rows.get().pk], "reason": "not our contract"}
    for nothing in (
        {**chosen, "decision": "perhaps"},
        {"decision": "reject"},
        {"row": ["x"], "decision": "reject"},
    ):
        assert "Nothing changed" in client.post(address, nothing, follow=True).content.decode()
    page = client.post(address, {**chosen, "decision": "reject"}, follow=True).content.decode()
    assert "not our contract" in page
    again = client.post(address, {**chosen, "decision": "approve"}, follow=True).content.decode()
    assert "do not wait any more" in again
    assert Price.objects.count() == 1


def test_a_slip_is_not_ticked_and_what_was_not_proposed_is_told() -> None:
    world, client = make.world(), operator()
    other = make.world()
    proposal = propose(client, f"deployment,input_usd_per_mtok\n{world.deployment.name},0.0001\n")
    page = client.get(reverse("price-proposal", args=[proposal.pk])).content.decode()
    assert "a slip?" in page
    (box,) = re.findall(r'<input class="form-check-input" type="checkbox"[^>]*>', page)
    assert "checked" not in box
    assert other.deployment.name in page
    assert "the file does not name it" in page


def test_a_viewer_sees_proposals_and_decides_nothing() -> None:
    world = make.world()
    proposal = propose(operator(), f"deployment,input_usd_per_mtok\n{world.deployment.name},9\n")
    viewer = client_of(Role.VIEWER)
    page = viewer.get(reverse("price-proposal", args=[proposal.pk])).content.decode()
    assert world.deployment.name in page
    assert "Approve" not in page
    assert "checkbox" not in page
    answer = viewer.post(reverse("price-proposal-decide", args=[proposal.pk]), {"decision": "approve"})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        ("csv", "deployment,price\n", "line 1: no such column"),
        ("csv", "deployment,input_usd_per_mtok\nnobody,=1\n", "line 2: input_usd_per_mtok"),
        ("csv", "", "the column deployment is missing"),
        ("litellm-json", "{", "not JSON at line 1"),
        ("csv", "x" * (csv_file.MAX_FILE_BYTES + 1), "larger than 2 MB"),
    ],
    ids=range(5),
)
def test_a_wrong_file_is_refused_at_its_field_with_line_and_reason(kind: str, text: str, reason: str) -> None:
    answer = upload(operator(), text, kind=kind)
    assert answer.status_code == 422
    assert reason in answer.content.decode()
    assert not ProposedPrice.objects.exists()


def test_a_missing_file_and_a_wrong_match_are_said() -> None:
    client, address = operator(), reverse("price-proposal-new")
    assert "Choose the file." in client.post(address, {"kind": "csv"}).content.decode()
    wrong = client.post(
        address, {"kind": "genai-prices", "match_list": "nobody=openai/gpt-4o"}
    ).content.decode()
    assert "write DEPLOYMENT=PROVIDER/MODEL" in wrong
    assert client.post(address, {"kind": "genai-prices", "match_list": ""}).status_code == 302
    assert PriceProposal.objects.count() == 1


def test_the_estimate_charges_each_request_and_says_when_it_is_rough(tmp_path: Path) -> None:
    world, now = make.world(), timezone.now()
    old = make.request_id_at(now - dt.timedelta(days=40))
    recent = make.request_id_at(now - dt.timedelta(days=20))
    make.ingest(tmp_path, [*make.request_lines(world), *make.request_lines(world, recent)])
    make.ingest(tmp_path, make.request_lines(world, old), worker="worker-2")
    totals = sum_last_days(now)[world.deployment.pk]
    assert totals.request_count == 2
    rates = {"input_usd_per_mtok": "1", "output_usd_per_mtok": "2", "usd_per_request": "0.5"}
    plain = estimate(totals, rates)
    assert plain.proposed_nanousd == 2 * (1000 * 1000 + 500 * 2000 + 500_000_000)
    assert not plain.is_rough
    limited = estimate(totals, rates | {"input_usd_per_mtok>100": "7"})
    assert limited.proposed_nanousd == plain.proposed_nanousd
    assert limited.is_rough
