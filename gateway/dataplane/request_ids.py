"""What is a request called? UUIDv7 (RFC 9562): ours, sortable by time, and the billing key.

Pure, but for the clock and a random source seeded by the operating system.
"""

from __future__ import annotations

import random
import time

# Seeded from the operating system in every process; workers are processes of their own, never forks.
_getrandbits = random.Random().getrandbits  # noqa: S311  (an id is no secret)


def make_request_id(unix_ms: int | None = None, *, noise: int | None = None) -> str:
    """Return a UUIDv7 as text; its first 48 bits are the millisecond the request started.

    The other 74 bits (`noise`) are random, not secret: an id opens nothing without the key it belongs to.
    """
    if unix_ms is None:
        unix_ms = time.time_ns() // 1_000_000
    # Version 7 in bits 76-79, variant 10 in bits 62-63.
    if noise is None:
        noise = _getrandbits(74)
    number = unix_ms << 80 | 0x7 << 76 | (noise >> 62) << 64 | 0x2 << 62 | noise & 0x3FFFFFFFFFFFFFFF
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
