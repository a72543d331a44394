"""Does the demo come with a month that finance can work on, once, and only where it brings traffic?"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from pathlib import Path

import pytest
from django.db import connection
from django.db.models import F
from django.utils import timezone

from billing.ingesting import Ingester
from billing.models import (
    AlertDelivery,
    AlertRecipient,
    Budget,
    BudgetAlert,
    BudgetWindow,
    Invoice,
    RequestRecord,
    SaleTerm,
    SavedView,
)
from billing.spend_keys import read_key_spend
from billing.spend_questions import read_question
from billing.verifying import verify
from gateway import demo_books, demo_traffic, demo_week
from gateway.bootstrap import bootstrap
from policies.models import ChangeEvent, RateLimit
from tests.console_people import operator
from tests.make_configuration import make_tenant

# Of this many requests one is served, more of those without a price, and all of the key that grew in the weeks that are
# compared.
EVERY, EVERY_UNPRICED = 40, 5
COMPARED_S = 14 * 86_400


@pytest.mark.parametrize(
    "day", ["2026-03-01T00:10", "2026-03-02T09:00", "2026-07-31T23:50", "2027-01-10T12:00"]
)
def test_before_the_week_there_are_fewer_requests_for_as_many_tokens(day: str) -> None:
    now_unix_s = dt.datetime.fromisoformat(day).replace(tzinfo=dt.UTC).timestamp()
    week_begin_unix_s = now_unix_s - 7 * 86_400
    week, earlier = demo_week.list_turns(now_unix_s), demo_week.list_earlier_turns(now_unix_s)
    begin = demo_week.find_begin(now_unix_s)
    assert 10_000 < len(earlier) < 20_000
    assert begin.timestamp() <= earlier[0].at_unix_s < begin.timestamp() + 86_400
    assert week_begin_unix_s - 86_400 < earlier[-1].at_unix_s < week_begin_unix_s <= week[0].at_unix_s
    assert not {turn.conversation for turn in week} & {turn.conversation for turn in earlier}
    now, before = Counter[str](), Counter[str]()
    for turn in week:
        now[turn.workload.app] += turn.input_tokens
    for turn in earlier:
        if turn.at_unix_s >= week_begin_unix_s - 7 * 86_400:
            before[turn.workload.app] += turn.input_tokens
    assert set(now) - set(before) == {"Contract comparison"}
    assert all(0.5 < now[app] / before[app] < 2 for app in before), (now, before)


@pytest.mark.django_db
def test_the_books_are_complete_once_the_traffic_is_there_tie_and_come_once(tmp_path: Path) -> None:
    bootstrap(environment={}, with_demo=True, with_books=True)
    set_up_at = demo_traffic.find_set_up_moment(timezone.now())
    assert set_up_at is not None
    week = demo_week.list_turns(set_up_at.timestamp())
    earlier = demo_week.list_earlier_turns(set_up_at.timestamp())
    late_days = demo_traffic.find_late_days(set_up_at)
    begin, end = (at.timestamp() for at in late_days)
    ingester = Ingester(tmp_path)
    for turns in (week, earlier):
        assert not demo_traffic.has_arrived(set_up_at)
        compared_from_unix_s = set_up_at.timestamp() - COMPARED_S
        served = [
            turn
            # The last one is among them: that it is there says that all are.
            for number, turn in enumerate(turns, start=1 - len(turns))
            if number % EVERY == 0
            or (begin <= turn.at_unix_s < end and number % EVERY_UNPRICED == 0)
            or (turn.workload.key == "archive" and turn.at_unix_s >= compared_from_unix_s)
        ]
        demo_traffic.write_turns(served, data_dir=tmp_path, set_up_at=set_up_at)
        ingester.ingest_available()
    with connection.cursor() as cursor:
        # The ingester checks at once, for all of the transaction that is its own outside of tests.
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")
    assert demo_traffic.has_arrived(set_up_at)
    assert demo_traffic.find_due_moment(timezone.now()) is None

    demo_books.complete(set_up_at=set_up_at, now=timezone.now())
    events = ChangeEvent.objects.count()
    demo_books.complete(set_up_at=set_up_at, now=timezone.now())
    assert ChangeEvent.objects.count() == events
    assert set(ChangeEvent.objects.filter(actor="demo").values_list("object_type", flat=True)) == {
        "sale_term", "billing_profile", "exchange_rate", "credit", "rate_limit", "alert_recipient", "saved_view",
        "budget", "period", "statement",
    }  # fmt: skip

    unpriced = RequestRecord.objects.filter(is_unpriced=True)
    assert unpriced.count() > 0
    assert unpriced.filter(started_at__range=late_days).count() == unpriced.count()
    charged = RequestRecord.objects.filter(charge_nanousd__gt=F("cost_nanousd"))
    assert charged.count() > RequestRecord.objects.count() / 2
    question = read_question({"period": "7d"}, today=timezone.now().date(), by="key")
    unusual = read_key_spend(question, now=timezone.now()).unusual
    assert "demo/documents/archive" in [row.name for row in unusual]
    invoice = Invoice.objects.get()
    assert (invoice.state, invoice.currency, invoice.month) == (
        "paid", "EUR", demo_week.find_begin(set_up_at.timestamp()).date(),
    )  # fmt: skip
    assert Budget.objects.filter(is_hard=True).count() == Budget.objects.filter(is_hard=False).count() == 1
    assert not BudgetWindow.objects.filter(spent_nanousd__gt=F("limit_nanousd")).exists()
    # On the first days of a month little of a budget is used, and there may be nothing to tell.
    assert BudgetAlert.objects.filter(is_told=True).exists() or timezone.now().day < 3
    assert AlertRecipient.objects.exists()
    assert not AlertDelivery.objects.exists()  # they would stand in a newcomer's terminal
    assert verify(now=timezone.now()).is_ok
    assert "are invented for the demo" in operator().get("/").content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize("case", ["no traffic", "no demo", "not empty", "real provider"])
def test_no_books_without_the_demos_traffic(case: str) -> None:
    if case == "not empty":
        make_tenant()
    environment = {"GEMINI_API_KEY": "sk-x"} if case == "real provider" else {}
    bootstrap(environment=environment, with_demo=case != "no demo", with_books=case != "no traffic")
    assert not ChangeEvent.objects.filter(actor=demo_books.ACTOR).exists()
    for kind in (SaleTerm, RateLimit, SavedView):
        assert not kind.objects.exists()
    assert demo_books.find_invented_until() is None
