"""Does a saved view open, and reach people by mail once for each time that it is due, whatever fails on the way?"""

from __future__ import annotations

import datetime as dt
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from smtplib import SMTPServerDisconnected
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.db import connection
from django.test import Client
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from billing import notifying, saved_views
from billing.mail_times import MailTimes
from billing.models import DeliveryState, MailDelivery, SavedView, ScheduledMail
from billing.saved_views import change_view, delete_view, forget_deleted, restore_view, save_view
from billing.scheduled_mail import make_schedule, pause_schedule, send_due, send_now
from policies.errors import InvalidValueError, NameTakenError
from policies.permissions import Role, set_role
from tests import make
from tests.console_people import person

NOW = dt.datetime(2026, 5, 10, 9, 30, tzinfo=dt.UTC)
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


@pytest.fixture(autouse=True)
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celery.current_app.send_task", lambda *args, **kwargs: None)


def saved(owner: User, name: str = "By key", **fields: Any) -> SavedView:
    asked = {"page": "spend", "query": "by=key&period=7d", "is_shared": False, "now": NOW, **fields}
    return save_view(owner=owner, name=name, **asked)


def scheduled(owner: User | None = None, **fields: Any) -> ScheduledMail:
    owner = owner or person(Role.FINANCE)
    wanted = {"rhythm": "daily", "hour": 7, "recipients": ["cfo@example.com", "fin@example.com"], **fields}
    return make_schedule(view=saved(owner), owner=owner, now=NOW, **wanted)


def states() -> list[tuple[str, dt.datetime]]:
    return list(MailDelivery.objects.order_by("due_at").values_list("state", "due_at"))


SEVEN = NOW.replace(hour=7, minute=0)


@pytest.mark.django_db
def test_a_mail_goes_out_once_at_its_hour_with_the_table_of_that_moment(tmp_path: Path) -> None:
    world = make.world("=acme")
    make.ingest(tmp_path, make.request_lines(world, make.request_id_at(NOW - HOUR)))
    scheduled(file_format="csv")
    assert send_due(now=NOW + HOUR) == 0, "what was due before it was made is not sent"
    for moment in (SEVEN + DAY - HOUR / 60, SEVEN + DAY, SEVEN + DAY + HOUR, SEVEN + DAY + 2 * HOUR):
        send_due(now=moment)
    (message,) = mail.outbox
    assert message.to == ["cfo@example.com", "fin@example.com"]
    assert message.subject == "By key: 2026-05-05 to 2026-05-11"
    assert "dev" in message.body
    assert "$0.000141" in message.body
    name, content, media_type = message.attachments[0]
    assert (name, media_type) == ("spend-by-key-2026-05-05-to-2026-05-11.csv", "text/csv")
    assert f"'{world.tenant.name}" in content, "a formula would run"
    assert states() == [(DeliveryState.SENT, SEVEN + DAY)]


@pytest.mark.django_db
def test_after_a_downtime_one_mail_catches_up() -> None:
    scheduled()
    assert send_due(now=SEVEN + 9 * DAY + HOUR) == 1
    assert states() == [(DeliveryState.SENT, SEVEN + 9 * DAY)]
    assert send_due(now=SEVEN + 9 * DAY + 2 * HOUR) == 0


@pytest.mark.django_db
def test_a_mail_server_that_refuses_is_asked_three_times_and_the_reason_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scheduled()
    tried = []

    def refuse(**kwargs: Any) -> None:
        tried.append(kwargs["message_id"])
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(notifying, "send_mail", refuse)
    due = SEVEN + DAY
    for minutes in (0, 1, 5, 6, 15, 16, 60):
        send_due(now=due + dt.timedelta(minutes=minutes))
    assert len(tried) == 3
    assert len(set(tried)) == 1, "a mail server can know them as one"
    (delivery,) = MailDelivery.objects.all()
    assert (delivery.state, "EMAIL_URL" in delivery.error) == (DeliveryState.FAILED, True)
    assert "Connection refused" in delivery.error_detail


@pytest.mark.django_db
@pytest.mark.parametrize("error", [TimeoutError("timed out"), SMTPServerDisconnected("gone")])
def test_what_may_have_been_sent_is_not_sent_again(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    scheduled()

    def silence(**kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(notifying, "send_mail", silence)
    send_due(now=SEVEN + DAY)
    monkeypatch.undo()
    assert send_due(now=SEVEN + DAY + HOUR) == 0
    (delivery,) = MailDelivery.objects.all()
    assert (delivery.state, "may have been sent" in delivery.error) == (DeliveryState.FAILED, True)


@pytest.mark.django_db
def test_of_a_process_that_died_the_mail_is_sent_if_the_server_did_not_have_it_yet() -> None:
    schedule = scheduled()
    died_at = SEVEN + DAY
    for state, due_at in ((DeliveryState.BUILDING, died_at), (DeliveryState.SENDING, died_at - HOUR)):
        MailDelivery.objects.create(
            schedule=schedule,
            due_at=due_at,
            state=state,
            claimed_at=died_at,
            claim_count=1,
            recipients=["a@b.example"],
        )
    assert send_due(now=died_at + dt.timedelta(minutes=9)) == 0, "they may be alive"
    assert send_due(now=died_at + dt.timedelta(minutes=11)) == 1
    assert states() == [(DeliveryState.FAILED, died_at - HOUR), (DeliveryState.SENT, died_at)]
    assert len(mail.outbox) == 1


@pytest.mark.django_db(transaction=True)
def test_workers_that_look_at_once_send_one_mail() -> None:
    scheduled()
    together = threading.Barrier(4)

    def look() -> int:
        together.wait(timeout=20)
        try:
            return send_due(now=SEVEN + DAY)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as threads:
        counts = [found.result() for found in [threads.submit(look) for _ in range(4)]]
    assert sorted(counts) == [0, 0, 0, 1]
    assert (len(mail.outbox), MailDelivery.objects.count()) == (1, 1)


@pytest.mark.django_db
def test_who_made_it_must_still_be_allowed_to_see_it() -> None:
    maker, owner = person(Role.FINANCE), person(Role.FINANCE)
    view = saved(owner, is_shared=True)
    make_schedule(view=view, owner=maker, now=NOW, rhythm="daily", recipients=["a@b.example"])
    change_view(view=view, actor="test", name=view.name, is_shared=False)
    assert send_due(now=SEVEN + DAY) == 0
    change_view(view=view, actor="test", name=view.name, is_shared=True)
    set_role(person=maker, role=Role.VIEWER, actor="test")
    assert send_due(now=SEVEN + 2 * DAY) == 0
    set_role(person=maker, role=Role.FINANCE, actor="test")
    User.objects.filter(pk=maker.pk).update(is_active=False)
    assert send_due(now=SEVEN + 3 * DAY) == 0
    errors = MailDelivery.objects.order_by("due_at").values_list("error", flat=True)
    assert ["not shared" in errors[0], "may not send" in errors[1], "may not send" in errors[2]] == [True] * 3
    assert mail.outbox == []
    User.objects.filter(pk=maker.pk).update(is_active=True)
    delete_view(view=view, actor="test", now=NOW)
    assert send_due(now=SEVEN + 4 * DAY) == 0
    assert MailDelivery.objects.count() == 3, "a deleted view is not due"


@pytest.mark.django_db
def test_a_paused_schedule_sends_nothing_and_goes_on_with_the_next() -> None:
    schedule = scheduled()
    pause_schedule(schedule=schedule, is_enabled=False, actor="fin", now=NOW)
    assert send_due(now=SEVEN + DAY + HOUR) == 0
    pause_schedule(schedule=schedule, is_enabled=True, actor="fin", now=SEVEN + DAY + 2 * HOUR)
    assert send_due(now=SEVEN + DAY + 3 * HOUR) == 0
    assert send_due(now=SEVEN + 2 * DAY) == 1


@pytest.mark.django_db
def test_send_now_is_a_mail_beside_the_due_ones() -> None:
    schedule = scheduled()
    send_now(schedule=schedule, actor="fin", now=NOW)
    assert send_due(now=NOW) == 1
    assert send_due(now=SEVEN + DAY) == 1
    assert len(mail.outbox) == 2


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rhythm", "hourly"),
        ("hour", 24),
        ("month_day", 31),
        ("time_zone", "Mars/Olympus"),
        ("recipients", []),
        ("recipients", ["not an address"]),
        ("recipients", ["a@b.example\nBcc: c@d.example"]),
        ("file_format", "pdf"),
    ],
)
def test_what_makes_no_sense_is_refused(field: str, value: Any) -> None:
    with pytest.raises(InvalidValueError) as refused:
        scheduled(**{field: value})
    assert field in refused.value.problems


@pytest.mark.django_db
def test_a_view_keeps_what_its_page_understands_and_its_name_is_its_owners() -> None:
    owner, other = person(Role.VIEWER), person(Role.VIEWER)
    view = saved(owner, query="by=model&tenant=7&period=30d&evil=1&by2=x")
    assert view.query == "period=30d&by=model&tenant=7"
    with pytest.raises(NameTakenError):
        saved(owner)
    saved(other)
    with pytest.raises(InvalidValueError):
        saved(owner, name="  ")
    delete_view(view=view, actor="x", now=NOW)
    assert not saved_views.visible_to(owner).exists()
    second = saved(owner)
    with pytest.raises(NameTakenError):
        restore_view(view=SavedView.objects.get(pk=view.pk), actor="x")
    change_view(view=second, actor="x", name="Other", is_shared=True)
    restore_view(view=SavedView.objects.get(pk=view.pk), actor="x")
    assert [one.name for one in saved_views.visible_to(owner)] == ["By key", "Other"]
    assert [one.name for one in saved_views.visible_to(other)] == ["By key", "Other"], (
        "its own, and the shared one"
    )
    delete_view(view=SavedView.objects.get(pk=view.pk), actor="x", now=NOW)
    assert forget_deleted(now=NOW + 6 * DAY) == 0
    assert forget_deleted(now=NOW + 8 * DAY) == 1


@pytest.mark.django_db
def test_pages_save_open_change_delete_and_bring_back_a_view_of_what_is_gone(tmp_path: Path) -> None:
    make.ingest(tmp_path, make.request_lines(make.world()))
    owner = person(Role.FINANCE)
    client = Client()
    client.force_login(owner)
    address = "/spend/views/new?page=spend-keys&query=period%3D7d%26tenant%3D999999%26only%3Dunusual"
    response = client.post(address, {"name": "Gone", "is_shared": "on"})
    view = SavedView.objects.get()
    assert response["Location"] == f"/spend/views/{view.pk}"
    page = client.get("/spend/views").content.decode()
    opened = client.get(f"/spend/keys?{view.query}")
    assert (opened.status_code, "#999999" in opened.content.decode(), "Gone" in page) == (200, True, True)
    assert client.post(address, {"name": "Gone"}).status_code == 422, "the name is taken"
    stranger = Client()
    stranger.force_login(person(Role.VIEWER))
    assert stranger.get(f"/spend/views/{view.pk}").status_code == 200
    assert stranger.post(f"/spend/views/{view.pk}/delete").status_code == 403
    client.post(f"/spend/views/{view.pk}/edit", {"name": "Mine"})
    assert stranger.get(f"/spend/views/{view.pk}").status_code == 404
    client.post(f"/spend/views/{view.pk}/delete")
    assert client.get(f"/spend/views/{view.pk}").status_code == 404
    assert "Bring back" in client.get("/spend/views").content.decode()
    client.post(f"/spend/views/{view.pk}/restore")
    typed = {
        "recipients": "a@b.example, c@d.example", "rhythm": "weekly", "weekday": "0", "month_day": "1", "hour": "7",
        "time_zone": "Europe/Berlin", "file_format": "xlsx",
    }  # fmt: skip
    wrong = client.post(f"/spend/views/{view.pk}/mails/new", {**typed, "recipients": "nobody"})
    assert (wrong.status_code, "is not an e-mail address" in wrong.content.decode()) == (422, True)
    client.post(f"/spend/views/{view.pk}/mails/new", typed)
    schedule = ScheduledMail.objects.get()
    assert schedule.recipients == ["a@b.example", "c@d.example"]
    client.post(f"/spend/mails/{schedule.pk}/send")
    assert send_due(now=timezone.now()) == 1
    assert "sent" in client.get(f"/spend/views/{view.pk}").content.decode()
    client.post(f"/spend/mails/{schedule.pk}/delete")
    assert not ScheduledMail.objects.exists()


@settings(max_examples=50)
@given(
    rhythm=st.sampled_from(["daily", "weekly", "monthly"]),
    hour=st.integers(0, 23),
    weekday=st.integers(0, 6),
    month_day=st.integers(1, 28),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Pacific/Apia", "Australia/Lord_Howe"]),
    minutes=st.integers(0, 6 * 365 * 1440),
)
def test_due_times_follow_each_other_without_gap_or_double(
    rhythm: str, hour: int, weekday: int, month_day: int, zone: str, minutes: int
) -> None:
    times = MailTimes(rhythm, hour, zone, weekday, month_day)
    now = dt.datetime(2022, 1, 1, tzinfo=dt.UTC) + dt.timedelta(minutes=minutes)
    last, following = times.latest(now), times.following(now)
    assert last <= now < following
    assert times.following(last) == following
    assert times.latest(following) == following
    gap = {"daily": (0.9, 1.1), "weekly": (6.9, 7.1), "monthly": (27.9, 31.1)}[rhythm]
    assert gap[0] <= (following - last) / DAY <= gap[1]


def test_a_day_with_a_change_of_clocks_has_its_mail_once() -> None:
    times = MailTimes("daily", 2, "Europe/Berlin")
    night = dt.datetime(2026, 3, 28, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    dues = []
    for _ in range(3):
        night = times.following(night)
        dues.append(night.isoformat())
    assert dues == ["2026-03-29T01:00:00+00:00", "2026-03-30T00:00:00+00:00", "2026-03-31T00:00:00+00:00"]
