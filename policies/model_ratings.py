"""What is each model of the catalog taken to be worth before any evidence? The operator's word, else a public table's.

Pure. Models that nobody rated are absent: the router takes its price neighbour's rating for them, marked as a guess
(`policies.autorouter.estimating.find_rating`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from policies.autorouter.estimating import blended_usd_per_mtok
from policies.autorouter.public_ratings import find_public_rating
from policies.autorouter.tables import Rating, RouterTables

OPERATOR = "operator"


class RatedModel(NamedTuple):
    """A model of the catalog. `rating` None: the operator did not rate it."""

    name: str
    rating: float | None
    source: str
    on: dt.date | None
    usd_per_mtok: float | None


def with_catalog_ratings(tables: RouterTables, models: Iterable[RatedModel]) -> RouterTables:
    """Return the tables with the catalog's ratings over their own.

    An operator's new rating therefore counts at once, and every rated model has its price here, so that unknown ones
    find a neighbour.
    """
    ratings = {**tables.ratings, **catalog_ratings(models)}
    # What `ranking` remembers was computed from the old ratings.
    return replace(tables, ratings=ratings, memo={})


def catalog_ratings(models: Iterable[RatedModel]) -> dict[str, Rating]:
    """The ratings of all models that the operator or a public table rates."""
    found: dict[str, Rating] = {}
    for model in models:
        if model.rating is not None:
            on = "" if model.on is None else model.on.isoformat()
            found[model.name] = Rating(model.rating, model.source or OPERATOR, on, False, model.usd_per_mtok)
        elif (public := find_public_rating(model.name)) is not None:
            found[model.name] = public._replace(usd_per_mtok=model.usd_per_mtok)
    return found


def cheapest_usd_per_mtok(rates_nanousd: Iterable[tuple[int | None, int | None]]) -> float | None:
    """One price of a model: that of its cheapest deployment, of which input and output rates are given."""
    prices = [
        blended_usd_per_mtok((input_rate or 0) / 1e9, (output_rate or 0) / 1e9)
        for input_rate, output_rate in rates_nanousd
        if input_rate is not None or output_rate is not None
    ]
    return min(prices, default=None)
