"""A provider on a loopback socket that does to each request what a test's script says."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable

from gateway.dataplane.upstream import PooledResponse, PooledUpstreamClient


class Call:
    """One request as it came, and the socket to answer on. `number` counts from 1 over all connections."""

    def __init__(self, number: int, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.head = head
        self.body = body
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


Script = Callable[[Call], Awaitable[None]]


class ScriptedProvider:
    """Reads whole requests and hands each to `script`; a script that closes the writer ends the connection."""

    def __init__(self, script: Script, *, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.tls = tls
        self.call_count = 0
        self.connection_count = 0
        self.writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> ScriptedProvider:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls, limit=2**26)
        self.port = self.server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/v1/x"
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.server.close()
        for writer in list(self.writers):
            writer.transport.abort()
        for _ in range(200):
            if not self.writers:
                break
            await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection_count += 1
        self.writers.add(writer)
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
                self.call_count += 1
                await self.script(Call(self.call_count, head, body, writer))
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()
            self.writers.discard(writer)


def answering(*pieces: bytes, is_closing: bool = False, pause_s: float = 0.0) -> Script:
    """A script that sends these pieces, whatever was asked."""

    async def script(call: Call) -> None:
        for piece in pieces:
            await call.send(piece)
            await asyncio.sleep(pause_s)
        if is_closing:
            call.writer.close()

    return script


async def call_provider(
    client: PooledUpstreamClient,
    url: str,
    *,
    body: bytes = b"{}",
    headers: list[tuple[str, str]] | None = None,
    head_timeout_s: float = 5.0,
    connect_timeout_s: float = 5.0,
    allow_private_network: bool = True,
) -> PooledResponse:
    return await client.send(
        method="POST",
        url=url,
        headers=headers or [],
        body=body,
        connect_timeout_s=connect_timeout_s,
        head_timeout_s=head_timeout_s,
        allow_private_network=allow_private_network,
    )
