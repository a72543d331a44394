"""What does a source say about a deployment? The form of the answer, the same for all sources.

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, Protocol

Finding = Literal["listed", "unlisted", "ambiguous", "inexpressible"]


class SourceError(ValueError):
    """A file or a package that cannot be read as a price list; the text names the line and the reason."""


@dataclass(frozen=True, slots=True)
class Called:
    """What of a deployment a source needs to know to find it."""

    name: str
    base_url: str
    upstream_model: str


@dataclass(frozen=True, slots=True)
class Listing:
    """One price. `effective_from` None: from its approval on. `notes`: what the list says and this price cannot."""

    listed_as: str
    rates: Mapping[str, Decimal]
    effective_from: dt.datetime | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """Listings, the one from now on first; or why there are none, in a sentence."""

    finding: Finding
    listings: tuple[Listing, ...] = ()
    text: str = ""


class Source(Protocol):
    """A price list. `title` says which and of when; `digest` is the SHA-256 of a file, empty for a package."""

    @property
    def kind(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def digest(self) -> str: ...

    def find(self, called: Called, *, now: dt.datetime) -> Answer: ...
