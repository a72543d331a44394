"""What do the stored prices say, in the form that rating reads?

Reads: price. One that cannot be read makes its deployment unpriced, never free, where prices are chosen
(`load_cost_prices`, `cost_prices_at`); where a record names it, it raises PriceError.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Collection, Mapping

from django.db.models import QuerySet

from billing.models import Price
from billing.pricebook import PriceError, PriceVersion, parse_rates

logger = logging.getLogger(__name__)

_COLUMNS = ("pk", "deployment_id", "effective_from", "rates")


def read_price(row: Price) -> PriceVersion:
    """Raises PriceError for rates that cannot be read."""
    return _read(row.pk, row.deployment_id, row.effective_from, row.rates)


def load_price(price_id: int) -> PriceVersion:
    """One query. Raises Price.DoesNotExist and PriceError."""
    return read_price(Price.objects.get(pk=price_id))


def load_prices(price_ids: Collection[int]) -> dict[int, PriceVersion]:
    """These prices by id, as many of them as there are. One query, none for none. Raises PriceError."""
    if not price_ids:
        return {}
    rows = Price.objects.filter(pk__in=price_ids).order_by().values_list(*_COLUMNS)
    return {row[0]: _read(*row) for row in rows}


def load_cost_prices() -> dict[int, list[PriceVersion]]:
    """All cost prices by deployment, oldest first. One that cannot be read leaves its deployment out."""
    prices: dict[int, list[PriceVersion]] = {}
    broken: set[int] = set()
    for row in _cost_prices().order_by("effective_from", "id").values_list(*_COLUMNS):
        try:
            prices.setdefault(row[1], []).append(_read(*row))
        except PriceError as error:
            logger.error("price %s of deployment %s cannot be read: %s", row[0], row[1], error)
            broken.add(row[1])
    return {
        deployment_id: versions for deployment_id, versions in prices.items() if deployment_id not in broken
    }


def cost_prices_at(at: dt.datetime, *, model: str | None = None) -> dict[int, PriceVersion]:
    """The cost price in force of each deployment (of a model). One that cannot be read leaves its deployment out."""
    begun = _cost_prices().filter(effective_from__lte=at)
    if model is not None:
        begun = begun.filter(deployment__model__name=model)
    newest = begun.order_by("deployment_id", "-effective_from").distinct("deployment_id")
    prices = {}
    for row in newest.values_list(*_COLUMNS):
        try:
            prices[row[1]] = _read(*row)
        except PriceError:
            continue  # the workers, which load all prices, write it to the log
    return prices


def _cost_prices() -> QuerySet[Price]:
    return Price.objects.filter(book=Price.Book.COST, tenant=None)


def _read(price_id: int, deployment_id: int, effective_from: dt.datetime, rates: object) -> PriceVersion:
    if not isinstance(rates, Mapping):
        raise PriceError("rates are names and numbers")
    return PriceVersion(price_id, deployment_id, effective_from.timestamp(), parse_rates(rates))
