"""On which day was each API key last used, and may it be used now?

Reads: usage_by_key_day. Days are UTC. What keys spent is in `billing.reports`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from typing import Protocol

from django.db.models import Max

from billing.models import UsageByKeyDay


class Lasting(Protocol):
    """What says how long a key may be used: a row of keys, or a report's."""

    @property
    def expires_at(self) -> dt.datetime | None: ...

    @property
    def revoked_at(self) -> dt.datetime | None: ...


def state_of(key: Lasting, now: dt.datetime) -> str:
    """active, expiring (ends within a week), expired or revoked."""
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is None or key.expires_at > now + dt.timedelta(days=7):
        return "active"
    return "expiring" if key.expires_at > now else "expired"


def last_used_days(key_ids: Collection[int]) -> dict[int, dt.date]:
    """The last day with a request, by key id; keys that were never used are missing. One query."""
    rows = UsageByKeyDay.objects.filter(api_key__in=list(key_ids)).order_by()
    return dict(rows.values_list("api_key").annotate(last=Max("day")))
