"""What did every API key spend, whose is it, and which of them grew as keys do not usually grow?

Reads: usage_by_day (by `billing.spend`), api_key. The rule of what is unusual is `growth_of`; pages print its words.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from django.db.models import Q, Sum

from billing import reports
from billing.reports import DayTotals, Spent
from billing.spend import read_periods
from billing.spend_questions import Period, Question
from billing.spend_rows import BothPeriods, MadeWhenSeen, Row
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
    """What the report says of a key."""

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
# One value a column. Thousands are read: rows of the ORM, or a `Key` of each, would take most of the time.
_KeyColumns = tuple[Any, ...]
_OWNER: Final = Key._fields.index("owner")
_REPLACED_BY: Final = Key._fields.index("replaced_by_id")


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
    """Keys that may be used, and others that spent in either period; with labels only these. They sum to `total`."""

    question: Question
    rows: Sequence[KeyRow]
    total: Row
    unusual: Sequence[KeyRow]


# Whoever spends less is not unusual by either rule.
_LOOKED_AT_PER_CENT: Final = min(GREW_AT_LEAST_PER_CENT, NEW_AT_LEAST_PER_CENT)
_NOT_UNUSUAL: Final[tuple[Growth, float | None]] = ("", None)
SORTS: Final = ("key", "owner", "spend", "before", "change", "requests")


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
        keys = {row[0]: row for row in _keys(question, now).values_list(*_KEY_COLUMNS)}
        found = read_periods(question)
        missing = [pk for pk in found.now.keys() | found.before.keys() if pk is not None and pk not in keys]
        for row in ApiKey.objects.filter(pk__in=missing).values_list(*_KEY_COLUMNS):
            keys[row[0]] = row
    total = everything = found.total()
    judged = _judge(keys, found, everything=everything, period=question.period)
    listed = list(keys)
    if q or only_unusual:
        text = q.lower()
        listed = [
            pk
            for pk in keys
            if ((pk in judged and judged[pk][0]) or not only_unusual) and text in _searched(keys[pk])
        ]
        total = found.total(listed)
    listed.sort(key=lambda pk: _full_name(keys[pk]))
    listed.sort(key=_order_by(sort, keys, found), reverse=descending)

    def row_of(pk: int) -> KeyRow:
        return KeyRow(Key(*keys[pk]), found.row_of(pk), *judged.get(pk, _NOT_UNUSUAL))

    unusual = [row_of(pk) for pk in listed if pk in judged and judged[pk][0]]
    return KeySpend(question, MadeWhenSeen(listed, row_of), total, unusual)


def list_unusual(period: Period) -> list[KeyRow]:
    """The keys that `read_key_spend` calls unusual on these days, dearest first. Six queries, of a few hundred rows:
    the sums of all keys stay in the database, whatever their number.
    """
    with reports.one_moment():
        found_now = reports.days_of(period.first_day, period.last_day, reports.EVERYBODY, by="api_key_id")
        found_before = reports.days_of(
            period.before_first_day, period.before_last_day, reports.EVERYBODY, by="api_key_id"
        )
        everything = Row(
            None,
            "Total",
            DayTotals(*reports.read_total(found_now, DayTotals)),
            Spent(*reports.read_total(found_before, Spent)),
        )
        total_nanousd = everything.totals.cost_nanousd
        if not total_nanousd or not everything.before.request_count:
            return []
        # A rotated key counts with the one it replaced: together they are looked at only if one of them spent half.
        least = -(-total_nanousd * _LOOKED_AT_PER_CENT // 200)
        costs = found_now.values("api_key").annotate(cost=Sum("cost_nanousd")).filter(cost__gte=least)
        large = [row["api_key"] for row in costs]
        keys = {
            row[0]: row
            for row in ApiKey.objects.order_by()
            .filter(Q(pk__in=large) | Q(replaces__in=large) | Q(replaced_by__in=large))
            .values_list(*_KEY_COLUMNS)
        }
        sums = [
            reports.read_sums_by("api_key_id", rows.filter(api_key__in=list(keys)), kind)
            for rows, kind in ((found_now, DayTotals), (found_before, Spent))
        ]
    found = BothPeriods(sums[0], sums[1])
    judged = _judge(keys, found, everything=everything, period=period)
    unusual = [
        KeyRow(Key(*keys[pk]), found.row_of(pk), growth, times)
        for pk, (growth, times) in judged.items()
        if growth
    ]
    return sorted(unusual, key=lambda one: (-one.row.totals.cost_nanousd, one.name))


def _judge(
    keys: Mapping[int, _KeyColumns], found: BothPeriods, *, everything: Row, period: Period
) -> dict[int, tuple[Growth, float | None]]:
    """Look at the keys that spent enough to be unusual, or that replaced another. The others are not there."""
    predecessor_of = {key[_REPLACED_BY]: pk for pk, key in keys.items() if key[_REPLACED_BY]}
    total_nanousd = everything.totals.cost_nanousd
    judged = {}
    for pk in keys:
        cost_nanousd = found.cost_nanousd(pk)
        replaced = predecessor_of.get(pk)
        if replaced is not None:
            row = found.total((pk, replaced))
        elif cost_nanousd * 100 >= _LOOKED_AT_PER_CENT * total_nanousd:
            row = found.row_of(pk)
        else:
            continue
        growth, times = growth_of(row, everything=everything, period=period)
        judged[pk] = (growth if cost_nanousd else "", times)
    return judged


def _order_by(sort: str, keys: Mapping[int, _KeyColumns], found: BothPeriods) -> Callable[[int], Any]:
    """What keys are sorted by; by spend where it makes no sense."""
    match sort:
        case "key":
            return lambda pk: _full_name(keys[pk])
        case "owner":
            return lambda pk: (keys[pk][_OWNER] == "", keys[pk][_OWNER].lower())
        case "before":
            return found.cost_before_nanousd
        case "change":
            return lambda pk: found.cost_nanousd(pk) - found.cost_before_nanousd(pk)
        case "requests":
            return found.request_count
    return found.cost_nanousd


def _full_name(key: _KeyColumns) -> str:
    return f"{key[1]}/{key[2]}/{key[3]}"


def _searched(key: _KeyColumns) -> str:
    return f"{_full_name(key)} {key[_OWNER]}".lower()


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
    """Keys that may be used now, of the tenant, project or key asked for; none where labels are, which no key has."""
    if question.label_ids:
        return ApiKey.objects.none()
    keys = ApiKey.objects.order_by().filter(
        Q(expires_at__isnull=True) | Q(expires_at__gt=now), revoked_at__isnull=True
    )
    wanted = question.filters
    columns = {"tenant": "project__tenant_id", "project": "project_id", "key": "pk"}
    return keys.filter(**{column: wanted[name] for name, column in columns.items() if name in wanted})
