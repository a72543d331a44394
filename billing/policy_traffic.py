"""How much traffic does each rule of a policy take, which conditions fail, and how does one version do beside another?

Reads: request_record, at most 10,000 of a policy's newest rows of the last day (of one version: since it is live).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from django.db import connection

MAX_RAW_ROWS = 10_000
DAY = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class RuleTraffic:
    """Requests that a rule took, and how often its condition failed (with one of the messages)."""

    request_count: int
    share: float
    failed_count: int = 0
    failure: str = ""


@dataclass(frozen=True, slots=True)
class PolicyTraffic:
    """The last day of a policy. `by_rule` by the rule's name, "" where no rule matched. `is_cut`: the newest only."""

    request_count: int
    is_cut: bool
    by_rule: Mapping[str, RuleTraffic]


@dataclass(frozen=True, slots=True)
class VersionTraffic:
    """How the requests of one version went. Costs are of requests with a known cost; None: none has one."""

    request_count: int
    is_cut: bool
    error_count: int
    mean_cost_nanousd: int | None
    p50_first_token_ms: float | None
    p50_duration_ms: float | None
    p95_duration_ms: float | None

    @property
    def error_ratio(self) -> float | None:
        return self.error_count / self.request_count if self.request_count else None


def read_policy_traffic(policy_id: int, *, now: dt.datetime) -> PolicyTraffic:
    """Count a policy's requests of the last 24 hours by rule."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH newest AS MATERIALIZED (
                SELECT rule, decision -> 'trace' AS trace FROM billing_requestrecord
                WHERE policy_id = %s AND started_at > %s AND started_at <= %s
                ORDER BY started_at DESC, id DESC LIMIT %s
            )
            SELECT 'taken', rule, count(*), '' FROM newest GROUP BY rule
            UNION ALL
            SELECT 'failed', entry ->> 0, count(*), coalesce(max(entry ->> 2), '') FROM newest,
                jsonb_array_elements(CASE WHEN jsonb_typeof(trace) = 'array' THEN trace ELSE '[]' END) AS entry
            WHERE entry ->> 1 = 'failed' GROUP BY entry ->> 0
            """,
            [policy_id, now - DAY, now, MAX_RAW_ROWS],
        )
        rows = cursor.fetchall()
    taken = {rule: count for kind, rule, count, _ in rows if kind == "taken"}
    failed = {rule: (count, message) for kind, rule, count, message in rows if kind == "failed"}
    total = sum(taken.values())
    by_rule = {
        rule: RuleTraffic(taken.get(rule, 0), taken.get(rule, 0) / total, *failed.get(rule, (0, "")))
        for rule in [*taken, *(name for name in failed if name not in taken)]
    }
    return PolicyTraffic(total, total >= MAX_RAW_ROWS, by_rule)


def read_version_traffic(
    policy_id: int, version_ids: Collection[int], *, since: dt.datetime, now: dt.datetime
) -> dict[int, VersionTraffic]:
    """How the newest requests of each version went since a moment: versions side by side over the same time."""
    found = {}
    with connection.cursor() as cursor:
        for version_id in version_ids:
            cursor.execute(
                """
                WITH newest AS (
                    SELECT status, cost_nanousd, first_token_ms, duration_ms FROM billing_requestrecord
                    WHERE policy_id = %s AND policy_version_id = %s AND started_at > %s AND started_at <= %s
                    ORDER BY started_at DESC, id DESC LIMIT %s
                )
                SELECT count(*), count(*) FILTER (WHERE status NOT IN ('ok', 'cancelled')), avg(cost_nanousd),
                    percentile_cont(0.5) WITHIN GROUP (ORDER BY first_token_ms),
                    percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ms),
                    percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms)
                FROM newest
                """,
                [policy_id, version_id, since, now, MAX_RAW_ROWS],
            )
            count, errors, mean_cost, *times = cursor.fetchone()
            mean = None if mean_cost is None else round(mean_cost)
            found[version_id] = VersionTraffic(count, count >= MAX_RAW_ROWS, errors, mean, *times)
    return found
