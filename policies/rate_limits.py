"""How does a rate limit come to be, change and go?

Writes: rate_limit, rate_window (its first state), change_event. The only writer of limits; what is taken of one is
written by `gateway.rate_limit_shares`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from django.db import transaction

from policies import changes
from policies.errors import InvalidValueError
from policies.models import ApiKey, Deployment, Project, RateLimit, RateWindow, Tenant

_record = partial(changes.record_row, "rate_limit")

Owner = Tenant | Project | ApiKey | Deployment

LIMIT_FIELDS: Final = ("requests_per_minute", "tokens_per_minute", "concurrent")
# Far beyond any gateway, and sums of amounts stay far from 64 bits.
MAX_LIMITS: Final = {
    "requests_per_minute": 100_000_000,
    "tokens_per_minute": 1_000_000_000_000,
    "concurrent": 1_000_000,
}


@transaction.atomic
def set_rate_limit(
    *,
    owner: Owner,
    actor: str,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
    concurrent: int | None = None,
) -> RateLimit | None:
    """Limit a tenant, project, key or deployment to exactly this; all None: no limit any more.

    Raises InvalidValueError. What was taken in the last minute goes on counting.
    """
    wanted = dict(zip(LIMIT_FIELDS, (requests_per_minute, tokens_per_minute, concurrent), strict=True))
    _check(owner, wanted)
    row = find_rate_limit(owner, is_locked=True)
    before = describe(row)
    after = {name: value for name, value in wanted.items() if value is not None}
    if before == after:
        return row
    if not after:
        assert row is not None  # otherwise nothing would change
        _record(row, actor=actor, action="delete", before=before)
        row.delete()
        return None
    if row is None:
        row = RateLimit.objects.create(**{owner_field(owner): owner}, **wanted, created_by=actor[:150])
        RateWindow.objects.create(rate_limit=row)
        _record(row, actor=actor, action="create", after=after)
        return row
    for name, value in wanted.items():
        setattr(row, name, value)
    row.save(update_fields=list(LIMIT_FIELDS))
    changed = [name for name in LIMIT_FIELDS if before.get(name) != after.get(name)]
    _record(
        row,
        actor=actor,
        action="change",
        before={name: before.get(name) for name in changed},
        after={name: after.get(name) for name in changed},
    )
    return row


def find_rate_limit(owner: Owner, *, is_locked: bool = False) -> RateLimit | None:
    """The limit of an owner. A key takes its predecessor's over when it is rotated (`issuing.rotate_key`)."""
    rows = RateLimit.objects.filter(**{owner_field(owner): owner})
    if is_locked:
        rows = rows.select_for_update()
    return rows.first()


def owner_field(owner: Owner) -> str:
    """The column that names an owner of this kind."""
    if isinstance(owner, Tenant):
        return "tenant"
    if isinstance(owner, Project):
        return "project"
    return "api_key" if isinstance(owner, ApiKey) else "deployment"


def describe(row: RateLimit | None) -> dict[str, Any]:
    """The limits that are set, by name; empty for no limit."""
    if row is None:
        return {}
    return {name: value for name in LIMIT_FIELDS if (value := getattr(row, name)) is not None}


def _check(owner: Owner, wanted: dict[str, int | None]) -> None:
    problems: dict[str, list[str]] = {}
    for name, value in wanted.items():
        if value is not None and not 0 < value <= MAX_LIMITS[name]:
            problems[name] = [f"a whole number from 1 to {MAX_LIMITS[name]:,}, or nothing for no limit"]
    if isinstance(owner, ApiKey) and (owner.replaced_by_id is not None or owner.revoked_at is not None):
        problems[""] = [f"{owner} is revoked or replaced: choose the key in use"]
    if problems:
        raise InvalidValueError(problems)
