"""May a page of another origin call the endpoint from a browser? CORS, around the whole data plane.

Calls: the data plane. Wrapped around it only where origins are set: without, a request pays nothing for this. No
cookie opens the endpoint, so credentials are never allowed: a page sends a key of its own, like any client.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final

from gateway.dataplane.errors import Headers
from gateway.dataplane.exchange import Send
from gateway.dataplane.limits import Receive

Plane = Callable[[Mapping[str, Any], Receive, Send, str], Awaitable[None]]

ANY: Final = "*"
# What browsers keep a preflight's answer for; Chromium keeps none for longer.
PREFLIGHT_KEPT_S: Final = 7200
_ASKED: Final = (b"origin", b"access-control-request-method", b"access-control-request-headers")
_VARY: Final = (b"vary", b"origin")
# Every header of ours is for the caller (x-pointsman-*, x-request-id, retry-after, x-ratelimit-*).
_EXPOSED: Final = (b"access-control-expose-headers", b"*")


class AllowedOrigins:
    """Whose pages may read answers."""

    __slots__ = ("_allows_any", "_origins")

    def __init__(self, origins: Collection[str]) -> None:
        self._allows_any = ANY in origins
        self._origins = frozenset(origin.encode() for origin in origins)

    def allowed(self, origin: bytes | None) -> bytes:
        """What `access-control-allow-origin` says to this origin; empty: nothing."""
        if origin is None:
            return b""
        if self._allows_any:
            return b"*"
        return origin if origin in self._origins else b""

    def marks(self, allowed: bytes) -> Headers:
        """The headers of an answer to an origin to which `allowed` is said."""
        marks = [(b"access-control-allow-origin", allowed), _EXPOSED] if allowed else []
        if not self._allows_any:
            marks.append(_VARY)  # also where nothing is allowed: caches keep one answer for each origin
        return marks


class CrossOriginPlane:
    """The data plane for browsers too: answers preflights, and marks answers that a listed origin may read."""

    def __init__(self, plane: Plane, origins: AllowedOrigins) -> None:
        self._plane = plane
        self._origins = origins

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send, path: str) -> None:
        """Answer a request whose `endpoint_path` is `path`."""
        given = {name: value for name, value in scope["headers"] if name in _ASKED}
        allowed = self._origins.allowed(given.get(b"origin"))
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in given and allowed:
            await _answer_preflight(send, allowed, given.get(b"access-control-request-headers", b""))
            return
        marks = self._origins.marks(allowed)

        async def send_marked(message: Any) -> None:
            if marks and message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *marks]}
            await send(message)

        await self._plane(scope, receive, send_marked, path)


def open_to(plane: Plane, origins: Collection[str]) -> Plane:
    """The plane as it is when no origin is listed, else one that browsers may call from those (`*`: from all)."""
    return CrossOriginPlane(plane, AllowedOrigins(origins)) if origins else plane


async def _answer_preflight(send: Send, allowed: bytes, wanted_headers: bytes) -> None:
    headers = [
        (b"access-control-allow-origin", allowed),
        (b"access-control-allow-methods", b"GET, HEAD, POST"),
        # SDKs send a dozen of their own, and `*` would not cover Authorization: whatever is asked for.
        (b"access-control-allow-headers", wanted_headers or b"authorization, content-type"),
        (b"access-control-max-age", b"%d" % PREFLIGHT_KEPT_S),
        (b"vary", b"origin, access-control-request-headers"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
