"""What may a configuration file say, and where exactly is it wrong?

Pure. YAML text -> checked entries, each with its path in the file (`deployments[2].price.input_usd_per_mtok`).
A field that an entry does not mention is absent from `values`, and stays as it is in the database.
"""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

import yaml

from billing.money import MoneyError, parse_usd
from billing.pricebook import RATE_NAMES, PriceError, is_limited_rate, parse_rates, read_rate_key


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where, and what."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


class FileError(Exception):
    """A configuration file that cannot be applied; lists every problem that was found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in problems))


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of the file: its path, and the fields that it mentions."""

    path: str
    values: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.values.get(name, default)

    def only(self, *names: str) -> dict[str, Any]:
        """Those of the named fields that the entry mentions."""
        return {name: self.values[name] for name in names if name in self.values}


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


@dataclass(slots=True)
class _Reader:
    """Collects problems while readers walk the document. A reader that finds one returns None."""

    folder: Path
    problems: list[Problem] = field(default_factory=list)

    def complain(self, path: str, text: str) -> None:
        self.problems.append(Problem(path, text))

    def entry(
        self, raw: Any, path: str, fields: Mapping[str, _Field], *, required: Sequence[str] = ()
    ) -> Entry:
        """Read a mapping whose keys are `fields`; unknown keys are problems that name the nearest known one."""
        if not isinstance(raw, Mapping):
            self.complain(path, "a mapping (name: value) is needed")
            return Entry(path, {})
        values: dict[str, Any] = {}
        for key, value in raw.items():
            read = fields.get(key) if isinstance(key, str) else None
            if read is None:
                near = difflib.get_close_matches(str(key), list(fields), n=1, cutoff=0.0)
                self.complain(
                    join(path, str(key)), f"no such key; did you mean {near[0]}?" if near else "no such key"
                )
            elif value is not None:
                values[key] = read(self, value, join(path, key))
        for name in required:
            if values.get(name) in (None, "") and not any(p.path == join(path, name) for p in self.problems):
                self.complain(join(path, name), "is missing")
        return Entry(path, values)

    def entries(
        self, raw: Any, path: str, fields: Mapping[str, _Field], *, key: str, required: Sequence[str] = ()
    ) -> tuple[Entry, ...]:
        """Read a list of mappings with distinct `key`s."""
        if not isinstance(raw, list):
            self.complain(path, "a list is needed")
            return ()
        found = tuple(
            self.entry(item, f"{path}[{n}]", fields, required=[key, *required]) for n, item in enumerate(raw)
        )
        seen: dict[Any, str] = {}
        for entry in found:
            name = entry.get(key)
            if isinstance(name, Hashable) and name in seen and name is not None:
                self.complain(join(entry.path, key), f"{name!r} is already at {seen[name]}")
            seen.setdefault(name, entry.path)
        return found


_Field = Callable[[_Reader, Any, str], Any]


def join(path: str, key: str) -> str:
    """Return the path of a key below a path."""
    return f"{path}.{key}" if path else key


def _text(reader: _Reader, raw: Any, path: str) -> str | None:
    if isinstance(raw, str):
        return raw.strip() if "\n" not in raw else raw
    reader.complain(path, f"a text is needed, not {raw!r}: put it in quotes")
    return None


def _boolean(reader: _Reader, raw: Any, path: str) -> bool | None:
    if isinstance(raw, bool):
        return raw
    reader.complain(path, "true or false is needed")
    return None


def _whole_number(reader: _Reader, raw: Any, path: str) -> int | None:
    if isinstance(raw, int) and not isinstance(raw, bool) and raw > 0:
        return raw
    reader.complain(path, "a whole number above 0 is needed")
    return None


def _number(reader: _Reader, raw: Any, path: str) -> float | None:
    if isinstance(raw, (int, float)) and not isinstance(raw, bool) and 0 <= raw < float("inf"):
        return raw
    reader.complain(path, "a number of 0 or more is needed")
    return None


def _share(reader: _Reader, raw: Any, path: str) -> float | None:
    if isinstance(raw, (int, float)) and not isinstance(raw, bool) and 0 <= raw <= 1:
        return float(raw)
    reader.complain(path, "a number from 0 to 1 is needed")
    return None


def _day(reader: _Reader, raw: Any, path: str) -> dt.date | None:
    if isinstance(raw, str):
        try:
            raw = dt.date.fromisoformat(raw)
        except ValueError:
            pass
    if isinstance(raw, dt.date) and not isinstance(raw, dt.datetime):
        return raw
    reader.complain(path, "a date is needed, for example 2026-01-31")
    return None


def _texts(reader: _Reader, raw: Any, path: str) -> list[str] | None:
    if not isinstance(raw, list):
        reader.complain(path, "a list of texts is needed")
        return None
    return [text for n, item in enumerate(raw) if (text := _text(reader, item, f"{path}[{n}]")) is not None]


def _text_mapping(reader: _Reader, raw: Any, path: str) -> dict[str, str] | None:
    if not isinstance(raw, Mapping):
        reader.complain(path, "a mapping of names to texts is needed")
        return None
    return {
        str(k): text for k, v in raw.items() if (text := _text(reader, v, join(path, str(k)))) is not None
    }


def _moment(reader: _Reader, raw: Any, path: str) -> dt.datetime | None:
    """A date is its first moment in UTC; a time needs its zone."""
    if isinstance(raw, str):
        try:
            raw = dt.datetime.fromisoformat(raw) if len(raw) > 10 else dt.date.fromisoformat(raw)
        except ValueError:
            reader.complain(path, f"{raw!r} is not a time like 2026-01-31 or 2026-01-31T12:00:00+01:00")
            return None
    if isinstance(raw, dt.datetime):
        if raw.tzinfo is None:
            reader.complain(path, "a time needs its zone, for example 2026-01-31T12:00:00Z")
            return None
        return raw.astimezone(dt.UTC)
    if isinstance(raw, dt.date):
        return dt.datetime(raw.year, raw.month, raw.day, tzinfo=dt.UTC)
    reader.complain(path, "a time is needed, for example 2026-01-31T12:00:00Z")
    return None


def _reference(reader: _Reader, raw: Any, path: str) -> str | None:
    """`env:NAME` or `file:PATH`; a relative path begins at the configuration file."""
    if isinstance(raw, str):
        kind, _, place = raw.strip().partition(":")
        if kind == "env" and place:
            return f"env:{place}"
        if kind == "file" and place:
            return f"file:{(reader.folder / place).resolve()}"
    # What stands there may be the secret itself: not repeated.
    reader.complain(path, "a secret is named, not written: env:NAME or file:PATH")
    return None


def _price(reader: _Reader, raw: Any, path: str) -> Entry:
    # Limited rates (input_usd_per_mtok>200000) are too many to list: each that is written here is one.
    named = raw if isinstance(raw, Mapping) else {}
    limited = {key: _rate for key in named if isinstance(key, str) and is_limited_rate(key)}
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


def _rate(reader: _Reader, raw: Any, path: str) -> Decimal | None:
    name = path.rpartition(".")[2]
    try:
        plain = read_rate_key(name).name
        return parse_rates({plain: raw})[plain]
    except PriceError as refusal:
        reader.complain(path, str(refusal).partition(": ")[2])
        return None


def _usd(reader: _Reader, raw: Any, path: str) -> Decimal | None:
    """An amount in whole cents. A float is taken as it is written: 0.1 is 0.1."""
    if isinstance(raw, (int, float, str)) and not isinstance(raw, bool):
        try:
            value = Decimal(str(raw))
        except InvalidOperation:
            value = Decimal("NaN")
        if value.is_finite() and value >= 0 and value == value.quantize(Decimal("0.01")):
            return value
    reader.complain(path, "an amount in USD is needed, for example 12.50")
    return None


def _decimal_text(reader: _Reader, raw: Any, path: str) -> str | None:
    """A number as it is written: the verb reads it."""
    if isinstance(raw, (int, float, str)) and not isinstance(raw, bool):
        return str(raw)
    reader.complain(path, "a number is needed, for example 0.19")
    return None


def _limit_usd(reader: _Reader, raw: Any, path: str) -> int | None:
    """A limit, in nano-USD. A float is taken as it is written: 0.1 is 0.1."""
    if isinstance(raw, (int, float, str)) and not isinstance(raw, bool):
        try:
            nanousd = parse_usd(str(raw))
        except MoneyError:
            nanousd = 0
        if nanousd > 0:
            return nanousd
    reader.complain(path, "an amount in USD above 0 is needed, for example 12.50")
    return None


def _budgets(reader: _Reader, raw: Any, path: str) -> tuple[Entry, ...] | None:
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


def _limits(reader: _Reader, raw: Any, path: str) -> Entry:
    return reader.entry(raw, path, _LIMITS)


def _exchange_rates(reader: _Reader, raw: Any, path: str) -> tuple[Entry, ...] | None:
    if not isinstance(raw, list):
        reader.complain(path, "a list is needed")
        return None
    needed = ["currency", "rate", "first_day", "source"]
    return tuple(
        reader.entry(item, f"{path}[{n}]", _EXCHANGE_RATE, required=needed) for n, item in enumerate(raw)
    )


def _factor(reader: _Reader, raw: Any, path: str) -> Decimal | None:
    """A multiple of the cost. A float is taken as it is written: 1.2 is 1.2."""
    if isinstance(raw, (int, float, str)) and not isinstance(raw, bool):
        try:
            return Decimal(str(raw))
        except InvalidOperation:
            pass
    reader.complain(path, "a number is needed, for example 1.2")
    return None


def _sale_rates(reader: _Reader, raw: Any, path: str) -> Mapping[str, Any]:
    """The rates of an own price. When it begins and why stand beside it."""
    entry = _price(reader, raw, path)
    for name in entry.only("effective_from", "source", "book"):
        reader.complain(join(path, name), "stands beside the price, not in it" if name == "effective_from"
                        else "is not of an own price")  # fmt: skip
    return dict(entry["rates"])


def _sale_terms(reader: _Reader, raw: Any, path: str) -> tuple[Entry, ...] | None:
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


def _prices(reader: _Reader, raw: Any, path: str) -> list[Entry] | None:
    if not isinstance(raw, list):
        reader.complain(path, "a list of prices is needed")
        return None
    return [_price(reader, item, f"{path}[{n}]") for n, item in enumerate(raw)]


def _choices(reader: _Reader, raw: Any, path: str) -> list[dict[str, Any]] | None:
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


def _list_of(fields: Mapping[str, _Field], *, key: str, required: Sequence[str] = ()) -> _Field:
    return lambda reader, raw, path: reader.entries(raw, path, fields, key=key, required=required)


_PRICE: dict[str, _Field] = {
    **dict.fromkeys(RATE_NAMES, _rate),
    "effective_from": _moment,
    "source": _text,
    "book": _text,
}
_CHOICE: dict[str, _Field] = {"name": _text, "weight": _number}
_PROVIDER: dict[str, _Field] = {
    "name": _text,
    "wire_format": _text,
    "base_url": _text,
    "credential": _reference,
    "addressing": _text,
    "auth_style": _text,
    "api_version": _text,
    "extra_headers": _text_mapping,
    "allow_private_network": _boolean,
    "takes_stream_options": _boolean,
    "is_enabled": _boolean,
}
_MODEL: dict[str, _Field] = {
    "name": _text,
    "description": _text,
    "context_tokens": _whole_number,
    "max_output_tokens": _whole_number,
    "capabilities": _texts,
    "endpoints": _texts,
    "output_limit_parameter": _text,
    "rating": _share,
    "rating_source": _text,
    "rating_date": _day,
    "is_enabled": _boolean,
}
_DEPLOYMENT: dict[str, _Field] = {
    "name": _text,
    "model": _text,
    "provider": _text,
    "upstream_model": _text,
    "region": _text,
    "retention": _text,
    "price": _price,
    "prices": _prices,
    "limits": _limits,
    "is_enabled": _boolean,
}
_RULE: dict[str, _Field] = {
    "name": _text,
    "when": _text,
    "strategy": _text,
    "deployments": _choices,
    "fallbacks": _texts,
    "max_attempts": _whole_number,
    "timeout_s": _number,
    "is_enabled": _boolean,
    "slider": _number,
    "quality_floor": _number,
    "check_answers": _boolean,
}
_POLICY: dict[str, _Field] = {
    "id": _text,
    "description": _text,
    "is_enabled": _boolean,
    "requires_approval": _boolean,
    "baseline": _text,
    "session_stickiness": _boolean,
    "rules": _list_of(_RULE, key="name"),
}
_BUDGET: dict[str, _Field] = {
    "model": _text,
    "window": _text,
    "limit_usd": _limit_usd,
    "is_hard": _boolean,
    "may_lower_limit": _boolean,
    "is_enabled": _boolean,
}
_LIMITS: dict[str, _Field] = {
    "requests_per_minute": _whole_number,
    "tokens_per_minute": _whole_number,
    "concurrent": _whole_number,
}
_KEY: dict[str, _Field] = {
    "name": _text,
    "secret": _reference,
    "overlap_s": _number,
    "owner": _text,
    "is_pinned": _boolean,
    "allowed_models": _texts,
    "expires_at": _moment,
    "budgets": _budgets,
    "limits": _limits,
}
_PROJECT: dict[str, _Field] = {
    "name": _text,
    "is_enabled": _boolean,
    "keys": _list_of(_KEY, key="name"),
    "budgets": _budgets,
    "limits": _limits,
}
_TENANT: dict[str, _Field] = {
    "name": _text,
    "time_zone": _text,
    "allowed_regions": _texts,
    "retention_limit": _text,
    "shadow_percent": _number,
    "shadow_daily_budget_usd": _usd,
    "reported_tags": _texts,
    "reports_end_users": _boolean,
    "is_enabled": _boolean,
    "policies": _texts,
    "projects": _list_of(_PROJECT, key="name"),
    "budgets": _budgets,
    "limits": _limits,
}
_ISSUER: dict[str, _Field] = dict.fromkeys(("legal_name", "address", "email", "tax_id"), _text)
_BILLING: dict[str, _Field] = {
    **_ISSUER,
    "tax_name": _text,
    "tax_ratio": _decimal_text,
    "currency": _text,
    "payment_days": _whole_number,
}
_EXCHANGE_RATE: dict[str, _Field] = {
    "currency": _text,
    "rate": _decimal_text,
    "first_day": _day,
    "last_day": _day,
    "source": _text,
    "is_sure": _boolean,
}
_SALE_SCOPE: Final = ("tenant", "model", "deployment", "meter")
_SALE_TERM: dict[str, _Field] = {
    **dict.fromkeys(_SALE_SCOPE, _text),
    "factor": _factor,
    "price": _sale_rates,
    "ends": _boolean,
    "effective_from": _moment,
    "note": _text,
}
_TENANT["billing"] = lambda reader, raw, path: reader.entry(raw, path, _BILLING)
_FILE: dict[str, _Field] = {
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
    reader = _Reader(folder)
    entry = reader.entry(raw, "", _FILE)
    if reader.problems:
        raise FileError(reader.problems)
    return ConfigurationFile(**entry.values)
