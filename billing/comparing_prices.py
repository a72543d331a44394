"""Where do price lists disagree, with each other and with the prices in force?

Reads: deployments, prices in force.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from billing import pricing
from billing.price_proposals import ask_source
from billing.price_sources.listing import Source
from billing.pricing import decimal_text

IN_FORCE = "in force"


@dataclass(frozen=True, slots=True)
class Compared:
    """One deployment. `rates`: source -> its rates as texts; a source that says nothing is missing there."""

    deployment: str
    rates: Mapping[str, Mapping[str, str]]
    silent: Mapping[str, str]

    @property
    def disagreements(self) -> dict[str, dict[str, str | None]]:
        """Rate -> source -> what it says, for the rates of which two sources say different things.

        A source that does not state a rate does not disagree: lists differ in how much they cover.
        """
        names = {name for rates in self.rates.values() for name in rates}
        found = {
            name: {source: rates.get(name) for source, rates in self.rates.items()} for name in sorted(names)
        }
        return {name: said for name, said in found.items() if len(set(said.values()) - {None}) > 1}


def compare_sources(sources: Sequence[Source], *, now: dt.datetime) -> list[Compared]:
    """Ask all sources about all enabled deployments. Raises SourceError."""
    said: dict[str, dict[str, Mapping[str, str]]] = {}
    silent: dict[str, dict[str, str]] = {}
    for source in sources:
        for asked in ask_source(source, now=now):
            name = asked.deployment.name
            if name not in said:
                present = pricing.find_price_in_force(deployment=asked.deployment, at=now)
                said[name] = {IN_FORCE: present.rates} if present else {}
                silent[name] = {} if present else {IN_FORCE: "unpriced"}
            listings = [listing for listing in asked.answer.listings if listing.effective_from is None]
            if listings:
                said[name][source.title] = {
                    key: decimal_text(rate) for key, rate in listings[0].rates.items()
                }
            else:
                silent[name][source.title] = asked.answer.text or "only prices that begin later"
    return [Compared(name, rates, silent[name]) for name, rates in said.items()]
