"""Who calls the management API: a program with a management token, or a person who is signed in to the console?

Reads: management_token, the cache (failed authentications). Writes: when a token was last used, the cache.
API keys of clients never work here.
"""

from __future__ import annotations

import hashlib
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.core.cache import cache
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed, Throttled
from rest_framework.request import Request

from policies.management_tokens import actor_of, find_token, note_use, state_of
from policies.models import ManagementToken

MAX_FAILURES = 20
WINDOW_S = 300
# What no token can be is not looked up, and never hashed: a header may hold 32 KiB.
MAX_HEADER_BYTES = 200


class ManagementTokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer pmt_…`. Another scheme, or no header, leaves the question to the next class.

    Failures are counted by address, in each process's cache. A token that is right passes all the same: 256 random
    bits cannot be guessed, and strangers behind the same proxy must not be able to shut it out.
    """

    def authenticate(self, request: Request) -> tuple[AnonymousUser, ManagementToken] | None:
        scheme, _, secret = get_authorization_header(request).partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        token = find_token(secret.decode("ascii", "replace")) if len(secret) <= MAX_HEADER_BYTES else None
        now = timezone.now()
        if token is None:
            _count_failure(request)
            raise AuthenticationFailed("This is no management token. API keys open /v1, not this API.")
        state = state_of(token, now=now)
        if state != "active":
            raise AuthenticationFailed(f"The token {token.name} is {state}.")
        note_use(token, now=now)
        return AnonymousUser(), token

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="Pointsman management API"'


def actor_of_request(request: Request) -> str:
    """The name under which this caller's changes stand in the audit log."""
    token: Any = request.auth
    return actor_of(token) if isinstance(token, ManagementToken) else str(request.user.get_username())


def _count_failure(request: Request) -> None:
    """Remember a failure. Raises Throttled when there were too many."""
    who = str(request.META.get("REMOTE_ADDR", ""))
    key = "management-failures:" + hashlib.sha256(who.encode("utf-8", "replace")).hexdigest()
    cache.add(key, 0, WINDOW_S)
    try:
        count = cache.incr(key)
    except ValueError:
        # It expired between the two calls: the next failure begins a new window.
        return
    if count > MAX_FAILURES:
        raise Throttled(wait=WINDOW_S, detail="Too many wrong tokens from this address.")
