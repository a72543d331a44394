"""How do adjustments get into the sums? The rollups of their request's own day and hour, and what is late.

Writes: the rollups by day and by hour, attempts_by_day, late_posting; label_day (days that are not whole now).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from django.db import connection

from billing.budget_adjusting import ATTEMPT_CHANGE, ATTEMPT_CHANGES
from billing.models import Adjustment
from billing.periods import POSTING_DAY, late_postings_of
from billing.rollups import (
    DAY_KEYS,
    DAY_SUMS,
    HAS_LABELS,
    HOUR_KEYS,
    HOUR_SUMS,
    KEY_DAY_KEYS,
    KEY_LABEL_SET_DAY_KEYS,
    LABEL_DAY_KEYS,
    LABEL_SET_DAY_KEYS,
    forget_label_days,
)


def adjustment_sums(sums: Sequence[tuple[str, str]]) -> str:
    """What adjustments add to these columns of a rollup. Durations do not change: both halves have the same."""
    columns = {column.name for column in Adjustment._meta.fields}
    return ", ".join(f"sum({name})" if name in columns else f"0 AS {name}" for name, _ in sums)


def with_labels(source: str, name: str) -> str:
    """Adjustments (`source`, known as `name`), once for each label of their request, with its `label_id`."""
    return f"""{source}, LATERAL (
        SELECT label_id FROM billing_requestrecord r, unnest(r.label_ids) AS label_id
        WHERE r.id = {name}.request_id AND r.started_at = {name}.started_at
    ) labelled"""  # noqa: S608  (names of ours)


def with_label_sets(source: str, name: str) -> str:
    """Adjustments (`source`, known as `name`) of requests that have labels, with their `label_ids`."""
    return f"""{source}, LATERAL (
        SELECT r.label_ids FROM billing_requestrecord r
        WHERE r.id = {name}.request_id AND r.started_at = {name}.started_at AND {HAS_LABELS}
    ) labelled"""  # noqa: S608  (names of ours)


def _add_to(
    table: str,
    keys: Sequence[tuple[str, str]],
    sums: Sequence[tuple[str, str]],
    source: str = "billing_adjustment",
) -> str:
    key_names = ", ".join(name for name, _ in keys)
    positions = ", ".join(str(index + 1) for index in range(len(keys)))
    added = ", ".join(f"{name} = kept.{name} + excluded.{name}" for name, _ in sums)
    return f"""INSERT INTO {table} AS kept ({key_names}, {", ".join(name for name, _ in sums)})
    SELECT {", ".join(expression for _, expression in keys)}, {adjustment_sums(sums)}
    FROM {source} WHERE run_id = %s AND id >= %s GROUP BY {positions} ORDER BY {positions}
    ON CONFLICT ({key_names}) DO UPDATE SET {added}"""  # noqa: S608  (names of ours)


_ADD_TO_DAYS: Final = _add_to("billing_usagebyday", DAY_KEYS, DAY_SUMS)
_ADD_TO_KEY_DAYS: Final = _add_to("billing_usagebykeyday", KEY_DAY_KEYS, DAY_SUMS)
_ADD_TO_LABEL_DAYS: Final = _add_to(
    "billing_usagebylabelday",
    LABEL_DAY_KEYS,
    DAY_SUMS,
    with_labels("billing_adjustment", "billing_adjustment"),
)
_ADD_TO_LABEL_SETS, _ADD_TO_KEY_LABEL_SETS = (
    _add_to(table, keys, DAY_SUMS, with_label_sets("billing_adjustment", "billing_adjustment"))
    for table, keys in (
        ("billing_usagebylabelsetday", LABEL_SET_DAY_KEYS),
        ("billing_usagebykeylabelsetday", KEY_LABEL_SET_DAY_KEYS),
    )
)
_ADD_TO_HOURS: Final = _add_to("billing_usagebyhour", HOUR_KEYS, HOUR_SUMS)
_ADD_TO_ATTEMPT_DAYS: Final = f"""
INSERT INTO billing_attemptsbyday AS kept (day, deployment_id, attempt_count, cost_nanousd)
SELECT (j.started_at AT TIME ZONE 'UTC')::date, a.deployment_id, 0, {ATTEMPT_CHANGE}
FROM {ATTEMPT_CHANGES} WHERE j.run_id = %s AND j.id >= %s GROUP BY 1, 2 ORDER BY 1, 2
ON CONFLICT (day, deployment_id) DO UPDATE SET cost_nanousd = kept.cost_nanousd + excluded.cost_nanousd
"""  # noqa: S608  (constants)
_NOTE_LATE: Final = late_postings_of(
    "(SELECT * FROM billing_adjustment WHERE run_id = %s AND id >= %s) adjusted",
    request_id="request_id",
    number="number",
)
_FORGET_LABEL_DAYS: Final = forget_label_days(
    f"(SELECT {POSTING_DAY} AS day FROM billing_adjustment WHERE run_id = %s AND id >= %s) adjusted"  # noqa: S608
)
_STATEMENTS: Final = (
    _NOTE_LATE,
    _ADD_TO_DAYS,
    _ADD_TO_KEY_DAYS,
    _ADD_TO_LABEL_DAYS,
    _ADD_TO_LABEL_SETS,
    _ADD_TO_KEY_LABEL_SETS,
    _FORGET_LABEL_DAYS,
    _ADD_TO_HOURS,
    _ADD_TO_ATTEMPT_DAYS,
)


def add_to_sums(run_id: int, first_id: int) -> None:
    """Count the adjustments of a run from this one on, in the transaction that wrote them."""
    with connection.cursor() as cursor:
        for statement in _STATEMENTS:
            cursor.execute(statement, [run_id, first_id])
