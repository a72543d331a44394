"""What does LiteLLM's price file say that a deployment costs?

Pure. The file is `model_prices_and_context_window.json`; nothing fetches it. It is read as exact decimals: it writes
USD a token, such as 2.5e-06.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from billing.price_sources.listing import Answer, Called, Listing, SourceError

KIND = "litellm-json"
MAX_FILE_BYTES = 20_000_000
# Their name of a provider -> the hosts that it is called at.
HOSTS = {
    "anthropic": ("api.anthropic.com",),
    "cerebras": ("api.cerebras.ai",),
    "cohere": ("api.cohere.com", "api.cohere.ai"),
    "cohere_chat": ("api.cohere.com", "api.cohere.ai"),
    "deepseek": ("api.deepseek.com",),
    "fireworks_ai": ("api.fireworks.ai",),
    "gemini": ("generativelanguage.googleapis.com",),
    "groq": ("api.groq.com",),
    "mistral": ("api.mistral.ai",),
    "openai": ("api.openai.com",),
    "text-completion-openai": ("api.openai.com",),
    "openrouter": ("openrouter.ai",),
    "perplexity": ("api.perplexity.ai",),
    "together_ai": ("api.together.xyz", "api.together.ai"),
    "voyage": ("api.voyageai.com",),
    "xai": ("api.x.ai",),
}
RATE_OF = {
    "input_cost_per_token": "input_usd_per_mtok",
    "output_cost_per_token": "output_usd_per_mtok",
    "cache_read_input_token_cost": "cache_read_usd_per_mtok",
    "cache_creation_input_token_cost": "cache_write_usd_per_mtok",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h_usd_per_mtok",
    "input_cost_per_audio_token": "audio_input_usd_per_mtok",
    "output_cost_per_audio_token": "audio_output_usd_per_mtok",
    "input_cost_per_image_token": "image_input_usd_per_mtok",
    "output_cost_per_image_token": "image_output_usd_per_mtok",
    "output_cost_per_reasoning_token": "reasoning_usd_per_mtok",
    "input_cost_per_request": "usd_per_request",
    "output_cost_per_image": "usd_per_image",
    "input_cost_per_audio_per_second": "usd_per_audio_hour",
}
# All others are stated for a token.
_SCALES = {"usd_per_request": 1, "usd_per_image": 1, "usd_per_audio_hour": 3600}
# Stated beside the rate of an image's tokens, it says the same once more.
_SAME_AS = {"output_cost_per_image": "output_cost_per_image_token"}
_KEY = re.compile(r"(.+?)(?:_above_(\d+)k_tokens)?(?:_(flex|priority|batches))?")
_TIERS = {None: "", "flex": "@flex", "priority": "@priority", "batches": "@batch"}
# Costs that are stated for what this gateway does not count; anything else about cost is noted too.
_IS_COST = re.compile(r"cost|price")


@dataclass(frozen=True, slots=True)
class LitellmFile:
    """A file that was read. `entries`: (host, model) -> [(name in the file, its members)]."""

    entries: Mapping[tuple[str, str], list[tuple[str, Mapping[str, Any]]]]
    title: str
    digest: str
    kind: str = KIND

    def find(self, called: Called, *, now: dt.datetime) -> Answer:
        """The price of one deployment, by the host it is called at and its exact name there."""
        host = urlsplit(called.base_url).hostname or ""
        found = self.entries.get((host, called.upstream_model.lower()), [])
        if not found:
            return Answer("unlisted", text=f"the file has no {called.upstream_model} at {host}")
        answers = [read_entry(name, members) for name, members in found]
        if len({repr([price.rates for price in answer.listings]) for answer in answers}) > 1:
            names = ", ".join(sorted(name for name, _ in found))
            return Answer("ambiguous", text=f"the file lists it at different prices as {names}")
        return answers[0]


def read_file(raw: bytes, *, name: str) -> LitellmFile:
    """Read the file. Raises SourceError."""
    if len(raw) > MAX_FILE_BYTES:
        raise SourceError(f"{name} is larger than {MAX_FILE_BYTES // 1_000_000} MB")
    try:
        document = json.loads(raw, parse_float=Decimal, parse_constant=_refuse_constant)
    except SourceError as refusal:
        raise SourceError(f"{name}: {refusal}") from None
    except json.JSONDecodeError as refusal:
        raise SourceError(f"{name}: not JSON at line {refusal.lineno}: {refusal.msg}") from None
    except (UnicodeDecodeError, RecursionError):
        raise SourceError(f"{name}: not JSON in UTF-8") from None
    if not isinstance(document, dict):
        raise SourceError(f"{name}: an object of models is needed")
    entries: dict[tuple[str, str], list[tuple[str, Mapping[str, Any]]]] = {}
    for entry, members in document.items():
        if not isinstance(members, dict) or entry == "sample_spec":
            continue
        provider = members.get("litellm_provider")
        if not isinstance(provider, str) or provider not in HOSTS:
            continue
        model = entry.removeprefix(f"{provider}/").lower()
        for host in HOSTS[provider]:
            entries.setdefault((host, model), []).append((entry, members))
    if not entries:
        raise SourceError(
            f"{name}: no model has a litellm_provider that is known here; is it LiteLLM's price file?"
        )
    digest = hashlib.sha256(raw).hexdigest()
    return LitellmFile(entries, f"LiteLLM file {name[:60]} ({digest[:8]})", digest)


def read_entry(name: str, members: Mapping[str, Any]) -> Answer:
    """Say an entry of the file in our terms."""
    rates: dict[str, Decimal] = {}
    notes = []
    for key, value in members.items():
        match = _KEY.fullmatch(key)
        plain = RATE_OF.get(match[1]) if match else None
        if plain is None or match is None:
            if value and _IS_COST.search(key):
                notes.append(f"{key} is not counted here")
            continue
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or value < 0:
            return Answer("inexpressible", text=f"{name}: {key} is {str(value)[:40]}, not a price")
        if members.get(_SAME_AS.get(key, "")):
            notes.append(f"{key} is left out: {_SAME_AS[key]} charges the same images")
            continue
        limit = f">{int(match[2]) * 1000}" if match[2] else ""
        rates[f"{plain}{_TIERS[match[3]]}{limit}"] = Decimal(value) * _SCALES.get(plain, 1_000_000)
    if not rates:
        text = f"{name}: {'; '.join(notes)}" if notes else f"{name}: listed without a price"
        return Answer("inexpressible", text=text)
    return Answer("listed", (Listing(name, rates, notes=tuple(notes)),))


def _refuse_constant(text: str) -> Any:
    raise SourceError(f"{text} is not a number")
