"""How does a message reach a webhook, and how does its receiver know that it is ours?

Calls: the webhook's address, once, 10 s at most. Signed as Standard Webhooks say (standardwebhooks.com): HMAC-SHA-256
over "ID.TIMESTAMP.BODY" with the key behind `whsec_`. What a host name resolves to is checked, and what was checked is
called; redirects are not followed; the answer's body is not read.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import secrets
import socket
from typing import Final
from urllib.parse import urlsplit

import httpx

from policies.provider_addresses import SIMULATED, IPAddress, is_allowed, problems_of_base_url

TIMEOUT_S: Final = 10.0
PREFIX: Final = "whsec_"
SECRET_BYTES: Final = 32
# What Standard Webhooks ask of a secret.
MIN_SECRET_BYTES: Final = 24
MAX_SECRET_BYTES: Final = 64
MAX_ADDRESSES: Final = 3
GONE: Final = 410


class WebhookError(Exception):
    """A message was not taken. The text names no secret. `is_final`: the receiver wants no more of it."""

    def __init__(self, text: str, *, is_final: bool = False) -> None:
        super().__init__(text)
        self.is_final = is_final


def make_secret() -> str:
    """A new secret, in the form that libraries of receivers take."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def problems_of_secret(secret: str) -> list[str]:
    """Say what is wrong with a secret that a receiver brings; an empty list when nothing is. Pure."""
    try:
        size = len(base64.b64decode(secret.removeprefix(PREFIX).encode("ascii"), validate=True))
    except ValueError:
        size = 0
    if not secret.startswith(PREFIX) or not MIN_SECRET_BYTES <= size <= MAX_SECRET_BYTES:
        return [f"a secret is {PREFIX} and {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes in base64"]
    return []


def sign(secret: str, *, message_id: str, timestamp_s: int, body: bytes) -> str:
    """The value of the header webhook-signature. Pure."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def problems_of_address(url: str, *, allow_private_network: bool) -> list[str]:
    """Say what is wrong with a webhook's address; an empty list when nothing is. Resolves no names. Pure."""
    if url == SIMULATED:
        return ["a webhook's address begins with https://"]
    problems = problems_of_base_url(url, allow_private_network=allow_private_network)
    if not problems and not allow_private_network and urlsplit(url).scheme != "https":
        problems.append("a webhook on the internet begins with https://")
    return problems


def post(
    url: str, *, secret: str, message_id: str, timestamp_s: int, body: bytes, allow_private_network: bool
) -> None:
    """Deliver a message once. Raises WebhookError unless the receiver answers with 2xx."""
    problems = problems_of_address(url, allow_private_network=allow_private_network)
    if problems:
        raise WebhookError(problems[0], is_final=True)
    target = httpx.URL(url)
    headers = {
        "Host": target.netloc.decode("ascii"),
        "Content-Type": "application/json",
        "User-Agent": "Pointsman",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": sign(secret, message_id=message_id, timestamp_s=timestamp_s, body=body),
    }
    status = _send(target, _addresses_of(target.host, allow_private_network), headers, body)
    if not 200 <= status < 300:
        raise WebhookError(f"it answered with status {status}", is_final=status == GONE)


def _send(target: httpx.URL, addresses: list[IPAddress], headers: dict[str, str], body: bytes) -> int:
    extensions = {"sni_hostname": target.raw_host.decode("ascii")}
    problem = ""
    with httpx.Client(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as client:
        for address in addresses:
            there = target.copy_with(host=str(address))
            try:
                with client.stream(
                    "POST", there, content=body, headers=headers, extensions=extensions
                ) as answer:
                    return answer.status_code
            except httpx.ConnectError:
                problem = "no connection"
            except httpx.TimeoutException:
                raise WebhookError(f"no answer within {TIMEOUT_S:.0f} seconds") from None
            except httpx.HTTPError as failure:
                raise WebhookError(f"the connection failed ({type(failure).__name__})") from None
    raise WebhookError(problem)


def _addresses_of(host: str, allow_private_network: bool) -> list[IPAddress]:
    """The addresses that may be called: a name that resolves differently a moment later gains nothing."""
    try:
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        found = [ipaddress.ip_address(answer[4][0]) for answer in answers]
    except (OSError, UnicodeError, ValueError):
        raise WebhookError(f"the host name {host} is not known") from None
    allowed = [one for one in found if is_allowed(one, allow_private_network=allow_private_network)]
    if not allowed:
        raise WebhookError(f"{host} is on a network that this gateway does not call")
    return allowed[:MAX_ADDRESSES]
