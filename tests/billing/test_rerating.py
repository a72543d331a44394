"""Do requests without a price get one afterwards, once, with every total in step and no record changed?"""

from __future__ import annotations

import datetime as dt
from io import StringIO
from pathlib import Path
from unittest import mock

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from billing import reports, rerating
from billing.models import Adjustment, RequestRecord, ReratingRun, UsageByDay, UsageByHour
from billing.rerating import Question, count_unpriced, find_replacement, preview, rerate
from billing.verifying import verify
from policies.errors import InvalidValueError
from policies.models import ChangeEvent
from policies.permissions import Role
from tests import make
from tests.console_people import client_of
from tests.make_configuration import make_deployment, make_price

pytestmark = pytest.mark.django_db
NOW = timezone.now()
TODAY = NOW.date()
DAYS = Question(TODAY - dt.timedelta(days=3), TODAY)
UNPRICED = {"price": None, "cost": None, "unpriced": True}


def run(question: Question = DAYS) -> ReratingRun:
    return rerate(question, actor="fiona", reason="the list came late", now=NOW)


def ingest(tmp_path: Path, world: make.World, count: int = 3, **outcome: object) -> None:
    lines = [line for _ in range(count) for line in make.request_lines(world, **{**UNPRICED, **outcome})]
    make.ingest(tmp_path, [*lines, *make.request_lines(world)])


def test_unpriced_requests_are_priced_by_pairs_and_all_totals_follow(tmp_path: Path) -> None:
    world = make.world()
    ingest(tmp_path, world)
    before = reports.totals(first_day=DAYS.first_day, last_day=TODAY)
    assert (before.unpriced_count, before.cost_nanousd) == (3, make.COST_NANOUSD)
    shown = preview(DAYS)
    assert (shown.all.request_count, shown.left_count, shown.all.cost_nanousd) == (
        3,
        0,
        3 * make.COST_NANOUSD,
    )
    assert shown.by_deployment == {world.deployment.pk: (3, 3 * make.COST_NANOUSD, 0, 0)}
    assert not Adjustment.objects.exists()
    made = run()
    assert (made.request_count, made.left_count, made.cost_nanousd) == (3, 0, 3 * make.COST_NANOUSD)
    after = reports.totals(first_day=DAYS.first_day, last_day=TODAY)
    assert (after.unpriced_count, after.cost_nanousd) == (0, 4 * make.COST_NANOUSD)
    assert (after.request_count, after.input_tokens) == (before.request_count, before.input_tokens)
    hours = UsageByHour.objects.values_list("unpriced_count", "cost_nanousd", "request_count")
    assert [sum(column) for column in zip(*hours, strict=True)] == [0, 4 * make.COST_NANOUSD, 4]
    assert RequestRecord.objects.filter(is_unpriced=True, cost_nanousd=None).count() == 3
    assert verify(now=NOW).differences == ()
    event = ChangeEvent.objects.get(object_type="rerating_run")
    assert event.after is not None
    assert (event.actor, event.after["reason"]) == ("fiona", "the list came late")
    replacement = find_replacement(RequestRecord.objects.filter(is_unpriced=True)[0].pk)
    assert replacement is not None
    assert (replacement.price, replacement.run, replacement.cost_nanousd) == (
        world.price,
        made,
        make.COST_NANOUSD,
    )


def test_a_second_run_finds_nothing_and_late_records_are_found(tmp_path: Path) -> None:
    world = make.world()
    ingest(tmp_path, world)
    run()
    assert run().request_count == 0
    make.ingest(tmp_path, make.request_lines(world, **UNPRICED), worker="worker-2")
    assert count_unpriced(TODAY, TODAY) == 1
    assert run().request_count == 1
    assert Adjustment.objects.count() == 8
    assert verify(now=NOW).is_ok


def test_what_has_no_price_or_no_known_usage_is_left_and_counted(tmp_path: Path) -> None:
    world, other = make.world(), make.world()
    other.deployment = make_deployment()
    make_price(deployment=other.deployment, effective_from=NOW + dt.timedelta(days=1))
    ingest(tmp_path, world, 1)
    make.ingest(tmp_path, make.request_lines(other, **UNPRICED), worker="worker-2")
    shown = preview(DAYS)
    assert (shown.all.request_count, shown.left_count) == (1, 1)
    assert run().left_count == 1
    later = Question(DAYS.first_day, TODAY, takes_later_price=True)
    assert preview(later).all.later_count == 1
    assert run(later).request_count == 1
    assert verify(now=NOW).is_ok


def test_attempts_that_were_priced_keep_their_cost(tmp_path: Path) -> None:
    world = make.world()
    first, second = make.request_lines(world, **UNPRICED)
    priced = {**second["attempts"][0], "price": world.price.pk, "cost": 7, "usage": make.usage_line(input=1)}
    second["attempts"] = [priced, {**second["attempts"][0], "n": 2}]
    make.ingest(tmp_path, [first, second])
    assert run().cost_nanousd == make.COST_NANOUSD + 7
    (replacement,) = Adjustment.objects.filter(number=rerating.REPLACEMENT)
    assert replacement.attempts == [[1, world.price.pk, 7], [2, world.price.pk, make.COST_NANOUSD]]


def test_a_run_that_breaks_off_leaves_whole_batches_and_can_be_repeated(tmp_path: Path) -> None:
    world = make.world()
    ingest(tmp_path, world, 5)
    store, calls = rerating._store, []

    def breaking(*arguments: object) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        store(*arguments)  # type: ignore[arg-type]

    with mock.patch.object(rerating, "BATCH", 2):
        with mock.patch.object(rerating, "_store", breaking), pytest.raises(KeyboardInterrupt):
            run()
        assert Adjustment.objects.count() == 4
        assert verify(now=NOW).is_ok
        assert run().request_count == 3
    assert verify(now=NOW).is_ok
    assert count_unpriced(TODAY, TODAY) == 0


def test_verification_finds_an_adjustment_that_is_wrong_or_missing_from_the_sums(tmp_path: Path) -> None:
    world = make.world()
    ingest(tmp_path, world, 1)
    run()
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        Adjustment.objects.update(cost_nanousd=1)
    with connection.cursor() as cursor:
        cursor.execute(
            "SET CONSTRAINTS ALL IMMEDIATE"
        )  # else the run's rows wait for a check, and the table is in use
        cursor.execute("ALTER TABLE billing_adjustment DISABLE TRIGGER append_only")
        cursor.execute("UPDATE billing_adjustment SET cost_nanousd = cost_nanousd + 1 WHERE number = 2")
    kinds = {difference.kind for difference in verify(now=NOW).differences}
    by_label = ("usage_by_label_day", "usage_by_label_set_day", "usage_by_key_label_set_day")
    rollups = ("usage_by_day", "usage_by_key_day", *by_label, "usage_by_hour")
    assert kinds == {"adjusted cost", "adjusted charge", *(f"{name}.cost_nanousd" for name in rollups)}
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM billing_adjustment WHERE number = 1")
    assert "adjustment" in {difference.kind for difference in verify(now=NOW).differences}
    assert UsageByDay.objects.exists()


def test_a_run_needs_a_reason() -> None:
    with pytest.raises(InvalidValueError, match="say why"):
        rerate(DAYS, actor="fiona", reason=" ", now=NOW)
    assert not ReratingRun.objects.exists()


def test_the_command_shows_first_and_prices_only_when_told(tmp_path: Path) -> None:
    world = make.world()
    ingest(tmp_path, world)

    def said(*arguments: str) -> str:
        out = StringIO()
        call_command("prices", "rerate", *arguments, stdout=out)
        return out.getvalue()

    shown = said("--from-day", str(DAYS.first_day))
    assert f"{world.deployment.name}: 3 requests, $0.000423" in shown
    assert "Nothing has changed" in shown
    assert not Adjustment.objects.exists()
    with pytest.raises(CommandError, match="say why"):
        said("--from-day", str(DAYS.first_day), "--apply")
    assert "priced 3 requests" in said("--from-day", str(DAYS.first_day), "--apply", "--reason", "late list")
    with pytest.raises(CommandError, match="before"):
        said("--from-day", "2026-02-01", "--to-day", "2026-01-01")


def test_finance_sees_what_has_no_price_and_prices_it_in_the_browser(tmp_path: Path) -> None:
    world, late = make.world(), make.world()
    late.deployment = make_deployment()
    make_price(deployment=late.deployment, effective_from=NOW + dt.timedelta(days=1))
    ingest(tmp_path, world)
    lines = make.request_lines(late, **UNPRICED)
    make.ingest(tmp_path, lines, worker="worker-2")
    finance = client_of(Role.FINANCE)
    assert "4 requests</b> of the last 90 days have no price" in finance.get("/prices").content.decode()
    page = finance.get("/prices/unpriced").content.decode()
    assert "With the tick <b>4</b> requests get a price, without it <b>3</b>." in page
    assert finance.post("/prices/unpriced/price", {"reason": ""}).status_code == 422
    assert not Adjustment.objects.exists()
    done = finance.post("/prices/unpriced/price", {"reason": "late list"}, follow=True).content.decode()
    assert "3 requests priced; every total follows." in done
    assert "late list" in done
    body = {"reason": "first price", "takes_later_price": "on"}
    assert "1 request priced" in finance.post("/prices/unpriced/price", body, follow=True).content.decode()
    detail = finance.get(f"/requests/{lines[0]['id']}").content.decode()
    assert "Recorded without a price" in detail
    assert "first price" in detail
    # Whoever presses the button after somebody else was quicker makes no run of nothing.
    late_press = finance.post("/prices/unpriced/price", body, follow=True).content.decode()
    assert "no request is without a price any more" in late_press
    assert ReratingRun.objects.count() == 2
    assert "Every request has its price" in finance.get("/prices/unpriced").content.decode()
    assert lines[0]["id"] not in finance.get("/requests?unpriced=1").content.decode()
    assert verify(now=NOW).is_ok


def test_too_many_requests_are_left_to_the_command(tmp_path: Path) -> None:
    ingest(tmp_path, make.world())
    finance = client_of(Role.FINANCE)
    with mock.patch("billing.views.rerating.MAX_READ", 2):
        assert "manage.py prices rerate" in finance.get("/prices/unpriced").content.decode()
        refused = finance.post("/prices/unpriced/price", {"reason": "x"}, follow=True).content.decode()
    assert "too many requests" in refused
    assert not Adjustment.objects.exists()
