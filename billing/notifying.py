"""How does a message leave this installation by e-mail?

Calls: the mail server of EMAIL_URL. Without one, mails are written to the log of the background process, and pages say
that mail is not set up (`is_mail_set_up`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage
from django.core.validators import validate_email

MAX_SUBJECT_CHARACTERS = 200


class Attachment(NamedTuple):
    """A file that goes with a mail. `media_type` as text/csv."""

    name: str
    content: bytes
    media_type: str


def is_mail_set_up() -> bool:
    """Say whether mails go to a mail server."""
    return bool(settings.POINTSMAN_MAIL_IS_SET_UP)


def is_mail_address(text: str) -> bool:
    """Say whether a text is one e-mail address."""
    try:
        validate_email(text)
    except ValidationError:
        return False
    return True


def send_mail(
    *,
    to: Sequence[str],
    subject: str,
    text: str,
    attachments: Sequence[Attachment] = (),
    message_id: str = "",
) -> None:
    """Send a plain text to one or more addresses, which see each other. Raises OSError (smtplib's errors are such).

    With a `message_id` (letters, digits, - and .) a mail that is sent twice can be known as one.
    """
    # A line break would begin another header; Django refuses it, and so nothing would ever be sent.
    line = " ".join(subject.split())[:MAX_SUBJECT_CHARACTERS]
    host = settings.DEFAULT_FROM_EMAIL.rpartition("@")[2].strip("> ") or "localhost"
    headers = {"Message-ID": f"<{message_id}@{host}>"} if message_id else {}
    message = EmailMessage(subject=line, body=text, to=list(to), headers=headers)
    for attachment in attachments:
        message.attach(attachment.name, attachment.content, attachment.media_type)
    message.send()
