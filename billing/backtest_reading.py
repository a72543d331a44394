"""Which records does a backtest run over, and how are a million of them read quickly?

Reads: request_record, api_key. No ORM: only the columns that are needed, slice by slice.
A slice is a stretch of time with some ten thousand records, so that a run can be stopped, and shared among processes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from django.db import connection

from billing.backtest_expectations import Seen
from policies.models import ApiKey
from policies.snapshot import KeyGrant, TenantSnapshot

SLICE_RECORDS: Final = 10_000
WORKLOAD: Final = "coalesce(nullif(features->>'workload', ''), 'rule ' || rule)"


class Row(NamedTuple):
    """What is needed of one record. JSON and ids come as texts: most requests need only a part of them."""

    id: str
    tenant_id: int
    api_key_id: int
    endpoint: str
    requested_model: str
    is_stream: bool
    is_pinned: bool
    status: str
    rule: str
    duration_ms: float | None
    first_token_ms: float | None
    input_tokens: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    cost_nanousd: int | None
    tags: str
    features: str
    decision: str


_TEXTS = frozenset({"id", "tags", "features", "decision"})
COLUMNS: Final = ", ".join(f"{name}::text" if name in _TEXTS else name for name in Row._fields)


class Period(NamedTuple):
    """A policy's records from `since` (inclusive) to `until`."""

    policy_id: int
    since: dt.datetime
    until: dt.datetime


class Slice(NamedTuple):
    """A part of a period, and how many records it holds."""

    period: Period
    record_count: int


def list_slices(period: Period, *, records: int | None = None) -> list[Slice]:
    """Cut a period into parts of about `records` records each (SLICE_RECORDS; a minute at least)."""
    wanted = records or SLICE_RECORDS
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT date_trunc('minute', started_at) AS minute, count(*) FROM billing_requestrecord"
            " WHERE policy_id = %s AND started_at >= %s AND started_at < %s GROUP BY 1 ORDER BY 1",
            period,
        )
        minutes: Sequence[tuple[dt.datetime, int]] = cursor.fetchall()
    slices: list[Slice] = []
    begin, count = period.since, 0
    for minute, in_minute in minutes:
        if count and count + in_minute > wanted:
            at = max(minute, period.since)
            slices.append(Slice(Period(period.policy_id, begin, at), count))
            begin, count = at, 0
        count += in_minute
    if count:
        slices.append(Slice(Period(period.policy_id, begin, period.until), count))
    return slices


def read_seen(period: Period) -> list[Seen]:
    """How long answers were and how long they took, by workload and deployment."""
    with connection.cursor() as cursor:
        # A first token after a failed attempt came late for another deployment's fault.
        cursor.execute(
            f"""SELECT {WORKLOAD}, deployment_id,
                count(output_tokens), coalesce(sum(output_tokens), 0)::float8,
                coalesce(sum(output_tokens::float8 * output_tokens), 0),
                count(first_token_ms) FILTER (WHERE attempt_count = 1),
                coalesce(sum(first_token_ms) FILTER (WHERE attempt_count = 1), 0),
                count(duration_ms) FILTER (WHERE attempt_count = 1),
                coalesce(sum(duration_ms) FILTER (WHERE attempt_count = 1), 0)
            FROM billing_requestrecord
            WHERE policy_id = %s AND started_at >= %s AND started_at < %s AND status = 'ok'
                AND deployment_id IS NOT NULL AND usage_kind <> 'unknown'
            GROUP BY 1, 2 ORDER BY 1, 2""",  # noqa: S608  (a constant)
            period,
        )
        return [Seen(*row) for row in cursor.fetchall()]


def read_rows(period: Period) -> Iterator[Row]:
    """The records of one slice, oldest first: all at once, which costs a third of asking for each."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {COLUMNS} FROM billing_requestrecord"  # noqa: S608  (a constant)
            " WHERE policy_id = %s AND started_at >= %s AND started_at < %s ORDER BY started_at, id",
            period,
        )
        yield from map(Row._make, cursor.fetchall())


def load_grants(key_ids: Iterable[int], *, public_id: str) -> dict[int, KeyGrant]:
    """What the holders of these keys may do, revoked ones included. All may use the policy: their records say so."""
    grants: dict[int, KeyGrant] = {}
    tenants: dict[int, TenantSnapshot] = {}
    rows = ApiKey.objects.filter(pk__in=list(key_ids)).select_related("project__tenant")
    for row in rows.prefetch_related("project__tenant__policies"):
        owner = row.project.tenant
        tenant = tenants.get(owner.pk)
        if tenant is None:
            tenant = tenants[owner.pk] = TenantSnapshot(
                id=owner.pk,
                name=owner.name,
                time_zone=owner.time_zone,
                policy_ids=frozenset({public_id, *(policy.public_id for policy in owner.policies.all())}),
                allowed_regions=frozenset(owner.allowed_regions),
                retention_limit=owner.retention_limit,
            )
        allowed = frozenset(row.allowed_models)
        grants[row.pk] = KeyGrant(
            key_id=row.pk,
            key_name=row.name,
            project_id=row.project_id,
            project_name=row.project.name,
            tenant=tenant,
            is_pinned=row.is_pinned,
            allowed_models=allowed | {public_id} if allowed else allowed,
        )
    return grants


def list_key_ids(period: Period) -> list[int]:
    """The keys that used the policy in the period."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT api_key_id FROM billing_requestrecord"
            " WHERE policy_id = %s AND started_at >= %s AND started_at < %s",
            period,
        )
        return [row[0] for row in cursor.fetchall()]
