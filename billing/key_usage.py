"""On which day was each API key last used?

Reads: usage_by_day. Days are UTC. What keys spent is in `billing.reports`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection

from django.db.models import Max

from billing.models import UsageByDay


def last_used_days(key_ids: Collection[int]) -> dict[int, dt.date]:
    """The last day with a request, by key id; keys that were never used are missing. One query."""
    rows = UsageByDay.objects.filter(api_key__in=list(key_ids)).order_by()
    return dict(rows.values_list("api_key").annotate(last=Max("day")))
