"""What is a request called? UUIDv7 (RFC 9562): ours, sortable by time, and the billing key.

Pure, but for the clock and the random source handed in by the operating system.
"""

from __future__ import annotations

import os
import time


def make_request_id(unix_ms: int | None = None) -> str:
    """Return a UUIDv7 as text; its first 48 bits are the millisecond the request started."""
    if unix_ms is None:
        unix_ms = time.time_ns() // 1_000_000
    random = os.urandom(10).hex()
    head = f"{unix_ms:012x}"
    # Version 7 in the thirteenth digit; variant 10 in the top bits of the seventeenth.
    variant = "89ab"[int(random[3], 16) & 3]
    return f"{head[:8]}-{head[8:]}-7{random[:3]}-{variant}{random[4:7]}-{random[7:19]}"
