"""How does a saved view reach people by mail, once for each time that it is due?

Writes: scheduled_mail, mail_delivery, change_event. Calls: `billing.notifying`. A row of mail_delivery is one mail:
unique for its due time, claimed by who sends it. What fails before the mail server had it is tried again; of what was
being handed over when a process died nobody knows, so it is not sent again and says so.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from functools import partial
from smtplib import SMTPServerDisconnected
from typing import Any, Final, NamedTuple
from zoneinfo import available_timezones

from celery import current_app
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone
from kombu.exceptions import OperationalError

from billing import notifying
from billing.export_files import FORMATS
from billing.job_failures import (
    Failure,
    explain_failure,
    explain_refused_mail,
    let_go_of_a_broken_connection,
)
from billing.mail_times import MailTimes
from billing.models import DeliveryState, MailDelivery, SavedView, ScheduledMail
from billing.money import format_usd
from billing.saved_views import table_of
from billing.spreadsheets import Sheet, as_csv, as_xlsx
from policies import changes
from policies.errors import ConfigurationError, InvalidValueError
from policies.permissions import Ability, may

_record = partial(changes.record_row, "scheduled_mail")

logger = logging.getLogger(__name__)

SEND_TASK: Final = "gateway.tasks.send_due_mails"
FILE_FORMATS: Final = ("xlsx", "csv")
MAX_RECIPIENTS: Final = 20
MAX_TRIES: Final = 3
TRY_AGAIN: Final = dt.timedelta(minutes=5)
# Reading a table takes seconds, a mail server at most some minutes.
STALE: Final = dt.timedelta(minutes=10)
TOP_ROWS: Final = 10
FIELDS: Final = (
    "rhythm",
    "weekday",
    "month_day",
    "hour",
    "time_zone",
    "recipients",
    "file_format",
    "is_enabled",
)
UNCLEAR: Final = (
    "The process died while it handed the mail to the mail server: it may have been sent, and is not sent again by"
    " itself."
)
UNCLEAR_ANSWER: Final = (
    "The mail server did not answer: it may have been sent, and is not sent again by itself."
)


class _MayNotSee(Exception):
    """Who made the schedule may not see the view any more; the text says why."""


class Mail(NamedTuple):
    """What is sent."""

    subject: str
    text: str
    file_name: str
    content: bytes
    media_type: str


@transaction.atomic
def make_schedule(*, view: SavedView, owner: User, now: dt.datetime, **fields: Any) -> ScheduledMail:
    """Send a view from now on. `fields`: FIELDS. Raises InvalidValueError."""
    schedule = ScheduledMail(view=view, owner=owner, since=now, **_checked(fields))
    schedule.save()
    _record(
        schedule, actor=owner.get_username(), action="create", after={**_checked(fields), "view": view.name}
    )
    return schedule


@transaction.atomic
def pause_schedule(*, schedule: ScheduledMail, is_enabled: bool, actor: str, now: dt.datetime) -> None:
    """Stop sending, or go on: what was due in between is not sent."""
    rows = ScheduledMail.objects.filter(pk=schedule.pk, is_enabled=not is_enabled)
    if rows.update(is_enabled=is_enabled, since=now):
        _record(
            schedule,
            actor=actor,
            action="change",
            before={"is_enabled": not is_enabled},
            after={"is_enabled": is_enabled},
        )


@transaction.atomic
def delete_schedule(*, schedule: ScheduledMail, actor: str) -> None:
    """Stop sending for good."""
    _record(
        schedule,
        actor=actor,
        action="delete",
        before={"recipients": schedule.recipients, "view": schedule.view.name},
    )
    schedule.delete()


@transaction.atomic
def send_now(*, schedule: ScheduledMail, actor: str, now: dt.datetime) -> MailDelivery:
    """Ask for a mail beside those that are due."""
    delivery, _ = MailDelivery.objects.get_or_create(
        schedule=schedule, due_at=now, defaults={"recipients": schedule.recipients, "asked_by": actor}
    )
    _record(schedule, actor=actor, action="send", after={"recipients": schedule.recipients})
    transaction.on_commit(_ask_a_worker)
    return delivery


def times_of(schedule: ScheduledMail) -> MailTimes:
    """When it is due."""
    return MailTimes(schedule.rhythm, schedule.hour, schedule.time_zone, schedule.weekday, schedule.month_day)


def note_due(*, now: dt.datetime) -> None:
    """Write a delivery for every schedule whose last due time has none. After a downtime that is one, not all."""
    found = []
    for schedule in ScheduledMail.objects.filter(is_enabled=True, view__deleted_at__isnull=True):
        due_at = times_of(schedule).latest(now)
        if due_at > schedule.since:
            found.append(MailDelivery(schedule=schedule, due_at=due_at, recipients=schedule.recipients))
    MailDelivery.objects.bulk_create(found, ignore_conflicts=True)


def send_due(*, now: dt.datetime | None = None) -> int:
    """Send what is due and was not sent; returns how many were. Called twice at once, each mail goes out once."""
    at = now or timezone.now()
    note_due(now=at)
    _give_up(at)
    free = MailDelivery.objects.filter(_free(at)).order_by("due_at", "pk").values_list("pk", flat=True)
    return sum(_send(pk, at) for pk in list(free))


def _free(at: dt.datetime) -> Q:
    waiting = Q(state=DeliveryState.WAITING) & (Q(try_again_at__isnull=True) | Q(try_again_at__lte=at))
    return waiting | Q(state=DeliveryState.BUILDING, claimed_at__lt=at - STALE, claim_count__lt=MAX_TRIES)


def _give_up(at: dt.datetime) -> None:
    """What nobody is to try again: it may have been sent, or killed whoever read its table."""
    MailDelivery.objects.filter(
        state=DeliveryState.BUILDING, claimed_at__lt=at - STALE, claim_count__gte=MAX_TRIES
    ).update(state=DeliveryState.FAILED, error=f"The worker died {MAX_TRIES} times.", finished_at=at)
    MailDelivery.objects.filter(state=DeliveryState.SENDING, claimed_at__lt=at - STALE).update(
        state=DeliveryState.FAILED, error=UNCLEAR, finished_at=at
    )


def _send(delivery_id: int, at: dt.datetime) -> bool:
    claimed = MailDelivery.objects.filter(_free(at), pk=delivery_id).update(
        state=DeliveryState.BUILDING, claimed_at=at, claim_count=F("claim_count") + 1
    )
    if not claimed:
        return False
    delivery = MailDelivery.objects.select_related("schedule__view__owner", "schedule__owner").get(
        pk=delivery_id
    )
    mine = MailDelivery.objects.filter(pk=delivery_id, claim_count=delivery.claim_count)
    try:
        mail = build_mail(delivery.schedule, now=at)
    except _MayNotSee as reason:
        mine.update(state=DeliveryState.FAILED, error=str(reason), finished_at=at)
        return False
    except Exception as error:
        logger.exception("scheduled mail %s cannot be written", delivery_id)
        let_go_of_a_broken_connection()
        _fail(mine, delivery, explain_failure(error), at)
        return False
    if not mine.filter(state=DeliveryState.BUILDING).update(state=DeliveryState.SENDING, claimed_at=at):
        return False
    try:
        notifying.send_mail(
            to=delivery.recipients,
            subject=mail.subject,
            text=mail.text,
            attachments=[notifying.Attachment(mail.file_name, mail.content, mail.media_type)],
            message_id=f"scheduled-mail-{delivery.schedule_id}-{delivery.due_at:%Y%m%d%H%M%S%f}",
        )
    except (TimeoutError, SMTPServerDisconnected) as error:
        # The server was silent, perhaps after it had everything.
        detail = explain_refused_mail(error).detail
        mine.update(state=DeliveryState.FAILED, error=UNCLEAR_ANSWER, error_detail=detail, finished_at=at)
        return False
    except (OSError, ValueError) as error:
        logger.warning("scheduled mail %s was refused: %s", delivery_id, type(error).__name__)
        _fail(mine, delivery, explain_refused_mail(error), at)
        return False
    mine.update(state=DeliveryState.SENT, error="", error_detail="", finished_at=timezone.now())
    return True


def _fail(mine: Any, delivery: MailDelivery, failure: Failure, at: dt.datetime) -> None:
    """Try again a little later, three times in all; the reason stays to be read."""
    told = {"error": failure.text, "error_detail": failure.detail}
    if delivery.claim_count < MAX_TRIES:
        later = at + TRY_AGAIN * delivery.claim_count
        mine.update(state=DeliveryState.WAITING, try_again_at=later, **told)
    else:
        mine.update(state=DeliveryState.FAILED, finished_at=at, **told)


def build_mail(schedule: ScheduledMail, *, now: dt.datetime) -> Mail:
    """The mail of a schedule as of now. Raises _MayNotSee when who made it may not see the view any more."""
    _check_sight(schedule)
    answer = table_of(schedule.view, now=now, sees_margin=may(schedule.owner, Ability.SEE_MARGIN))
    sheet = answer.sheet
    period = answer.question.period
    days = f"{period.first_day} to {period.last_day}"
    content = as_xlsx(sheet) if schedule.file_format == "xlsx" else as_csv(sheet).encode()
    lines = [
        schedule.view.name,
        f"{dict(sheet.about).get('Report', sheet.name)}, {days}, whole days in UTC.",
        "",
        *_top_rows(sheet),
        "",
        f"The whole table is attached. Sent {schedule.get_rhythm_display()} by {schedule.owner.get_username()};"
        " whoever may open Saved views in the console of Pointsman can stop it.",
    ]
    return Mail(
        subject=f"{schedule.view.name}: {days}",
        text="\n".join(lines),
        file_name=f"{answer.file_stem}.{schedule.file_format}",
        content=content,
        media_type=FORMATS[schedule.file_format].partition(";")[0],
    )


def _check_sight(schedule: ScheduledMail) -> None:
    owner, view = schedule.owner, schedule.view
    name = owner.get_username()
    if not (may(owner, Ability.READ) and may(owner, Ability.MAIL_REPORTS)):
        raise _MayNotSee(f"{name}, who made this schedule, may not send reports any more.")
    if view.deleted_at is not None:
        raise _MayNotSee("The view was deleted.")
    if view.owner_id != owner.pk and not view.is_shared:
        raise _MayNotSee(f"The view is not shared with {name} any more.")


def _top_rows(sheet: Sheet) -> list[str]:
    """The first rows and the total, as a table of plain text."""
    places = {column.name: place for place, column in enumerate(sheet.columns)}
    label = places.get("key", 0)
    amounts = [name for name in ("cost_usd", "charge_usd") if name in places]
    rows: list[Sequence[Any]] = [*sheet.rows[:TOP_ROWS], sheet.total]
    cells = [
        [
            str(row[0] if row is sheet.total else row[label])[:50],
            *(format_usd(row[places[name]]) for name in amounts),
            f"{row[places['request_count']]:,}",
        ]
        for row in rows
    ]
    cells.insert(0, [sheet.columns[label].name, *(name.removesuffix("_usd") for name in amounts), "requests"])
    widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))]
    lines = [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in cells
    ]
    if len(sheet.rows) > TOP_ROWS:
        lines.insert(-1, f"and {len(sheet.rows) - TOP_ROWS:,} more")
    return lines


def _ask_a_worker() -> None:
    try:
        current_app.send_task(SEND_TASK, retry=False)
    except (OperationalError, OSError) as error:
        # Only a hint: the clock sends what is due every minute.
        logger.warning("a mail waits, the broker cannot be reached: %s", error)


def _checked(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a schedule, if all of them make sense. Raises InvalidValueError."""
    if unknown := sorted(set(fields) - set(FIELDS)):
        raise ConfigurationError(f"there is no field {unknown[0]}")
    problems: dict[str, list[str]] = {}
    if fields.get("rhythm") not in ScheduledMail.Rhythm.values:
        problems["rhythm"] = ["Choose daily, weekly or monthly."]
    ranges = {"weekday": (0, 6, 0), "month_day": (1, 28, 1), "hour": (0, 23, 7)}
    for name, (least, most, default) in ranges.items():
        value = fields.setdefault(name, default)
        if not isinstance(value, int) or not least <= value <= most:
            problems[name] = [f"Choose a number from {least} to {most}."]
    if fields.setdefault("time_zone", "UTC") not in available_timezones():
        problems["time_zone"] = ["There is no such time zone; write it as Europe/Berlin."]
    if fields.setdefault("file_format", "xlsx") not in FILE_FORMATS:
        problems["file_format"] = ["Choose XLSX or CSV."]
    recipients = list(dict.fromkeys(fields.get("recipients") or []))
    wrong = [text for text in recipients if not notifying.is_mail_address(text)]
    if not 1 <= len(recipients) <= MAX_RECIPIENTS:
        problems["recipients"] = [f"Name 1 to {MAX_RECIPIENTS} addresses."]
    elif wrong:
        problems["recipients"] = [f"{wrong[0][:100]} is not an e-mail address."]
    if problems:
        raise InvalidValueError(problems)
    return {**fields, "recipients": recipients}
