"""Is this a base URL and are these headers that we may call a provider with?

Pure. What a host name resolves to is checked again at every connection by gateway/dataplane/addresses.py.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

SIMULATED = "simulated:"
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_FRAMING_HEADERS = frozenset(
    {
        "host",
        "content-length",
        "content-type",
        "transfer-encoding",
        "connection",
        "te",
        "upgrade",
        "accept-encoding",
    }
)
_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "api-key", "x-api-key", "cookie"})


def normalise_base_url(text: str) -> str:
    """Return the base URL as it is stored: without surrounding space and closing slashes."""
    return text.strip().rstrip("/")


def problems_of_base_url(base_url: str, *, allow_private_network: bool) -> list[str]:
    """Say what is wrong with a base URL; an empty list when nothing is. Resolves no names."""
    if base_url == SIMULATED:
        return []
    if not base_url.isprintable() or any(c.isspace() for c in base_url):
        return ["a URL holds no white space or control characters"]
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return ["this is not a URL"]
    if parts.scheme not in ("http", "https"):
        return ["a base URL begins with http:// or https:// (or is simulated:)"]
    problems = []
    if not host:
        problems.append("the URL names no host")
    if parts.username is not None or parts.password is not None:
        problems.append("credentials do not belong in the URL: use the credential field")
    if parts.query or parts.fragment:
        problems.append("a base URL has no query and no fragment")
    if host and not allow_private_network and is_private_host(host):
        problems.append(f"{host} is a private or local address: set allow_private_network to call it")
    return problems


def origin_of(base_url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of a base URL: what decides who receives a credential."""
    parts = urlsplit(base_url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def is_private_host(host: str) -> bool:
    """Say whether a host is, as written, an address outside the public internet.

    Also the short and numeric forms that a resolver accepts (127.1, 0x7f000001, 2130706433).
    """
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        try:
            address = ipaddress.IPv4Address(socket.inet_aton(name))
        except (OSError, UnicodeEncodeError):
            return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return not address.is_global or address.is_multicast


def problems_of_headers(headers: Any) -> list[str]:
    """Say what is wrong with extra headers; an empty list when nothing is."""
    if not isinstance(headers, Mapping):
        return ["extra headers are a mapping of names to texts"]
    problems = []
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.match(name):
            problems.append(f"{name!r} is not a header name")
        elif name.lower() in _SECRET_HEADERS:
            problems.append(f"{name}: a secret belongs in the credential field")
        elif name.lower() in _FRAMING_HEADERS:
            problems.append(f"{name}: the gateway sets this header itself")
        elif not isinstance(value, str) or not value.isascii() or not value.isprintable():
            problems.append(f"{name}: the value is not a printable ASCII text")
    return problems
