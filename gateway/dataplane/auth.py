"""Who is calling? API key in a header -> grant.

Pure, over the configuration in force. Missing, malformed, unknown and expired keys get one and the same answer.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.dataplane.errors import GatewayUnready, Unauthorized
from gateway.dataplane.ports import Configuration
from policies.snapshot import KeyGrant


def read_secret(headers: Mapping[bytes, bytes]) -> str | None:
    """The key as OpenAI (Authorization: Bearer), Anthropic (x-api-key) or Azure (api-key) clients send it."""
    authorization = headers.get(b"authorization")
    if authorization is not None and authorization[:7].lower() == b"bearer ":
        return authorization[7:].strip().decode("latin-1")
    other = headers.get(b"x-api-key") or headers.get(b"api-key")
    return other.strip().decode("latin-1") if other else None


def authenticate(
    headers: Mapping[bytes, bytes], configuration: Configuration, *, now_unix_s: float
) -> KeyGrant:
    """Return the grant. Raises Unauthorized; GatewayUnready while no configuration is loaded."""
    if not configuration.is_ready:
        raise GatewayUnready(
            "The gateway is starting and has not loaded its configuration yet.",
            code="gateway_starting",
            headers=[(b"retry-after", b"1")],
        )
    secret = read_secret(headers)
    grant = configuration.find_key(secret) if secret else None
    if grant is None or (grant.expires_unix_s is not None and grant.expires_unix_s <= now_unix_s):
        raise Unauthorized
    return grant
