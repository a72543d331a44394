"""How many units of which meter, at which rates, make up the spend of a day? Records -> meter_by_day.

Reads: records, attempts, adjustments, late_posting, usage_by_day, prices, terms of sale, labels. Writes: meter_by_day,
meter_day.

Every attempt is rated again, so the lines are exactly those of its cost and charge. A tenant's day is summed again,
whole, whenever its sums in usage_by_day are not those it was summed of; days without news cost one query for all.
Records and rollups are read at one moment, and must tell the same: by key and deployment, cost and charge of the meters
are those of usage_by_day, or the day is marked as not matching, and its month cannot be closed.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

import orjson
from django.db import connection, transaction

from billing.charging import SaleTerms, charge
from billing.models import LabelKind, LabelUse
from billing.pricebook import PriceVersion
from billing.pricing import decimal_text
from billing.rating import Line, Rated, UsageUnknownError, rate
from billing.retention import find_records_since
from billing.sale_book import SaleBook
from billing.sale_terms import load_sale_terms
from billing.stored_prices import load_price
from billing.stored_usage import usage_from_json

CHUNK: Final = 5_000
# Of a tenant and day; what else there is counts without tags.
MAX_TAG_SETS: Final = 1_000
DAY: Final = dt.timedelta(days=1)
_MEASURES = ("request_count", "unpriced_count", "cost_nanousd", "charge_nanousd")
_DIFFERS = "(" + " OR ".join(f"u.{name} IS DISTINCT FROM m.{name}" for name in _MEASURES) + ")"

# Days, tenants and sums that are not those which the meters were summed of.
_FIND_STALE = f"""
SELECT coalesce(u.day, m.day), coalesce(u.tenant_id, m.tenant_id), {_DIFFERS}
FROM (
    SELECT day, tenant_id, {", ".join(f"sum({name})::bigint AS {name}" for name in _MEASURES)}
    FROM billing_usagebyday WHERE day >= %(first)s AND day <= %(last)s
        AND (%(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s) GROUP BY 1, 2
) u FULL JOIN (
    SELECT * FROM billing_meterday WHERE day >= %(first)s AND day <= %(last)s
        AND (%(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s)
) m ON m.day = u.day AND m.tenant_id = u.tenant_id
WHERE {_DIFFERS} OR NOT coalesce(m.matches, false)
ORDER BY 1, 2
"""  # noqa: S608  (all names are constants of this file)

_COLUMNS = """r.tenant_id, r.project_id, r.api_key_id, r.deployment_id, r.started_at, r.charge_nanousd IS NOT NULL,
    a.deployment_id, a.usage::text"""
_LABELS = "coalesce(r.label_ids::text, '{}')"
_OF_RECORDS = f"SELECT {_COLUMNS}, a.price_id, NULL::date, false, 1, {_LABELS}"
_ATTEMPTS = """JOIN billing_attemptrecord a ON a.request_id = r.id AND a.started_at = r.started_at
    AND a.cost_nanousd IS NOT NULL"""
_LATE_MONTH = """CASE WHEN r.started_at < date_trunc('month', %(begins_at)s, 'UTC')
    THEN date_trunc('month', r.started_at, 'UTC')::date END"""
# What the record counted itself: nothing where it has no cost, although an attempt of it may have had one.
_OWN = f"""
{_OF_RECORDS}
FROM billing_requestrecord r {_ATTEMPTS}
WHERE r.started_at >= %(begins_at)s AND r.started_at < %(ends_at)s AND a.started_at >= %(begins_at)s
    AND a.started_at < %(ends_at)s AND r.tenant_id = ANY(%(tenants)s) AND r.cost_nanousd IS NOT NULL
    AND NOT EXISTS (SELECT FROM billing_lateposting l WHERE l.request_id = r.id AND l.number = 0)
"""
_LATE = f"""
SELECT {_COLUMNS}, a.price_id, {_LATE_MONTH}, false, 1, {_LABELS}
FROM billing_lateposting l
JOIN billing_requestrecord r ON r.id = l.request_id AND r.started_at = l.started_at {_ATTEMPTS}
WHERE l.posted_on = %(day)s AND l.number = 0 AND l.tenant_id = ANY(%(tenants)s) AND r.cost_nanousd IS NOT NULL
"""  # noqa: S608  (all names are constants of this file)
# A reversal takes the record's attempts out, a replacement adds those that it names, at the prices that it names.
# Whether it was charged by terms is asked of them: a charge that is the cost may be by a factor of 1.
_ADJUSTED = f"""
SELECT r.tenant_id, r.project_id, r.api_key_id, r.deployment_id, r.started_at,
    true, a.deployment_id, a.usage::text, priced.price_id,
    {_LATE_MONTH}, l.posted_on IS NOT NULL, priced.sign,
    coalesce((SELECT q.label_ids::text FROM billing_requestrecord q
        WHERE q.id = r.request_id AND q.started_at = r.started_at), '{{}}')
FROM billing_adjustment r
LEFT JOIN billing_lateposting l ON l.request_id = r.request_id AND l.number = r.number
CROSS JOIN LATERAL (
    SELECT (e->>0)::int AS number, (e->>1)::bigint AS price_id, 1 AS sign
        FROM jsonb_array_elements(r.attempts) e WHERE r.number = 2
    UNION ALL
    SELECT t.number, t.price_id, -1 FROM billing_attemptrecord t
        WHERE r.number = 1 AND r.cost_nanousd <> 0 AND t.request_id = r.request_id
        AND t.started_at = r.started_at AND t.cost_nanousd IS NOT NULL
) priced
JOIN billing_attemptrecord a ON a.request_id = r.request_id AND a.started_at = r.started_at
    AND a.number = priced.number
WHERE r.tenant_id = ANY(%(tenants)s) AND (
    l.posted_on = %(day)s
    OR l.posted_on IS NULL AND r.started_at >= %(begins_at)s AND r.started_at < %(ends_at)s)
"""  # noqa: S608  (all names are constants of this file)

_NAMES = (
    "day, tenant_id, project_id, api_key_id, deployment_id, price_id, meter, service_tier, cost_rate, sale_rate,"
    " sale_term_id, sale_price_id, late_of, is_correction, tag_label_ids,"
    " quantity, cost_nanousd, charge_nanousd"
)


# Neither a term nor an own price.
_AT_COST: Final = (None, None)


class _Attempt(NamedTuple):
    """One attempt that costs something (`sign` 1) or is taken back (-1), in the columns of the queries above."""

    tenant_id: int
    project_id: int
    api_key_id: int
    record_deployment_id: int | None
    started_at: dt.datetime
    has_own_charge: bool
    deployment_id: int
    usage: str
    price_id: int
    late_of: dt.date | None
    is_correction: bool
    sign: int
    label_ids: str


def sum_meters(*, first_day: dt.date, last_day: dt.date, tenant_id: int | None = None) -> None:
    """Bring the meters of these days up to date. Days whose records were dropped stay as they were summed."""
    records_since = find_records_since()
    with connection.cursor() as cursor:
        cursor.execute(_FIND_STALE, {"first": first_day, "last": last_day, "tenant": tenant_id})
        stale: dict[dt.date, list[int]] = defaultdict(list)
        for day, tenant, _ in cursor.fetchall():
            if records_since is None or day >= records_since:
                stale[day].append(tenant)
    for day, tenants in stale.items():
        _sum_day(day, tenants)


class UnmatchedDay(NamedTuple):
    """A tenant's day whose meters are not those of usage_by_day: to be summed, or summed and wrong."""

    day: dt.date
    tenant_id: int
    is_to_be_summed: bool


def list_unmatched_days(*, first_day: dt.date, last_day: dt.date) -> list[UnmatchedDay]:
    """What keeps a month open. After `sum_meters` only what is wrong is left."""
    with connection.cursor() as cursor:
        cursor.execute(_FIND_STALE, {"first": first_day, "last": last_day, "tenant": None})
        return [UnmatchedDay._make(row) for row in cursor.fetchall()]


def _sum_day(day: dt.date, tenants: Sequence[int]) -> None:
    is_outermost = not connection.in_atomic_block
    with transaction.atomic():
        with connection.cursor() as cursor:
            if is_outermost:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            # Two that sum would each add their rows. A lock on a table comes before the snapshot is taken.
            cursor.execute("LOCK TABLE billing_meterday IN SHARE ROW EXCLUSIVE MODE")
        begins_at = dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)
        asked = {"day": day, "begins_at": begins_at, "ends_at": begins_at + DAY, "tenants": list(tenants)}
        sums = _Sums(_load_tags(tenants))
        for attempt in _read_attempts(asked):
            sums.add(attempt)
        _replace(day, tenants, sums)


def _load_tags(tenants: Sequence[int]) -> frozenset[int]:
    tags = LabelUse.objects.filter(tenant__in=tenants, label__kind=LabelKind.TAG)
    return frozenset(tags.values_list("label_id", flat=True))


def _read_attempts(asked: dict[str, Any]) -> Iterator[_Attempt]:
    for query in (_OWN, _LATE, _ADJUSTED):
        with connection.chunked_cursor() as cursor:
            cursor.execute(query, asked)
            while rows := cursor.fetchmany(CHUNK):
                yield from map(_Attempt._make, rows)


class _Sums:
    """Quantities, costs and charges by all that a meter's row is named by."""

    def __init__(self, tag_ids: frozenset[int]) -> None:
        self.rows: dict[tuple[Any, ...], list[int]] = {}
        self._prices: dict[int, PriceVersion] = {}
        self._book: SaleBook | None = None
        self._tag_ids = tag_ids
        self._tag_sets: dict[int, set[tuple[int, ...]]] = defaultdict(set)

    def add(self, attempt: _Attempt) -> None:
        """Rate an attempt and count its lines."""
        version = self._prices.get(attempt.price_id)
        if version is None:
            version = self._prices[attempt.price_id] = load_price(attempt.price_id)
        price = version.at(attempt.started_at.timestamp())
        usage = usage_from_json(orjson.loads(attempt.usage))
        try:
            paid = rate(usage, price)
        except UsageUnknownError:
            return  # it has a cost nevertheless: the day will not match, which is what there is to say
        terms = self._find_terms(attempt) if attempt.has_own_charge else None
        sold = charge(usage, price, terms) if attempt.has_own_charge else paid
        own_price_id = terms.price.id if terms is not None and terms.price is not None else None
        scope = (attempt[0], attempt[1], attempt[2], attempt[3], attempt.price_id, usage.service_tier)
        late = (attempt.late_of, attempt.is_correction, self._find_tags(attempt))
        sign = attempt.sign
        for meter, quantity, cost_rate, sale_rate, cost, charged in pair_lines(paid, sold):
            is_sold = terms is not None and sale_rate is not None
            sold_by = (terms.term_of(meter), own_price_id) if terms is not None and is_sold else _AT_COST
            key = (*scope, meter, cost_rate, sale_rate, *sold_by, *late)
            kept = self.rows.get(key)
            if kept is None:
                kept = self.rows[key] = [0, 0, 0]
            kept[0] += sign * quantity
            kept[1] += sign * cost
            kept[2] += sign * charged

    def _find_tags(self, attempt: _Attempt) -> tuple[int, ...]:
        """The record's labels that are tags; none beyond so many sets a day: rows must stay far fewer than records."""
        if attempt.label_ids == "{}":
            return ()
        ids = map(int, attempt.label_ids[1:-1].split(","))
        tags = tuple(sorted(one for one in ids if one in self._tag_ids))
        sets = self._tag_sets[attempt.tenant_id]
        if tags not in sets:
            if len(sets) >= MAX_TAG_SETS:
                return ()
            sets.add(tags)
        return tags

    def _find_terms(self, attempt: _Attempt) -> SaleTerms | None:
        if self._book is None:
            self._book = load_sale_terms()
        return self._book.find(
            tenant_id=attempt.tenant_id,
            deployment_id=attempt.deployment_id,
            at=attempt.started_at,
        )


PairedLine = tuple[str, int, Decimal | None, Decimal | None, int, int]


def pair_lines(paid: Rated, sold: Rated) -> list[PairedLine]:
    """(meter, quantity, cost rate, sale rate, cost, charge) of an attempt.

    Where cost and sale cut the units alike, a line is both; else there are lines of each with no rate of the other.
    """
    if paid is sold:
        return [(line.meter, line.quantity, line.usd_per_mtok, line.usd_per_mtok, line.nanousd, line.nanousd)
                for line in paid.lines]  # fmt: skip
    if [line[:2] for line in paid.lines] == [line[:2] for line in sold.lines]:
        return [
            (one.meter, one.quantity, one.usd_per_mtok, other.usd_per_mtok, one.nanousd, other.nanousd)
            for one, other in zip(paid.lines, sold.lines, strict=True)
        ]
    meters = dict.fromkeys(line.meter for line in (*paid.lines, *sold.lines))
    paired: list[PairedLine] = []
    for meter in meters:
        costs = [line for line in paid.lines if line.meter == meter]
        sales = [line for line in sold.lines if line.meter == meter]
        if [line.quantity for line in costs] == [line.quantity for line in sales]:
            paired += [
                (*a[:2], a.usd_per_mtok, b.usd_per_mtok, a.nanousd, b.nanousd) for a, b in _zip(costs, sales)
            ]
            continue
        paired += [(meter, line.quantity, line.usd_per_mtok, None, line.nanousd, 0) for line in costs]
        paired += [(meter, line.quantity, None, line.usd_per_mtok, 0, line.nanousd) for line in sales]
    return paired


def _zip(costs: Sequence[Line], sales: Sequence[Line]) -> Iterator[tuple[Line, Line]]:
    return zip(costs, sales, strict=True)


def _replace(day: dt.date, tenants: Sequence[int], sums: _Sums) -> None:
    expected: dict[tuple[int, int, int | None], tuple[int, int]] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM billing_meterbyday WHERE day = %s AND tenant_id = ANY(%s)", [day, list(tenants)]
        )
        with (
            connection.wrap_database_errors,
            cursor.copy(f"COPY billing_meterbyday ({_NAMES}) FROM STDIN") as copy,
        ):
            for key, (quantity, cost, charged) in sums.rows.items():
                (
                    tenant,
                    project,
                    api_key,
                    deployment,
                    price,
                    tier,
                    meter,
                    cost_rate,
                    sale_rate,
                    sale_term,
                    sale_price,
                    late,
                    corrects,
                    tags,
                ) = key
                if not quantity and not cost and not charged:
                    continue  # taken back as a whole
                copy.write_row((
                    day, tenant, project, api_key, deployment, price, meter, tier, _rate_text(cost_rate),
                    _rate_text(sale_rate), sale_term, sale_price, late, corrects, list(tags), quantity, cost, charged,
                ))  # fmt: skip
                place = (tenant, api_key, deployment)
                before = expected.get(place, (0, 0))
                expected[place] = (before[0] + cost, before[1] + charged)
        wrong = _tenants_that_differ(cursor, day, tenants, expected)
        cursor.execute(
            "DELETE FROM billing_meterday WHERE day = %s AND tenant_id = ANY(%s)", [day, list(tenants)]
        )
        cursor.execute(
            f"""INSERT INTO billing_meterday (day, tenant_id, {", ".join(_MEASURES)}, matches, summed_at)
            SELECT day, tenant_id, {", ".join(f"sum({name})" for name in _MEASURES)}, tenant_id <> ALL(%s), now()
            FROM billing_usagebyday WHERE day = %s AND tenant_id = ANY(%s) GROUP BY 1, 2""",  # noqa: S608
            [list(wrong), day, list(tenants)],
        )


def _tenants_that_differ(
    cursor: Any,
    day: dt.date,
    tenants: Sequence[int],
    summed: dict[tuple[int, int, int | None], tuple[int, int]],
) -> set[int]:
    cursor.execute(
        "SELECT tenant_id, api_key_id, deployment_id, sum(cost_nanousd)::bigint, sum(charge_nanousd)::bigint"
        " FROM billing_usagebyday WHERE day = %s AND tenant_id = ANY(%s) GROUP BY 1, 2, 3",
        [day, list(tenants)],
    )
    rolled_up = {row[:3]: row[3:] for row in cursor.fetchall() if row[3] or row[4]}
    ours = {place: amounts for place, amounts in summed.items() if amounts != (0, 0)}
    places = rolled_up.keys() | ours.keys()
    return {place[0] for place in places if rolled_up.get(place) != ours.get(place)}


def _rate_text(value: Decimal | None) -> str:
    return "" if value is None else decimal_text(value)
