"""Is a value of a configuration file what it has to be, and where is it if not?

Pure. Every reader takes what YAML made of a value and its path, and returns it checked; a reader that finds a problem
notes it and returns None, so that one reading finds all problems of a file.
"""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from billing.money import MoneyError, parse_usd
from billing.pricebook import PriceError, parse_rates, read_rate_key


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


@dataclass(slots=True)
class Reader:
    """Collects problems while readers walk the document. A reader that finds one returns None."""

    folder: Path
    problems: list[Problem] = field(default_factory=list)

    def complain(self, path: str, text: str) -> None:
        self.problems.append(Problem(path, text))

    def entry(
        self, raw: Any, path: str, fields: Mapping[str, Field], *, required: Sequence[str] = ()
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
        self, raw: Any, path: str, fields: Mapping[str, Field], *, key: str, required: Sequence[str] = ()
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


Field = Callable[[Reader, Any, str], Any]


def join(path: str, key: str) -> str:
    """Return the path of a key below a path."""
    return f"{path}.{key}" if path else key


def read_text(reader: Reader, raw: Any, path: str) -> str | None:
    if isinstance(raw, str):
        return raw.strip() if "\n" not in raw else raw
    reader.complain(path, f"a text is needed, not {raw!r}: put it in quotes")
    return None


def read_boolean(reader: Reader, raw: Any, path: str) -> bool | None:
    if isinstance(raw, bool):
        return raw
    reader.complain(path, "true or false is needed")
    return None


def read_whole_number(reader: Reader, raw: Any, path: str) -> int | None:
    if isinstance(raw, int) and not isinstance(raw, bool) and raw > 0:
        return raw
    reader.complain(path, "a whole number above 0 is needed")
    return None


def read_number(reader: Reader, raw: Any, path: str) -> float | None:
    if isinstance(raw, (int, float)) and not isinstance(raw, bool) and 0 <= raw < float("inf"):
        return raw
    reader.complain(path, "a number of 0 or more is needed")
    return None


def read_share(reader: Reader, raw: Any, path: str) -> float | None:
    if isinstance(raw, (int, float)) and not isinstance(raw, bool) and 0 <= raw <= 1:
        return float(raw)
    reader.complain(path, "a number from 0 to 1 is needed")
    return None


def read_day(reader: Reader, raw: Any, path: str) -> dt.date | None:
    if isinstance(raw, str):
        try:
            raw = dt.date.fromisoformat(raw)
        except ValueError:
            pass
    if isinstance(raw, dt.date) and not isinstance(raw, dt.datetime):
        return raw
    reader.complain(path, "a date is needed, for example 2026-01-31")
    return None


def read_texts(reader: Reader, raw: Any, path: str) -> list[str] | None:
    if not isinstance(raw, list):
        reader.complain(path, "a list of texts is needed")
        return None
    return [
        text for n, item in enumerate(raw) if (text := read_text(reader, item, f"{path}[{n}]")) is not None
    ]


def read_text_mapping(reader: Reader, raw: Any, path: str) -> dict[str, str] | None:
    if not isinstance(raw, Mapping):
        reader.complain(path, "a mapping of names to texts is needed")
        return None
    return {
        str(k): text for k, v in raw.items() if (text := read_text(reader, v, join(path, str(k)))) is not None
    }


def read_moment(reader: Reader, raw: Any, path: str) -> dt.datetime | None:
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


def read_reference(reader: Reader, raw: Any, path: str) -> str | None:
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


def read_rate(reader: Reader, raw: Any, path: str) -> Decimal | None:
    name = path.rpartition(".")[2]
    try:
        plain = read_rate_key(name).name
        return parse_rates({plain: raw})[plain]
    except PriceError as refusal:
        reader.complain(path, str(refusal).partition(": ")[2])
        return None


def read_usd(reader: Reader, raw: Any, path: str) -> Decimal | None:
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


def read_decimal_text(reader: Reader, raw: Any, path: str) -> str | None:
    """A number as it is written: the verb reads it."""
    if isinstance(raw, (int, float, str)) and not isinstance(raw, bool):
        return str(raw)
    reader.complain(path, "a number is needed, for example 0.19")
    return None


def read_limit_usd(reader: Reader, raw: Any, path: str) -> int | None:
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


def read_factor(reader: Reader, raw: Any, path: str) -> Decimal | None:
    """A multiple of the cost. A float is taken as it is written: 1.2 is 1.2."""
    if isinstance(raw, (int, float, str)) and not isinstance(raw, bool):
        try:
            return Decimal(str(raw))
        except InvalidOperation:
            pass
    reader.complain(path, "a number is needed, for example 1.2")
    return None
