"""Which base URLs and headers may a provider have?"""

from __future__ import annotations

import pytest

from policies.provider_addresses import (
    is_private_host,
    normalise_base_url,
    problems_of_base_url,
    problems_of_headers,
)


@pytest.mark.parametrize(
    "url",
    ["https://api.openai.com/v1", "http://example.com:8080", "https://[2606:4700::1111]/v1", "simulated:"],
)
def test_public_addresses_are_fine(url: str) -> None:
    assert problems_of_base_url(url, allow_private_network=False) == []


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("ftp://example.com", "begins with http"),
        ("example.com/v1", "begins with http"),
        ("https://", "names no host"),
        ("https://user:pass@example.com", "credentials do not belong"),
        ("https://example.com/v1?key=1", "no query"),
        ("https://example.com/#x", "no query and no fragment"),
        ("https://example.com:99999", "not a URL"),
        ("https://exa mple.com", "white space"),
        ("https://example.com/\nHost: x", "white space"),
        ("simulated:x", "begins with http"),
    ],
)
def test_a_wrong_url_is_refused_with_its_reason(url: str, what: str) -> None:
    assert what in "; ".join(problems_of_base_url(url, allow_private_network=True))


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "app.localhost", "localhost.", "127.0.0.1", "127.1", "2130706433", "0x7f.1", "0", "10.1.2.3",
        "192.168.0.1", "172.16.5.5", "100.64.0.1", "::1", "fd00::1", "64:ff9b::a00:1", "2002:7f00:1::",
        "::ffff:127.0.0.1", "224.0.0.1", "0.0.0.0",
    ],
)  # fmt: skip
def test_private_addresses_need_permission_however_they_are_written(host: str) -> None:
    assert is_private_host(host)
    url = f"http://[{host}]/v1" if ":" in host else f"http://{host}/v1"
    if "%" not in host:
        assert "allow_private_network" in problems_of_base_url(url, allow_private_network=False)[0]
        assert problems_of_base_url(url, allow_private_network=True) == []


@pytest.mark.parametrize("host", ["169.254.169.254", "2852039166", "[fe80::1]", "[::ffff:169.254.169.254]"])
def test_metadata_addresses_are_refused_even_with_permission(host: str) -> None:
    assert is_private_host(host.strip("[]"))
    assert "never called" in problems_of_base_url(f"http://{host}/v1", allow_private_network=True)[0]


@pytest.mark.parametrize("host", ["example.com", "8.8.8.8", "2606:4700:4700::1111", "localhost.example.com"])
def test_public_hosts_are_not_private(host: str) -> None:
    assert not is_private_host(host)


def test_closing_slashes_and_space_are_dropped() -> None:
    assert normalise_base_url(" https://example.com/v1// ") == "https://example.com/v1"


@pytest.mark.parametrize(
    ("headers", "what"),
    [
        ({"Authorization": "Bearer x"}, "credential field"),
        ({"X-API-Key": "x"}, "credential field"),
        ({"Host": "x"}, "sets this header itself"),
        ({"Bad Name": "x"}, "not a header name"),
        ({"X-A": "a\r\nX-B: b"}, "printable ASCII"),
        ({"X-A": 1}, "printable ASCII"),
        (["X-A"], "mapping"),
    ],
)
def test_headers_that_would_break_a_request_or_hide_a_secret_are_refused(headers: object, what: str) -> None:
    assert what in problems_of_headers(headers)[0]


def test_ordinary_extra_headers_are_fine() -> None:
    assert problems_of_headers({"HTTP-Referer": "https://example.com", "X-Title": "Pointsman"}) == []
