"""What is each model of the catalog taken to be worth, and what does it cost, right now?

Reads: model, deployment, price, the router tables in force. For pages and learning: workers have the same in their
snapshot (`gateway.snapshots`).
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from billing.pricebook import PriceVersion
from billing.stored_prices import cost_prices_at
from policies.autorouter.estimating import find_rating
from policies.autorouter.tables import Rating, RouterTables, empty_tables
from policies.model_ratings import RatedModel, cheapest_usd_per_mtok, with_catalog_ratings
from policies.models import Deployment, Model, RouterTable
from policies.router_tables import find_active, read_tables
from policies.snapshot import DeploymentSnapshot, ModelSnapshot, ProviderSnapshot

logger = logging.getLogger(__name__)

NANO = 1_000_000_000
_NO_PROVIDER = ProviderSnapshot(0, "", "openai_chat", "")


@dataclass(frozen=True, slots=True)
class RouterNow:
    """The version in force (None: ratings alone), its tables with the catalog's ratings, and prices by model.

    `price_of_model`: the price in force of the model's cheapest priced deployment.
    """

    row: RouterTable | None
    tables: RouterTables
    usd_per_mtok: Mapping[str, float | None]
    price_of_model: Mapping[str, PriceVersion]

    def rating_of(self, model: str) -> Rating:
        """The model's rating, or its price neighbour's, marked as a guess."""
        return find_rating(model, self.usd_per_mtok.get(model), self.tables)

    def as_deployments(self) -> dict[str, DeploymentSnapshot]:
        """Return for each priced model what would serve it: its cheapest deployment, but for what routing needs not."""
        found = {}
        for number, (model, version) in enumerate(sorted(self.price_of_model.items()), 1):
            input_rate, output_rate = _compared_rates(version)
            found[model] = DeploymentSnapshot(
                id=number,
                name=model,
                model=ModelSnapshot(id=number, name=model),
                provider=_NO_PROVIDER,
                upstream_model=model,
                input_nanousd_per_mtok=input_rate,
                output_nanousd_per_mtok=output_rate,
            )
        return found


def read_router_now(now: dt.datetime) -> RouterNow:
    """Read it in four queries. A version in force that cannot be read knows nothing, as in a worker that starts."""
    row = find_active()
    try:
        tables = read_tables(row)
    except ValueError as error:
        logger.error("%s cannot be used: %s", row, error)
        tables = empty_tables()
    prices = cost_prices_at(now)
    rates: dict[str, list[tuple[int | None, int | None]]] = {}
    cheapest: dict[str, tuple[float, PriceVersion]] = {}
    deployments = Deployment.objects.filter(
        is_enabled=True, provider__is_enabled=True, model__is_enabled=True
    )
    for pk, model in deployments.order_by("name").values_list("pk", "model__name"):
        version = prices.get(pk)
        rates.setdefault(model, []).append(_compared_rates(version))
        if version is not None:
            cost = cheapest_usd_per_mtok([_compared_rates(version)]) or 0.0
            if model not in cheapest or cost < cheapest[model][0]:
                cheapest[model] = (cost, version)
    usd_per_mtok = {model: cheapest_usd_per_mtok(pairs) for model, pairs in rates.items()}
    rated = [
        RatedModel(name, rating, source, on, usd_per_mtok.get(name))
        for name, rating, source, on in Model.objects.filter(is_enabled=True).values_list(
            "name", "rating", "rating_source", "rating_date"
        )
    ]
    return RouterNow(
        row=row,
        tables=with_catalog_ratings(tables, rated),
        usd_per_mtok=usd_per_mtok,
        price_of_model={model: version for model, (_, version) in cheapest.items()},
    )


def _compared_rates(version: PriceVersion | None) -> tuple[int | None, int | None]:
    if version is None:
        return None, None
    rates = [version.rates.get(f"{name}_usd_per_mtok", Decimal(0)) for name in ("input", "output")]
    return int(rates[0] * NANO), int(rates[1] * NANO)
