"""Is this a base URL and are these headers that we may call a provider with?

Pure. What a host name resolves to is checked by `is_allowed` at every connection, by gateway/dataplane/addresses.py
and by the connection test.
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

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# Addresses at which clouds hand out credentials or control the machine: never a provider, whatever a row says.
# AWS, GCP, Azure and most others are link-local (169.254.169.254); these are the ones elsewhere.
METADATA_ADDRESSES = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure's wire server
        "192.0.0.192",  # Oracle, former
        "fd00:ec2::254",  # AWS over IPv6
        "fd20:ce::254",  # GCP over IPv6
    )
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_IPV4_COMPATIBLE = ipaddress.ip_network("::/96")


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
    address = literal_address(host.rstrip(".").lower()) if host else None
    if address is not None and not is_allowed(address, allow_private_network=True):
        problems.append(f"{host} is a link-local or metadata address, which is never called")
    elif host and not allow_private_network and is_private_host(host):
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
    address = literal_address(name)
    return address is not None and not is_allowed(address, allow_private_network=False)


def literal_address(name: str) -> IPAddress | None:
    """The address that a host is, in any form that a resolver takes for one; None for names. Pure."""
    try:
        return ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(name))
        except (OSError, UnicodeEncodeError):
            return None


def embedded_ipv4(address: IPAddress) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address leads to: mapped, 6to4, Teredo, NAT64, IPv4-compatible. Pure."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64 or (address in _IPV4_COMPATIBLE and int(address) > 0xFFFF):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def is_allowed(address: IPAddress, *, allow_private_network: bool) -> bool:
    """Return whether a provider may live there. Pure.

    Link-local and metadata addresses are refused always; loopback, private, shared (100.64.0.0/10), multicast,
    reserved and unspecified ones unless the provider allows private networks.
    """
    inner = embedded_ipv4(address)
    if inner is not None:
        # NAT64 and mapped addresses lie in reserved ranges and mean exactly the inner address.
        if not is_allowed(inner, allow_private_network=allow_private_network):
            return False
        if address in _NAT64 or getattr(address, "ipv4_mapped", None) is not None:
            return True
    if address.is_link_local or address in METADATA_ADDRESSES:
        return False
    if allow_private_network:
        return True
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified or address.is_loopback
    )


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
