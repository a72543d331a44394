"""Is every stored charge what usage, prices and terms say?

Reads: request_record, attempt_record, adjustment, sale_term, price. Records without terms cost one query: none of them
may have a charge of its own. Those of tenants with terms are charged again, a chunk at a time.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import F, QuerySet

from billing.charging import ChargedAttempt, charge_attempts
from billing.models import Adjustment, AttemptRecord, RequestRecord
from billing.pricebook import PriceVersion
from billing.rerating import REPLACEMENT
from billing.sale_book import SaleBook
from billing.sale_terms import load_sale_terms
from billing.stored_prices import load_prices

CHUNK = 2_000


class WrongCharge(NamedTuple):
    """One charge that is not what it should be."""

    kind: str
    what: str
    stored: str
    expected: str


class _Charged(NamedTuple):
    """A record, or the replacement of one: what was charged, and each attempt's price and cost."""

    request_id: UUID
    started_at: dt.datetime
    tenant_id: int
    cost_nanousd: int
    charge_nanousd: int


def find_wrong_charges(begin: dt.datetime, end: dt.datetime) -> Iterator[WrongCharge]:
    """All wrong charges of records and adjustments that began in this time."""
    book = load_sale_terms()
    yield from _charged_without_terms(book, begin, end)
    if book.is_empty:
        return
    prices: dict[int, PriceVersion] = {}
    records = _of_tenants(RequestRecord.objects.filter(cost_nanousd__isnull=False), book, begin, end)
    columns = records.values_list("pk", "started_at", "tenant_id", "cost_nanousd", "charge_nanousd")
    rows = columns.iterator(chunk_size=CHUNK)
    while chunk := [
        _Charged(pk, at, tenant, cost, cost if charge is None else charge)
        for pk, at, tenant, cost, charge in islice(rows, CHUNK)
    ]:
        yield from _compare("request charge", chunk, _attempts_of(chunk, {}), book, prices)
    replaced = _of_tenants(Adjustment.objects.filter(number=REPLACEMENT), book, begin, end)
    names = ("request_id", "started_at", "tenant_id", "cost_nanousd", "charge_nanousd", "attempts")
    adjusted = replaced.values_list(*names).iterator(chunk_size=CHUNK)
    while part := list(islice(adjusted, CHUNK)):
        chunk = [_Charged(*row[:5]) for row in part]
        costs = {(row[0], number): (price, cost) for row in part for number, price, cost in row[5]}
        yield from _compare("adjusted charge", chunk, _attempts_of(chunk, costs), book, prices)


def _of_tenants(rows: QuerySet[Any], book: SaleBook, begin: dt.datetime, end: dt.datetime) -> QuerySet[Any]:
    rows = rows.filter(started_at__gte=begin, started_at__lt=end).order_by()
    tenants = book.tenant_ids
    return rows if tenants is None else rows.filter(tenant_id__in=tenants)


def _charged_without_terms(book: SaleBook, begin: dt.datetime, end: dt.datetime) -> Iterator[WrongCharge]:
    tenants = book.tenant_ids
    if tenants is None:
        return
    between = {"started_at__gte": begin, "started_at__lt": end}
    records = RequestRecord.objects.filter(charge_nanousd__isnull=False, **between)
    adjusted = Adjustment.objects.filter(**between).exclude(charge_nanousd=F("cost_nanousd"))
    for kind, rows in (("request charge", records), ("adjusted charge", adjusted)):
        id_name = "pk" if kind == "request charge" else "request_id"
        others = rows.exclude(tenant_id__in=tenants).order_by()
        for row in others.values_list(id_name, "cost_nanousd", "charge_nanousd").iterator(chunk_size=CHUNK):
            yield WrongCharge(kind, str(row[0]), str(row[2]), "-" if row[1] is None else str(row[1]))


def _attempts_of(
    chunk: Sequence[_Charged], costs: Mapping[tuple[UUID, int], tuple[int, int]]
) -> dict[UUID, list[tuple[int, dict[str, Any], int, int]]]:
    """(deployment, usage, price, cost) of each request's attempts, priced as recorded or as `costs` says."""
    rows = AttemptRecord.objects.filter(
        request_id__in=[one.request_id for one in chunk],
        started_at__gte=min(one.started_at for one in chunk),
        started_at__lte=max(one.started_at for one in chunk),
    ).order_by()
    found: dict[UUID, list[tuple[int, dict[str, Any], int, int]]] = {}
    names = ("request_id", "number", "deployment_id", "usage", "price_id", "cost_nanousd")
    for request_id, number, deployment_id, usage, price_id, cost in rows.values_list(*names):
        price_id, cost = costs.get((request_id, number), (price_id, cost))
        if price_id is not None and cost is not None:
            found.setdefault(request_id, []).append((deployment_id, usage, price_id, cost))
    return found


def _compare(
    kind: str,
    chunk: Sequence[_Charged],
    attempts_of: Mapping[UUID, list[tuple[int, dict[str, Any], int, int]]],
    book: SaleBook,
    prices: dict[int, PriceVersion],
) -> Iterator[WrongCharge]:
    wanted = {price_id for attempts in attempts_of.values() for _, _, price_id, _ in attempts}
    prices |= load_prices(wanted - prices.keys())
    for one in chunk:
        attempts = [
            ChargedAttempt(deployment_id, usage, prices[price_id].at(one.started_at.timestamp()), cost)
            for deployment_id, usage, price_id, cost in attempts_of.get(one.request_id, ())
        ]
        expected = charge_attempts(attempts, _terms_of(book, one))
        if expected is None:
            expected = one.cost_nanousd
        if expected != one.charge_nanousd:
            yield WrongCharge(kind, str(one.request_id), str(one.charge_nanousd), str(expected))


def _terms_of(book: SaleBook, one: _Charged) -> Any:
    return lambda deployment_id: book.find(
        tenant_id=one.tenant_id, deployment_id=deployment_id, at=one.started_at
    )
