"""What did every API key spend, whose is it, and which of them grew as keys do not usually grow?

Reads: usage_by_day (by `billing.spend`), api_key. The rule of what is unusual is `growth_of`; pages print its words.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from django.db.models import Q

from billing import reports
from billing.reports import DayTotals
from billing.spend import NOTHING, Row, read_rows, total_of
from billing.spend_questions import Period, Question
from policies.models import ApiKey

Growth = Literal["", "grew", "new"]
GREW_TIMES: Final = 2
# Shares of everything that all keys spent: smaller amounts are noise.
GREW_AT_LEAST_PER_CENT: Final = 1
NEW_AT_LEAST_PER_CENT: Final = 5
GROWTH_RULE: Final = (
    f"Unusual is a key that spent at least {GREW_TIMES} times as much a day as in the period before, and at least "
    f"{GREW_AT_LEAST_PER_CENT} % of all spend more; or one without a request in the period before that spent at least "
    f"{NEW_AT_LEAST_PER_CENT} % of all. A rotated key counts together with the one it replaced."
)


class Key(NamedTuple):
    """What the report says of a key. Thousands are read: rows of the ORM would take most of the time."""

    pk: int
    tenant: str
    project: str
    name: str
    owner: str
    secret_hint: str
    expires_at: dt.datetime | None
    revoked_at: dt.datetime | None
    replaced_by_id: int | None

    @property
    def full_name(self) -> str:
        return f"{self.tenant}/{self.project}/{self.name}"


_KEY_COLUMNS: Final = (
    "pk", "project__tenant__name", "project__name", "name", "owner", "secret_hint", "expires_at", "revoked_at",
    "replaced_by_id",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One key in both periods. `growth`: empty, or why it is unusual.

    `times`: how many times as much a day as before; None too for those that spent too little to be looked at.
    """

    key: Key
    row: Row
    growth: Growth
    times: float | None

    @property
    def name(self) -> str:
        return self.key.full_name


@dataclass(frozen=True, slots=True)
class KeySpend:
    """Keys that may be used, and others that spent in either period. The rows sum to `total`."""

    question: Question
    rows: tuple[KeyRow, ...]
    total: Row

    @property
    def unusual(self) -> list[KeyRow]:
        return [row for row in self.rows if row.growth]


# Whoever spends less is not unusual by either rule.
_LOOKED_AT_PER_CENT: Final = min(GREW_AT_LEAST_PER_CENT, NEW_AT_LEAST_PER_CENT)
_NOT_UNUSUAL: Final[tuple[Growth, float | None]] = ("", None)

_SORTS: Final[Mapping[str, Callable[[KeyRow], Any]]] = {
    "key": lambda row: row.name,
    "owner": lambda row: (row.key.owner == "", row.key.owner.lower()),
    "spend": lambda row: row.row.totals.cost_nanousd,
    "before": lambda row: row.row.before.cost_nanousd,
    "change": lambda row: row.row.change_nanousd,
    "requests": lambda row: row.row.totals.request_count,
}
SORTS: Final = tuple(_SORTS)


def read_key_spend(
    question: Question,
    *,
    now: dt.datetime,
    q: str = "",
    only_unusual: bool = False,
    sort: str = "spend",
    descending: bool = True,
) -> KeySpend:
    """Read all keys in four queries. `q`: part of a key's, an owner's, a project's or a tenant's name.

    What is unusual is judged among all keys in the question's scope, whatever is shown of them.
    """
    assert question.by == "key"
    with reports.one_moment():
        keys = {row[0]: Key(*row) for row in _keys(question, now).values_list(*_KEY_COLUMNS)}
        rows = {row.id: row for row in read_rows(question)}
        missing = [pk for pk in rows if pk is not None and pk not in keys]
        for row in ApiKey.objects.filter(pk__in=missing).values_list(*_KEY_COLUMNS):
            keys[row[0]] = Key(*row)
    everything = total_of(tuple(rows.values()))
    predecessor_of = {key.replaced_by_id: pk for pk, key in keys.items() if key.replaced_by_id}
    listed = []
    nothing = DayTotals()
    for pk, key in keys.items():
        own = rows.get(pk) or Row(pk, "", nothing, NOTHING)
        replaced = rows.get(predecessor_of[pk]) if pk in predecessor_of else None
        growth, times = _NOT_UNUSUAL
        # Most of thousands of keys spend too little to be looked at.
        if (
            replaced is not None
            or own.totals.cost_nanousd * 100 >= _LOOKED_AT_PER_CENT * everything.totals.cost_nanousd
        ):
            judged = own if replaced is None else total_of((own, replaced))
            growth, times = growth_of(judged, everything=everything, period=question.period)
        listed.append(KeyRow(key, own, growth if own.totals.cost_nanousd else "", times))
    total = everything
    if q or only_unusual:
        text = q.lower()
        listed = [
            row
            for row in listed
            if text in f"{row.name} {row.key.owner}".lower() and (row.growth or not only_unusual)
        ]
        total = total_of([row.row for row in listed])
    listed.sort(key=lambda row: row.name)
    listed.sort(key=_SORTS.get(sort, _SORTS["spend"]), reverse=descending)
    return KeySpend(question, tuple(listed), total)


def growth_of(row: Row, *, everything: Row, period: Period) -> tuple[Growth, float | None]:
    """Say whether a key's spend is unusual, and how many times as much a day it is. `GROWTH_RULE` says it in words."""
    now_nanousd, before_nanousd = row.totals.cost_nanousd, row.before.cost_nanousd
    total = everything.totals.cost_nanousd
    times = None
    if before_nanousd:
        times = now_nanousd * period.before_day_count / (before_nanousd * period.day_count)
    if not everything.before.request_count:
        return "", times  # nobody spent anything before: all are new
    if not row.before.request_count:
        return ("new" if now_nanousd and now_nanousd * 100 >= total * NEW_AT_LEAST_PER_CENT else ""), times
    # Whole numbers: what is exactly twice as much is twice as much.
    grew = now_nanousd * period.before_day_count >= GREW_TIMES * before_nanousd * period.day_count
    more = now_nanousd - before_nanousd
    is_large = more > 0 and more * 100 >= total * GREW_AT_LEAST_PER_CENT
    return ("grew" if grew and is_large else ""), times


def _keys(question: Question, now: dt.datetime) -> Any:
    """Keys that may be used now, of the tenant, project or key asked for."""
    keys = ApiKey.objects.order_by().filter(
        Q(expires_at__isnull=True) | Q(expires_at__gt=now), revoked_at__isnull=True
    )
    wanted = question.filters
    columns = {"tenant": "project__tenant_id", "project": "project_id", "key": "pk"}
    return keys.filter(**{column: wanted[name] for name, column in columns.items() if name in wanted})
