"""When did the request with this id start?

Pure. Our ids are UUIDv7 (RFC 9562): the first 48 bits are the millisecond. Records are partitioned by it, so a
look-up by id and this time touches one partition.
"""

from __future__ import annotations

import datetime as dt
import uuid

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
# Outside these years an id is not one of ours; it would also make partitions without end.
FIRST_YEAR, LAST_YEAR = 2020, 2199
_FIRST_MS = int((dt.datetime(FIRST_YEAR, 1, 1, tzinfo=dt.UTC) - EPOCH).total_seconds() * 1000)
_LAST_MS = int((dt.datetime(LAST_YEAR, 12, 31, tzinfo=dt.UTC) - EPOCH).total_seconds() * 1000)


class ForeignIdError(ValueError):
    """Not a UUIDv7 of a time at which this product can have run."""


def started_at_of(request_id: uuid.UUID) -> dt.datetime:
    """Return the millisecond inside a UUIDv7, in UTC. Raises ForeignIdError."""
    number = request_id.int
    unix_ms = number >> 80
    if (number >> 76) & 0xF != 7 or (number >> 62) & 0b11 != 0b10 or not _FIRST_MS <= unix_ms <= _LAST_MS:
        raise ForeignIdError(f"{request_id} is not a request id of this gateway")
    return EPOCH + dt.timedelta(milliseconds=unix_ms)


def first_id_of(at: dt.datetime) -> uuid.UUID:
    """What no id of this moment or later is below. Ids of one millisecond differ in what comes after it."""
    return uuid.UUID(int=(at - EPOCH) // dt.timedelta(milliseconds=1) << 80)


def attempt_id_of(request_id: uuid.UUID, number: int) -> uuid.UUID:
    """The id of a request's nth attempt: the same every time, so that ingesting twice changes nothing."""
    return uuid.UUID(int=request_id.int ^ number)


def attempt_hex_of(request_id: uuid.UUID, number: int) -> str:
    """`attempt_id_of` as 32 digits, which PostgreSQL reads too: in a fifth of the time."""
    return f"{request_id.int ^ number:032x}"
