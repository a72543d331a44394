"""What goes over the wire before a request's body? Checks a URL and headers, builds the request head once.

Pure. The same provider is called with the same headers again and again, so finished heads are kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from gateway.dataplane.upstream_errors import UpstreamError

MAX_KEPT_HEADS = 512

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
# RFC 9110 section 5.5; tab is allowed, CR, LF and NUL are what header injection is made of.
_BAD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_BAD_TARGET = re.compile(r"[^\x21-\x7e]")
# The client's own business: framing, connection, encoding.
_OWN = frozenset(
    ("host", "content-length", "transfer-encoding", "connection", "accept-encoding", "expect", "upgrade")
)


class Target(NamedTuple):  # a tuple's hash takes a fifth of a data class's: two for each request
    """Where a URL leads. Two calls may share a connection exactly when their targets are equal."""

    is_tls: bool
    host: str
    port: int
    allow_private_network: bool


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A target and the head's bytes up to the value of content-length."""

    target: Target
    prefix: bytes


class RequestHeads:
    """Finished heads by what they were made of; emptied when full, so that it stays bounded."""

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], RequestHead] = {}

    def head_of(
        self, method: str, url: str, headers: list[tuple[str, str]], allow_private_network: bool
    ) -> RequestHead:
        """The head for these arguments. Raises UpstreamError as `build_head` does."""
        key = (method, url, allow_private_network, *headers)
        head = self._kept.get(key)
        if head is None:
            head = build_head(method, url, headers, allow_private_network=allow_private_network)
            if len(self._kept) >= MAX_KEPT_HEADS:
                self._kept.clear()
            self._kept[key] = head
        return head


def build_head(
    method: str, url: str, headers: list[tuple[str, str]], *, allow_private_network: bool
) -> RequestHead:
    """Build a head. Raises UpstreamError of kind `refused_address` for what must not be sent.

    That kind, because like a forbidden address it is a fault of the configuration, found before anything was sent,
    and no other attempt at the same deployment can help. The message never repeats a value.
    """
    if _BAD_TARGET.search(url):
        raise _refused("The provider's URL holds a character that a URL must not hold.")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except (ValueError, UnicodeError):
        raise _refused("The provider's URL cannot be read.") from None
    if parts.scheme not in ("http", "https") or not host:
        raise _refused("The provider's URL must begin with http:// or https:// and a host.")
    if parts.username is not None or parts.password is not None:
        raise _refused("The provider's URL must not hold a user name or password; use a credential.")
    is_tls = parts.scheme == "https"
    default_port = 443 if is_tls else 80
    target = Target(is_tls, host, port or default_port, allow_private_network)
    named = f"[{host}]" if ":" in host else host
    if target.port != default_port:
        named = f"{named}:{target.port}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {path} HTTP/1.1", f"host: {named}", "accept-encoding: identity"]
    if not _NAME.match(method):
        raise _refused("The method is not one of HTTP.")
    for name, value in headers:
        if not _NAME.match(name):
            raise _refused("The name of a header for the provider holds a forbidden character.")
        if _BAD_VALUE.search(value):
            raise _refused(f"The value of the header '{name}' for the provider holds a control character.")
        if name.lower() not in _OWN:
            lines.append(f"{name}: {value}")
    lines.append("content-length: ")
    try:
        return RequestHead(target, "\r\n".join(lines).encode("latin-1"))
    except UnicodeEncodeError:
        raise _refused("A header for the provider holds a character outside Latin-1.") from None


def _refused(message: str) -> UpstreamError:
    return UpstreamError("refused_address", message, is_safe_to_retry=True)
