"""How do requests that had no price get one afterwards? By adjustment pairs; records are never changed.

Writes: rerating_run, adjustment, change_event; through `adjustment_sums` the rollups.
Reads: records, attempts, prices.

A pair is a reversal (the record, negated) and a replacement (the record at its price); both go into the rollups of the
request's own day and hour in the transaction that writes them, so reports include them. Windows of budgets
that run count them too (`budget_adjusting`).
Of a closed month nothing changes: the pair goes into the first open day (`periods`), and late_posting says so.
What its tenant is charged follows from the terms of the request's time.
A request is priced when all its attempts with known usage have a price; else it is left, and counted.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q, Sum

from billing.adjustment_sums import add_to_sums
from billing.budget_adjusting import count_adjustments
from billing.charging import ChargedAttempt, charge_attempts
from billing.models import (
    Adjustment,
    AttemptRecord,
    LatePosting,
    Price,
    RequestRecord,
    ReratingRun,
    UsageByDay,
)
from billing.periods import hold_open_period
from billing.pricebook import PriceVersion, price_at
from billing.rating import UsageUnknownError, total_nanousd
from billing.sale_book import SaleBook
from billing.sale_terms import hold_terms, load_sale_terms
from billing.stored_prices import read_price
from billing.stored_usage import usage_from_json
from policies import changes
from policies.errors import InvalidValueError

# As far back as the console looks for requests without a price.
DAYS_LOOKED_AT = 90

BATCH = 1_000
REVERSAL, REPLACEMENT = 1, 2
# One run at a time writes: the same request must not be priced twice.
RUN_LOCK = 0x72657261
# Days of requests, oldest first, with the keys that may have some without a price.
DaysAndKeys = list[tuple[dt.date, list[int]]]


@dataclass(frozen=True, slots=True)
class Question:
    """Which days, and whether a request from before the first price of its deployment takes that first one."""

    first_day: dt.date
    last_day: dt.date
    takes_later_price: bool = False


class Priced(NamedTuple):
    """A record, its attempts' prices and costs, and the sums. `is_later`: by a price that began after it."""

    record: RequestRecord
    attempts: list[tuple[int, int, int]]
    cost_nanousd: int
    is_later: bool
    charge_nanousd: int


class Books(NamedTuple):
    """All cost prices by deployment, oldest first, and what tenants are charged."""

    prices: Mapping[int, Sequence[PriceVersion]]
    by_id: Mapping[int, PriceVersion]
    sale: SaleBook


class Sums(NamedTuple):
    """Requests and their cost; `later_` are those of them at a price that began after them."""

    request_count: int = 0
    cost_nanousd: int = 0
    later_count: int = 0
    later_nanousd: int = 0

    def plus(self, cost_nanousd: int, is_later: bool) -> Sums:
        later = cost_nanousd if is_later else 0
        return Sums(self[0] + 1, self[1] + cost_nanousd, self[2] + is_later, self[3] + later)


NO_SUMS = Sums()


@dataclass(slots=True)
class Outcome:
    """What a run does, or would: in all, by deployment (id), and how many stay without a price."""

    all: Sums = NO_SUMS
    left_count: int = 0
    by_deployment: dict[int | None, Sums] = field(default_factory=dict)

    def add(self, priced: Priced) -> None:
        sums = self.by_deployment.get(priced.record.deployment_id, Sums())
        self.by_deployment[priced.record.deployment_id] = sums.plus(priced.cost_nanousd, priced.is_later)
        self.all = self.all.plus(priced.cost_nanousd, priced.is_later)


def count_unpriced(first_day: dt.date, last_day: dt.date) -> int:
    """Requests of these days without a price, after all adjustments. Reads the few rollups that have some."""
    days = UsageByDay.objects.filter(day__gte=first_day, day__lte=last_day).exclude(unpriced_count=0)
    return int(days.aggregate(sum=Sum("unpriced_count"))["sum"] or 0)


def count_unpriced_lately(today: dt.date) -> int:
    """Requests of the last DAYS_LOOKED_AT days (UTC) without a price: what home, menu and the page Prices name."""
    return max(0, count_unpriced(today - dt.timedelta(days=DAYS_LOOKED_AT - 1), today))


def count_records_to_read(question: Question, with_some: DaysAndKeys) -> int:
    """At most how many records a run or its preview looks through. Reads the rollups alone."""
    days = UsageByDay.objects.filter(day__gte=question.first_day, day__lte=question.last_day)
    keys = {key for _, found in with_some for key in found}
    read = days.filter(day__in=[day for day, _ in with_some], api_key__in=keys)
    return int(read.aggregate(sum=Sum("request_count"))["sum"] or 0)


def preview(question: Question, with_some: DaysAndKeys | None = None) -> Outcome:
    """What `rerate` would do now. Reads every unpriced record of the days; `with_some` when they are known."""
    outcome = Outcome()
    books = _load_books()
    for batch in _batches(find_days(question) if with_some is None else with_some):
        for priced in _price(batch, books, question):
            if priced is None:
                outcome.left_count += 1
            else:
                outcome.add(priced)
    return outcome


def rerate(question: Question, *, actor: str, reason: str, now: dt.datetime) -> ReratingRun:
    """Price what can be priced. Safe to repeat and to break off: each batch is one transaction, done or not.

    Raises InvalidValueError without a reason.
    """
    reason = reason.strip()
    if not reason:
        raise InvalidValueError({"reason": ["say why: it stands with every adjustment"]})
    run = ReratingRun.objects.create(
        first_day=question.first_day,
        last_day=question.last_day,
        takes_later_price=question.takes_later_price,
        reason=reason[:300],
        made_at=now,
        made_by=actor[:150],
    )
    outcome = Outcome()
    books = _load_books()
    for batch in _batches(find_days(question)):
        with transaction.atomic():
            _store(run, batch, books, question, outcome)
            run.request_count, run.cost_nanousd = outcome.all[:2]
            run.left_count = outcome.left_count
            run.save(update_fields=["request_count", "left_count", "cost_nanousd"])
    with transaction.atomic():
        run.finished_at = now
        run.save(update_fields=["finished_at"])
        changes.record_change(
            actor=actor,
            action="rerate",
            object_type="rerating_run",
            object_id=run.pk,
            object_name=f"{question.first_day} to {question.last_day}",
            after={
                "requests": run.request_count,
                "left": run.left_count,
                "cost_nanousd": run.cost_nanousd,
                "takes_later_price": run.takes_later_price,
                "reason": run.reason,
            },
        )
    return run


def find_replacement(request_id: UUID) -> Adjustment | None:
    """What a request is charged since it was priced afterwards."""
    found = Adjustment.objects.select_related("run", "price")
    return found.filter(request_id=request_id, number=REPLACEMENT).first()


def _batches(with_some: DaysAndKeys) -> Iterator[list[RequestRecord]]:
    """Unpriced records without adjustments, of days that have some, oldest first."""
    for day, keys in with_some:
        begin = dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)
        after: tuple[dt.datetime, UUID | None] = (begin, None)
        while True:
            rows = RequestRecord.objects.filter(
                ~Exists(Adjustment.objects.filter(request_id=OuterRef("pk"))),
                started_at__gte=after[0],
                started_at__lt=begin + dt.timedelta(days=1),
                api_key_id__in=keys,  # there is an index by key and time, none by price
                is_unpriced=True,
            ).order_by("started_at", "id")
            if after[1] is not None:
                rows = rows.exclude(started_at=after[0], id__lte=after[1])
            batch = list(rows[:BATCH])
            if batch:
                yield batch
            if len(batch) < BATCH:
                break
            after = (batch[-1].started_at, batch[-1].pk)


def find_days(question: Question) -> DaysAndKeys:
    """Days of requests, oldest first, with the keys that may have some without a price."""
    days = UsageByDay.objects.filter(day__gte=question.first_day, day__lte=question.last_day)
    # Where other days' adjustments were posted, their reversals may hide in the sum what is open.
    posted_on = LatePosting.objects.filter(posted_on__gte=question.first_day).values("posted_on")
    is_open = Q(unpriced_count__gt=0) | Q(day__in=posted_on)
    found = set(days.filter(is_open).values_list("day", "api_key"))
    with connection.cursor() as cursor:
        # A record that came for a closed day is not in the sums of its own.
        cursor.execute(
            "SELECT DISTINCT (l.started_at AT TIME ZONE 'UTC')::date, r.api_key_id FROM billing_lateposting l"
            " JOIN billing_requestrecord r ON r.id = l.request_id AND r.started_at = l.started_at"
            " WHERE l.number = 0 AND r.is_unpriced AND (l.started_at AT TIME ZONE 'UTC')::date BETWEEN %s AND %s",
            [question.first_day, question.last_day],
        )
        found.update(cursor.fetchall())
    keys_of: dict[dt.date, list[int]] = {}
    for day, key in sorted(found):
        keys_of.setdefault(day, []).append(key)
    return list(keys_of.items())


def _price(batch: Sequence[RequestRecord], books: Books, question: Question) -> Iterator[Priced | None]:
    """Each record priced, None for those that cannot be."""
    attempts: dict[object, list[AttemptRecord]] = {}
    found = AttemptRecord.objects.filter(
        request_id__in=[record.pk for record in batch],
        started_at__gte=batch[0].started_at,
        started_at__lte=batch[-1].started_at,
    )
    for attempt in found.order_by("request_id", "number"):
        attempts.setdefault(attempt.request_id, []).append(attempt)
    for record in batch:
        yield _price_one(record, attempts.get(record.pk, []), books, question)


def _price_one(
    record: RequestRecord,
    attempts: Sequence[AttemptRecord],
    books: Books,
    question: Question,
) -> Priced | None:
    charged: list[tuple[int, int, int]] = []
    to_charge: list[ChargedAttempt] = []
    is_later = False
    for attempt in attempts:
        if attempt.cost_nanousd is not None and attempt.price_id is not None:
            charged.append((attempt.number, attempt.price_id, attempt.cost_nanousd))
            known = books.by_id[attempt.price_id].at(record.started_at.timestamp())
            to_charge.append(
                ChargedAttempt(attempt.deployment_id, attempt.usage, known, attempt.cost_nanousd)
            )
            continue
        usage = usage_from_json(attempt.usage)
        if usage.kind == "unknown":
            continue  # it used nothing, or nobody knows what: as the gateway sums it
        versions = books.prices.get(attempt.deployment_id, ())
        price = price_at(versions, record.started_at.timestamp())
        if price is None and versions and question.takes_later_price:
            price, is_later = versions[0].at(record.started_at.timestamp()), True
        if price is None:
            return None
        try:
            cost = total_nanousd(usage, price)
        except UsageUnknownError:
            return None
        charged.append((attempt.number, price.id, cost))
        to_charge.append(ChargedAttempt(attempt.deployment_id, attempt.usage, price, cost))
    if not charged or record.usage_kind == "unknown":
        return None
    total = sum(cost for _, _, cost in charged)
    charge = charge_attempts(
        to_charge,
        lambda deployment_id: books.sale.find(
            tenant_id=record.tenant_id, deployment_id=deployment_id, at=record.started_at
        ),
    )
    return Priced(record, charged, total, is_later, total if charge is None else charge)


def _store(
    run: ReratingRun,
    batch: Sequence[RequestRecord],
    books: Books,
    question: Question,
    outcome: Outcome,
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [RUN_LOCK])
    # Terms of now, kept as they are until the end: some may have begun, and requests come, since the run did.
    hold_terms()
    books = books._replace(sale=load_sale_terms())
    hold_open_period()
    # Another run may have come between reading the batch and the lock.
    done = set(
        Adjustment.objects.filter(request_id__in=[record.pk for record in batch]).values_list(
            "request_id", flat=True
        )
    )
    rows: list[Adjustment] = []
    for record, priced in zip(batch, _price(batch, books, question), strict=True):
        if record.pk in done:
            continue
        if priced is None:
            outcome.left_count += 1
            continue
        outcome.add(priced)
        rows += [
            _half(run, record, REVERSAL, -1),
            _half(run, record, REPLACEMENT, 1, priced),
        ]
    if not rows:
        return
    Adjustment.objects.bulk_create(rows, batch_size=500)
    add_to_sums(run.pk, min(row.pk for row in rows))
    count_adjustments(rows, made_at=run.made_at)


def _half(
    run: ReratingRun, record: RequestRecord, number: int, sign: int, priced: Priced | None = None
) -> Adjustment:
    return Adjustment(
        run=run,
        request_id=record.pk,
        number=number,
        started_at=record.started_at,
        tenant_id=record.tenant_id,
        project_id=record.project_id,
        api_key_id=record.api_key_id,
        policy_id=record.policy_id,
        deployment_id=record.deployment_id,
        price_id=priced.attempts[-1][1] if priced else record.price_id,
        attempts=priced.attempts if priced else [],
        request_count=sign,
        error_count=sign * (record.status not in ("ok", "cancelled")),
        unpriced_count=0 if priced else sign,
        estimated_count=sign * (record.usage_kind == "estimated"),
        unknown_count=sign * (record.usage_kind == "unknown"),
        input_tokens=sign * (record.input_tokens or 0),
        output_tokens=sign * (record.output_tokens or 0),
        cache_read_tokens=sign * (record.cache_read_tokens or 0),
        cache_write_tokens=sign * (record.cache_write_tokens or 0),
        reasoning_tokens=sign * (record.reasoning_tokens or 0),
        cost_nanousd=priced.cost_nanousd if priced else sign * (record.cost_nanousd or 0),
        charge_nanousd=priced.charge_nanousd if priced else sign * charge_of(record),
    )


def charge_of(record: RequestRecord) -> int:
    """What its tenant was charged for a record."""
    charge = record.cost_nanousd if record.charge_nanousd is None else record.charge_nanousd
    return charge or 0


def _load_books() -> Books:
    prices: dict[int, list[PriceVersion]] = {}
    rows = Price.objects.filter(book=Price.Book.COST, tenant=None).order_by("effective_from", "id")
    for row in rows:
        # One that cannot be read stops the run: without it, requests would be priced by an older one.
        prices.setdefault(row.deployment_id, []).append(read_price(row))
    by_id = {version.id: version for versions in prices.values() for version in versions}
    return Books(prices, by_id, load_sale_terms())
