"""What does the package genai-prices say that a deployment costs? Its data is inside it: no network.

Pure, except: Reads: the installed package.

A provider of the list is found by the deployment's base URL, a model by its exact id, else by the list's own rule for
names. What two entries could mean is ambiguous, and said: nobody guesses. `chosen` names an entry outright.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any

from billing.price_sources.listing import Answer, Called, Listing, SourceError
from billing.pricebook import FALLBACKS, PriceError, Window, parse_rates, read_rate_key

KIND = "genai-prices"
# Their names for what we count, USD a million or an hour. What is not here is not counted by this gateway.
RATE_OF = {
    "input_mtok": "input_usd_per_mtok",
    "cache_read_mtok": "cache_read_usd_per_mtok",
    "cache_write_mtok": "cache_write_usd_per_mtok",
    "cache_write_5m_mtok": "cache_write_usd_per_mtok",
    "cache_write_1h_mtok": "cache_write_1h_usd_per_mtok",
    "output_mtok": "output_usd_per_mtok",
    "output_reasoning_mtok": "reasoning_usd_per_mtok",
    "input_audio_mtok": "audio_input_usd_per_mtok",
    "output_audio_mtok": "audio_output_usd_per_mtok",
    "input_image_mtok": "image_input_usd_per_mtok",
    "output_image_mtok": "image_output_usd_per_mtok",
    "input_audio_hours": "usd_per_audio_hour",
}
# By the thousand there, by the piece here.
THOUSANDS = {"requests_kcount": "usd_per_request", "web_searches_kcount": "usd_per_search"}
# What a price states once more for all directions, beside that of what is sent.
REPEATED = {"audio_hours": "input_audio_hours"}
# What selects a variant of the price, where an answer can echo it as its service tier.
_TIER_KEYS = ("service_tier", "processing")


@dataclass(frozen=True)
class GenaiPrices:
    """The package's list. `chosen`: deployment name -> "provider/model" of the list."""

    chosen: Mapping[str, str] = field(default_factory=dict)
    kind: str = KIND
    digest: str = ""

    @cached_property
    def title(self) -> str:
        from genai_prices import __version__  # half a second: only who syncs prices waits for it

        return f"{KIND} {__version__}"

    @cached_property
    def providers(self) -> Mapping[str, Any]:
        """The list's providers by their id."""
        from genai_prices.data_snapshot import get_snapshot

        return {provider.id: provider for provider in get_snapshot().providers}

    def find(self, called: Called, *, now: dt.datetime) -> Answer:
        """The prices of one deployment: the present one, then those that are announced."""
        if called.name in self.chosen:
            found = [self._named(self.chosen[called.name])]
        else:
            serving = [p for p in self.providers.values() if re.match(p.api_pattern, called.base_url)]
            if not serving:
                return Answer("unlisted", text=f"no provider of the list is called at {called.base_url}")
            found = self._candidates(serving, called.upstream_model)
        if not found:
            return Answer("unlisted", text=f"the list of {serving[0].name} has no {called.upstream_model}")
        answers = [read_model(provider, model, now=now) for provider, model in found]
        different = {
            repr([(price.rates, price.effective_from) for price in answer.listings]) for answer in answers
        }
        if len(different) > 1:
            names = ", ".join(sorted(f"{provider.id}/{model.id}" for provider, model in found))
            return Answer("ambiguous", text=f"may be any of {names}: choose with --match {called.name}=ENTRY")
        return answers[0]

    def entries_of(self, base_url: str, upstream_model: str) -> frozenset[str]:
        """The entries that a name can mean at an address; none where the list does not know the address."""
        serving = [p for p in self.providers.values() if re.match(p.api_pattern, base_url)]
        found = self._candidates(serving, upstream_model) if serving else []
        return frozenset(f"{provider.id}/{model.id}" for provider, model in found)

    def _named(self, entry: str) -> tuple[Any, Any]:
        provider_id, _, model_id = entry.partition("/")
        provider = self.providers.get(provider_id)
        model = next((m for m in provider.models if m.id == model_id), None) if provider else None
        if model is None:
            raise SourceError(f"{entry}: the list has no such provider/model")
        return provider, model

    def _candidates(self, serving: list[Any], upstream_model: str) -> list[tuple[Any, Any]]:
        wanted = upstream_model.lower()
        own = [(provider, model) for provider in serving for model in provider.models]
        # Azure and Google serve models of others at the others' prices, says the list.
        lent = [
            (self.providers[name], model)
            for provider in serving
            for name in provider.fallback_model_providers or ()
            if name in self.providers
            for model in self.providers[name].models
        ]
        for pairs in (own, lent):
            exact = [pair for pair in pairs if pair[1].id.lower() == wanted]
            if found := exact or [pair for pair in pairs if pair[1].is_match(wanted)]:
                return found
        return []


def read_model(provider: Any, model: Any, *, now: dt.datetime) -> Answer:
    """Say an entry of the list in our terms."""
    name = f"{provider.id}/{model.id}"
    conditional = model.prices if isinstance(model.prices, list) else []
    moments = [now, *_announced(conditional, now)]
    listings = []
    for at in moments:
        try:
            rates, notes = _read_rates(model, at)
        except PriceError as refusal:
            return Answer("inexpressible", text=f"{name}: {refusal}")
        if rates:
            listings.append(Listing(name, rates, None if at is now else at, notes))
        elif at is now:
            text = f"{name}: {'; '.join(notes)}" if notes else f"{name}: listed without a price"
            return Answer("inexpressible", text=text)
    return Answer("listed", tuple(listings))


def _announced(conditional: list[Any], now: dt.datetime) -> list[dt.datetime]:
    days = {price.constraint.start_date for price in conditional if hasattr(price.constraint, "start_date")}
    midnights = [dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC) for day in days]
    return sorted(at for at in midnights if at > now)


def _read_rates(model: Any, at: dt.datetime) -> tuple[dict[str, Decimal], tuple[str, ...]]:
    notes: list[str] = []
    rates: dict[str, Decimal] = {}
    always, by_hours = _split_hours(model.prices, at)
    stated = {key: price for key, price in always.__dict__.items() if price is not None}
    for key, price in stated.items():
        if stated.get(REPEATED.get(key, "")) == price:
            continue
        if not _add(rates, key, price, ""):
            notes.append(f"{key} is not counted here")
    if not rates:
        return {}, tuple(notes)
    standard = dict(rates)
    for window, prices in by_hours:
        within: dict[str, Decimal] = {}
        for key, price in prices.__dict__.items():
            if price is not None and not _add(within, key, price, ""):
                notes.append(f"{key} is not counted here")
        if missing := sorted(standard.keys() - within.keys()):
            raise PriceError(f"{', '.join(missing)} is not stated for {window} UTC")
        rates |= {str(read_rate_key(text)._replace(window=window)): rate for text, rate in within.items()}
    if by_hours:
        parse_rates(rates)  # windows that overlap are refused
    for variant in model.price_variants or ():
        if variant.constraint is not None and not variant.constraint.active(at):
            continue
        ((selector, value), *more) = variant.when.items()
        if more or selector not in _TIER_KEYS or not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,39}", value):
            said = ", ".join(f"{key}={text}" for key, text in variant.when.items())
            notes.append(f"prices for {said} are not told apart here")
        elif value != "default":
            overrides: dict[str, Decimal] = {}
            for key, price in variant.prices.__dict__.items():
                if price is not None and not _add(overrides, key, price, value):
                    notes.append(f"{key} is not counted here")
            for key, rate in overrides.items():
                if _has_stand_in(key, standard):
                    rates.setdefault(key, rate)
                else:
                    notes.append(f"{key} has no standard rate: left out")
    return rates, tuple(dict.fromkeys(notes))


def _split_hours(prices: Any, at: dt.datetime) -> tuple[Any, list[tuple[Window, Any]]]:
    """The price of a date that holds at all hours, and those that take its place at some. Raises PriceError."""
    if not isinstance(prices, list):
        return prices, []
    by_hours = []
    for one in reversed(prices):  # the list's own rule: the last one that applies
        if hasattr(one.constraint, "start_time"):
            begins, ends = (
                dt.datetime.combine(at.date(), time, time.tzinfo or dt.UTC).astimezone(dt.UTC)
                for time in (one.constraint.start_time, one.constraint.end_time)
            )
            if begins.second or ends.second:
                raise PriceError("its hours do not begin at whole minutes")
            if begins.time() != ends.time():
                window = Window(begins.hour * 60 + begins.minute, ends.hour * 60 + ends.minute)
                by_hours.append((window, one.prices))
        elif one.constraint is None or one.constraint.active(at):
            return one.prices, by_hours
    raise PriceError("at some hours it has no price")


def _add(rates: dict[str, Decimal], key: str, price: Any, tier: str) -> bool:
    """Add one of their prices under our names; False when nothing here is counted in its unit."""
    scale = 1
    if key in THOUSANDS:
        name, scale = THOUSANDS[key], 1000
    elif key in RATE_OF:
        name = RATE_OF[key]
    else:
        return False
    limited = f"{name}@{tier}" if tier else name
    rates[limited] = getattr(price, "base", price) / scale
    for step in getattr(price, "tiers", ()):
        rates[f"{limited}>{step.start}"] = step.price / scale
    return True


def _has_stand_in(key: str, standard: Mapping[str, Decimal]) -> bool:
    name: str | None = key.partition("@")[0]
    while name is not None and name not in standard:
        name = FALLBACKS.get(name)
    return name is not None
