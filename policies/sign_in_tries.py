"""May somebody try a password or a management token, after what they tried before? Counted for all workers together.

Writes: sign_in_tries. A try is counted in one statement, a password's before it is looked at: however many arrive at
once, at most `MAX_TRIES` passwords are checked before somebody has to wait.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.db import connection
from django.utils.crypto import salted_hmac

from policies.models import SignInTries

MAX_TRIES = 5
# Wrong ones of an address. A right token passes all the same: 256 random bits cannot be guessed, and strangers behind
# the same proxy must not be able to shut it out.
MAX_TOKEN_TRIES = 20
WAIT = dt.timedelta(minutes=5)
# Strangers invent names: each new one takes some of those away whose time is over, so that the table stays small.
FORGOTTEN_AT_ONCE = 100

# What is over begins anew. A try that is refused writes and prolongs nothing: it gets no row back.
_TAKE = """
INSERT INTO policies_signintries AS tries (who_hash, count, ends_at) VALUES (%(who)s, 1, %(ends_at)s)
ON CONFLICT (who_hash) DO UPDATE SET
    count = CASE WHEN tries.ends_at <= %(now)s THEN 1 ELSE tries.count + 1 END, ends_at = %(ends_at)s
WHERE tries.ends_at <= %(now)s OR tries.count < %(max)s
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
    return _take(_who_hash(username, address), most=MAX_TRIES, now=now)


def take_token_try(*, address: str, now: dt.datetime) -> bool:
    """Count a wrong token from this address; False: there were too many, wait until WAIT after the last."""
    return _take(_who_hash("", address, about="token"), most=MAX_TOKEN_TRIES, now=now)


def forget_tries(*, username: str, address: str) -> None:
    """Start afresh after a successful sign-in."""
    SignInTries.objects.filter(who_hash=_who_hash(username, address)).delete()


def _take(who_hash: str, *, most: int, now: dt.datetime) -> bool:
    values: dict[str, Any] = {"who": who_hash, "now": now, "ends_at": now + WAIT, "max": most}
    with connection.cursor() as cursor:
        cursor.execute(_TAKE, values)
        row = cursor.fetchone()
        if row == (1,):
            cursor.execute(_FORGET_OLD, [now, FORGOTTEN_AT_ONCE])
    return row is not None


def _who_hash(username: str, address: str, *, about: str = "") -> str:
    who = f"{address}\n{username.lower()}".encode("utf-8", "replace")
    return salted_hmac(f"policies.sign_in_tries{about}", who, algorithm="sha256").hexdigest()
