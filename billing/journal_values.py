"""Is a journal line JSON, and a member of it what it has to be? Each reader returns the value or raises LineError.

Pure.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NoReturn
from uuid import UUID

import orjson

from billing.request_times import ForeignIdError, started_at_of
from billing.usage import MAX_TOKENS

MAX_BIGINT: Final = 2**63 - 1
MAX_SMALLINT: Final = 2**15 - 1
MAX_MS: Final = 1e12
MAX_LEASES: Final = 100
NO_OBJECT: Final[Mapping[str, Any]] = {}
# Ten million USD for one request is a mistake; believed, a few of them would overflow every sum.
MAX_NANOUSD: Final = 10**16


class LineError(ValueError):
    """A line that cannot be stored; the text says why."""


def read_leases(value: Any) -> tuple[UUID, ...]:
    """A short list of ids; none for None."""
    if value is None:
        return ()
    try:
        if type(value) is list and len(value) <= MAX_LEASES:
            return tuple([UUID(text) for text in value])
    except (ValueError, TypeError, AttributeError):
        pass
    raise LineError("leases: not a list of ids")


def read_few(value: Any, field: str) -> list[Any]:
    """A short list of anything; empty for None."""
    if value is None:
        return []
    if type(value) is list and len(value) <= MAX_LEASES:
        return value
    raise LineError(f"{field}: not a short list")


def read_request_id(value: Any) -> tuple[UUID, dt.datetime]:
    """The id, and the moment that it holds."""
    try:
        return _parse_id(value)
    except (ForeignIdError, ValueError, TypeError, AttributeError):
        raise LineError("id: not a request id of this gateway") from None


@lru_cache(maxsize=20_000)
def _parse_id(text: str) -> tuple[UUID, dt.datetime]:
    # Every id is read twice, by its intent and its outcome.
    request_id = UUID(text)
    return request_id, started_at_of(request_id)


def read_id(value: Any, name: str) -> int:
    if type(value) is not int or not 0 < value <= MAX_BIGINT:
        raise LineError(f"{name}: not a database id")
    return value


def read_optional_id(value: Any, name: str) -> int | None:
    return None if value is None else read_id(value, name)


def read_text(value: Any, name: str, limit: int) -> str:
    """Cut to `limit` characters; empty for None."""
    if value is None:
        return ""
    if type(value) is not str:
        raise LineError(f"{name}: not a text")
    return value if len(value) <= limit else value[:limit]


def read_bool(value: Any, name: str) -> bool:
    if type(value) is not bool:
        raise LineError(f"{name}: not true or false")
    return value


def read_small(value: Any, name: str) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= MAX_SMALLINT:
        raise LineError(f"{name}: not a number from 0 to {MAX_SMALLINT}")
    return value


def read_count(value: Any, name: str) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= MAX_TOKENS:
        raise LineError(f"{name}: not a number of tokens")
    return value


def read_amount(value: Any, name: str) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= MAX_NANOUSD:
        raise LineError(f"{name}: not an amount of nano-USD")
    return value


def read_ms(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if type(value) not in (float, int) or not 0 <= value <= MAX_MS:
        raise LineError(f"{name}: not a number of milliseconds")
    return float(value)


def read_object(value: Any, name: str) -> Mapping[str, Any]:
    if value is None:
        return NO_OBJECT
    if type(value) is not dict:
        raise LineError(f"{name}: not an object")
    return value


def read_line(raw: bytes) -> dict[str, Any]:
    """Read one line as JSON, without NUL characters and lone surrogates. Raises LineError."""
    try:
        line = orjson.loads(raw)
        if b"\\u0000" in raw:
            line = _cleaned(line)
    except orjson.JSONDecodeError:
        line = _read_leniently(raw)
    if type(line) is not dict:
        raise LineError("not a JSON object")
    return line


def _read_leniently(raw: bytes) -> Any:
    """What orjson refuses and still has one meaning: wrong UTF-8 and lone surrogates, replaced."""
    try:
        return _cleaned(json.loads(raw.decode("utf-8", "replace"), parse_constant=_refuse_constant))
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, LineError) else "not JSON"
        raise LineError(reason) from None


def _refuse_constant(name: str) -> NoReturn:
    raise LineError(f"{name} is not a number")


def _cleaned(value: Any) -> Any:
    if type(value) is str:
        return value.replace("\x00", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if type(value) is dict:
        return {_cleaned(key): _cleaned(item) for key, item in value.items()}
    if type(value) is list:
        return [_cleaned(item) for item in value]
    if type(value) is float and not math.isfinite(value):
        raise LineError("a number is not finite")
    return value
