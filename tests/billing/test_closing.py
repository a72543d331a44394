"""Is a month closed once, with all of it billed, and does what comes later stand on the next statement?"""

from __future__ import annotations

import datetime as dt
import hashlib
import threading
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.models import F, Sum

from billing import closing, invoicing
from billing.billing_profiles import change_profile
from billing.closing import NotClosableError, close_period, preview, run_closing
from billing.models import (
    ClosingState,
    Invoice,
    InvoiceState,
    LatePosting,
    PeriodClosing,
    RequestRecord,
    UsageByDay,
    UsageByKeyDay,
)
from billing.periods import find_closed_until, hold_period_alone, posting_day
from billing.rerating import Question, rerate
from billing.statement_document import StatementError, from_json
from billing.verifying import verify
from policies.models import ChangeEvent
from tests import make
from tests.billing.test_invoicing import COST, NOON, NOW, OCTOBER, add_requests, spend

pytestmark = pytest.mark.django_db
NOVEMBER, DECEMBER = dt.date(2025, 11, 1), dt.date(2025, 12, 1)
LATER = dt.datetime(2025, 12, 5, tzinfo=dt.UTC)
UNPRICED: dict[str, Any] = {"price": None, "cost": None, "unpriced": True}


def close(month: dt.date = OCTOBER, now: dt.datetime = NOW, **how: Any) -> PeriodClosing:
    row = close_period(month=month, actor="fiona", now=now, **how)
    assert (row.state, row.error) == (ClosingState.DONE, "")
    return row


def kinds(now: dt.datetime = NOW, **how: Any) -> dict[str, bool]:
    return {one.kind: one.is_obstacle for one in preview(month=OCTOBER, now=now, **how).findings}


def say_more(nanousd: int) -> None:
    """Let the sums by day say another charge than the records do."""
    for rollup in (UsageByDay, UsageByKeyDay):
        rollup._default_manager.update(charge_nanousd=F("charge_nanousd") + nanousd)


def test_closing_issues_every_statement_once_and_again_changes_nothing(tmp_path: Path) -> None:
    one, other = spend(tmp_path, count=2), spend(tmp_path)
    idle = make.world()
    seen = preview(month=OCTOBER, now=NOW)
    assert (seen.is_closed, seen.tenant_count, seen.charge_nanousd) == (False, 2, 3 * COST)
    assert kinds() == {"not_summed": False}
    assert closing.find_overdue_month(dt.datetime(2025, 11, 3, 23, tzinfo=dt.UTC)) is None
    assert closing.find_overdue_month(dt.datetime(2025, 11, 4, tzinfo=dt.UTC)) == OCTOBER
    row = close()
    assert (row.tenant_count, row.done_count, row.left, row.locked_at) == (2, 2, [], NOW)
    assert find_closed_until() == NOVEMBER
    invoices = {row.tenant_id: row for row in Invoice.objects.all()}
    assert set(invoices) == {one.tenant.pk, other.tenant.pk}
    assert {row.number for row in invoices.values()} == {1, 2}
    assert {row.state for row in invoices.values()} == {InvoiceState.ISSUED}
    assert invoices[one.tenant.pk].amount_nanousd == 2 * COST
    assert preview(month=OCTOBER, now=NOW).is_closed
    before = list(Invoice.objects.order_by("pk").values()), list(PeriodClosing.objects.values())
    assert closing.find_overdue_month(LATER) is None
    close(now=LATER)
    assert (list(Invoice.objects.order_by("pk").values()), list(PeriodClosing.objects.values())) == before
    assert not Invoice.objects.filter(tenant=idle.tenant).exists()
    assert ChangeEvent.objects.filter(object_type="period", action="close").count() == 1


def test_what_comes_after_closing_is_on_the_next_statement_with_its_month(tmp_path: Path) -> None:
    world = spend(tmp_path)
    add_requests(tmp_path, world, **UNPRICED)
    close()
    october = list(UsageByDay.objects.order_by("pk").values())
    add_requests(tmp_path, world, count=2)
    rerate(Question(OCTOBER, NOVEMBER), actor="fiona", reason="list came late", now=NOW)
    add_requests(tmp_path, world, at=NOON + dt.timedelta(days=30))
    # As many of November have no price as reversals of October take out of its count: none may hide the other.
    add_requests(tmp_path, world, at=NOON + dt.timedelta(days=30), **UNPRICED)
    assert UsageByDay.objects.filter(day__gte=NOVEMBER).aggregate(sum=Sum("unpriced_count"))["sum"] == 0
    assert {one.kind: one.count for one in preview(month=NOVEMBER, now=LATER).findings}["unpriced"] == 1
    assert list(UsageByDay.objects.filter(day__lt=NOVEMBER).order_by("pk").values()) == october
    close(NOVEMBER, LATER)
    first, second = Invoice.objects.order_by("month")
    assert (first.amount_nanousd, second.amount_nanousd) == (COST, 4 * COST)
    by_kind = dict(second.lines.order_by().values_list("kind").annotate(Sum("amount_nanousd")))
    assert by_kind == {"usage": COST, "late": 2 * COST, "correction": COST}
    assert set(second.lines.exclude(kind="usage").values_list("late_of", flat=True)) == {OCTOBER}
    notes = {note.kind: note for note in from_json(second.document).notes}
    assert set(notes) == {"late", "correction", "unpriced"}
    assert notes["late"].text.startswith("2 requests of 2025-10 came in after")
    assert (notes["late"].amount_nanousd, notes["correction"].amount_nanousd) == (2 * COST, COST)
    assert (notes["late"].request_count, notes["correction"].request_count) == (2, 1)
    assert LatePosting.objects.count() == 4
    assert verify(now=LATER).differences == ()


def test_what_keeps_a_month_open_is_named(tmp_path: Path) -> None:
    world = spend(tmp_path)
    add_requests(tmp_path, world, **UNPRICED)
    begun = make.intent_line(world, make.request_id_at(NOON))
    folder = make.segment(tmp_path, [begun], worker="alive").parent
    import fcntl

    with (folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        make.ingest(tmp_path, [], worker="other")
    change_profile(tenant=world.tenant, actor="fiona", currency="EUR")
    invoicing_time = dt.datetime(2025, 10, 20, tzinfo=dt.UTC)
    found = kinds(invoicing_time)
    assert found["month_not_over"]
    found = kinds(dt.datetime(2025, 11, 3, tzinfo=dt.UTC))
    assert found == {
        "grace_not_over": True, "open_intents": True, "no_exchange_rate": True, "not_summed": False, "unpriced": False,
    }  # fmt: skip
    assert "grace_not_over" not in kinds(dt.datetime(2025, 11, 3, tzinfo=dt.UTC), grace_days=2)
    with pytest.raises(NotClosableError, match="no exchange rate of EUR"):
        close()
    assert (find_closed_until(), PeriodClosing.objects.count()) == (None, 0)


def test_a_day_whose_meters_are_not_spend_keeps_its_month_open(tmp_path: Path) -> None:
    spend(tmp_path)
    say_more(1)
    row = close_period(month=OCTOBER, actor="fiona", now=NOW)
    assert row.state == ClosingState.FAILED
    assert "are not what Spend says (2025-10-07)" in row.error
    assert kinds() == {"unmatched_days": True}
    assert find_closed_until() is None
    say_more(-1)
    close()


def test_a_month_whose_records_are_gone_is_not_closed_unseen(tmp_path: Path) -> None:
    spend(tmp_path)
    with mock.patch("billing.summing_meters.find_records_since", return_value=NOVEMBER):
        assert kinds() == {"not_summed": False}
        row = close_period(month=OCTOBER, actor="fiona", now=NOW)
    assert (row.state, find_closed_until()) == (ClosingState.FAILED, None)


def test_months_are_closed_one_after_the_other(tmp_path: Path) -> None:
    world = spend(tmp_path)
    add_requests(tmp_path, world, at=NOON - dt.timedelta(days=30))
    assert kinds()["earlier_usage"] is False
    close()
    with pytest.raises(NotClosableError, match="November 2025 has to be closed first"):
        close(DECEMBER, LATER + dt.timedelta(days=40))


def test_a_review_that_is_out_of_date_is_left_to_people(tmp_path: Path) -> None:
    world, other = spend(tmp_path), spend(tmp_path)
    invoice = invoicing.draft(tenant=world.tenant, month=OCTOBER, actor="bob", now=NOW)
    assert invoice is not None
    invoicing.review(invoice=invoice, actor="bob", now=NOW)
    add_requests(tmp_path, world)
    row = close()
    assert row.left == [{"tenant": world.tenant.pk, "reason": mock.ANY}]
    assert "changed since it was reviewed" in row.left[0]["reason"]
    assert Invoice.objects.get(tenant=other.tenant).state == InvoiceState.ISSUED
    assert Invoice.objects.get(tenant=world.tenant).state == InvoiceState.DRAFT
    assert close(now=LATER).left == []
    assert Invoice.objects.get(tenant=world.tenant).amount_nanousd == 2 * COST


def test_a_run_that_dies_goes_on_where_it_was(tmp_path: Path) -> None:
    for _ in range(3):
        spend(tmp_path)
    asked = closing.ask_closing(month=OCTOBER, actor="fiona", now=NOW)
    issue, calls = invoicing.issue, []

    def dying(**arguments: Any) -> Invoice:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return issue(**arguments)

    with mock.patch.object(invoicing, "issue", dying), pytest.raises(KeyboardInterrupt):
        run_closing(asked.pk, now=NOW)
    assert Invoice.objects.filter(state=InvoiceState.ISSUED).count() == 1
    PeriodClosing.objects.update(state=ClosingState.RUNNING, heartbeat_at=NOW)
    assert closing.list_unfinished(now=NOW) == []
    run_closing(asked.pk, now=NOW)
    assert PeriodClosing.objects.get().state == ClosingState.RUNNING
    soon = NOW + dt.timedelta(hours=1)
    assert closing.list_unfinished(now=soon) == [asked.pk]
    run_closing(asked.pk, now=soon)
    assert PeriodClosing.objects.get().state == ClosingState.DONE
    assert sorted(row.number or 0 for row in Invoice.objects.all()) == [1, 2, 3]


@pytest.mark.django_db(transaction=True)
def test_the_ingester_waits_for_a_closing_and_posts_to_the_open_month(tmp_path: Path) -> None:
    world = spend(tmp_path)
    row = closing.ask_closing(month=OCTOBER, actor="fiona", now=NOW)
    stored = threading.Event()

    def ingest() -> None:
        try:
            add_requests(tmp_path, world)
            stored.set()
        finally:
            connection.close()

    late = threading.Thread(target=ingest)
    with transaction.atomic():
        hold_period_alone()
        late.start()
        assert not stored.wait(0.4)
        run_closing(row.pk, now=NOW)
    late.join(30)
    assert stored.is_set()
    assert RequestRecord.objects.count() == 2
    assert LatePosting.objects.get().posted_on == NOVEMBER
    assert Invoice.objects.get().amount_nanousd == COST
    assert posting_day(NOON) == NOVEMBER


def test_the_command_previews_closes_and_says_what_is_missing(tmp_path: Path) -> None:
    world = spend(tmp_path)

    def said(*arguments: str) -> str:
        out = StringIO()
        call_command(*arguments, stdout=out)
        return out.getvalue()

    assert f"{world.tenant.name}  draft  141.00 USD" in said("statements", "draft", "2025-10")
    shown = said("close_period", "2025-10", "--preview")
    assert "1 tenants to bill, $141.00" in shown
    assert find_closed_until() is None
    done = said("close_period", "2025-10")
    assert f"INV-000001  {world.tenant.name}" in done
    assert f"2025-10  INV-000001  {world.tenant.name}  issued  141.00 USD" in said("statements", "list")
    (path,) = said("statements", "write", "2025-10", "--to", str(tmp_path)).split()
    assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == Invoice.objects.get().pdf_sha256
    with pytest.raises(CommandError, match="write the month"):
        said("close_period", "October")
    with pytest.raises(CommandError, match="It ends on"):
        said("close_period", f"{dt.datetime.now(dt.UTC):%Y-%m}")


def test_a_statement_that_cannot_be_written_keeps_no_other_tenant_from_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken, other = spend(tmp_path, world=make.world("a")), spend(tmp_path, world=make.world("b"))
    build = invoicing.build_draft

    def build_one(*, tenant: Any, month: dt.date) -> Any:
        if tenant == broken.tenant:
            raise StatementError("the subtotal is not the sum of the lines")
        return build(tenant=tenant, month=month)

    with mock.patch.object(invoicing, "build_draft", build_one):
        row = close()
    reason = "It cannot be written: the subtotal is not the sum of the lines"
    assert row.left == [{"tenant": broken.tenant.pk, "reason": reason}]
    assert [one.tenant for one in Invoice.objects.filter(number__isnull=False)] == [other.tenant]
    assert close(now=LATER).left == [], "asking again issues what was left"
    assert Invoice.objects.get(tenant=broken.tenant).state == InvoiceState.ISSUED
    assert len(caplog.records) >= 1
