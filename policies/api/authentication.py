"""Who calls the management API: a program with a management token, or a person who is signed in to the console?

Reads: management_token. Writes: when a token was last used, and wrong tokens (`policies.sign_in_tries`).
API keys of clients never work here.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed, Throttled
from rest_framework.request import Request

from policies.management_tokens import actor_of, find_token, note_use, state_of
from policies.models import ManagementToken
from policies.sign_in_tries import WAIT, take_token_try

# What no token can be is not looked up, and never hashed: a header may hold 32 KiB.
MAX_HEADER_BYTES = 200


class ManagementTokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer pmt_…`. Another scheme, or no header, leaves the question to the next class.

    Wrong tokens are counted by address; one that is right passes all the same.
    """

    def authenticate(self, request: Request) -> tuple[AnonymousUser, ManagementToken] | None:
        scheme, _, secret = get_authorization_header(request).partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        token = find_token(secret.decode("ascii", "replace")) if len(secret) <= MAX_HEADER_BYTES else None
        now = timezone.now()
        if token is None:
            address = str(request.META.get("REMOTE_ADDR", ""))
            if not take_token_try(address=address, now=now):
                raise Throttled(wait=WAIT.total_seconds(), detail="Too many wrong tokens from this address.")
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
