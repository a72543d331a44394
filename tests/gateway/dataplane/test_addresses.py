"""Is only what was checked ever connected to, whatever a name resolves to?"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any

import pytest

from gateway.dataplane.addresses import AddressBook, is_allowed
from gateway.dataplane.upstream import PooledUpstreamClient
from gateway.dataplane.upstream_errors import UpstreamError
from tests.gateway.dataplane.scripted_provider import ScriptedProvider, answering, call_provider

NEVER = [
    "169.254.169.254",
    "169.254.1.1",
    "fe80::1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "fd00:ec2::254",
    "100.100.100.200",
    "168.63.129.16",
    "::ffff:168.63.129.16",
]
PRIVATE = [
    "127.0.0.1",
    "127.8.8.8",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "198.18.0.1",
    "192.0.2.1",
    "::1",
    "::",
    "fc00::1",
    "ff02::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "::127.0.0.1",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("text", NEVER)
def test_metadata_and_link_local_addresses_are_never_called(text: str) -> None:
    address = ipaddress.ip_address(text)
    assert not is_allowed(address, allow_private_network=True)
    assert not is_allowed(address, allow_private_network=False)


@pytest.mark.parametrize("text", PRIVATE)
def test_private_addresses_are_called_only_when_the_provider_allows_it(text: str) -> None:
    address = ipaddress.ip_address(text)
    assert not is_allowed(address, allow_private_network=False)
    assert is_allowed(address, allow_private_network=True)


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_called(text: str) -> None:
    assert is_allowed(ipaddress.ip_address(text), allow_private_network=False)


class CountingResolver:
    """Stands in for the loop's resolver: hands out the next answer each time it is asked."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.ask_count = 0

    async def getaddrinfo(self, host: str, port: int) -> list[Any]:
        self.ask_count += 1
        await asyncio.sleep(0.01)
        texts = self.answers[min(self.ask_count, len(self.answers)) - 1]
        if not texts:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port)) for text in texts]


class BookOf(AddressBook):
    """An address book that asks the counting resolver instead of the system."""

    def __init__(self, resolver: CountingResolver, *, cache_s: float = 30.0) -> None:
        super().__init__(cache_s=cache_s)
        self._resolver = resolver

    async def _ask(self, host: str, port: int) -> list[Any]:
        return await self._resolver.getaddrinfo(host, port)


async def test_look_ups_are_shared_and_remembered_for_a_while() -> None:
    resolver = CountingResolver(["8.8.8.8"])
    book = BookOf(resolver, cache_s=0.1)
    found = await asyncio.gather(
        *(book.addresses_of("api.example", 443, allow_private_network=False) for _ in range(10))
    )
    assert {str(addresses[0]) for addresses in found} == {"8.8.8.8"}
    await book.addresses_of("api.example", 443, allow_private_network=False)
    assert resolver.ask_count == 1
    await asyncio.sleep(0.12)
    await book.addresses_of("api.example", 443, allow_private_network=False)
    assert resolver.ask_count == 2


async def test_a_cancelled_look_up_does_not_fail_those_who_wait_for_the_same() -> None:
    book = BookOf(CountingResolver(["8.8.8.8"]))
    first = asyncio.create_task(book.addresses_of("a.example", 443, allow_private_network=False))
    second = asyncio.create_task(book.addresses_of("a.example", 443, allow_private_network=False))
    await asyncio.sleep(0)
    first.cancel()
    assert str((await second)[0]) == "8.8.8.8"


async def test_forbidden_addresses_are_left_out_and_nothing_left_is_refused() -> None:
    book = BookOf(CountingResolver(["10.0.0.1", "8.8.8.8"]))
    found = await book.addresses_of("mixed.example", 443, allow_private_network=False)
    assert [str(address) for address in found] == ["8.8.8.8"]
    with pytest.raises(UpstreamError) as caught:
        await BookOf(CountingResolver(["10.0.0.1"])).addresses_of("x.example", 1, allow_private_network=False)
    assert caught.value.kind == "refused_address"
    with pytest.raises(UpstreamError) as caught:
        await BookOf(CountingResolver([])).addresses_of("x.example", 1, allow_private_network=False)
    assert caught.value.kind == "resolve"


async def test_a_name_that_is_rebound_after_the_check_gains_nothing() -> None:
    async with ScriptedProvider(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")) as provider:
        resolver = CountingResolver(["127.0.0.1"], ["169.254.169.254"])
        client = PooledUpstreamClient(addresses=BookOf(resolver, cache_s=0))
        url = f"http://rebound.example:{provider.port}/"
        response = await call_provider(client, url)
        response.close()
        assert resolver.ask_count == 1  # the checked address itself was connected to, without asking again
        await client.aclose()
        client = PooledUpstreamClient(addresses=BookOf(resolver, cache_s=0))
        with pytest.raises(UpstreamError) as caught:
            await call_provider(client, url)
        assert caught.value.kind == "refused_address"
        await client.aclose()


async def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    async with ScriptedProvider(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")) as provider:
        client = PooledUpstreamClient(addresses=BookOf(CountingResolver(["127.77.0.1", "127.0.0.1"])))
        response = await call_provider(client, f"http://two.example:{provider.port}/")
        assert response.status == 200
        response.close()
        await client.aclose()
