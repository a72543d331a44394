"""Does verify_usage find meters, statements and numbers that are not what they should be, and publish what it found?"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing import invoicing, tasks
from billing.closing import close_period
from billing.credit_notes import list_open_lines, write_credit_note
from billing.models import Invoice, InvoiceKind, MeterByDay
from billing.periods import find_closed_until
from billing.rerating import Question, rerate
from billing.summing_meters import sum_meters
from billing.verifying import list_recent_months, verify
from policies.errors import ConfigurationError
from tests import make
from tests.billing.test_invoicing import NOON, NOW, OCTOBER, add_requests, spend

pytestmark = pytest.mark.django_db
UNPRICED: dict[str, Any] = {"price": None, "cost": None, "unpriced": True}


def behind_the_back(*statements: str) -> None:
    """Change what triggers protect, as a mistake in a restore could."""
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        for statement in statements:
            cursor.execute(statement)
        cursor.execute("SET session_replication_role = DEFAULT")


WRONG: list[tuple[str, set[str]]] = [
    (
        "UPDATE billing_meterbyday SET charge_nanousd = charge_nanousd + 1 WHERE meter = 'input'",
        {"meter_by_day.charge_nanousd", "statement line"},
    ),
    ("UPDATE billing_invoiceline SET quantity = 7 WHERE meter = 'input'", {"statement line"}),
    (
        "DELETE FROM billing_invoiceline WHERE meter = 'input'",
        {"statement line", "statement total", "ledger revenue"},
    ),
    ("UPDATE billing_invoice SET document = document || '{\"total_minor\": 1}'", {"statement document"}),
    ("UPDATE billing_invoice SET number = 9", {"statement numbers"}),
    ("UPDATE billing_issuedpdf SET content = content || 'x'", {"statement PDF"}),
    (
        "INSERT INTO billing_invoicecounter (kind, last_number) VALUES ('credit_note', 9)"
        " ON CONFLICT (kind) DO UPDATE SET last_number = 9",
        {"statement numbers"},
    ),
]


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    spend(tmp_path)
    close_period(month=OCTOBER, actor="fiona", now=NOW)
    assert verify(now=NOW).differences == ()
    for statement, kinds in WRONG:
        with transaction.atomic():
            behind_the_back(statement)
            assert {one.kind for one in verify(now=NOW).differences} == kinds, statement
            transaction.set_rollback(True)


def test_the_last_runs_are_metrics(tmp_path: Path, settings: Any) -> None:
    settings.POINTSMAN_DATA_DIR = tmp_path
    settings.POINTSMAN_METRICS_TOKEN = "token"
    world = make.world()
    make.ingest(tmp_path, make.request_lines(world))
    tasks.sum_meters()
    assert MeterByDay.objects.count() == 3

    def scrape() -> str:
        answer = Client().get("/metrics", headers={"Authorization": "Bearer token"})
        return answer.content.decode()

    assert "pointsman_verify_usage_ok{" not in scrape()
    tasks.verify_usage()
    MeterByDay.objects.update(cost_nanousd=0)
    tasks.verify_recent()
    shown = scrape()
    assert 'pointsman_verify_usage_ok{months="all"} 1.0' in shown
    assert 'pointsman_verify_usage_ok{months="recent"} 0.0' in shown
    assert 'pointsman_verify_usage_timestamp_seconds{months="recent"} 1.' in shown
    assert timezone.now().date().replace(day=1) in list_recent_months(timezone.now())


STEP_NAMES = [
    *("record", "late", "unpriced", "rerate", "draft", "review", "issue", "credit", "pay", "void"),
    *("close", "close"),  # most of the others need a closed month
]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(STEP_NAMES),
        st.integers(0, 2),
        st.integers(0, 40),
    ),
    min_size=6,
    max_size=14,
)


QUIET = [HealthCheck.function_scoped_fixture]


@settings(max_examples=3, deadline=None, suppress_health_check=QUIET)
@given(steps=STEPS)
def test_whatever_happens_line_sums_numbers_and_ledger_tie(
    tmp_path: Path, steps: list[tuple[str, int, int]]
) -> None:
    with transaction.atomic():
        _run(tmp_path, steps)
        transaction.set_rollback(True)


@pytest.mark.nightly
@settings(max_examples=200, deadline=None, suppress_health_check=QUIET)
@given(steps=STEPS)
def test_whatever_happens_two_hundred_times(tmp_path: Path, steps: list[tuple[str, int, int]]) -> None:
    with transaction.atomic():
        _run(tmp_path, steps)
        transaction.set_rollback(True)


def _run(tmp_path: Path, steps: list[tuple[str, int, int]]) -> None:
    worlds = [spend(tmp_path), spend(tmp_path)]
    frozen: dict[int, Any] = {}
    now = NOW
    for step, which, day in steps:
        world = worlds[which % 2]
        now += dt.timedelta(days=3)
        at = NOON + dt.timedelta(days=day)
        month = (find_closed_until() or OCTOBER) if step != "issue" else OCTOBER
        try:
            _do(step, tmp_path, world, at, month, now)
        except ConfigurationError:
            pass  # refused with a reason: nothing may have changed, which the checks below see
        for row in Invoice.objects.filter(number__isnull=False):
            kept = frozen.setdefault(row.pk, (row.number, row.document, row.pdf_sha256, row.total_minor))
            assert kept == (row.number, row.document, row.pdf_sha256, row.total_minor)
    sum_meters(first_day=OCTOBER, last_day=now.date())
    assert verify(now=now).differences == ()
    for kind in InvoiceKind.values:
        numbers = Invoice.objects.filter(kind=kind, number__isnull=False).values_list("number", flat=True)
        assert sorted(number or 0 for number in numbers) == list(range(1, len(numbers) + 1))
    for invoice in Invoice.objects.filter(kind=InvoiceKind.INVOICE, number__isnull=False):
        credited = sum(invoice.credit_notes.values_list("total_minor", flat=True))
        assert 0 <= invoice.total_minor + credited <= invoice.total_minor


def _do(
    step: str, tmp_path: Path, world: make.World, at: dt.datetime, month: dt.date, now: dt.datetime
) -> None:
    if step in ("record", "late"):
        add_requests(tmp_path, world, at=NOON if step == "late" else at)
    elif step == "unpriced":
        add_requests(tmp_path, world, at=at, **UNPRICED)
    elif step == "rerate":
        rerate(Question(OCTOBER, now.date()), actor="f", reason="list", now=now)
    elif step == "close":
        close_period(month=month, actor="f", now=max(now, dt.datetime(2026, 3, 1, tzinfo=dt.UTC)))
    elif step == "draft":
        invoicing.draft(tenant=world.tenant, month=month, actor="f", now=now)
    else:
        invoice = (
            Invoice.objects.filter(tenant=world.tenant, kind=InvoiceKind.INVOICE).order_by("month").first()
        )
        if invoice is None:
            return
        if step == "review":
            invoicing.review(invoice=invoice, actor="f", now=now)
        elif step == "issue":
            invoicing.issue(invoice=invoice, actor="f", now=now)
        elif step == "pay":
            invoicing.mark_paid(invoice=invoice, actor="f", now=now)
        elif step == "void":
            invoicing.void(invoice=invoice, actor="f", now=now, reason="slip")
        elif step == "credit" and invoice.is_issued:
            positions = [line.position for line in list_open_lines(invoice)][:1]
            write_credit_note(invoice=invoice, actor="f", now=now, reason="agreed", positions=positions)
