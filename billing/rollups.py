"""How do new rows become records and their sums, in one statement?

Writes: request_record, attempt_record, usage_by_day, usage_by_key_day, usage_by_label_day, usage_by_label_set_day,
usage_by_key_label_set_day, usage_by_hour, attempts_by_day, late_posting; label_day (days that are not whole now).
Rollups are summed from the rows that were really inserted, in the statement that inserts them, so a batch that comes
twice changes nothing. Those by day come from one sum by all that any of them knows (`summed`): the rows of a batch are
read once for all five. What comes for a closed month is counted on the first open day (`periods`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from django.db import connection

from billing.copy_rows import ATTEMPT_COLUMNS, REQUEST_COLUMNS
from billing.periods import POSTING_DAY, late_postings_of

CREATE_TEMPORARY = """
CREATE TEMPORARY TABLE IF NOT EXISTS new_request (LIKE billing_requestrecord) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS new_attempt (LIKE billing_attemptrecord) ON COMMIT DELETE ROWS;
ALTER TABLE new_request ALTER ingested_at SET DEFAULT now();
"""
EMPTY_TEMPORARY = "DELETE FROM new_request; DELETE FROM new_attempt"

_SHARED_SUMS = (
    ("request_count", "count(*)"),
    # What a client saw fail: `ok` was answered, `cancelled` was the client's own doing.
    ("error_count", "count(*) FILTER (WHERE status NOT IN ('ok', 'cancelled'))"),
    ("unpriced_count", "count(*) FILTER (WHERE is_unpriced)"),
    ("estimated_count", "count(*) FILTER (WHERE usage_kind = 'estimated')"),
    ("unknown_count", "count(*) FILTER (WHERE usage_kind = 'unknown')"),
    ("input_tokens", "coalesce(sum(input_tokens), 0)"),
    ("output_tokens", "coalesce(sum(output_tokens), 0)"),
    ("cost_nanousd", "coalesce(sum(cost_nanousd), 0)"),
)
DAY_KEYS = (
    ("day", POSTING_DAY),
    *(
        (name, name)
        for name in ("tenant_id", "project_id", "api_key_id", "deployment_id", "price_id", "policy_id")
    ),
)
DAY_SUMS = (
    *_SHARED_SUMS,
    ("cache_read_tokens", "coalesce(sum(cache_read_tokens), 0)"),
    ("cache_write_tokens", "coalesce(sum(cache_write_tokens), 0)"),
    ("reasoning_tokens", "coalesce(sum(reasoning_tokens), 0)"),
    ("charge_nanousd", "coalesce(sum(coalesce(charge_nanousd, cost_nanousd)), 0)"),
)
KEY_DAY_KEYS = DAY_KEYS[:4]
LABEL_DAY_KEYS = (*DAY_KEYS[:2], ("label_id", "label_id"))
LABEL_SET = "label_ids"
KEY_LABEL_SET_DAY_KEYS = (*DAY_KEYS, (LABEL_SET, LABEL_SET))
LABEL_SET_DAY_KEYS = tuple(key for key in KEY_LABEL_SET_DAY_KEYS if key[0] not in ("api_key_id", "price_id"))
KEY_LABEL_DAY_KEYS = (
    *LABEL_DAY_KEYS,
    *(key for key in DAY_KEYS if key[0] not in ("day", "tenant_id", "price_id")),
)
# Who has none stands in no sum by labels.
HAS_LABELS = f"cardinality({LABEL_SET}) > 0"
HOUR_KEYS = (
    ("hour", "date_trunc('hour', started_at, 'UTC')"),
    *((name, name) for name in ("tenant_id", "deployment_id")),
)
ATTEMPT_DAY = "(started_at AT TIME ZONE 'UTC')::date"
ATTEMPT_DAY_KEYS = (("day", ATTEMPT_DAY), ("deployment_id", "deployment_id"))
ATTEMPT_DAY_SUMS = (("attempt_count", "count(*)"), ("cost_nanousd", "coalesce(sum(cost_nanousd), 0)"))
HOUR_SUMS = (
    *_SHARED_SUMS,
    ("duration_ms_sum", "coalesce(sum(duration_ms), 0)"),
    ("first_token_ms_sum", "coalesce(sum(first_token_ms), 0)"),
    ("first_token_count", "count(first_token_ms)"),
)


def forget_label_days(source: str) -> str:
    """Say of the days of these rows that their sums by one label (`billing.label_days`) are not all any more."""
    return f"DELETE FROM billing_labelday WHERE day IN (SELECT day FROM {source})"  # noqa: S608  (names of ours)


def _upsert(
    table: str,
    keys: Sequence[tuple[str, str]],
    sums: Sequence[tuple[str, str]],
    source: str = "inserted",
) -> str:
    return _upsert_rows(table, keys, sums, f"{source} GROUP BY {_positions(keys)}")


def _upsert_rows(
    table: str, keys: Sequence[tuple[str, str]], sums: Sequence[tuple[str, str]], source: str
) -> str:
    """Add rows to a rollup, in the order of its keys: two ingesters that lock the same rows lock them in one order."""
    columns = ", ".join(name for name, _ in (*keys, *sums))
    values = ", ".join(expression for _, expression in (*keys, *sums))
    key_names = ", ".join(name for name, _ in keys)
    added = ", ".join(f"{name} = kept.{name} + excluded.{name}" for name, _ in sums)
    return f"""INSERT INTO {table} AS kept ({columns})
    SELECT {values} FROM {source} ORDER BY {_positions(keys)}
    ON CONFLICT ({key_names}) DO UPDATE SET {added}"""  # noqa: S608  (all names are constants of this file)


def _positions(keys: Sequence[tuple[str, str]]) -> str:
    return ", ".join(str(index + 1) for index in range(len(keys)))


def _add_days(table: str, keys: Sequence[tuple[str, str]], source: str = "summed") -> str:
    """A rollup by day, from the sums by everything."""
    return _upsert(table, _as_named(keys), [(name, f"sum({name})") for name, _ in DAY_SUMS], source)


def _as_named(columns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, name) for name, _ in columns]


_SUMMED_COLUMNS = ", ".join(
    [
        *(f"{expression} AS {name}" for name, expression in KEY_LABEL_SET_DAY_KEYS),
        *(f"({expression})::bigint AS {name}" for name, expression in DAY_SUMS),
    ]
)
_WITH_LABELS = f"summed WHERE {HAS_LABELS}"
# Of thin traffic nearly every request is a row of its own: what is summed already is not summed again.
_ADD_SUMMED = _upsert_rows(
    "billing_usagebykeylabelsetday", _as_named(KEY_LABEL_SET_DAY_KEYS), _as_named(DAY_SUMS), _WITH_LABELS
)
_INSERT_NEW = f"""
WITH inserted AS (
    INSERT INTO billing_requestrecord ({REQUEST_COLUMNS}, ingested_at)
    SELECT {REQUEST_COLUMNS}, ingested_at FROM new_request
    ON CONFLICT DO NOTHING
    RETURNING id, started_at, tenant_id, project_id, api_key_id, deployment_id, price_id, policy_id, status,
        is_unpriced, usage_kind, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,
        reasoning_tokens, cost_nanousd, charge_nanousd, duration_ms, first_token_ms, label_ids
), attempts AS (
    INSERT INTO billing_attemptrecord ({ATTEMPT_COLUMNS})
    SELECT {ATTEMPT_COLUMNS} FROM new_attempt WHERE request_id IN (SELECT id FROM inserted)
    ON CONFLICT DO NOTHING
    RETURNING deployment_id, started_at, cost_nanousd
), attempt_days AS (
    {_upsert("billing_attemptsbyday", ATTEMPT_DAY_KEYS, ATTEMPT_DAY_SUMS, "attempts")}
), summed AS MATERIALIZED (
    SELECT {_SUMMED_COLUMNS} FROM inserted
    GROUP BY {_positions(KEY_LABEL_SET_DAY_KEYS)}
), days AS (
    {_add_days("billing_usagebyday", DAY_KEYS)}
), key_days AS (
    {_add_days("billing_usagebykeyday", KEY_DAY_KEYS)}
), label_days AS (
    {_add_days("billing_usagebylabelday", LABEL_DAY_KEYS, "summed, unnest(label_ids) AS label_id")}
), label_set_days AS (
    {_add_days("billing_usagebylabelsetday", LABEL_SET_DAY_KEYS, _WITH_LABELS)}
), key_label_set_days AS (
    {_ADD_SUMMED}
), forgotten AS (
    {forget_label_days(_WITH_LABELS)}
), hours AS (
    {_upsert("billing_usagebyhour", HOUR_KEYS, HOUR_SUMS)}
), late AS (
    {late_postings_of("inserted", request_id="id", number="0")}
)
SELECT count(*), array_agg(id) FILTER (WHERE tenant_id = ANY(%s) OR id = ANY(%s)) FROM inserted
"""  # noqa: S608  (all names are constants of this file)


def insert_new(
    *, tenant_ids: Iterable[int] = (), request_ids: Sequence[UUID] = ()
) -> tuple[int, list[UUID] | None]:
    """Move what stands in the temporary tables into records and rollups.

    Returns how many requests were new, and which of them are of these tenants or among these: those that budgets count.
    """
    with connection.cursor() as cursor:
        cursor.execute(_INSERT_NEW, [list(tenant_ids), list(request_ids)])
        count, budgeted = cursor.fetchone()
    return count, budgeted
