"""How is an API key issued, replaced and taken back?

Writes: api_key, change_event. The only writer of API keys. A secret leaves these functions once and is kept
nowhere.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from functools import partial
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from policies import changes, keys
from policies.errors import ConfigurationError, InUseError, InvalidValueError, NameTakenError
from policies.models import ApiKey, Model, Policy, Project, RateLimit
from policies.row_changes import refuse_unstorable_text, save_checked, set_fields

_record = partial(changes.record_row, "api_key")

MIN_SECRET_CHARACTERS = 16
MAX_SECRET_CHARACTERS = 500
KEY_FIELDS = ("owner", "is_pinned", "allowed_models", "expires_at")


@transaction.atomic
def issue_key(
    *,
    project: Project,
    name: str,
    actor: str,
    owner: str = "",
    secret: str | None = None,
    is_pinned: bool = False,
    allowed_models: Collection[str] = (),
    expires_at: dt.datetime | None = None,
) -> tuple[ApiKey, str]:
    """Issue a key and return it with its secret: the one made here, or the one given (16 characters or more).

    Raises ConfigurationError: a wrong value, a name that a current key of the project has, a secret in use.
    """
    if ApiKey.objects.filter(
        project=project, name=name, revoked_at__isnull=True, replaced_by__isnull=True
    ).exists():
        raise NameTakenError(f"{project} already has a current key named {name}: rotate or revoke it first")
    row = ApiKey(
        project=project,
        name=name,
        owner=owner,
        is_pinned=is_pinned,
        allowed_models=_known_models(allowed_models),
        expires_at=_future(expires_at),
        created_by=actor,
    )
    secret = _set_secret(row, secret)
    save_checked(row)
    _record(row, actor=actor, action="issue", after=_describe(row))
    return row, secret


@transaction.atomic
def rotate_key(
    *, key: ApiKey, overlap: dt.timedelta, actor: str, secret: str | None = None
) -> tuple[ApiKey, str]:
    """Issue the successor of a key; the old secret goes on working for `overlap`, then expires.

    No overlap revokes the old one at once. Raises InUseError when the key is revoked or already replaced.
    """
    if overlap < dt.timedelta(0):
        raise InvalidValueError({"overlap": ["an overlap is not negative"]})
    old = _lock(key)
    if old.revoked_at is not None or old.replaced_by_id is not None:
        raise InUseError(f"{old} is {'revoked' if old.revoked_at else 'already replaced'}: issue a new key")
    now = timezone.now()
    new = ApiKey(
        pk=_next_id(),
        project=old.project,
        name=old.name,
        owner=old.owner,
        is_pinned=old.is_pinned,
        allowed_models=old.allowed_models,
        expires_at=old.expires_at if old.expires_at and old.expires_at > now else None,
        created_by=actor,
    )
    secret = _set_secret(new, secret)
    # The name is unique among current keys, so the old row points to its successor before that exists;
    # the foreign key is checked at commit.
    old.replaced_by_id = new.pk
    if overlap:
        old.expires_at = min(now + overlap, old.expires_at or dt.datetime.max.replace(tzinfo=dt.UTC))
    else:
        old.revoked_at = now
    old.save(update_fields=["replaced_by", "expires_at", "revoked_at"])
    # The limit is of the key, whatever its secret: old and new share it while both work (`rate_limit_scopes`).
    RateLimit.objects.filter(api_key=old).update(api_key=new)
    refuse_unstorable_text(new)
    new.save(force_insert=True)
    ends_at = old.revoked_at or old.expires_at
    _record(
        old,
        actor=actor,
        action="rotate",
        after={"successor": new.pk, "ends_at": ends_at and ends_at.isoformat()},
    )
    _record(new, actor=actor, action="issue", after=_describe(new))
    return new, secret


@transaction.atomic
def change_key(*, key: ApiKey, actor: str, **fields: Any) -> ApiKey:
    """Change owner, is_pinned, allowed_models or expires_at of a key that is not revoked."""
    row = _lock(key)
    if row.revoked_at is not None:
        raise InUseError(f"{row} is revoked and does not change any more")
    if "allowed_models" in fields:
        fields["allowed_models"] = _known_models(fields["allowed_models"])
    if fields.get("expires_at") not in (None, row.expires_at):
        fields["expires_at"] = _future(fields["expires_at"])
    before, after = set_fields(row, fields, allowed=KEY_FIELDS)
    if after:
        save_checked(row)
        _record(row, actor=actor, action="change", before=before, after=after)
    return row


@transaction.atomic
def revoke_key(*, key: ApiKey, actor: str) -> ApiKey:
    """Take a key back for good; workers refuse it within 2 s. Revoking twice changes nothing."""
    row = _lock(key)
    if row.revoked_at is None:
        row.revoked_at = timezone.now()
        row.save(update_fields=["revoked_at"])
        _record(row, actor=actor, action="revoke", after={"revoked_at": row.revoked_at.isoformat()})
    return row


def is_secret_of(key: ApiKey, secret: str) -> bool:
    """Say whether this text is the key's secret."""
    return bytes(key.secret_hash) == keys.hash_secret(secret, pepper=settings.POINTSMAN_KEY_PEPPER)


def _lock(key: ApiKey) -> ApiKey:
    return ApiKey.objects.select_related("project__tenant").select_for_update(of=("self",)).get(pk=key.pk)


def _next_id() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT nextval(pg_get_serial_sequence(%s, 'id'))", [ApiKey._meta.db_table])
        return int(cursor.fetchone()[0])


def _set_secret(row: ApiKey, secret: str | None) -> str:
    """Give the row the hash of a secret and return the secret. Refusals never repeat it."""
    if secret is None:
        secret = keys.make_secret()
    if not MIN_SECRET_CHARACTERS <= len(secret) <= MAX_SECRET_CHARACTERS:
        raise InvalidValueError(
            {"secret": [f"a secret has {MIN_SECRET_CHARACTERS} to {MAX_SECRET_CHARACTERS} characters"]}
        )
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise InvalidValueError(
            {"secret": ["a secret is printable ASCII without spaces, so that a header carries it"]}
        )
    row.secret_hash = keys.hash_secret(secret, pepper=settings.POINTSMAN_KEY_PEPPER)
    row.secret_hint = keys.hint_of(secret)
    if ApiKey.objects.filter(secret_hash=row.secret_hash).exists():
        raise ConfigurationError("this secret is or was the secret of another key: choose another")
    return secret


def _known_models(names: Collection[str]) -> list[str]:
    """Return the names sorted. Raises InvalidValueError for one that is neither a model nor a policy."""
    if isinstance(names, str):
        raise InvalidValueError({"allowed_models": ["a list of names is needed"]})
    wanted = set(names)
    known = set(Model.objects.filter(name__in=wanted).values_list("name", flat=True))
    known |= set(Policy.objects.filter(public_id__in=wanted).values_list("public_id", flat=True))
    if missing := sorted(wanted - known):
        raise InvalidValueError({"allowed_models": [f"no such model or policy: {', '.join(missing)}"]})
    return sorted(wanted)


def _future(expires_at: dt.datetime | None) -> dt.datetime | None:
    if expires_at is None:
        return None
    if timezone.is_naive(expires_at):
        raise InvalidValueError({"expires_at": ["a time needs its time zone"]})
    if expires_at <= timezone.now():
        raise InvalidValueError({"expires_at": ["this time has passed"]})
    return expires_at


def _describe(row: ApiKey) -> dict[str, Any]:
    return {
        "name": row.name,
        "hint": row.secret_hint,
        "owner": row.owner,
        "is_pinned": row.is_pinned,
        "allowed_models": row.allowed_models,
        "expires_at": row.expires_at.isoformat() if row.expires_at else None,
    }
