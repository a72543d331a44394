"""How does a program get a management token, who is it, and how is the token taken back?

Writes: management_token, change_event. The only writer of the first. A secret leaves `issue_token` once and is kept
nowhere.
"""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Collection
from enum import StrEnum
from functools import partial

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from policies import changes, keys
from policies.errors import InvalidValueError
from policies.models import ManagementToken
from policies.row_changes import save_checked

_record = partial(changes.record_row, "management_token")

PREFIX = "pmt_"
SECRET_CHARACTERS = len(PREFIX) + 43
# A row written at every call would be the busiest of the database; the hour is enough to find tokens nobody uses.
LAST_USE_STEP = dt.timedelta(hours=1)


class Scope(StrEnum):
    """What a token may do. None includes another: a token that only publishes cannot read."""

    READ = "read"
    CATALOG = "catalog"
    PRICES = "prices"
    BUDGETS = "budgets"
    ACCESS = "access"
    POLICIES = "policies"
    PUBLISH = "publish"
    STATEMENTS = "statements"
    BILLING = "billing"


SCOPE_DESCRIPTIONS: dict[Scope, str] = {
    Scope.READ: "Read everything that the API shows.",
    Scope.CATALOG: "Change providers, models and deployments.",
    Scope.PRICES: "Add prices.",
    Scope.BUDGETS: "Make, change and delete budgets.",
    Scope.ACCESS: "Change tenants and projects; issue, rotate and revoke API keys.",
    Scope.POLICIES: "Create and edit policies and their drafts, try requests, run backtests.",
    Scope.PUBLISH: "Publish drafts, run canaries, roll back.",
    Scope.STATEMENTS: "Close months; issue, pay, void and credit statements.",
    Scope.BILLING: "Grant, pay back and end credit; set exchange rates and billing details.",
}


@transaction.atomic
def issue_token(
    *, name: str, scopes: Collection[str], actor: str, expires_at: dt.datetime | None = None
) -> tuple[ManagementToken, str]:
    """Issue a token and return it with its secret. Raises InvalidValueError, NameTakenError."""
    unknown = sorted(set(scopes) - set(Scope))
    if unknown or not scopes:
        told = f"no such scope: {', '.join(unknown)}" if unknown else "choose at least one scope"
        raise InvalidValueError({"scopes": [told]})
    if expires_at is not None:
        if timezone.is_naive(expires_at):
            raise InvalidValueError({"expires_at": ["a time needs its time zone"]})
        if expires_at <= timezone.now():
            raise InvalidValueError({"expires_at": ["this time has passed"]})
    secret = PREFIX + secrets.token_urlsafe(32)
    row = ManagementToken(
        name=name,
        scopes=[scope.value for scope in Scope if scope in scopes],
        secret_hash=_hash(secret),
        secret_hint=keys.hint_of(secret),
        created_by=actor,
        expires_at=expires_at,
    )
    save_checked(row)
    after = {
        "scopes": row.scopes,
        "hint": row.secret_hint,
        "expires_at": expires_at.isoformat() if expires_at else None,
    }
    _record(row, actor=actor, action="issue", after=after)
    return row, secret


@transaction.atomic
def revoke_token(*, token: ManagementToken, actor: str) -> ManagementToken:
    """Take a token back for good, from the next request on. Revoking twice changes nothing."""
    row = ManagementToken.objects.select_for_update().get(pk=token.pk)
    if row.revoked_at is None:
        row.revoked_at = timezone.now()
        row.save(update_fields=["revoked_at"])
        _record(row, actor=actor, action="revoke", after={"revoked_at": row.revoked_at.isoformat()})
    return row


def find_token(secret: str) -> ManagementToken | None:
    """Return the token of a secret, also a revoked or expired one; None for a secret that is nobody's."""
    if not secret.startswith(PREFIX) or len(secret) != SECRET_CHARACTERS:
        return None
    return ManagementToken.objects.filter(secret_hash=_hash(secret)).first()


def state_of(token: ManagementToken, *, now: dt.datetime) -> str:
    """Return "active", "expired" or "revoked"."""
    if token.revoked_at is not None:
        return "revoked"
    return "expired" if token.expires_at is not None and token.expires_at <= now else "active"


def note_use(token: ManagementToken, *, now: dt.datetime) -> None:
    """Remember that a token is in use, at most once an hour."""
    if token.last_used_at is None or token.last_used_at <= now - LAST_USE_STEP:
        is_due = Q(last_used_at__isnull=True) | Q(last_used_at__lte=now - LAST_USE_STEP)
        ManagementToken.objects.filter(is_due, pk=token.pk).update(last_used_at=now)


def actor_of(token: ManagementToken) -> str:
    """The name under which a token's changes stand in the audit log."""
    return f"token:{token.name}"


def person_behind(actor: str) -> str:
    """The person who answers for an actor: who issued the token `token:NAME`, else the actor itself.

    For rules such as four eyes, where a token must not be somebody's second pair.
    """
    kind, _, name = actor.partition(":")
    if kind != "token":
        return actor
    issued_by = ManagementToken.objects.filter(name=name).values_list("created_by", flat=True).first()
    return issued_by or actor


def _hash(secret: str) -> bytes:
    return keys.hash_secret(secret, pepper=settings.POINTSMAN_KEY_PEPPER)
