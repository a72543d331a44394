"""Which sale terms does a configuration file state, and does the database agree?

Writes: through `billing.sale_terms` and `billing.pricing`. Reads: sale_term, price (book sale). Terms never change:
another factor is a new term from now on. Those without a time say what holds now, those with one when it begins.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from django.utils import timezone

from billing import pricing, sale_terms
from billing.charging import FACTOR_SCALE, as_factor
from billing.models import Price, SaleTerm
from billing.pricebook import parse_rates
from billing.sale_book import ALL_METERS, SaleBook, SaleEntry, SaleScope
from billing.sale_standing import Entry as Listed
from billing.sale_standing import list_entries
from billing.stored_prices import read_price
from gateway.configuration_file.format import ConfigurationFile
from gateway.configuration_file.values import Entry
from policies.errors import InvalidValueError, NotFoundError
from policies.models import ChangeEvent, Deployment, Model, Tenant

Note = Callable[..., None]
At = Callable[[str], AbstractContextManager[None]]
# What a term that did not begin yet is ended by: nothing is shorter.
SHORTEST: Final = dt.timedelta(microseconds=1)


class _Scope(NamedTuple):
    tenant: Tenant | None
    model: Model | None
    deployment: Deployment | None
    meter: str

    def ids(self) -> SaleScope:
        tenant_id, model_id, deployment_id = (row.pk if row is not None else None for row in self[:3])
        return SaleScope(tenant_id, model_id, deployment_id, self.meter)

    def __str__(self) -> str:
        return sale_terms.scope_text(*self)


def apply_sale_terms(file: ConfigurationFile, *, owner: str, note: Note, at: At) -> None:
    """Add or end the terms that the file states and that do not hold."""
    if file.sale_terms:
        applier = _Applier(owner, note, sale_terms.load_sale_terms())
        for entry in file.sale_terms:
            with at(entry.path):
                applier.apply(entry)


@dataclass(slots=True)
class _Applier:
    owner: str
    note: Note
    book: SaleBook

    def apply(self, entry: Entry) -> None:
        """Do what one entry of the file asks. Raises ConfigurationError."""
        scope, since = _scope(entry), entry.get("effective_from")
        ids = scope.ids()
        held = self.book.find_entry(ids, timezone.now()) if since is None else _beginning_at(ids, since)
        if held is not None and _says(entry, held):
            self.note("nothing", "sale_term", str(scope))
            return
        if held is not None and since is not None:
            text = "terms are never changed: state a later effective_from for the new ones"
            raise InvalidValueError({"effective_from": [text]})
        if held is None and since is None and entry.get("ends"):
            self.note("nothing", "sale_term", str(scope))
            return
        self._add(entry, scope, since)
        self.book = sale_terms.load_sale_terms()
        said = _in_words(entry) + (f" from {since.isoformat(timespec='seconds')}" if since else "")
        self.note("end" if entry.get("ends") else "add", "sale_term", str(scope), said)

    def _add(self, entry: Entry, scope: _Scope, since: dt.datetime | None) -> None:
        # A file that sets up an installation states terms of the past; where requests are recorded, they are refused.
        past = since if since is not None and since <= timezone.now() else None
        dated: dict[str, Any] = {"effective_from": since, "actor": self.owner, **entry.only("note")}
        try:
            if "price" in entry.values:
                pricing.add_price(
                    deployment=_only_deployment(scope),
                    tenant=scope.tenant,
                    rates=entry["price"],
                    book=Price.Book.SALE,
                    effective_from=since,
                    actor=self.owner,
                    source=entry.get("note", "") or self.owner,
                )
            elif entry.get("ends"):
                sale_terms.end_term(**scope._asdict(), **dated, at=past)
            else:
                sale_terms.add_term(**scope._asdict(), **dated, at=past, factor=entry["factor"])
        except InvalidValueError as refusal:
            # The verbs' name for the moment as of which something is done; the file knows one time only.
            problems = {"effective_from" if k == "at" else k: v for k, v in refusal.problems.items()}
            raise InvalidValueError(problems) from None


def stated_sale_terms() -> list[dict[str, Any]]:
    """The terms that hold and that will, as the file states them; all tenants' own prices stand at deployments."""
    now = timezone.now()
    entries = list_entries()
    has_begun: set[SaleScope] = set()
    has_price = {entry.scope for entry in entries if entry.rates is not None}
    stated = []
    for entry in entries:  # the newest first
        is_over = entry.begins_at <= now and entry.scope in has_begun
        if entry.begins_at <= now:
            has_begun.add(entry.scope)
        if is_over or (entry.rates is not None and entry.scope.tenant_id is None):
            continue
        is_past_end = entry.is_end and entry.begins_at <= now
        if is_past_end and (entry.scope.tenant_id is not None or entry.scope not in has_price):
            continue  # nothing of this scope is stated, so there is nothing to end
        stated.append(_stated(entry, is_dated=not is_past_end))
    return stated[::-1]


def prune_sale_terms(file: ConfigurationFile, *, owner: str, note: Note) -> None:
    """End the terms that this file made, that hold or will, and whose scope it names no more."""
    named = {_names(entry) for entry in file.sale_terms}
    made = {
        (kind, pk)
        for kind, pk in ChangeEvent.objects.filter(
            actor=owner, object_type__in=("sale_term", "price"), action="add"
        ).values_list("object_type", "object_id")
    }
    listed = list_entries()
    begins = {(entry.scope, entry.begins_at) for entry in listed}
    now = timezone.now()
    for entry in _holding_or_coming(listed, now=now):
        row = entry.row
        kind = "price" if isinstance(row, Price) else "sale_term"
        # Prices of all tenants stand at deployments, and a price of a deployment is never taken back.
        if entry.is_end or (kind, row.pk) not in made or (kind == "price" and row.tenant_id is None):
            continue
        ends_at = None if entry.begins_at <= now else entry.begins_at + SHORTEST
        if _names_of(entry) in named or (entry.scope, ends_at) in begins:
            continue
        model = row.model if isinstance(row, SaleTerm) else None
        scope = _Scope(row.tenant, model, row.deployment, entry.meter)
        sale_terms.end_term(**scope._asdict(), effective_from=ends_at, actor=owner)
        note(
            "end",
            "sale_term",
            str(scope),
            "" if ends_at is None else f"as soon as it begins, {ends_at:%Y-%m-%d}",
        )


def _holding_or_coming(entries: Iterable[Listed], *, now: dt.datetime) -> list[Listed]:
    seen: set[SaleScope] = set()
    found = []
    for entry in entries:  # the newest first
        if entry.begins_at > now or entry.scope not in seen:
            found.append(entry)
        if entry.begins_at <= now:
            seen.add(entry.scope)
    return found


def _scope(entry: Entry) -> _Scope:
    return _Scope(
        _find(Tenant, entry, "tenant"),
        _find(Model, entry, "model"),
        _find(Deployment, entry, "deployment"),
        entry.get("meter", ALL_METERS),
    )


def _find(table: Any, entry: Entry, kind: str) -> Any:
    name = entry.get(kind, "")
    if not name:
        return None
    row = table.objects.filter(name=name).first()
    if row is None:
        raise NotFoundError(f"there is no {kind} {name}")
    return row


def _only_deployment(scope: _Scope) -> Deployment:
    if scope.tenant is None or scope.deployment is None or scope.meter:
        text = (
            "own rates are of one tenant and one deployment, of all meters; all tenants' stand under `prices`"
        )
        raise InvalidValueError({"price": [text]})
    return scope.deployment


def _beginning_at(scope: SaleScope, since: dt.datetime) -> SaleEntry | None:
    """What is stored as beginning at that very moment. An own price may count only from when it was added."""
    tenant_id, model_id, deployment_id, meter = scope
    term = SaleTerm.objects.filter(
        tenant=tenant_id, model=model_id, deployment=deployment_id, meter=meter, effective_from=since
    ).first()
    if term is not None:
        factor = None if term.factor is None else int(term.factor * FACTOR_SCALE)
        return SaleEntry(scope, since.timestamp(), factor)
    if deployment_id is None or meter:
        return None
    price = Price.objects.filter(
        book=Price.Book.SALE, tenant=tenant_id, deployment=deployment_id, effective_from=since
    ).first()
    return None if price is None else SaleEntry(scope, since.timestamp(), None, read_price(price))


def _says(entry: Entry, held: SaleEntry) -> bool:
    if entry.get("ends"):
        return held.is_end
    if "price" in entry.values:
        return held.price is not None and held.price.rates == parse_rates(entry["price"])
    return held.factor_millionths is not None and as_factor(held.factor_millionths) == entry["factor"]


def _in_words(entry: Entry) -> str:
    if "price" in entry.values:
        rates = pricing.canonical_rates(entry["price"])
        return ", ".join(f"{name} {value}" for name, value in rates.items())
    return "" if entry.get("ends") else f"factor {entry['factor'].normalize():f}"


def _stated(entry: Listed, *, is_dated: bool) -> dict[str, Any]:
    row = entry.row
    model = row.model if isinstance(row, SaleTerm) else None
    places = {"tenant": row.tenant, "model": model, "deployment": row.deployment, "meter": entry.meter}
    stated: dict[str, Any] = {name: str(place) for name, place in places.items() if place}
    if entry.is_end:
        stated["ends"] = True
    elif entry.factor is not None:
        stated["factor"] = f"{entry.factor:f}"
    else:
        stated["price"] = dict(entry.rates or {})
    if is_dated:
        stated["effective_from"] = row.effective_from.isoformat()
    if entry.note:
        stated["note"] = entry.note
    return stated


def _names(entry: Entry) -> tuple[str, ...]:
    return tuple(entry.get(name, "") for name in ("tenant", "model", "deployment", "meter"))


def _names_of(entry: Listed) -> tuple[str, ...]:
    row = entry.row
    model = row.model if isinstance(row, SaleTerm) else None
    return tuple(str(place) if place else "" for place in (row.tenant, model, row.deployment, entry.meter))
