"""How does an alert arrive, and what if it does not?

Writes: alert_delivery. Calls: the mail server, webhooks. A row waits until it is sent or given up after eight tries
(about 28 hours): who dies in between tries again, so a message arrives at least once, always under the same id.
"""

from __future__ import annotations

import datetime as dt
import logging
import smtplib
import time
import uuid

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from billing import webhooks
from billing.alert_words import Message, test_message, webhook_id
from billing.models import AlertDelivery, AlertRecipient, BudgetAlert
from billing.notifying import is_mail_set_up, send_mail
from policies import changes
from policies.credentials import decrypt_credential
from policies.errors import CredentialError

logger = logging.getLogger(__name__)

# After the first try, the second, …
RETRY_AFTER_S = (60, 300, 1_800, 7_200, 18_000, 36_000, 36_000)
# Longer than any try takes: nobody else takes up a message that is being sent.
CLAIM = dt.timedelta(minutes=2)
# One process does all background work: messages must not hold it up for long.
RUN_S = 20.0
KEPT = dt.timedelta(days=90)


def queue_delivery(
    *, recipient: AlertRecipient, message: Message, alert: BudgetAlert | None, now: dt.datetime
) -> AlertDelivery:
    """Put a message where `deliver_due` finds it. Call inside the transaction that is its reason."""
    return AlertDelivery.objects.create(
        recipient=recipient,
        alert=alert,
        subject=message.subject[:300],
        body=message.body,
        created_at=now,
        due_at=now,
    )


@transaction.atomic
def send_test(*, recipient: AlertRecipient, actor: str, now: dt.datetime) -> AlertDelivery:
    """Queue a test for one recipient."""
    message = test_message(recipient, now=now, public_url=settings.POINTSMAN_PUBLIC_URL)
    changes.record_change(
        actor=actor,
        action="test",
        object_type="alert_recipient",
        object_id=recipient.pk,
        object_name=recipient.address[:200],
    )
    return queue_delivery(recipient=recipient, message=message, alert=None, now=now)


def deliver_due(*, now: dt.datetime) -> int:
    """Send what is due, one after the other, for some seconds; return how many arrived."""
    begun_s = time.monotonic()
    sent = 0
    while time.monotonic() - begun_s < RUN_S:
        row = _claim(now)
        if row is None:
            break
        sent += deliver(row)
    return sent


def deliver(row: AlertDelivery) -> bool:
    """Try once to send a claimed message, and note what became of it."""
    is_final = False
    problem = ""
    try:
        note = _send(row)
    except webhooks.WebhookError as failure:
        problem, is_final = str(failure), failure.is_final
    except CredentialError as failure:
        problem = str(failure)
    except OSError as failure:  # smtplib's errors are such; their texts may quote the mail
        code = f" {failure.smtp_code}" if isinstance(failure, smtplib.SMTPResponseException) else ""
        problem = f"the mail server refused it ({type(failure).__name__}{code})"
    at = timezone.now()
    if not problem:
        row.state, row.ended_at, row.problem = AlertDelivery.State.SENT, at, note
    elif is_final or row.try_count > len(RETRY_AFTER_S):
        row.state, row.ended_at, row.problem = AlertDelivery.State.FAILED, at, problem[:300]
        logger.error("an alert to recipient %s is given up: %s", row.recipient_id, problem)
    else:
        row.due_at = at + dt.timedelta(seconds=RETRY_AFTER_S[row.try_count - 1])
        row.problem = problem[:300]
    row.save(update_fields=["state", "ended_at", "problem", "due_at"])
    return not problem


def forget_old(*, now: dt.datetime) -> int:
    """Delete messages that ended long ago; alerts stay."""
    gone, _ = AlertDelivery.objects.filter(ended_at__lt=now - KEPT).delete()
    return gone


def _claim(now: dt.datetime) -> AlertDelivery | None:
    """Take the message that is due longest; until CLAIM has passed it is nobody else's."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE billing_alertdelivery SET due_at = %s, try_count = try_count + 1 WHERE id ="
            " (SELECT id FROM billing_alertdelivery WHERE state = 'waiting' AND due_at <= %s"
            " ORDER BY due_at, id FOR UPDATE SKIP LOCKED LIMIT 1) RETURNING id",
            [now + CLAIM, now],
        )
        found = cursor.fetchone()
    if found is None:
        return None
    row_id: uuid.UUID = found[0]
    return AlertDelivery.objects.select_related("recipient__tenant").filter(pk=row_id).first()


def _send(row: AlertDelivery) -> str:
    """Send; return what there is to say about it."""
    recipient = row.recipient
    if recipient.channel == AlertRecipient.Channel.EMAIL:
        send_mail(to=[recipient.address], subject=row.subject, text=row.body, message_id=row.id.hex)
        return "" if is_mail_set_up() else "Mail is not set up: it stands in the log."
    webhooks.post(
        recipient.address,
        secret=decrypt_credential(recipient.secret_ciphertext),
        message_id=webhook_id(row.id),
        timestamp_s=int(timezone.now().timestamp()),
        body=row.body.encode(),
        allow_private_network=recipient.allow_private_network,
    )
    return ""
