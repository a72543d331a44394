"""How do rate limits look to a client? Headers and durations as OpenAI writes them.

Pure. Values are those that this worker knows of: what other workers took within the last second may be missing.
"""

from __future__ import annotations

import math
from functools import lru_cache

from gateway.dataplane.errors import Headers
from gateway.dataplane.rate_shares import Standing


def standing_headers(requests: Standing | None, tokens: Standing | None) -> Headers:
    """`x-ratelimit-limit-requests` and its five relatives, of what is limited."""
    headers: Headers = []
    for name, standing in ((b"requests", requests), (b"tokens", tokens)):
        if standing is not None:
            headers.append((b"x-ratelimit-limit-" + name, b"%d" % standing.limit))
            headers.append((b"x-ratelimit-remaining-" + name, b"%d" % standing.remaining))
            headers.append((b"x-ratelimit-reset-" + name, _duration(math.ceil(standing.resets_s * 100))))
    return headers


@lru_cache(maxsize=8192)
def _duration(hundredths: int) -> bytes:
    return duration(hundredths / 100).encode()


def duration(seconds: float) -> str:
    """120ms, 7.66s, 6m0s, 1h0m0s: as Go writes durations."""
    if seconds < 1:
        return f"{max(0, math.ceil(seconds * 1000))}ms" if seconds > 0 else "0s"
    rest = math.ceil(seconds * 100) / 100
    minutes, left = divmod(rest, 60)
    shown = f"{left:.2f}".rstrip("0").rstrip(".")
    if not minutes:
        return f"{shown}s"
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}h{minutes}m{shown}s" if hours else f"{minutes}m{shown}s"
