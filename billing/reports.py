"""What do all totals come from? The one query layer over the rollups by day.

Reads: the rollups by day, of those that know what is asked the smallest. Days are UTC; `recent_reports` reads by the
hour. Every page, export and statement takes its sums from here, so they agree; what has no price or no known usage is
counted beside every sum, never as zero inside it. Sums by label: `label_reports`.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Final, Literal, TypeVar

from django.db import connection, transaction
from django.db.models import BigIntegerField, BooleanField, F, Sum
from django.db.models import Model as Table
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast

from billing.models import (
    LabelUse,
    UsageByDay,
    UsageByKeyDay,
    UsageByKeyLabelSetDay,
    UsageByLabelDay,
    UsageByLabelSetDay,
)
from policies.models import ApiKey, Deployment, Model, Policy, Project, Provider, Tenant

DAY = dt.timedelta(days=1)

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
# The numbers of totals in the order of their members. Where thousands are read, they are kept as these.
Sums = tuple[int, ...]


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
class Scope:
    """Whose usage. None: everybody's; `NONE`: of requests that had no such thing. All of these labels, each of them."""

    tenant_id: int | None = None
    project_id: int | None = None
    api_key_id: int | None = None
    model_id: int | None = None
    provider_id: int | None = None
    deployment_id: int | None = None
    policy_id: int | None = None
    label_ids: tuple[int, ...] = ()

    @property
    def columns(self) -> set[str]:
        """What it looks at."""
        return {f.name for f in fields(self) if getattr(self, f.name) not in (None, ())}


EVERYBODY = Scope()
# What the rollup by day and key alone knows.
_KEY_DAY_COLUMNS: Final = frozenset({"day", "tenant_id", "project_id", "api_key_id"})
# As `by`: the labels of a request.
LABELS: Final = "label_ids"
_LABEL_DAY_COLUMNS: Final = frozenset({"day", "tenant_id", LABELS})
_SCOPE_COLUMNS: Final = {"model_id": "deployment__model_id", "provider_id": "deployment__provider_id"}
OF_DEPLOYMENT: Final = frozenset(_SCOPE_COLUMNS.values())


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
    rows = days_of(first_day, last_day, scope, by=column)
    found = read_sums_by(column, rows, DayTotals, dearest=limit)
    cost, requests = place_of("cost_nanousd"), place_of("request_count")
    dearest = sorted(found.items(), key=lambda pair: (-pair[1][cost], -pair[1][requests], pair[0] or 0))[
        :limit
    ]
    names = names_of(table, [row_id for row_id, _ in dearest if row_id is not None])
    return [
        Group(
            row_id, names.get(row_id, f"{dimension} {row_id}") if row_id is not None else "", DayTotals(*sums)
        )
        for row_id, sums in dearest
    ]


def totals_by_key(key_ids: Collection[int], *, first_day: dt.date, last_day: dt.date) -> dict[int, DayTotals]:
    """The totals of these API keys; keys without requests are missing. One query, however many keys there are."""
    rows = days_of(first_day, last_day, EVERYBODY, by="api_key_id").filter(api_key__in=list(key_ids))
    return {
        key_id: DayTotals(*sums)
        for key_id, sums in read_sums_by("api_key", rows, DayTotals).items()
        if key_id is not None
    }


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
    are fewer. The same among the sums by label: by one and tenant, by all labels but without the key, or with it.
    """
    table = _smallest_with({by, *scope.columns}, label_count=len(scope.label_ids) + (by == LABELS))
    rows = narrow(table._default_manager.filter(day__gte=first_day, day__lte=last_day), scope)
    if table is UsageByLabelDay:
        rows = rows.filter(label__in=scope.label_ids) if scope.label_ids else rows
    else:
        for label_id in scope.label_ids:
            rows = rows.filter(_has_label(label_id))
    if table is UsageByKeyLabelSetDay and scope.api_key_id is None:
        rows = rows.filter(project__in=_projects_of(scope))
    return rows.order_by()


def narrow(rows: Any, scope: Scope) -> Any:
    """The rows of a scope, but for its labels: each table has those in its own form."""
    for name in scope.columns - {LABELS}:
        wanted = getattr(scope, name)
        if name in _SCOPE_COLUMNS and wanted != NONE:
            rows = rows.filter(deployment__in=_deployments_of(name, wanted))
        else:
            column = _SCOPE_COLUMNS.get(name, name)
            rows = rows.filter(**({f"{column}__isnull": True} if wanted == NONE else {column: wanted}))
    return rows


def _deployments_of(name: str, owner_id: int) -> list[int]:
    """Those of a model or provider, read first: joined to each row, they would cost more than all sums."""
    return list(Deployment.objects.order_by().filter(**{name: owner_id}).values_list("pk", flat=True))


def _has_label(label_id: int) -> RawSQL:
    """Whether a row is of requests with this label. Whether an array contains another takes PostgreSQL longer."""
    return RawSQL("%s::int = ANY(label_ids)", [label_id], output_field=BooleanField())


def _smallest_with(columns: set[str], *, label_count: int) -> type[Table]:
    """The rollup with the fewest rows that knows these columns, and as many labels of one request."""
    if not label_count:
        return UsageByKeyDay if columns <= _KEY_DAY_COLUMNS else UsageByDay
    if not columns.isdisjoint({"api_key_id", ""}):
        return UsageByKeyLabelSetDay
    return UsageByLabelDay if label_count == 1 and columns <= _LABEL_DAY_COLUMNS else UsageByLabelSetDay


def _projects_of(scope: Scope) -> Any:
    """Where keys with these labels can be: most labels are of one tenant, and its projects have an index."""
    projects = Project.objects.order_by()
    if scope.project_id is not None:
        projects = projects.filter(pk=scope.project_id)
    if scope.tenant_id is not None:
        projects = projects.filter(tenant=scope.tenant_id)
    for label_id in scope.label_ids:
        projects = projects.filter(tenant__in=LabelUse.objects.filter(label=label_id).values("tenant"))
    return projects.values("pk")


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
    return kind(*[row[f"sum_{f.name}"] or 0 for f in fields(kind)])


def read_sums_by(
    column: str, rows: Any, kind: type[Spent], *, dearest: int | None = None
) -> dict[int | None, Sums]:
    """The sums of these rows by what a column holds, in one query; in two by what a deployment has.

    `dearest`: how many are wanted; of columns that may have thousands no more are read.
    """
    if column in OF_DEPLOYMENT:
        by_deployment = read_sums_by("deployment_id", rows, kind)
        owner_of = owner_of_deployments(column)  # afterwards: one that was just added is known too
        parts = defaultdict(list)
        for deployment_id, sums in by_deployment.items():
            parts[None if deployment_id is None else owner_of[deployment_id]].append(sums)
        return {owner_id: sum_up(kind, found) for owner_id, found in parts.items()}
    found = rows.values_list(column).annotate(**sums_of(kind))
    if dearest is not None:
        first = F(column).asc(nulls_first=True)
        found = found.order_by("-sum_cost_nanousd", "-sum_request_count", first)[:dearest]
    return {row[0]: row[1:] for row in found}


def owner_of_deployments(column: str) -> dict[int, int]:
    """Deployment -> its model or provider. Joined to each row of the rollup, they would cost a third of all sums."""
    return dict(Deployment.objects.order_by().values_list("pk", column.removeprefix("deployment__")))


def read_total(rows: Any, kind: type[Spent]) -> Sums:
    """The sums of all these rows; of none they are zero."""
    found = rows.aggregate(**sums_of(kind))
    return tuple(found[f"sum_{f.name}"] or 0 for f in fields(kind))


def sum_up(kind: type[Spent], parts: Collection[Sums]) -> Sums:
    """Add up member by member; the sum of nothing is zero."""
    return tuple(map(sum, zip(*parts, strict=True))) if parts else (0,) * len(fields(kind))


def place_of(member: str) -> int:
    """Which of the `Sums` of any totals this is."""
    return [f.name for f in fields(Spent)].index(member)


def add_up(kind: type[T], parts: Iterable[T]) -> T:
    """The sum of totals, member by member."""
    members = attrgetter(*(f.name for f in fields(kind)))
    return kind(*map(sum, zip(*map(members, parts), strict=True)))


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
