"""What do all totals come from? The one query layer over the rollups.

Reads: usage_by_day, usage_by_key_day, usage_by_label_day, usage_by_hour; for percentiles and error codes of the
last hour also request_record, at most 10,000 of its newest rows. Days and hours are UTC. Every page, export and
statement takes its sums from here, so they agree; what has no price or no known usage is counted beside every sum,
never as zero inside it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Final, Literal, TypeVar

from django.db import connection, transaction
from django.db.models import BigIntegerField, Sum
from django.db.models import Model as Table
from django.db.models.functions import Cast

from billing.models import UsageByDay, UsageByHour, UsageByKeyDay, UsageByLabelDay
from policies.models import ApiKey, Deployment, Model, Policy, Project, Provider, Tenant

HOUR = dt.timedelta(hours=1)
DAY = dt.timedelta(days=1)
MAX_RAW_ROWS = 10_000

# As an id in a `Scope`: the requests that had none (refused before any deployment, asked past every policy).
NONE: Final = 0

Dimension = Literal["tenant", "project", "key", "model", "provider", "deployment", "policy"]
# Dimension -> the column that holds it, the table of its names.
DIMENSIONS: Mapping[str, tuple[str, type[Table]]] = {
    "tenant": ("tenant_id", Tenant),
    "project": ("project_id", Project),
    "key": ("api_key_id", ApiKey),
    "model": ("deployment__model_id", Model),
    "provider": ("deployment__provider_id", Provider),
    "deployment": ("deployment_id", Deployment),
    "policy": ("policy_id", Policy),
}


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent, by how many requests, and how much of that is sure.

    `cost_nanousd` is the sum of what is known: `unpriced_count` requests had no price and `unknown_count` no
    usage, and neither is in it. `estimated_count` are in it with counts of our own.
    """

    request_count: int = 0
    unpriced_count: int = 0
    estimated_count: int = 0
    unknown_count: int = 0
    cost_nanousd: int = 0

    @property
    def unpriced_ratio(self) -> float | None:
        """Requests without a price, of all; None without requests."""
        return self._share(self.unpriced_count)

    @property
    def unknown_ratio(self) -> float | None:
        """Requests without known usage, of all; None without requests."""
        return self._share(self.unknown_count)

    @property
    def estimated_ratio(self) -> float | None:
        """Requests that are counted by ourselves, of all; None without requests."""
        return self._share(self.estimated_count)

    def _share(self, count: int) -> float | None:
        return count / self.request_count if self.request_count else None


@dataclass(frozen=True, slots=True)
class Totals(Spent):
    """Sums over records. `error_count`: what clients saw fail (not answered and not cancelled)."""

    error_count: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def error_ratio(self) -> float | None:
        """Errors per request, None without requests."""
        return self._share(self.error_count)


T = TypeVar("T", bound=Spent)


@dataclass(frozen=True, slots=True)
class DayTotals(Totals):
    """Totals with what only the rollups by day keep: charges, and token classes, which are inside input and output."""

    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    charge_nanousd: int = 0

    @property
    def margin_nanousd(self) -> int:
        """What charges leave over costs; negative where less is charged."""
        return self.charge_nanousd - self.cost_nanousd

    @property
    def margin_ratio(self) -> float | None:
        """The margin, of what is charged; None when that is nothing."""
        return self.margin_nanousd / self.charge_nanousd if self.charge_nanousd else None

    @property
    def cache_read_ratio(self) -> float | None:
        """Input tokens that a provider read from its cache, of all; None without input."""
        return self.cache_read_tokens / self.input_tokens if self.input_tokens else None


@dataclass(frozen=True, slots=True)
class HourTotals(Totals):
    """Totals with what mean latency needs."""

    duration_ms_sum: float = 0.0
    first_token_ms_sum: float = 0.0
    first_token_count: int = 0

    @property
    def mean_duration_ms(self) -> float | None:
        """None without requests."""
        return self.duration_ms_sum / self.request_count if self.request_count else None

    @property
    def mean_first_token_ms(self) -> float | None:
        """None when no request had a first token."""
        return self.first_token_ms_sum / self.first_token_count if self.first_token_count else None


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose usage. None: everybody's; `NONE`: of requests that had no such thing."""

    tenant_id: int | None = None
    project_id: int | None = None
    api_key_id: int | None = None
    model_id: int | None = None
    provider_id: int | None = None
    deployment_id: int | None = None
    policy_id: int | None = None
    label_id: int | None = None


EVERYBODY = Scope()
# What the rollup by day and key alone knows.
_KEY_DAY_COLUMNS: Final = frozenset({"day", "tenant_id", "project_id", "api_key_id"})
_LABEL_DAY_COLUMNS: Final = frozenset({"day", "tenant_id", "label_id"})
LABEL_COLUMN: Final = "label_id"
_SCOPE_COLUMNS: Final = {"model_id": "deployment__model_id", "provider_id": "deployment__provider_id"}


@dataclass(frozen=True, slots=True)
class Group:
    """The totals of one tenant, project, key and so on. Id None: requests that had none."""

    id: int | None
    name: str
    totals: DayTotals


@dataclass(frozen=True, slots=True)
class DayPoint:
    """One day of a series; days without requests are there too."""

    day: dt.date
    totals: DayTotals


@dataclass(frozen=True, slots=True)
class HourPoint:
    """One hour of a series; hours without requests are there too."""

    begins_at: dt.datetime
    totals: HourTotals


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """How often an error code came up."""

    status: str
    error_code: str
    count: int


@dataclass(frozen=True, slots=True)
class LastHour:
    """The newest requests of the last 60 minutes. `is_cut`: there were more than are looked at."""

    request_count: int
    is_cut: bool
    p50_duration_ms: float | None
    p95_duration_ms: float | None
    p50_first_token_ms: float | None
    p95_first_token_ms: float | None
    errors: tuple[ErrorCount, ...]


@dataclass(frozen=True, slots=True)
class TodaySummary:
    """The home page. Yesterday's last, partial hour counts in proportion to the minutes that have passed."""

    now: dt.datetime
    today: HourTotals
    yesterday_until_now: HourTotals
    last_24_hours: tuple[HourPoint, ...]
    top_keys: tuple[Group, ...]
    last_hour: LastHour


def totals(*, first_day: dt.date, last_day: dt.date, scope: Scope = EVERYBODY) -> DayTotals:
    """Sum over days, both included."""
    return read_sums(DayTotals, days_of(first_day, last_day, scope, by="day").aggregate(**sums_of(DayTotals)))


def series_by_day(
    *,
    first_day: dt.date,
    last_day: dt.date,
    scope: Scope = EVERYBODY,
) -> list[DayPoint]:
    """One point a day, both ends included."""
    rows = days_of(first_day, last_day, scope, by="day").values("day").annotate(**sums_of(DayTotals))
    found = {row["day"]: read_sums(DayTotals, row) for row in rows}
    days = (first_day + DAY * index for index in range((last_day - first_day).days + 1))
    return [DayPoint(day, found.get(day, DayTotals())) for day in days]


def series_by_hour(
    *,
    since: dt.datetime,
    until: dt.datetime,
    tenant_id: int | None = None,
    deployment_id: int | None = None,
) -> list[HourPoint]:
    """One point an hour, from the hour of `since` to the hour of `until`, both included."""
    first, last = _hour_of(since), _hour_of(until)
    exact = {"tenant_id": tenant_id, "deployment_id": deployment_id}
    rows = (
        UsageByHour.objects.filter(hour__gte=first, hour__lte=last)
        .filter(**{name: value for name, value in exact.items() if value is not None})
        .values("hour")
        .annotate(**sums_of(HourTotals))
    )
    found = {row["hour"]: read_sums(HourTotals, row) for row in rows}
    hours = (first + HOUR * index for index in range((last - first) // HOUR + 1))
    return [HourPoint(hour, found.get(hour, HourTotals())) for hour in hours]


def group_by(
    dimension: Dimension,
    *,
    first_day: dt.date,
    last_day: dt.date,
    scope: Scope = EVERYBODY,
    limit: int | None = None,
) -> list[Group]:
    """Totals by one dimension, dearest first. Without a limit they sum to `totals` of the same days and scope."""
    column, table = DIMENSIONS[dimension]
    rows = days_of(first_day, last_day, scope, by=column).values(column).annotate(**sums_of(DayTotals))
    found = [(row[column], read_sums(DayTotals, row)) for row in rows]
    found.sort(key=lambda pair: (-pair[1].cost_nanousd, -pair[1].request_count, pair[0] or 0))
    names = names_of(table, [row_id for row_id, _ in found[:limit] if row_id is not None])
    return [
        Group(row_id, names.get(row_id, f"{dimension} {row_id}") if row_id is not None else "", sums)
        for row_id, sums in found[:limit]
    ]


def totals_by_key(key_ids: Collection[int], *, first_day: dt.date, last_day: dt.date) -> dict[int, DayTotals]:
    """The totals of these API keys; keys without requests are missing. One query, however many keys there are."""
    rows = days_of(first_day, last_day, EVERYBODY, by="api_key_id").filter(api_key__in=list(key_ids))
    return {
        row["api_key"]: read_sums(DayTotals, row)
        for row in rows.values("api_key").annotate(**sums_of(DayTotals))
    }


def today_summary(now: dt.datetime) -> TodaySummary:
    """Read everything the home page shows, in a handful of queries."""
    now = now.astimezone(dt.UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    this_hour = _hour_of(now)
    points = series_by_hour(since=min(midnight - DAY, this_hour - 23 * HOUR), until=now)
    today = [point.totals for point in points if point.begins_at >= midnight]
    yesterday = [point.totals for point in points if midnight - DAY <= point.begins_at < this_hour - DAY]
    partial = next((point.totals for point in points if point.begins_at == this_hour - DAY), HourTotals())
    passed_s = int((now - this_hour).total_seconds())
    return TodaySummary(
        now=now,
        today=add_up(HourTotals, today),
        yesterday_until_now=add_up(HourTotals, [*yesterday, _share(partial, passed_s)]),
        last_24_hours=tuple(points[-24:]),
        top_keys=tuple(group_by("key", first_day=now.date(), last_day=now.date(), limit=5)),
        last_hour=read_last_hour(now),
    )


def read_last_hour(now: dt.datetime) -> LastHour:
    """Percentiles and errors of the last 60 minutes, over at most 10,000 of the newest requests."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH newest AS (
                SELECT status, error_code, duration_ms, first_token_ms FROM billing_requestrecord
                WHERE started_at > %s AND started_at <= %s ORDER BY started_at DESC, id DESC LIMIT %s
            )
            SELECT NULL, NULL, count(*),
                percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ms),
                percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms),
                percentile_cont(0.5) WITHIN GROUP (ORDER BY first_token_ms),
                percentile_cont(0.95) WITHIN GROUP (ORDER BY first_token_ms)
            FROM newest
            UNION ALL
            (SELECT status, error_code, count(*), NULL, NULL, NULL, NULL FROM newest
            WHERE status NOT IN ('ok', 'cancelled') GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 5)
            """,
            [now - HOUR, now, MAX_RAW_ROWS + 1],
        )
        summary, *errors = sorted(cursor.fetchall(), key=lambda row: (row[0] is not None, -row[2]))
    return LastHour(
        request_count=min(summary[2], MAX_RAW_ROWS),
        is_cut=summary[2] > MAX_RAW_ROWS,
        p50_duration_ms=summary[3],
        p95_duration_ms=summary[4],
        p50_first_token_ms=summary[5],
        p95_first_token_ms=summary[6],
        errors=tuple(ErrorCount(status, code, count) for status, code, count, *_ in errors),
    )


@contextmanager
def one_moment() -> Iterator[None]:
    """Let all reads inside see the database as it was at the first: totals agree while requests come in."""
    is_outermost = not connection.in_atomic_block
    with transaction.atomic():
        if is_outermost:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


def days_of(first_day: dt.date, last_day: dt.date, scope: Scope, *, by: str = "") -> Any:
    """The rows of a rollup by day, both days included. For the modules that build reports on this one.

    `by`: the only column beside the day that is looked at. Where the sums by key alone have it, they are read: those
    are fewer. Sums by label know nothing but day and tenant beside it: `spend_questions` asks no more of them.
    """
    asked = {field.name for field in fields(scope) if getattr(scope, field.name) is not None}
    table: type[Table] = UsageByKeyDay if {by, *asked} <= _KEY_DAY_COLUMNS else UsageByDay
    if LABEL_COLUMN in {by, *asked}:
        if not {by, *asked} <= _LABEL_DAY_COLUMNS:
            raise ValueError(f"sums by label are not known by {sorted({by, *asked} - _LABEL_DAY_COLUMNS)}")
        table = UsageByLabelDay
    rows: Any = table._default_manager.filter(day__gte=first_day, day__lte=last_day)
    for field in fields(scope):
        wanted = getattr(scope, field.name)
        if wanted is not None:
            column = _SCOPE_COLUMNS.get(field.name, field.name)
            rows = rows.filter(**({f"{column}__isnull": True} if wanted == NONE else {column: wanted}))
    return rows.order_by()


class _WholeSum(Cast):
    """PostgreSQL sums big integers as numerics, which are slow to read; this is a big integer again.

    A sum past 9 billion USD is an error, never a wrong number. What comes is an int: Django need not look at each.
    """

    def get_db_converters(self, connection: Any) -> list[Any]:
        """None."""
        return []


def sums_of(kind: type[Spent]) -> dict[str, Any]:
    """Annotations that `read_sums` reads."""
    # An annotation may not be called like a column.
    return {
        f"sum_{f.name}": Sum(f.name) if f.type == "float" else _WholeSum(Sum(f.name), BigIntegerField())
        for f in fields(kind)
    }


def read_sums(kind: type[T], row: Mapping[str, Any]) -> T:
    """The sums of a row that `sums_of` annotated; of no rows they are zero."""
    return kind(*[row[column] or 0 for column in _SUM_COLUMNS[kind]])


# In the order of the members. Reports read thousands of rows: this and `add_up` are written to be fast.
_SUM_COLUMNS: Final[Mapping[type[Spent], tuple[str, ...]]] = {
    kind: tuple(f"sum_{f.name}" for f in fields(kind)) for kind in (Spent, Totals, DayTotals, HourTotals)
}


def add_up(kind: type[T], parts: Iterable[T]) -> T:
    """The sum of totals, member by member."""
    members = attrgetter(*(f.name for f in fields(kind)))
    return kind(*map(sum, zip(*map(members, parts), strict=True)))


def _share(part: HourTotals, passed_s: int) -> HourTotals:
    """The part of an hour's totals that falls to its first seconds, money and counts rounded down."""
    return HourTotals(
        **{
            f.name: getattr(part, f.name) * passed_s / 3600
            if f.type == "float"
            else getattr(part, f.name) * passed_s // 3600
            for f in fields(HourTotals)
        }
    )


def _hour_of(at: dt.datetime) -> dt.datetime:
    return at.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)


def labels_of(first_day: dt.date, last_day: dt.date, scope: Scope, *, kind: str, name: str) -> Any:
    """The rows of the rollup by label that have labels of this kind (of tags: of this name)."""
    rows = days_of(first_day, last_day, scope, by=LABEL_COLUMN)
    return rows.filter(label__kind=kind, label__name=name)


def take_away(whole: T, parts: Iterable[T]) -> T:
    """What is left of totals without these parts, member by member."""
    taken = add_up(type(whole), [type(whole)(), *parts])
    return type(whole)(*[getattr(whole, f.name) - getattr(taken, f.name) for f in fields(whole)])


def names_of(table: type[Table], ids: Collection[int]) -> dict[int, str]:
    """What these rows are called, by id. One query."""
    rows = table._default_manager.filter(pk__in=ids)
    if table is ApiKey:
        # Reports name thousands of keys: as objects that would take longer than all sums.
        named = rows.order_by().values_list("pk", "project__tenant__name", "project__name", "name")
        return {pk: f"{tenant}/{project}/{name}" for pk, tenant, project, name in named}
    if table is Project:
        rows = rows.select_related("tenant")
    return {row.pk: str(row) for row in rows}
