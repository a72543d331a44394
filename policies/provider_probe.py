"""Does a provider answer, and does it accept our credential? One question, off the data plane.

Calls: GET base_url/models of the provider, 5 s at most. Reads: its credential, which appears nowhere.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import httpx

from policies.credentials import resolve_credential
from policies.errors import CredentialError
from policies.models import Provider
from policies.provider_addresses import SIMULATED, IPAddress, is_allowed

TIMEOUT_S = 5.0
MAX_NAMES_SHOWN = 8
MAX_ADDRESSES = 3
MAX_BODY_BYTES = 5_000_000


@dataclass(frozen=True, slots=True)
class Probe:
    """What came of it. `model_names` are the first few that the provider lists."""

    outcome: Literal["ok", "error"]
    sentence: str
    http_status: int | None = None
    duration_ms: float | None = None
    model_count: int = 0
    model_names: tuple[str, ...] = ()


def probe_provider(provider: Provider) -> Probe:
    """Ask for the list of models. Never raises: every failure is a sentence that says what to do."""
    if provider.base_url == SIMULATED:
        return Probe("ok", "This provider is simulated: it answers without a network.")
    try:
        headers = _headers(provider)
    except CredentialError as problem:
        return Probe("error", f"The credential cannot be read: {problem}.")
    addresses = _addresses_of(provider)
    if isinstance(addresses, str):
        return Probe("error", addresses)
    begun = time.perf_counter()
    try:
        status, body = _ask(httpx.URL(_url(provider)), addresses, headers)
    except httpx.TimeoutException:
        return Probe(
            "error", f"No answer within {TIMEOUT_S:.0f} seconds. Check the address and the firewall."
        )
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as failure:
        return Probe("error", f"No connection: {_safe(failure)}. Check the base URL.")
    duration_ms = (time.perf_counter() - begun) * 1000
    return _read(status, body, duration_ms)


def _ask(url: httpx.URL, addresses: list[IPAddress], headers: dict[str, str]) -> tuple[int, bytes]:
    """Status and body of the first address that can be connected to. Raises httpx.HTTPError."""
    headers = {**headers, "Host": url.netloc.decode("ascii")}
    extensions = {"sni_hostname": url.raw_host.decode("ascii")}
    failure: httpx.ConnectError | None = None
    with httpx.Client(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as client:
        for address in addresses:
            begun = time.perf_counter()
            body = b""
            there = url.copy_with(host=str(address))
            try:
                with client.stream("GET", there, headers=headers, extensions=extensions) as answer:
                    for chunk in answer.iter_bytes():
                        body += chunk
                        if len(body) > MAX_BODY_BYTES or time.perf_counter() - begun > TIMEOUT_S:
                            break
                return answer.status_code, body
            except httpx.ConnectError as refused:
                failure = refused
    assert failure is not None
    raise failure


def _read(status: int, body: bytes, duration_ms: float) -> Probe:
    if status in (401, 403):
        sentence = "The provider rejects the credential. Replace it, or check how it is sent."
        return Probe("error", sentence, status, duration_ms)
    if status == 404:
        sentence = "It answers, but has no list of models here: the base URL may lack its /v1."
        return Probe("error", sentence, status, duration_ms)
    if status >= 300:
        return Probe("error", f"It answers with status {status}.", status, duration_ms)
    names = _model_names(body)
    if names is None:
        return Probe("error", "It answers, but not with a list of models in JSON.", status, duration_ms)
    return Probe(
        "ok",
        "It answers and accepts the credential.",
        status,
        duration_ms,
        len(names),
        tuple(names[:MAX_NAMES_SHOWN]),
    )


def _model_names(body: bytes) -> list[str] | None:
    try:
        answer = httpx.Response(200, content=body).json()
    except ValueError:
        return None
    rows = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        return None
    return sorted(str(row["id"])[:200] for row in rows if isinstance(row, dict) and "id" in row)


def _url(provider: Provider) -> str:
    if provider.addressing == Provider.Addressing.AZURE:
        return f"{provider.base_url}/openai/models?api-version={provider.api_version}"
    return f"{provider.base_url}/models"


def _headers(provider: Provider) -> dict[str, str]:
    headers = {str(name): str(value) for name, value in provider.extra_headers.items()}
    secret = resolve_credential(provider)
    if secret and provider.auth_style == Provider.AuthStyle.BEARER:
        headers["Authorization"] = f"Bearer {secret}"
    elif secret and provider.auth_style != Provider.AuthStyle.NONE:
        headers[provider.auth_style] = secret
    return headers


def _addresses_of(provider: Provider) -> list[IPAddress] | str:
    """The addresses that may be called, or the sentence why there is none.

    The call goes to what was checked here: a name that resolves differently a moment later gains nothing.
    """
    host = urlsplit(provider.base_url).hostname or ""
    try:
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        found = [ipaddress.ip_address(answer[4][0]) for answer in answers]
    except (OSError, UnicodeError):
        return f"The host name {host} is not known. Check the base URL."
    may_be_private = provider.allow_private_network
    allowed = [address for address in found if is_allowed(address, allow_private_network=may_be_private)]
    if allowed:
        return allowed[:MAX_ADDRESSES]
    if may_be_private:
        return f"{host} is {found[0]}, a link-local or metadata address, which is never called."
    return f"{host} is {found[0]}, an address of a private network: allow it on the provider first."


def _safe(failure: Exception) -> str:
    """The kind of failure and its text, which for connections holds addresses only."""
    text = str(failure).strip().rstrip(".")
    return text[:200] or type(failure).__name__
