"""Does a provider's bill stand beside what was recorded, with the right verdict for every model's day?"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.urls import reverse
from django.utils import timezone

from billing.models import AttemptRecord, BilledDay, BilledName, ExchangeRate, ProviderBill
from billing.provider_bill_runs import compare_again, import_bill, match_name
from billing.provider_bills.bill import NO_COUNTS, BilledGroup, Counts
from billing.reconciling import Compared, Recorded, Tolerance, Verdict, compare, match_names
from billing.recorded_attempts import sum_attempts
from billing.rerating import Question, rerate
from gateway.dataplane.request_ids import make_request_id
from policies.errors import InvalidValueError, NotFoundError
from policies.models import ChangeEvent, Deployment
from policies.permissions import Role
from tests import make
from tests.console_people import client_of

D20, D21 = dt.date(2026, 11, 20), dt.date(2026, 11, 21)
NOON = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
USD = 1_000_000_000


def billed(
    name: str = "m", nanousd: int | None = USD, *counts: int | None, day: dt.date = D20, rounding: int = 0
) -> Any:
    return BilledGroup(day, name, Counts(*counts) if counts else NO_COUNTS, nanousd, rounding, 1)


def recorded(nanousd: int = USD, *counts: int, unpriced: int = 0) -> Recorded:
    return Recorded(Counts(*(counts or (1, 1000, 0, 0, 100))), nanousd, unpriced)


def only(there: Any, here: Recorded | None, *, tolerance: Tolerance | None = None) -> Compared:
    (one,) = compare(
        [there] if there else [billed("other", 0, 0, 0)],
        {(D20, "m"): here} if here else {},
        matches={"m": "m", "": ""},
        tolerance=tolerance or Tolerance(),
    )
    return one


@pytest.mark.parametrize(
    ("there", "here", "verdict", "reason"),
    [
        (billed("m", USD, 1, 1000, 0, None, 100), recorded(), "matched", ""),
        (billed("m", None, 1, 1000, 0, None, 100), recorded(), "matched", "the file states no money"),
        (billed("m", USD), recorded(), "matched", ""),
        (billed("m", 2 * USD, 1, 1000, 0, None, 100), recorded(), "price_drift", "$2.00 there, $1.00 here"),
        (billed("m", USD, 1, 1200, 0, None, 100), recorded(), "quantity_drift", "tokens sent: 1,200 there, 1,000 here"),
        (billed("m", USD, 1, 1000, 0, None, 0), recorded(), "quantity_drift", "tokens generated: 0 there, 100 here"),
        (billed("m", 2 * USD), recorded(), "cost_drift", "it may be either"),
        (billed("m", 2 * USD, 7), recorded(), "cost_drift", "it may be either"),
        (billed("m", USD), None, "missing_here", "nothing like it was recorded"),
        (None, recorded(), "missing_there", "not on the bill"),
        (billed("m", 2 * USD, 1, 1000), recorded(unpriced=3), "price_drift", "3 calls here have no price"),
    ],
)  # fmt: skip
def test_each_pair_of_sides_has_its_verdict(
    there: Any, here: Recorded | None, verdict: str, reason: str
) -> None:
    found = only(there, here)
    assert found.verdict == verdict
    assert reason in found.reason


def test_small_differences_are_let_pass_by_share_by_amount_and_by_what_the_file_rounds() -> None:
    here = recorded(100 * USD, 1, 1_000_000, 0, 0, 100)
    wide = Tolerance(Decimal("0.005"), 0)
    assert only(billed("m", 100_500_000_000), here, tolerance=wide).verdict == Verdict.MATCHED
    assert only(billed("m", 101_000_000_000), here, tolerance=wide).verdict == Verdict.COST_DRIFT
    assert only(billed("m", 100 * USD, 1, 1_005_000), here, tolerance=wide).verdict == Verdict.MATCHED
    assert only(billed("m", 100 * USD, 1, 1_006_000), here, tolerance=wide).verdict == Verdict.QUANTITY_DRIFT
    none = Tolerance(Decimal(0), 0)
    assert only(billed("m", 100 * USD + 1), here, tolerance=none).verdict == Verdict.COST_DRIFT
    assert only(billed("m", 100 * USD + 1, rounding=1), here, tolerance=none).verdict == Verdict.MATCHED
    assert (
        only(billed("m", 100 * USD + 5), here, tolerance=Tolerance(Decimal(0), 5)).verdict == Verdict.MATCHED
    )


def test_lines_of_nothing_say_nothing_and_failed_calls_are_not_missed() -> None:
    failed = Recorded(Counts(3, 0, 0, 0, 0), 0)
    assert compare([billed("m", 0, 0, 0)], {(D20, "x"): failed}, matches={}, tolerance=Tolerance()) == []


def test_two_names_of_one_model_are_one_and_a_bill_without_models_is_compared_by_day() -> None:
    there = [billed("m-2026-01-01", USD, 1, 600, None, None, 60), billed("m", USD, 1, 400, None, None, 40)]
    (one,) = compare(
        there, {(D20, "m"): recorded(2 * USD)}, matches={"m": "m", "m-2026-01-01": "m"}, tolerance=Tolerance()
    )
    assert (one.verdict, one.billed_as) == (Verdict.MATCHED, "m-2026-01-01, m")
    whole = compare(
        [billed("", 3 * USD), billed("", USD, day=D21)],
        {(D20, "m"): recorded(USD), (D20, "n"): recorded(2 * USD), (D21, "m"): recorded(5 * USD)},
        matches={},
        tolerance=Tolerance(),
    )
    assert [(row.day, row.verdict) for row in whole] == [(D20, "matched"), (D21, "cost_drift")]


def test_names_are_matched_by_what_is_sure_and_never_guessed() -> None:
    ours = ["claude-haiku-4-5", "gpt-4o", "gpt-4o-2024-08-06", "gpt-5", "o-a", "o.a"]

    def match(name: str, **chosen: str) -> str | None:
        return match_names(
            [name], ours, chosen=chosen, is_same=lambda a, b: (a, b) == ("alias", "gpt-5")
        ).get(name)

    assert match("GPT-5") == "gpt-5"
    assert match("gpt-5-2025-08-07") == "gpt-5"
    assert match("Claude Haiku 4.5") == "claude-haiku-4-5"
    assert match("claude-haiku-4-5-20251001") == "claude-haiku-4-5"
    assert match("gpt-4o-2024-08-06") == "gpt-4o-2024-08-06"
    assert match("gpt-4o-2024-05-13") is None  # gpt-4o, or the other snapshot?
    assert match("o a") is None
    assert match("alias") == "gpt-5"
    assert match("gpt-6") is None
    assert match("") is None
    assert match("GPT-5", **{"GPT-5": "gpt-4o"}) == "gpt-4o"
    assert match("GPT-5", **{"GPT-5": ""}) is None


def ingest(data_dir: Path, world: make.World, at: dt.datetime = NOON, **outcome: Any) -> uuid.UUID:
    request_id = make_request_id(int(at.timestamp() * 1000))
    usage = make.usage_line(input=1_000, output=100, cache_read=200)
    make.ingest(data_dir, make.request_lines(world, request_id=request_id, usage=usage, **outcome))
    return uuid.UUID(request_id)


def bill_of(world: make.World, text: str, **more: Any) -> tuple[ProviderBill, bool]:
    settings = {"file_format": "csv", "file_name": "x.csv", "actor": "fin", "now": timezone.now()}
    return import_bill(text.encode(), provider=world.deployment.provider, **(settings | more))


HEAD = "day,model,cost,input_tokens,cache_read_tokens,output_tokens\n"


@pytest.mark.django_db
def test_every_call_to_the_provider_counts_also_those_before_a_fallback(tmp_path: Path) -> None:
    world = make.world()
    request_id = ingest(tmp_path, world)
    (attempt,) = AttemptRecord.objects.filter(request_id=request_id)
    other = Deployment.objects.create(
        name="elsewhere",
        model=world.deployment.model,
        provider=make.world().deployment.provider,
        upstream_model="y",
    )
    attempt.pk, attempt.number, attempt.deployment = uuid.uuid4(), 2, other
    attempt.save(force_insert=True)
    found = sum_attempts(provider_id=world.deployment.provider_id, first_day=D20, last_day=D20)
    assert found == {(D20, "smol"): Recorded(Counts(1, 1000, 200, 0, 100), attempt.cost_nanousd or 0)}


@pytest.mark.django_db
def test_what_was_priced_afterwards_counts_at_its_price(tmp_path: Path) -> None:
    world = make.world()
    ingest(tmp_path, world, price=None, cost=None, unpriced=True)
    provider_id = world.deployment.provider_id
    before = sum_attempts(provider_id=provider_id, first_day=D20, last_day=D20)[D20, "smol"]
    assert (before.cost_nanousd, before.unpriced_count) == (0, 1)
    rerate(Question(D20, D20, False), actor="fin", reason="late", now=NOON)
    after = sum_attempts(provider_id=provider_id, first_day=D20, last_day=D20)[D20, "smol"]
    # 800 x 50 + 200 x 5 + 100 x 200 nano-USD
    assert (after.cost_nanousd, after.unpriced_count) == (61_000, 0)


@pytest.mark.django_db
def test_the_same_file_twice_is_the_same_bill_compared_anew(tmp_path: Path) -> None:
    world = make.world()
    text = HEAD + "2026-11-20,smol,0.000061,1000,200,100\n"
    bill, is_new = bill_of(world, text)
    assert is_new
    assert [row.verdict for row in bill.days.all()] == ["missing_here"]
    ingest(tmp_path, world, cost=61_000)
    again, is_new = bill_of(world, text)
    assert (again.pk, is_new) == (bill.pk, False)
    assert [row.verdict for row in bill.days.all()] == ["matched"]
    assert ProviderBill.objects.count() == 1
    assert ChangeEvent.objects.filter(object_type="provider_bill").count() == 2


@pytest.mark.django_db
def test_a_bad_file_leaves_nothing_behind(tmp_path: Path) -> None:
    world = make.world()
    with pytest.raises(InvalidValueError) as caught:
        bill_of(world, HEAD + "2026-11-20,smol,1,1,1,1\n2026-11-21,smol,-1,1,1,1\n")
    assert caught.value.problems["file"][0].startswith("line 3: cost: '-1' is negative")
    assert not ProviderBill.objects.exists()
    assert not BilledDay.objects.exists()
    assert not ChangeEvent.objects.filter(object_type="provider_bill").exists()


@pytest.mark.django_db
def test_other_accounts_of_the_file_are_left_out_when_one_is_asked_for() -> None:
    world = make.world()
    text = "day,model,account,cost\n2026-11-20,smol,ours,1\n2026-11-20,smol,theirs,5\n"
    bill, _ = bill_of(world, text, account="ours")
    assert (bill.line_count, bill.accounts, bill.days.get().billed_nanousd) == (1, ["ours", "theirs"], USD)
    with pytest.raises(InvalidValueError, match="the file names ours, theirs"):
        bill_of(world, text, account="nobody")
    # Another account of the same file is another bill.
    assert bill_of(world, text)[0].pk != bill.pk


@pytest.mark.django_db
def test_a_currency_has_the_rate_of_its_day_or_refuses_the_file() -> None:
    world = make.world()
    text = "day,model,currency,cost\n2026-11-20,smol,EUR,1\n"
    with pytest.raises(InvalidValueError, match="line 2: there is no exchange rate of EUR for 2026-11-20"):
        bill_of(world, text)
    ExchangeRate.objects.create(currency="EUR", first_day=D20, rate=Decimal("0.8"))
    assert bill_of(world, text)[0].days.get().billed_nanousd == 1_250_000_000


@pytest.mark.django_db
def test_a_name_that_a_person_matches_holds_for_all_bills_of_the_provider(tmp_path: Path) -> None:
    world = make.world()
    ingest(tmp_path, world, cost=61_000)
    bill, _ = bill_of(world, HEAD + "2026-11-20,Little One,0.000061,1000,200,100\n")
    assert sorted(bill.days.values_list("verdict", flat=True)) == ["missing_here", "missing_there"]
    for name, model, refusal in (
        ("nobody", "smol", NotFoundError),
        ("Little One", "gpt-9", InvalidValueError),
    ):
        with pytest.raises(refusal):
            match_name(bill, name=name, upstream_model=model, actor="fin", now=NOON)
    match_name(bill, name="Little One", upstream_model="smol", actor="fin", now=NOON)
    assert bill.days.get().verdict == "matched"
    other, _ = bill_of(world, HEAD + "2026-11-20,Little One,0.000062,1000,200,100\n")
    assert other.days.get().upstream_model == "smol"
    assert BilledName.objects.count() == 1


@pytest.mark.django_db
def test_finance_imports_a_file_filters_follows_a_link_and_takes_the_csv(tmp_path: Path) -> None:
    world = make.world()
    ingest(tmp_path, world, cost=61_000)
    finance = client_of(Role.FINANCE)
    content = json.dumps({"data": [
        {"start_time": int(NOON.timestamp()) - 43_200, "end_time": int(NOON.timestamp()) + 43_200, "results": [
            {"amount": {"value": "0.5", "currency": "usd"}, "line_item": "smol, input", "quantity": 800},
            {"amount": {"value": "0.1", "currency": "usd"}, "line_item": "smol, cached input", "quantity": 200},
            {"amount": {"value": "0.1", "currency": "usd"}, "line_item": "smol, output", "quantity": 100},
            {"amount": {"value": "1", "currency": "usd"}, "line_item": "=cmd tool calls"},
        ]},
    ], "has_more": True}).encode()  # fmt: skip
    sent = {
        "provider": world.deployment.provider.pk, "file_format": "openai-costs", "tolerance_percent": "0.5",
        "tolerance_usd": "0.01", "file": SimpleUploadedFile("costs.json", content),
    }  # fmt: skip
    page = finance.post(reverse("bill-new"), sent, follow=True)
    bill = ProviderBill.objects.get()
    assert page.redirect_chain[-1][0] == reverse("bill", args=[bill.pk])
    for text in (
        "price drift",
        "quantities agree; $0.70 there, $0.000061 here",
        "missing here",
        "says has_more",
    ):
        assert text in page.text
    link = f"deployment={world.deployment.pk}&amp;since=2026-11-20T00%3A00%3A00Z&amp;until=2026-11-21T00%3A00%3A00Z"
    assert link in page.text
    shown = finance.get(reverse("bill", args=[bill.pk]), {"verdict": "price_drift"})
    assert "quantities agree" in shown.text
    assert "nothing like it was recorded" not in shown.text
    csv = finance.get(reverse("bill-export", args=[bill.pk]), {"verdict": "missing_here"}).text
    assert "'=cmd tool calls" in csv  # neutralised
    assert "quantities agree" not in csv
    matched = finance.post(
        reverse("bill-match", args=[bill.pk]), {"name": "=cmd tool calls", "upstream_model": ""}, follow=True
    )
    assert "none of ours" in matched.text
    assert finance.post(reverse("bill-compare", args=[bill.pk]), follow=True).status_code == 200
    assert "1 of 2 differ" not in finance.get(reverse("bills")).text
    assert "2 of 2 differ" in finance.get(reverse("bills")).text
    viewer = client_of(Role.VIEWER)
    assert viewer.get(reverse("bill", args=[bill.pk])).status_code == 200
    for name in ("bill-compare", "bill-match"):
        assert viewer.post(reverse(name, args=[bill.pk])).status_code == 403


@pytest.mark.django_db
def test_the_form_shows_every_bad_line() -> None:
    world = make.world()
    text = HEAD + "2026-11-20,smol,NaN,1,1,1\n2026-11-20,=x,1,1,1,1\n"
    sent = {
        "provider": world.deployment.provider.pk, "file_format": "csv", "tolerance_percent": "0.5",
        "tolerance_usd": "0.01", "file": SimpleUploadedFile("x.csv", text.encode()),
    }  # fmt: skip
    page = client_of(Role.FINANCE).post(reverse("bill-new"), sent)
    assert page.status_code == 422
    assert "Line 2: cost: &#x27;NaN&#x27; is not a finite number" in page.text
    assert "Line 3: model: &#x27;=x&#x27; is a formula, not a name" in page.text


@pytest.mark.django_db
def test_the_command_says_what_differs_and_refuses_like_the_page(tmp_path: Path) -> None:
    world = make.world()
    ingest(tmp_path, world, cost=61_000)
    file = tmp_path / "bill.csv"
    file.write_text("When,model,cost,input_tokens\n2026-11-20,Little,1.00,1000\n")
    out = StringIO()
    more = {"provider": world.deployment.provider.name, "file_format": "csv", "column": ["day=When"]}
    call_command("reconcile", str(file), stdout=out, match=["Little=smol"], **more)
    assert "2026-11-20 smol: price drift: quantities agree; $1.00 there, $0.000061 here" in out.getvalue()
    assert "0 of 1 days of a model match. Billed $1.00, recorded $0.000061" in out.getvalue()
    file.write_text("When,model,cost\n2026-11-20,Little,=1\n")
    with pytest.raises(CommandError, match="line 2: cost: '=1' is a formula"):
        call_command("reconcile", str(file), **more)
    with pytest.raises(CommandError, match="there is no provider 'x'"):
        call_command("reconcile", str(file), **(more | {"provider": "x"}))


@pytest.mark.django_db
def test_comparing_again_takes_in_late_records(tmp_path: Path) -> None:
    world = make.world()
    bill, _ = bill_of(world, HEAD + "2026-11-20,smol,0.000061,1000,200,100\n2026-11-22,smol,0,0,0,0\n")
    ingest(tmp_path, world, NOON + dt.timedelta(days=1), cost=61_000)
    compare_again(bill, actor="fin", now=NOON)
    assert [(row.day, row.verdict) for row in bill.days.all()] == [
        (D20, "missing_here"),
        (D21, "missing_there"),
    ]
