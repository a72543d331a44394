"""Is every stored cost what usage and price say, and are the rollups what the records say?

Reads: attempt_record, request_record, adjustment, price, the rollups. Streams over server-side
cursors, a month at a time: memory does not grow with the history. Months whose records were dropped
(billing.retention) cannot be checked any more: their rollups are left alone and named.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import orjson
from django.db import connection, transaction
from django.db.models import Exists, OuterRef
from django.db.models.functions import TruncMonth

from billing.adjustment_sums import adjustment_sums, with_label_sets, with_labels
from billing.models import Adjustment, AttemptRecord, UsageByDay
from billing.partitions import add_months, list_months
from billing.periods import posted_rows
from billing.pricebook import PriceVersion
from billing.rating import UsageUnknownError, rate
from billing.rerating import REPLACEMENT, REVERSAL
from billing.retention import find_records_since
from billing.rollups import (
    DAY_KEYS,
    DAY_SUMS,
    HAS_LABELS,
    HOUR_KEYS,
    HOUR_SUMS,
    KEY_DAY_KEYS,
    KEY_LABEL_SET_DAY_KEYS,
    LABEL_DAY_KEYS,
    LABEL_SET,
    LABEL_SET_DAY_KEYS,
)
from billing.stored_prices import load_price
from billing.stored_usage import usage_from_json
from billing.verifying_budgets import find_wrong_attempt_days, find_wrong_budgets
from billing.verifying_charges import find_wrong_charges
from billing.verifying_invoices import find_wrong_numbers, find_wrong_statements
from billing.verifying_label_days import find_wrong_label_days
from billing.verifying_ledger import find_wrong_bookings

CHUNK = 2_000
MAX_KEPT = 100
# Sums of milliseconds are floats: added in another order they differ in the last digits.
MS_TOLERANCE = 0.001
# Name, columns by which it sums, and what it sums; its table is called like it.
ROLLUPS: Final[Sequence[tuple[str, Sequence[tuple[str, str]], Sequence[tuple[str, str]]]]] = (
    ("usage_by_day", DAY_KEYS, DAY_SUMS),
    ("usage_by_key_day", KEY_DAY_KEYS, DAY_SUMS),
    ("usage_by_label_day", LABEL_DAY_KEYS, DAY_SUMS),
    ("usage_by_label_set_day", LABEL_SET_DAY_KEYS, DAY_SUMS),
    ("usage_by_key_label_set_day", KEY_LABEL_SET_DAY_KEYS, DAY_SUMS),
    ("usage_by_hour", HOUR_KEYS, HOUR_SUMS),
)


@dataclass(frozen=True, slots=True)
class Difference:
    """One number that is not what it should be."""

    kind: str
    what: str
    stored: str
    expected: str


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome of a run. `differences` are the first hundred of `difference_count`."""

    at: dt.datetime
    month_count: int
    attempt_count: int
    difference_count: int
    differences: tuple[Difference, ...]
    # Months with rollups whose records were dropped, oldest first.
    unchecked_months: tuple[dt.date, ...] = ()

    @property
    def is_ok(self) -> bool:
        """Whether nothing differs."""
        return self.difference_count == 0


def verify(*, now: dt.datetime, months: Sequence[dt.date] | None = None) -> Verification:
    """Check all months that have all their records (or the given ones)."""
    chosen = _list_whole_months() if months is None else list(months)
    prices: dict[int, PriceVersion] = {}
    attempt_count = difference_count = 0
    kept: list[Difference] = []
    for month in chosen:
        # One transaction: a server-side cursor lives in it.
        with transaction.atomic():
            for found in _differences(month, prices):
                if found is None:
                    attempt_count += 1
                    continue
                difference_count += 1
                if len(kept) < MAX_KEPT:
                    kept.append(found)
    booked = [
        Difference(*wrong)
        for wrong in chain(find_wrong_numbers(), find_wrong_bookings(), find_wrong_budgets())
    ]
    difference_count += len(booked)
    kept += booked[: MAX_KEPT - len(kept)]
    return Verification(
        at=now,
        month_count=len(chosen),
        attempt_count=attempt_count,
        difference_count=difference_count,
        differences=tuple(kept),
        unchecked_months=tuple(sorted(_list_rollup_months() - set(chosen))) if months is None else (),
    )


def _list_whole_months() -> list[dt.date]:
    """The months that nothing was dropped of. A late line can bring a dropped month back with a few records."""
    since = find_records_since()
    return [month for month in list_months() if since is None or month >= since]


def _list_rollup_months() -> set[dt.date]:
    return set(
        UsageByDay.objects.order_by()
        .annotate(month=TruncMonth("day"))
        .values_list("month", flat=True)
        .distinct()
    )


def _differences(month: dt.date, prices: dict[int, PriceVersion]) -> Iterator[Difference | None]:
    """Differences of a month; None for each attempt that was looked at."""
    begin, end = _bounds(month)
    attempts = AttemptRecord.objects.filter(started_at__gte=begin, started_at__lt=end).order_by()
    columns = attempts.values_list("request_id", "number", "started_at", "usage", "price_id", "cost_nanousd")
    for request_id, number, started_at, usage, price_id, cost in columns.iterator(chunk_size=CHUNK):
        yield None
        expected = _expected_cost(usage, price_id, started_at, prices)
        if expected != cost:
            yield Difference("attempt cost", f"{request_id} #{number}", _shown(cost), _shown(expected))
    yield from _request_differences(begin, end)
    yield from (Difference(*found) for found in find_wrong_charges(begin, end))
    yield from _adjustment_differences(begin, end, prices)
    for name, keys, sums in ROLLUPS:
        table = f"billing_{name.replace('_', '')}"
        yield from _rollup_differences(name, table, keys, sums, month)
    yield from (Difference(*found) for found in find_wrong_attempt_days(month))
    yield from (Difference(*found) for found in find_wrong_label_days(month))
    for wrong in find_wrong_statements(month):
        yield Difference(*wrong)


def _expected_cost(
    usage: dict[str, Any], price_id: int | None, started_at: dt.datetime, prices: dict[int, PriceVersion]
) -> int | None:
    if price_id is None or not usage:
        return None
    price = prices.get(price_id)
    if price is None:
        price = prices[price_id] = load_price(price_id)
    try:
        return rate(usage_from_json(usage), price.at(started_at.timestamp())).total_nanousd
    except UsageUnknownError:
        return None


def _request_differences(begin: dt.datetime, end: dt.datetime) -> Iterator[Difference]:
    """Requests whose cost is not the sum of their attempts' (null when unpriced or unknown)."""
    with connection.chunked_cursor() as cursor:
        cursor.execute(
            """
            SELECT id, cost_nanousd, expected FROM (
                SELECT r.id, r.cost_nanousd,
                    CASE WHEN r.is_unpriced OR r.usage_kind = 'unknown' THEN NULL
                        ELSE coalesce(a.total, 0) END AS expected
                FROM billing_requestrecord r
                LEFT JOIN (
                    SELECT request_id, sum(cost_nanousd) AS total FROM billing_attemptrecord
                    WHERE started_at >= %s AND started_at < %s GROUP BY request_id
                ) a ON a.request_id = r.id
                WHERE r.started_at >= %s AND r.started_at < %s
            ) compared WHERE cost_nanousd IS DISTINCT FROM expected
            """,
            [begin, end, begin, end],
        )
        while rows := cursor.fetchmany(CHUNK):
            for request_id, stored, expected in rows:
                yield Difference("request cost", str(request_id), _shown(stored), _shown(expected))


def _adjustment_differences(
    begin: dt.datetime, end: dt.datetime, prices: dict[int, PriceVersion]
) -> Iterator[Difference]:
    """Replacements that are not what their attempts' usage and prices say, or that have no reversal."""
    found = Adjustment.objects.filter(started_at__gte=begin, started_at__lt=end, number=REPLACEMENT)
    reversals = Adjustment.objects.filter(request_id=OuterRef("request_id"), number=REVERSAL)
    columns = found.order_by().annotate(is_pair=Exists(reversals))
    named = ("request_id", "started_at", "attempts", "cost_nanousd", "is_pair")
    rows = columns.values_list(*named).iterator(chunk_size=CHUNK)
    while chunk := list(islice(rows, CHUNK)):
        tried = AttemptRecord.objects.filter(
            request_id__in=[row[0] for row in chunk], started_at__gte=begin, started_at__lt=end
        )
        usages = {(row[0], row[1]): row[2] for row in tried.values_list("request_id", "number", "usage")}
        for request_id, started_at, attempts, cost, is_pair in chunk:
            for number, price_id, stored in attempts:
                usage = usages.get((request_id, number)) or {}
                expected = _expected_cost(usage, price_id, started_at, prices)
                if expected != stored:
                    what = f"{request_id} #{number}"
                    yield Difference("adjusted cost", what, _shown(stored), _shown(expected))
            total = sum(stored for _, _, stored in attempts)
            if total != cost:
                yield Difference("adjusted cost", str(request_id), _shown(cost), _shown(total))
            if not is_pair:
                yield Difference("adjustment", str(request_id), "no reversal", "a reversal")


def _rollup_differences(
    name: str,
    table: str,
    keys: Sequence[tuple[str, str]],
    sums: Sequence[tuple[str, str]],
    month: dt.date,
) -> Iterator[Difference]:
    """Rollup rows that are not the sums of their records: recomputed minus stored has to be zero."""
    begin, end = _bounds(month)
    key_names = [key for key, _ in keys]
    sum_names = [column for column, _ in sums]
    records, adjustments = (
        posted_rows(source, is_by_day=key_names[0] == "day")
        for source in ("billing_requestrecord", "billing_adjustment")
    )
    if "label_id" in key_names:
        records = f"{records}, unnest(label_ids) AS label_id"
        adjustments = with_labels(adjustments, "posted")
    elif LABEL_SET in key_names:
        records = f"{records} WHERE {HAS_LABELS}"
        adjustments = with_label_sets(adjustments, "posted")
    if key_names[0] == "day":
        keys = [("day", "posted_on"), *keys[1:]]
    recomputed = ", ".join(f"{expression} AS {column}" for column, expression in (*keys, *sums))
    positions = ", ".join(str(index + 1) for index in range(len(keys)))
    differs = " OR ".join(
        f"abs(sum(sign * {column})) > {MS_TOLERANCE if column.endswith('_ms_sum') else 0}"
        for column in sum_names
    )
    stored_sums = ", ".join(f"sum({column}) FILTER (WHERE sign < 0)" for column in sum_names)
    expected_sums = ", ".join(f"sum({column}) FILTER (WHERE sign > 0)" for column in sum_names)
    columns = ", ".join([*key_names, *sum_names])
    adjusted = ", ".join([*(expression for _, expression in keys), adjustment_sums(sums)])
    statement = f"""
        SELECT {", ".join(key_names)}, {stored_sums}, {expected_sums} FROM (
            SELECT 1 AS sign, recomputed.* FROM (
                SELECT {recomputed} FROM {records} GROUP BY {positions}
            ) recomputed
            UNION ALL
            SELECT 1, adjusted.* FROM (
                SELECT {adjusted} FROM {adjustments} GROUP BY {positions}
            ) adjusted
            UNION ALL
            SELECT -1, {columns} FROM {table} WHERE {key_names[0]} >= %(first)s AND {key_names[0]} < %(last)s
        ) both_sides GROUP BY {positions} HAVING {differs}
    """  # noqa: S608  (names are constants of billing.storing)
    first, last = (month, add_months(month, 1)) if key_names[0] == "day" else (begin, end)
    with connection.chunked_cursor() as cursor:
        bounds = {"begin": begin, "end": end, "first": first, "last": last}
        cursor.execute(statement, bounds)
        while rows := cursor.fetchmany(CHUNK):
            for row in rows:
                what = ", ".join(
                    f"{key} {value}" for key, value in zip(key_names, row, strict=False) if value is not None
                )
                stored = row[len(key_names) : len(key_names) + len(sum_names)]
                expected = row[len(key_names) + len(sum_names) :]
                for column, one, other in zip(sum_names, stored, expected, strict=True):
                    if (one or 0) != (other or 0):
                        yield Difference(f"{name}.{column}", what, _shown(one), _shown(other))


def _bounds(month: dt.date) -> tuple[dt.datetime, dt.datetime]:
    begin = dt.datetime(month.year, month.month, 1, tzinfo=dt.UTC)
    following = add_months(month, 1)
    return begin, dt.datetime(following.year, following.month, 1, tzinfo=dt.UTC)


def _shown(value: object) -> str:
    return "-" if value is None else str(value)


def list_recent_months(now: dt.datetime) -> list[dt.date]:
    """The last month and this one, where there are records of them."""
    this_month = now.astimezone(dt.UTC).date().replace(day=1)
    return [month for month in (add_months(this_month, -1), this_month) if month in _list_whole_months()]


def write_result(verification: Verification, data_dir: Path, *, name: str = "verify") -> None:
    """Keep the outcome in DATA_DIR/run/NAME.json for the console and /metrics."""
    folder = data_dir / "run"
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "at": verification.at.isoformat(),
        "is_ok": verification.is_ok,
        "month_count": verification.month_count,
        "unchecked_months": [f"{month:%Y-%m}" for month in verification.unchecked_months],
        "attempt_count": verification.attempt_count,
        "difference_count": verification.difference_count,
        "differences": [
            {"kind": one.kind, "what": one.what, "stored": one.stored, "expected": one.expected}
            for one in verification.differences
        ],
    }
    temporary = folder / f"{name}.json.new"
    temporary.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
    temporary.replace(folder / f"{name}.json")
