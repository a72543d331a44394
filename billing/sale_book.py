"""Which terms hold for a tenant and a deployment at a time?

Pure. An entry is of a scope: a tenant or all, a deployment, a model or all, a meter or all. In each scope the newest
entry that has begun counts; one that ends the scope's terms leaves the choice to the next less specific scope. Of
several scopes the tenant's own come first, then those of the deployment, of its model, of all; among equals, those of
one meter. So the most specific one wins, then the newest.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from billing.charging import FACTOR_SCALE, SaleTerms
from billing.pricebook import PriceVersion

ALL_METERS: Final = ""


class SaleScope(NamedTuple):
    """Whom and what an entry is about. None (and no meter) is all; at most one of model and deployment is set."""

    tenant_id: int | None
    model_id: int | None
    deployment_id: int | None
    meter: str = ALL_METERS


class SaleEntry(NamedTuple):
    """A factor, an own price, or with neither the end of what held before in the same scope."""

    scope: SaleScope
    begins_unix_s: float
    factor_millionths: int | None = None
    price: PriceVersion | None = None
    # Of a factor that is stored.
    term_id: int | None = None

    @property
    def is_end(self) -> bool:
        return self.factor_millionths is None and self.price is None


class _Timeline(NamedTuple):
    starts: tuple[float, ...]
    terms: tuple[SaleTerms | None, ...]


class SaleBook:
    """All entries, and which model each deployment serves. Answers are remembered: it is asked for every record."""

    def __init__(self, entries: Iterable[SaleEntry], model_of_deployment: Mapping[int, int]) -> None:
        self._by_scope: dict[SaleScope, list[SaleEntry]] = {}
        # A price and its end that begin at one moment: the end, which is the later wish.
        for entry in sorted(entries, key=lambda entry: (entry.begins_unix_s, entry.is_end)):
            self._by_scope.setdefault(entry.scope, []).append(entry)
        self._model_of_deployment = model_of_deployment
        self._tenants = {scope.tenant_id for scope in self._by_scope}
        self._timelines: dict[tuple[int, int], _Timeline] = {}

    @property
    def is_empty(self) -> bool:
        """Nobody has terms: everything is charged what it costs."""
        return not self._by_scope

    @property
    def tenant_ids(self) -> set[int] | None:
        """Who has terms of any time; None: there are some for all."""
        return None if None in self._tenants else {one for one in self._tenants if one is not None}

    def concerns(self, tenant_id: int) -> bool:
        """Whether a tenant can have terms at all."""
        return tenant_id in self._tenants or None in self._tenants

    def find(self, *, tenant_id: int, deployment_id: int, at: dt.datetime) -> SaleTerms | None:
        """The terms in force; None: charged what it costs."""
        if not self.concerns(tenant_id):
            return None
        timeline = self._timelines.get((tenant_id, deployment_id))
        if timeline is None:
            timeline = self._timelines[tenant_id, deployment_id] = self._build(tenant_id, deployment_id)
        at_unix_s = at.timestamp()
        place = bisect_right(timeline.starts, at_unix_s)
        terms = timeline.terms[place - 1] if place else None
        if terms is None or terms.price is None:
            return terms
        return SaleTerms(terms.price.at(at_unix_s))

    def find_entry(self, scope: SaleScope, at: dt.datetime) -> SaleEntry | None:
        """What the scope itself says at a time, an end included; None before its first entry."""
        return _newest(self._by_scope.get(scope, ()), at.timestamp())

    def _build(self, tenant_id: int, deployment_id: int) -> _Timeline:
        targets: list[tuple[int | None, int | None]] = [(None, deployment_id), (None, None)]
        model_id = self._model_of_deployment.get(deployment_id)
        if model_id is not None:
            targets.insert(1, (model_id, None))
        # Most specific first; of each tenant and target its entries by meter.
        levels: list[dict[str, list[SaleEntry]]] = []
        for tenant in (tenant_id, None):
            for target in targets:
                levels.append(
                    {
                        scope.meter: entries
                        for scope, entries in self._by_scope.items()
                        if scope[:3] == (tenant, *target)
                    }
                )
        starts = {entry.begins_unix_s for level in levels for entries in level.values() for entry in entries}
        moments = tuple(sorted(starts))
        return _Timeline(moments, tuple(_resolve(levels, moment) for moment in moments))


def _resolve(levels: Iterable[Mapping[str, list[SaleEntry]]], at_unix_s: float) -> SaleTerms | None:
    by_meter: dict[str, int] = {}
    ids: dict[str, int] = {}
    for level in levels:
        for meter, entries in level.items():
            entry = _newest(entries, at_unix_s)
            if meter and entry is not None and entry.factor_millionths is not None:
                if meter not in by_meter and entry.term_id is not None:
                    ids[meter] = entry.term_id
                by_meter.setdefault(meter, entry.factor_millionths)
        whole = _newest(level.get(ALL_METERS, ()), at_unix_s)
        if whole is None or whole.is_end:
            continue
        if whole.price is not None:
            return SaleTerms(whole.price)
        assert whole.factor_millionths is not None
        return SaleTerms(None, whole.factor_millionths, by_meter, whole.term_id, ids)
    return SaleTerms(None, FACTOR_SCALE, by_meter, None, ids) if by_meter else None


def _newest(entries: Iterable[SaleEntry], at_unix_s: float) -> SaleEntry | None:
    found = None
    for entry in entries:
        if entry.begins_unix_s > at_unix_s:
            break
        found = entry
    return found
