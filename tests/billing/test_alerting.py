"""Is everybody told once, of what they should hear, and does a message arrive that did not at first?"""

from __future__ import annotations

import datetime as dt
import json
import smtplib
from pathlib import Path
from typing import Any

import pytest
from django.core import mail
from django.utils import timezone

from billing import alert_deliveries, alerting, budgets, webhooks
from billing.alert_recipients import add_recipient, list_recipients, remove_recipient
from billing.alert_thresholds import forecast_window, list_due
from billing.budget_arithmetic import WindowNumbers
from billing.models import AlertDelivery, AlertRecipient, Budget, BudgetAlert, BudgetWindow, RequestRecord
from policies.credentials import decrypt_credential
from policies.errors import InvalidValueError, NameTakenError
from policies.models import ChangeEvent
from tests import make
from tests.make_configuration import make_tenant

pytestmark = pytest.mark.django_db

USD = 1_000_000_000
NOW = dt.datetime(2026, 3, 18, 12, tzinfo=dt.UTC)  # 17.5 of March's 31 days have passed
MONTH = {
    "starts_at": dt.datetime(2026, 3, 1, tzinfo=dt.UTC),
    "ends_at": dt.datetime(2026, 4, 1, tzinfo=dt.UTC),
}


def make_budget(**fields: Any) -> Budget:
    arguments = {"window": "total", "limit_nanousd": 10 * USD, "actor": "fin", "now": NOW, **fields}
    return budgets.create_budget(tenant=arguments.pop("tenant", None) or make_tenant(), **arguments)


def spend(budget: Budget, usd: float) -> None:
    BudgetWindow.objects.filter(budget=budget).update(spent_nanousd=int(usd * USD))


def kinds(budget: Budget) -> list[tuple[str, bool]]:
    rows = BudgetAlert.objects.filter(window__budget=budget).order_by("id")
    return [(row.kind, row.is_told) for row in rows]


def test_each_threshold_is_told_once_and_again_only_in_a_new_window_or_at_a_new_limit() -> None:
    budget = make_budget()
    add_recipient(tenant=budget.tenant, channel="email", address="fin@example.com", actor="fin")
    for usd, count in ((4.99, 0), (5, 1), (5, 0), (7.9, 0), (8, 1), (10, 1), (12, 0)):
        spend(budget, usd)
        assert alerting.notice(now=NOW) == count, usd
    assert kinds(budget) == [("used_50", True), ("used_80", True), ("used_100", True)]
    assert AlertDelivery.objects.count() == 3
    budgets.change_budget(budget=budget, limit_nanousd=20 * USD, actor="fin")
    assert alerting.notice(now=NOW) == 1
    BudgetWindow.objects.create(
        budget=budget, starts_at=NOW + dt.timedelta(days=1), limit_nanousd=20 * USD, spent_nanousd=11 * USD
    )
    assert alerting.notice(now=NOW + dt.timedelta(days=2)) == 1
    assert alerting.notice(now=NOW + dt.timedelta(days=2)) == 0


def test_of_thresholds_passed_together_the_highest_is_told() -> None:
    budget = make_budget()
    add_recipient(tenant=budget.tenant, channel="email", address="fin@example.com", actor="fin")
    spend(budget, 8.5)
    alerting.notice(now=NOW)
    assert kinds(budget) == [("used_50", False), ("used_80", True)]
    (delivery,) = AlertDelivery.objects.all()
    assert delivery.subject == f"{budget.tenant} has used 85 % of its budget of $10.00"


@pytest.mark.parametrize(
    ("usd", "minutes_ago", "refused_by", "is_hard", "is_told"),
    [
        (8.5, 3, "budget of {}", True, True),
        (7.9, 3, "budget of {}", True, False),  # a large request: there is room for others
        (8.5, 30, "budget of {}", True, False),
        (8.5, 3, "budget of another", True, False),
        (8.5, 3, "budget of {}", False, False),
    ],
)
def test_a_hard_budget_that_refuses_what_is_asked_is_used_up(
    usd: float, minutes_ago: float, refused_by: str, is_hard: bool, is_told: bool, tmp_path: Path
) -> None:
    world = make.world()
    budget = make_budget(tenant=world.tenant, is_hard=is_hard, now=NOW - dt.timedelta(days=1))
    add_recipient(tenant=world.tenant, channel="email", address="fin@example.com", actor="fin")
    request_id = make.request_id_at(NOW - dt.timedelta(minutes=minutes_ago))
    features = {"input_tokens": 12, "refused_by": refused_by.format(budget)}
    refusal = {"status": "refused", "http": 402, "error": "budget_exceeded", "attempts": []}
    lines = [
        make.intent_line(world, request_id, features=features),
        make.outcome_line(world, request_id, **refusal),
    ]
    make.ingest(tmp_path, lines)
    assert RequestRecord.objects.get().error_code == "budget_exceeded"
    spend(budget, usd)
    alerting.notice(now=NOW)
    assert (("used_100", True) in kinds(budget)) is is_told
    assert alerting.notice(now=NOW) == 0
    if is_told:
        (delivery,) = AlertDelivery.objects.all()
        assert (
            delivery.subject
            == f"{budget.tenant} is refused requests: too little is left of its budget of $10.00"
        )
        assert "Used: $8.50 of $10.00." in delivery.body


def test_an_overrun_is_foreseen_by_the_mean_day() -> None:
    budget = make_budget(window="month")
    spend(budget, 6)
    alerting.notice(now=NOW)
    forecast = 6 * USD * 310 // 175
    found = BudgetAlert.objects.get(kind="forecast")
    assert (found.forecast_nanousd, found.used_nanousd) == (forecast, 6 * USD)
    spend(budget, 5.6)
    assert 5.6 * 31 / 17.5 < 10
    assert forecast_window(int(5.6 * USD), now=NOW, **MONTH) == int(5.6 * USD) * 310 // 175


@pytest.mark.parametrize(
    ("days", "ends_at"), [(0.9, MONTH["ends_at"]), (3, MONTH["ends_at"]), (20, None), (32, MONTH["ends_at"])]
)
def test_nothing_is_foreseen_too_early_without_an_end_or_after_it(days: float, ends_at: Any) -> None:
    at = MONTH["starts_at"] + dt.timedelta(days=days)
    assert forecast_window(USD, starts_at=MONTH["starts_at"], ends_at=ends_at, now=at) is None


def test_unknown_costs_count_and_nothing_is_foreseen_of_what_is_used_up() -> None:
    due = list_due(WindowNumbers(100, 60, 40), now=NOW, **MONTH)
    assert [(one.kind, one.is_told) for one in due] == [
        ("used_50", False),
        ("used_80", False),
        ("used_100", True),
    ]


def test_a_window_that_has_just_ended_is_still_told_and_an_old_or_switched_off_one_not() -> None:
    budget = make_budget(window="day")
    spend(budget, 10)
    ended = dt.datetime(2026, 3, 19, tzinfo=dt.UTC)
    assert alerting.notice(now=ended + dt.timedelta(hours=2)) == 0
    budgets.change_budget(budget=budget, is_enabled=False, actor="fin")
    assert alerting.notice(now=NOW) == 0
    budgets.change_budget(budget=budget, is_enabled=True, actor="fin")
    assert alerting.notice(now=ended + dt.timedelta(minutes=30)) == 3


def test_a_budgets_recipients_are_its_own_and_its_tenants_each_once() -> None:
    budget, other = make_budget(), make_budget()
    for whose, address in (
        (None, "all@example.com"),
        (budget, "one@example.com"),
        (budget, "all@example.com"),
    ):
        add_recipient(tenant=budget.tenant, budget=whose, channel="email", address=address, actor="fin")
    assert sorted(row.address for row in list_recipients(budget)) == ["all@example.com", "one@example.com"]
    assert list_recipients(other) == []
    spend(budget, 5)
    alerting.notice(now=NOW)
    assert AlertDelivery.objects.count() == 2


def test_a_mail_that_is_refused_is_tried_again_under_the_same_id(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = make_budget()
    add_recipient(tenant=budget.tenant, channel="email", address="fin@example.com", actor="fin")
    spend(budget, 5)
    alerting.notice(now=NOW)

    def refuse(**mail: object) -> None:
        raise smtplib.SMTPResponseException(451, b"try later, fin@example.com")

    with monkeypatch.context() as broken:
        broken.setattr(alert_deliveries, "send_mail", refuse)
        assert alert_deliveries.deliver_due(now=timezone.now()) == 0
    row = AlertDelivery.objects.get()
    assert (row.state, row.try_count, "451" in row.problem, "later" in row.problem) == (
        "waiting",
        1,
        True,
        False,
    )
    assert alert_deliveries.deliver_due(now=timezone.now()) == 0  # not due yet
    assert alert_deliveries.deliver_due(now=timezone.now() + dt.timedelta(seconds=61)) == 1
    row.refresh_from_db()
    assert (row.state, row.try_count) == ("sent", 2)
    assert row.problem == "Mail is not set up: it stands in the log."
    assert mail.outbox[0].message()["Message-ID"].startswith(f"<{row.id.hex}@")
    assert f"/budgets/{budget.pk}" in mail.outbox[0].body
    assert alert_deliveries.deliver_due(now=timezone.now() + dt.timedelta(days=1)) == 0


def test_a_webhook_gets_signed_json_and_is_given_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = make_budget()
    recipient, secret = add_recipient(
        tenant=budget.tenant,
        budget=budget,
        channel="webhook",
        address="https://hooks.example.com/x",
        actor="fin",
    )
    assert decrypt_credential(recipient.secret_ciphertext) == secret
    assert secret not in recipient.secret_ciphertext
    assert secret not in str(list(ChangeEvent.objects.values()))
    spend(budget, 10)
    alerting.notice(now=NOW)
    calls: list[dict[str, Any]] = []

    def refuse(url: str, **sent: Any) -> None:
        calls.append({"url": url, **sent})
        raise webhooks.WebhookError("it answered with status 500")

    monkeypatch.setattr(webhooks, "post", refuse)
    at = timezone.now()
    for _ in range(10):
        at += dt.timedelta(days=1)
        alert_deliveries.deliver_due(now=at)
    row = AlertDelivery.objects.get()
    assert (row.state, row.try_count, row.problem) == ("failed", 8, "it answered with status 500")
    assert len({call["message_id"] for call in calls}) == 1
    assert (calls[0]["secret"], calls[0]["message_id"]) == (secret, f"msg_{row.id.hex}")
    told = json.loads(calls[0]["body"])
    assert (told["type"], told["data"]["threshold_percent"]) == ("budget.threshold_reached", 100)
    assert (told["data"]["limit_usd"], told["data"]["used_usd"]) == ("10", "10")


def test_a_receiver_that_is_gone_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = make_budget()
    recipient, _ = add_recipient(
        tenant=budget.tenant, channel="webhook", address="https://hooks.example.com/x", actor="fin"
    )

    def gone(url: str, **sent: Any) -> None:
        raise webhooks.WebhookError("it answered with status 410", is_final=True)

    monkeypatch.setattr(webhooks, "post", gone)
    row = alert_deliveries.send_test(recipient=recipient, actor="fin", now=timezone.now())
    alert_deliveries.deliver_due(now=timezone.now())
    row.refresh_from_db()
    assert row.state == "failed"
    remove_recipient(recipient=recipient, actor="fin")
    assert not AlertDelivery.objects.exists()
    assert [
        event.action for event in ChangeEvent.objects.filter(object_type="alert_recipient").order_by("id")
    ] == [
        "create",
        "test",
        "delete",
    ]


@pytest.mark.parametrize(
    ("channel", "address", "said"),
    [
        ("email", "nobody", "not one e-mail address"),
        ("webhook", "http://hooks.example.com", "begins with https"),
        ("webhook", "https://127.0.0.1/x", "private or local"),
        ("pigeon", "fin@example.com", "is not one of"),
    ],
)
def test_what_is_no_recipient(channel: str, address: str, said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        add_recipient(tenant=make_tenant(), channel=channel, address=address, actor="fin")


def test_a_recipient_is_added_once_and_only_for_budgets_of_its_tenant() -> None:
    budget = make_budget()
    sent = {"channel": "email", "address": "fin@example.com", "actor": "fin"}
    add_recipient(tenant=budget.tenant, **sent)  # type: ignore[arg-type]
    with pytest.raises(NameTakenError):
        add_recipient(tenant=budget.tenant, **sent)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError):
        add_recipient(tenant=make_tenant(), budget=budget, **sent)  # type: ignore[arg-type]
    assert AlertRecipient.objects.count() == 1
