"""May somebody try a password, after what they tried before? Counted for all workers together.

Writes: sign_in_tries. A try is counted before the password is looked at, in one statement: however many arrive at
once, at most `MAX_TRIES` passwords are checked before somebody has to wait.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.db import connection
from django.utils.crypto import salted_hmac

from policies.models import SignInTries

MAX_TRIES = 5
WAIT = dt.timedelta(minutes=5)
# Strangers invent names: each new one takes some of those away whose time is over, so that the table stays small.
FORGOTTEN_AT_ONCE = 100

# What is over begins anew. A try that is refused counts no further and prolongs nothing.
_TAKE = """
INSERT INTO policies_signintries AS tries (who_hash, count, ends_at) VALUES (%(who)s, 1, %(ends_at)s)
ON CONFLICT (who_hash) DO UPDATE SET
    count = CASE WHEN tries.ends_at <= %(now)s THEN 1 ELSE least(tries.count + 1, %(max)s + 1) END,
    ends_at = CASE WHEN tries.ends_at <= %(now)s OR tries.count < %(max)s THEN %(ends_at)s ELSE tries.ends_at END
RETURNING count
"""
# Skips what another worker is at: two that tidy up at once never wait for each other.
_FORGET_OLD = """
DELETE FROM policies_signintries WHERE who_hash IN (
    SELECT who_hash FROM policies_signintries WHERE ends_at <= %s LIMIT %s FOR UPDATE SKIP LOCKED
)
"""


def take_try(*, username: str, address: str, now: dt.datetime) -> bool:
    """Take one of the tries of this name from this address; False: none is left, wait until WAIT after the last."""
    values: dict[str, Any] = {
        "who": _who_hash(username, address),
        "now": now,
        "ends_at": now + WAIT,
        "max": MAX_TRIES,
    }
    with connection.cursor() as cursor:
        cursor.execute(_TAKE, values)
        count: int = cursor.fetchone()[0]
        if count == 1:
            cursor.execute(_FORGET_OLD, [now, FORGOTTEN_AT_ONCE])
    return count <= MAX_TRIES


def forget_tries(*, username: str, address: str) -> None:
    """Start afresh after a successful sign-in."""
    SignInTries.objects.filter(who_hash=_who_hash(username, address)).delete()


def _who_hash(username: str, address: str) -> str:
    who = f"{address}\n{username.lower()}".encode("utf-8", "replace")
    return salted_hmac("policies.sign_in_tries", who, algorithm="sha256").hexdigest()
