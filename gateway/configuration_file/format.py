"""What may a configuration file say, and where exactly is it wrong?

Pure. YAML text -> checked entries, each with its path in the file (`deployments[2].price.input_usd_per_mtok`).
A field that an entry does not mention is absent from `values`, and stays as it is in the database.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from billing.pricebook import RATE_NAMES, PriceError, is_limited_rate, parse_rates
from gateway.configuration_file.values import (
    Entry,
    Field,
    FileError,
    Problem,
    Reader,
    join,
    read_boolean,
    read_day,
    read_decimal_text,
    read_factor,
    read_limit_usd,
    read_moment,
    read_number,
    read_rate,
    read_reference,
    read_share,
    read_text,
    read_text_mapping,
    read_texts,
    read_usd,
    read_whole_number,
)


@dataclass(frozen=True, slots=True)
class ConfigurationFile:
    """A whole file, section by section, in its order."""

    providers: tuple[Entry, ...] = ()
    models: tuple[Entry, ...] = ()
    deployments: tuple[Entry, ...] = ()
    policies: tuple[Entry, ...] = ()
    tenants: tuple[Entry, ...] = ()
    issuer: Entry | None = None
    exchange_rates: tuple[Entry, ...] = ()
    sale_terms: tuple[Entry, ...] = ()


def _price(reader: Reader, raw: Any, path: str) -> Entry:
    # Limited rates (input_usd_per_mtok>200000) are too many to list: each that is written here is one.
    named = raw if isinstance(raw, Mapping) else {}
    limited = {key: read_rate for key in named if isinstance(key, str) and is_limited_rate(key)}
    entry = reader.entry(raw, path, {**_PRICE, **limited})
    rates = entry.only(*RATE_NAMES, *limited)
    if not rates and isinstance(raw, Mapping) and not any(p.path.startswith(path) for p in reader.problems):
        reader.complain(path, "a price states at least one rate")
    if limited and all(value is not None for value in rates.values()):
        try:
            parse_rates(rates)
        except PriceError as refusal:
            reader.complain(path, str(refusal))
    return Entry(path, {**entry.only("effective_from", "source", "book"), "rates": rates})


def _budgets(reader: Reader, raw: Any, path: str) -> tuple[Entry, ...] | None:
    if not isinstance(raw, list):
        reader.complain(path, "a list is needed")
        return None
    found = tuple(
        reader.entry(item, f"{path}[{n}]", _BUDGET, required=["window", "limit_usd"])
        for n, item in enumerate(raw)
    )
    seen: set[tuple[Any, bool, str]] = set()
    for entry in found:
        kind = (entry.get("window"), entry.get("is_hard", True), entry.get("model", ""))
        if kind in seen:
            reader.complain(entry.path, f"there is already a budget by {kind[0]} of this kind")
        seen.add(kind)
    return found


def _deployment_budgets(reader: Reader, raw: Any, path: str) -> tuple[Entry, ...] | None:
    found = _budgets(reader, raw, path)
    for entry in found or ():
        if "model" in entry.values:
            reader.complain(join(entry.path, "model"), "a deployment's budget is for the deployment alone")
    return found


def _limits(reader: Reader, raw: Any, path: str) -> Entry:
    return reader.entry(raw, path, _LIMITS)


def _exchange_rates(reader: Reader, raw: Any, path: str) -> tuple[Entry, ...] | None:
    if not isinstance(raw, list):
        reader.complain(path, "a list is needed")
        return None
    needed = ["currency", "rate", "first_day", "source"]
    return tuple(
        reader.entry(item, f"{path}[{n}]", _EXCHANGE_RATE, required=needed) for n, item in enumerate(raw)
    )


def _sale_rates(reader: Reader, raw: Any, path: str) -> Mapping[str, Any]:
    """The rates of an own price. When it begins and why stand beside it."""
    entry = _price(reader, raw, path)
    for name in entry.only("effective_from", "source", "book"):
        reader.complain(join(path, name), "stands beside the price, not in it" if name == "effective_from"
                        else "is not of an own price")  # fmt: skip
    return dict(entry["rates"])


def _sale_terms(reader: Reader, raw: Any, path: str) -> tuple[Entry, ...] | None:
    if not isinstance(raw, list):
        reader.complain(path, "a list is needed")
        return None
    found = tuple(reader.entry(item, f"{path}[{n}]", _SALE_TERM) for n, item in enumerate(raw))
    seen: set[tuple[Any, ...]] = set()
    for entry in found:
        if ("factor" in entry.values) + ("price" in entry.values) + bool(entry.get("ends")) != 1:
            reader.complain(entry.path, "one of factor, price and ends: true is needed")
        scope = (*(entry.get(name, "") for name in _SALE_SCOPE), entry.get("effective_from"))
        if scope in seen:
            reader.complain(entry.path, "there are already terms of this scope for this time")
        seen.add(scope)
    return found


def _prices(reader: Reader, raw: Any, path: str) -> list[Entry] | None:
    if not isinstance(raw, list):
        reader.complain(path, "a list of prices is needed")
        return None
    return [_price(reader, item, f"{path}[{n}]") for n, item in enumerate(raw)]


def _choices(reader: Reader, raw: Any, path: str) -> list[dict[str, Any]] | None:
    """A rule's deployments: names, or mappings of name and weight."""
    if not isinstance(raw, list):
        reader.complain(path, "a list of deployments is needed")
        return None
    choices = []
    for n, item in enumerate(raw):
        if isinstance(item, str):
            choices.append({"name": item})
        else:
            choices.append(dict(reader.entry(item, f"{path}[{n}]", _CHOICE, required=["name"]).values))
    return choices


def _list_of(fields: Mapping[str, Field], *, key: str, required: Sequence[str] = ()) -> Field:
    return lambda reader, raw, path: reader.entries(raw, path, fields, key=key, required=required)


_PRICE: dict[str, Field] = {
    **dict.fromkeys(RATE_NAMES, read_rate),
    "effective_from": read_moment,
    "source": read_text,
    "book": read_text,
}
_CHOICE: dict[str, Field] = {"name": read_text, "weight": read_number}
_PROVIDER: dict[str, Field] = {
    "name": read_text,
    "wire_format": read_text,
    "base_url": read_text,
    "credential": read_reference,
    "addressing": read_text,
    "auth_style": read_text,
    "api_version": read_text,
    "extra_headers": read_text_mapping,
    "allow_private_network": read_boolean,
    "takes_stream_options": read_boolean,
    "is_enabled": read_boolean,
}
_MODEL: dict[str, Field] = {
    "name": read_text,
    "description": read_text,
    "context_tokens": read_whole_number,
    "max_output_tokens": read_whole_number,
    "capabilities": read_texts,
    "endpoints": read_texts,
    "output_limit_parameter": read_text,
    "rating": read_share,
    "rating_source": read_text,
    "rating_date": read_day,
    "is_enabled": read_boolean,
}
_DEPLOYMENT: dict[str, Field] = {
    "name": read_text,
    "model": read_text,
    "provider": read_text,
    "upstream_model": read_text,
    "region": read_text,
    "retention": read_text,
    "price": _price,
    "prices": _prices,
    "budgets": _deployment_budgets,
    "limits": _limits,
    "is_enabled": read_boolean,
}
_RULE: dict[str, Field] = {
    "name": read_text,
    "when": read_text,
    "strategy": read_text,
    "deployments": _choices,
    "fallbacks": read_texts,
    "max_attempts": read_whole_number,
    "timeout_s": read_number,
    "is_enabled": read_boolean,
    "slider": read_number,
    "quality_floor": read_number,
    "check_answers": read_boolean,
}
_POLICY: dict[str, Field] = {
    "id": read_text,
    "description": read_text,
    "is_enabled": read_boolean,
    "requires_approval": read_boolean,
    "baseline": read_text,
    "session_stickiness": read_boolean,
    "rules": _list_of(_RULE, key="name"),
}
_BUDGET: dict[str, Field] = {
    "model": read_text,
    "window": read_text,
    "limit_usd": read_limit_usd,
    "is_hard": read_boolean,
    "may_lower_limit": read_boolean,
    "is_enabled": read_boolean,
}
_LIMITS: dict[str, Field] = {
    "requests_per_minute": read_whole_number,
    "tokens_per_minute": read_whole_number,
    "concurrent": read_whole_number,
}
_KEY: dict[str, Field] = {
    "name": read_text,
    "secret": read_reference,
    "overlap_s": read_number,
    "owner": read_text,
    "is_pinned": read_boolean,
    "allowed_models": read_texts,
    "expires_at": read_moment,
    "budgets": _budgets,
    "limits": _limits,
}
_PROJECT: dict[str, Field] = {
    "name": read_text,
    "is_enabled": read_boolean,
    "keys": _list_of(_KEY, key="name"),
    "budgets": _budgets,
    "limits": _limits,
}
_TENANT: dict[str, Field] = {
    "name": read_text,
    "time_zone": read_text,
    "allowed_regions": read_texts,
    "retention_limit": read_text,
    "shadow_percent": read_number,
    "shadow_daily_budget_usd": read_usd,
    "reported_tags": read_texts,
    "reports_end_users": read_boolean,
    "is_enabled": read_boolean,
    "policies": read_texts,
    "projects": _list_of(_PROJECT, key="name"),
    "budgets": _budgets,
    "limits": _limits,
}
_ISSUER: dict[str, Field] = dict.fromkeys(("legal_name", "address", "email", "tax_id"), read_text)
_BILLING: dict[str, Field] = {
    **_ISSUER,
    "tax_name": read_text,
    "tax_ratio": read_decimal_text,
    "currency": read_text,
    "payment_days": read_whole_number,
}
_EXCHANGE_RATE: dict[str, Field] = {
    "currency": read_text,
    "rate": read_decimal_text,
    "first_day": read_day,
    "last_day": read_day,
    "source": read_text,
    "is_sure": read_boolean,
}
_SALE_SCOPE: Final = ("tenant", "model", "deployment", "meter")
_SALE_TERM: dict[str, Field] = {
    **dict.fromkeys(_SALE_SCOPE, read_text),
    "factor": read_factor,
    "price": _sale_rates,
    "ends": read_boolean,
    "effective_from": read_moment,
    "note": read_text,
}
_TENANT["billing"] = lambda reader, raw, path: reader.entry(raw, path, _BILLING)
_FILE: dict[str, Field] = {
    "providers": _list_of(_PROVIDER, key="name"),
    "models": _list_of(_MODEL, key="name"),
    "deployments": _list_of(_DEPLOYMENT, key="name"),
    "policies": _list_of(_POLICY, key="id"),
    "tenants": _list_of(_TENANT, key="name"),
    "issuer": lambda reader, raw, path: reader.entry(raw, path, _ISSUER),
    "exchange_rates": _exchange_rates,
    "sale_terms": _sale_terms,
}


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping; plain YAML would keep the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                line = key.start_mark.line + 1
                raise FileError([Problem("", f"line {line}: {key.value!r} stands twice in one mapping")])
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def read_configuration(text: str, *, folder: Path) -> ConfigurationFile:
    """Read and check YAML text. Relative `file:` references begin at `folder`. Raises FileError."""
    try:
        raw = yaml.load(text, Loader=_StrictLoader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError as failure:
        raise FileError([Problem("", f"this is not YAML: {failure}")]) from None
    return read_document(raw if raw is not None else {}, folder=folder)


def read_document(raw: Any, *, folder: Path) -> ConfigurationFile:
    """Check a document that is already loaded. Raises FileError with every problem found."""
    reader = Reader(folder)
    entry = reader.entry(raw, "", _FILE)
    if reader.problems:
        raise FileError(reader.problems)
    return ConfigurationFile(**entry.values)
