"""Under which ids does the client know its request, and how often has it asked already? Headers -> what is recorded.

Pure. They are recorded and shown, never believed: two requests with one idempotency key are two requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

MAX_CHARACTERS: Final = 128
# What a record calls it -> the header.
_HEADERS: Final = (
    ("request_id", b"x-request-id"),
    ("idempotency_key", b"idempotency-key"),
    ("retry_count", b"x-stainless-retry-count"),
)
# What every first try of an official SDK says tells nobody anything.
_FIRST_TRY: Final = b"0"


def read_client_ids(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    """The client's own ids, short and printable; what is not so is left out, not cut: half an id finds nothing."""
    found: dict[str, str] = {}
    for name, header in _HEADERS:
        value = headers.get(header)
        if value and value != _FIRST_TRY and len(value) <= MAX_CHARACTERS:
            text = value.decode("latin-1")
            if text.isascii() and text.isprintable():
                found[name] = text
    return found
