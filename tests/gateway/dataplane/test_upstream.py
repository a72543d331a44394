"""Are providers called over real sockets without a leak, a stall or a lost byte?"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gzip
import os
import random
import socket
import ssl
import struct
import time
import zlib
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.dataplane.upstream import PooledUpstreamClient
from gateway.dataplane.upstream_errors import UpstreamError
from tests.gateway.dataplane.scripted_provider import Call, ScriptedProvider, answering, call_provider

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what is not at once: other tasks have to run, and the machine may be busy."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def client() -> AsyncIterator[PooledUpstreamClient]:
    client = PooledUpstreamClient()
    yield client
    await client.aclose()
    await until(lambda: client.stats().open_count == 0)


async def read_all(client: PooledUpstreamClient, url: str, *, timeout_s: float = 5.0) -> bytes:
    response = await call_provider(client, url)
    try:
        return await response.read(limit_bytes=10_000_000, timeout_s=timeout_s)
    finally:
        response.close()


async def failure_of(client: PooledUpstreamClient, url: str, *, timeout_s: float = 5.0) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await read_all(client, url, timeout_s=timeout_s)
    return caught.value


async def test_a_request_carries_its_own_framing_and_drops_the_callers(client: PooledUpstreamClient) -> None:
    calls: list[Call] = []

    async def script(call: Call) -> None:
        calls.append(call)
        await call.send(OK)

    async with ScriptedProvider(script) as provider:
        response = await call_provider(
            client,
            provider.url + "?a=b",
            body=b"hello",
            headers=[("x-a", "1"), ("Content-Length", "99"), ("accept-encoding", "br"), ("host", "evil")],
        )
        assert await response.read(limit_bytes=10, timeout_s=30) == b"ok"
        assert response.headers == [("content-length", "2")]
        response.close()
    assert calls[0].head.split(b"\r\n") == [
        b"POST /v1/x?a=b HTTP/1.1",
        b"host: 127.0.0.1:%d" % provider.port,
        b"accept-encoding: identity",
        b"x-a: 1",
        b"content-length: 5",
        b"",
        b"",
    ]
    assert calls[0].body == b"hello"


async def test_connections_are_kept_and_used_again(client: PooledUpstreamClient) -> None:
    async with ScriptedProvider(answering(CHUNKED + b"2\r\nok\r\n0\r\nx-trailer: 1\r\n\r\n")) as provider:
        for _ in range(5):
            assert await read_all(client, provider.url) == b"ok"
        assert provider.connection_count == 1
        assert client.stats().idle_count == 1
        assert client.stats().reused_total == 4


@pytest.mark.parametrize(
    ("pieces", "is_closing", "expected"),
    [
        ((b"HTTP/1.1 200 OK\r\n\r\nuntil ", b"the end"), True, b"until the end"),
        ((CHUNKED + b"3\r\nab", b"c\r\n2\r\nde\r\n", b"0\r\n\r\n"), False, b"abcde"),
        ((b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", OK), False, b"ok"),
        ((b"HTTP/1.1 204 No Content\r\n\r\n",), False, b""),
        ((b"HTTP/1.1 304 Not Modified\r\ncontent-length: 500\r\n\r\n",), False, b""),
        ((b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",), True, b"ok"),
    ],
)
async def test_every_way_to_delimit_a_body_is_read(
    client: PooledUpstreamClient, pieces: tuple[bytes, ...], is_closing: bool, expected: bytes
) -> None:
    async with ScriptedProvider(answering(*pieces, is_closing=is_closing, pause_s=0.01)) as provider:
        assert await read_all(client, provider.url) == expected


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort", "broken"),
        (CHUNKED + b"5\r\nhel", "broken"),
        (CHUNKED + b"zz\r\nhello\r\n", "broken"),
        (b"", "broken"),
        (b"HTTP/1.1 200", "broken"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "bad_answer"),
        (b"\x00\x01\x02\x03" * 100, "bad_answer"),
        (b"HTTP/1.1 000 Nothing\r\ncontent-length: 0\r\n\r\n", "bad_answer"),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "bad_answer"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 201 + b"content-length: 0\r\n\r\n", "bad_answer"),
        (b"HTTP/1.1 200 OK\r\na: " + b"b" * 70_000 + b"\r\ncontent-length: 0\r\n\r\n", "bad_answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 1\r\n\r\nx", "bad_answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nnope", "broken"),
    ],
)
async def test_a_broken_answer_is_an_error_of_its_kind(
    client: PooledUpstreamClient, answer: bytes, kind: str
) -> None:
    async with ScriptedProvider(answering(answer, is_closing=True)) as provider:
        error = await failure_of(client, provider.url)
        assert error.kind == kind
        assert not error.is_safe_to_retry
        assert client.stats().idle_count == 0


async def test_a_head_without_an_end_is_refused_while_it_still_comes(client: PooledUpstreamClient) -> None:
    async def script(call: Call) -> None:
        await call.send(b"HTTP/1.1 200 OK\r\na: ")
        while True:
            await call.send(b"b" * 10_000)

    async with ScriptedProvider(script) as provider:
        assert (await failure_of(client, provider.url)).kind == "bad_answer"


async def test_a_large_head_and_body_in_one_read_are_not_taken_for_a_large_head(
    client: PooledUpstreamClient,
) -> None:
    body = b"x" * 150_000
    async with ScriptedProvider(
        answering(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    ) as provider:
        assert await read_all(client, provider.url) == body


async def test_redirects_are_answers(client: PooledUpstreamClient) -> None:
    async with ScriptedProvider(
        answering(b"HTTP/1.1 307 X\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n")
    ) as provider:
        response = await call_provider(client, provider.url)
        assert response.status == 307
        assert response.headers[0] == ("location", "http://169.254.169.254/")
        response.close()


@pytest.mark.parametrize("after", [OK, b"surplus"])
async def test_surplus_bytes_never_become_the_next_answer(client: PooledUpstreamClient, after: bytes) -> None:
    async with ScriptedProvider(answering(OK + after)) as provider:
        assert await read_all(client, provider.url) == b"ok"
        assert client.stats().idle_count == 0


async def test_bytes_on_an_idle_connection_close_it(client: PooledUpstreamClient) -> None:
    async with ScriptedProvider(answering(OK, OK, pause_s=0.02)) as provider:
        assert await read_all(client, provider.url) == b"ok"
        await until(lambda: client.stats().idle_count == 0)
        assert await read_all(client, provider.url) == b"ok"
        assert provider.connection_count == 2


async def test_an_unread_answer_and_connection_close_are_not_kept(client: PooledUpstreamClient) -> None:
    async with ScriptedProvider(answering(CHUNKED + b"2\r\nok\r\n")) as provider:
        response = await call_provider(client, provider.url)
        response.close()
        response.close()
        await until(lambda: client.stats().open_count == 0)
        with pytest.raises(UpstreamError):
            await response.read_chunk(timeout_s=30)
    closing = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
    async with ScriptedProvider(answering(closing)) as provider:
        assert await read_all(client, provider.url) == b"ok"
        assert client.stats().idle_count == 0


async def test_a_connection_that_was_closed_while_idle_is_replaced_once(client: PooledUpstreamClient) -> None:
    async def script(call: Call) -> None:
        if call.number == 2:
            call.writer.transport.abort()  # read, and thrown away without a byte in return
        else:
            await call.send(OK)

    async with ScriptedProvider(script) as provider:
        assert await read_all(client, provider.url) == b"ok"
        assert await read_all(client, provider.url) == b"ok"
        assert provider.call_count == 3
        assert client.stats().replayed_total == 1


async def test_a_fresh_connection_that_breaks_is_not_tried_again(client: PooledUpstreamClient) -> None:
    async with ScriptedProvider(answering(is_closing=True)) as provider:
        error = await failure_of(client, provider.url)
        assert (error.kind, error.is_safe_to_retry) == ("broken", False)
        assert provider.call_count == 1


async def test_nothing_is_replayed_once_a_byte_came_back(client: PooledUpstreamClient) -> None:
    async def script(call: Call) -> None:
        await call.send(OK if call.number == 1 else b"HTTP/1.1 2")
        if call.number == 2:
            call.writer.close()

    async with ScriptedProvider(script) as provider:
        assert await read_all(client, provider.url) == b"ok"
        assert (await failure_of(client, provider.url)).kind == "broken"
        assert provider.call_count == 2


async def test_a_silent_provider_meets_the_head_timeout(client: PooledUpstreamClient) -> None:
    async with ScriptedProvider(answering()) as provider:
        begun = asyncio.get_running_loop().time()
        with pytest.raises(UpstreamError) as caught:
            await call_provider(client, provider.url, head_timeout_s=0.1)
        assert caught.value.kind == "timeout"
        assert asyncio.get_running_loop().time() - begun > 0.09
        await until(lambda: client.stats().open_count == 0)


async def test_a_stalled_body_meets_the_chunk_timeout_and_trickled_framing_does_not_move_it(
    client: PooledUpstreamClient,
) -> None:
    async def script(call: Call) -> None:
        await call.send(CHUNKED + b"2\r\nok\r\n")
        while True:
            await call.send(b"0")
            await asyncio.sleep(0.02)

    async with ScriptedProvider(script) as provider:
        response = await call_provider(client, provider.url)
        assert await response.read_chunk(timeout_s=5) == b"ok"
        async with asyncio.timeout(30):  # the provider would go on for ever
            with pytest.raises(UpstreamError) as caught:
                await response.read_chunk(timeout_s=0.15)
        assert caught.value.kind == "timeout"


async def test_a_later_wait_may_be_longer_than_the_first(client: PooledUpstreamClient) -> None:
    async with ScriptedProvider(answering(CHUNKED, b"2\r\nok\r\n0\r\n\r\n", pause_s=0.7)) as provider:
        response = await call_provider(client, provider.url, head_timeout_s=0.6)
        assert await response.read_chunk(timeout_s=5) == b"ok"
        assert await response.read_chunk(timeout_s=5) == b""
        response.close()


async def test_too_large_an_answer_is_refused_before_it_is_held(client: PooledUpstreamClient) -> None:
    async with ScriptedProvider(
        answering(b"HTTP/1.1 200 OK\r\ncontent-length: 4000000\r\n\r\n", *[b"x" * 100_000] * 40)
    ) as provider:
        response = await call_provider(client, provider.url)
        with pytest.raises(UpstreamError) as caught:
            await response.read(limit_bytes=300_000, timeout_s=5)
        assert caught.value.kind == "too_large"
        response.close()
        await until(lambda: client.stats().open_count == 0)


@pytest.mark.parametrize("cuts", [(), (3, 9), (-9, -3), (50_000,)])
@pytest.mark.parametrize("size", [100_000, 1_000_000, 32 * 1024 * 1024])
async def test_large_request_bodies_arrive_whole(
    client: PooledUpstreamClient, size: int, cuts: tuple[int, ...]
) -> None:
    body = os.urandom(1000) * (size // 1000)
    view = memoryview(body)
    bounds = [0, *(cut % size for cut in cuts), size]
    pieces = tuple(view[start:end] for start, end in pairwise(bounds))

    async def script(call: Call) -> None:
        assert call.body == body
        await call.send(OK)

    async with ScriptedProvider(script) as provider:
        response = await call_provider(client, provider.url, body=pieces if cuts else body, head_timeout_s=30)
        assert await response.read(limit_bytes=10, timeout_s=30) == b"ok"
        response.close()
        assert client.stats().idle_count == 1


async def test_a_provider_that_does_not_read_meets_the_timeout(client: PooledUpstreamClient) -> None:
    stop = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stop.wait()
        writer.close()

    server = await asyncio.start_server(deaf, "127.0.0.1", 0, limit=1024)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(UpstreamError) as caught:
        await call_provider(client, f"http://127.0.0.1:{port}/", body=b"x" * (32 << 20), head_timeout_s=0.2)
    assert caught.value.kind == "timeout"
    stop.set()
    server.close()


async def test_a_provider_that_reads_slowly_meets_the_same_timeout(client: PooledUpstreamClient) -> None:
    ended = asyncio.Event()
    sizes: list[int] = []

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(512 * 1024):
                sizes.append(len(data))
                await asyncio.sleep(0.02)
        writer.close()
        ended.set()

    server = await asyncio.start_server(slow, "127.0.0.1", 0, limit=1 << 20)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    with pytest.raises(UpstreamError) as caught:
        await call_provider(client, url, body=b"x" * (64 << 20), head_timeout_s=0.4)
    assert caught.value.kind == "timeout"
    server.close()
    await ended.wait()
    assert sum(sizes) < 48 << 20


async def test_an_early_refusal_of_a_large_body_is_the_answer(client: PooledUpstreamClient) -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno"

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(refusal)
        await asyncio.sleep(0.5)
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0, limit=1024)
    port = server.sockets[0].getsockname()[1]
    response = await call_provider(client, f"http://127.0.0.1:{port}/", body=b"x" * (32 << 20))
    assert response.status == 413
    assert await response.read(limit_bytes=10, timeout_s=30) == b"no"
    response.close()
    assert client.stats().idle_count == 0
    server.close()
    await asyncio.sleep(0.6)


@pytest.mark.parametrize(("length", "body"), [(2, b"no"), (200, b"")])
async def test_a_refusal_that_a_reset_follows_is_the_answer_though_the_next_write_fails(
    client: PooledUpstreamClient, length: int, body: bytes
) -> None:
    """The loop stands still while the provider answers and resets: it must not notice by its own write first."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"

    def refuse() -> None:
        provider, _ = listener.accept()
        while len(provider.recv(65536, socket.MSG_PEEK)) < 1000:
            time.sleep(0.001)
        provider.sendall(b"HTTP/1.1 413 Too Large\r\ncontent-length: %d\r\n\r\nno" % length)
        provider.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        provider.close()
        time.sleep(0.01)

    request = asyncio.create_task(call_provider(client, url, body=b"x" * (32 << 20)))
    while not client.stats().open_count:
        await asyncio.sleep(0)
    refuse()
    response = await request
    assert response.status == 413
    if body:
        assert await response.read(limit_bytes=10, timeout_s=5) == body
    else:
        with pytest.raises(UpstreamError):
            await response.read(limit_bytes=1000, timeout_s=5)
            await response.read(limit_bytes=1000, timeout_s=5)
    response.close()
    assert client.stats().idle_count == 0
    listener.close()


async def test_a_slow_reader_holds_the_provider_back(client: PooledUpstreamClient) -> None:
    sent = 0

    async def script(call: Call) -> None:
        nonlocal sent
        await call.send(b"HTTP/1.1 200 OK\r\ncontent-length: 50000000\r\n\r\n")
        for _ in range(500):
            await call.send(b"x" * 100_000)
            sent += 100_000

    async with ScriptedProvider(script) as provider:
        response = await call_provider(client, provider.url)
        await asyncio.sleep(0.3)
        held = response._connection.buffered_bytes  # type: ignore[union-attr]
        assert held <= 600_000
        assert sent < 20_000_000
        size = 0
        while data := await response.read_chunk(timeout_s=5):
            size += len(data)
        assert size == 50_000_000
        response.close()
        assert client.stats().idle_count == 1


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw-deflate"])
async def test_compressed_answers_are_decoded(client: PooledUpstreamClient, encoding: str) -> None:
    text = b'{"a": "b"}' * 1000
    if encoding == "gzip":
        data = gzip.compress(text)
    elif encoding == "deflate":
        data = zlib.compress(text)
    else:
        data = zlib.compress(text, wbits=-15)
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-encoding: {encoding.removeprefix('raw-')}\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    )
    async with ScriptedProvider(
        answering(head.encode(), *[data[i : i + 20] for i in range(0, len(data), 20)])
    ) as provider:
        response = await call_provider(client, provider.url)
        assert response.headers == []
        assert await response.read(limit_bytes=100_000, timeout_s=5) == text
        response.close()
        assert client.stats().idle_count == 1


async def test_a_compression_bomb_meets_the_limit(client: PooledUpstreamClient) -> None:
    data = gzip.compress(b"\0" * 50_000_000)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(data)
    async with ScriptedProvider(answering(head + data)) as provider:
        assert (await failure_of(client, provider.url)).kind == "too_large"
        response = await call_provider(client, provider.url)
        assert len(await response.read_chunk(timeout_s=30)) <= 1024 * 1024
        response.close()


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("http://127.0.0.1/a\r\nx: y", []),
        ("http://127.0.0.1/a b", []),
        ("http://user:secret@127.0.0.1/", []),
        ("ftp://127.0.0.1/", []),
        ("http:///x", []),
        ("http://127.0.0.1:99999/", []),
        ("http://127.0.0.1/", [("a", "sk-secret\r\nx: y")]),
        ("http://127.0.0.1/", [("a", "sk-secret\0")]),
        ("http://127.0.0.1/", [("a b", "sk-secret")]),
        ("http://127.0.0.1/", [("a", "sk-secret €")]),
    ],
)
async def test_what_must_not_be_sent_is_refused_without_repeating_it(
    client: PooledUpstreamClient, url: str, headers: list[tuple[str, str]]
) -> None:
    with pytest.raises(UpstreamError) as caught:
        await call_provider(client, url, headers=headers)
    assert caught.value.kind == "refused_address"
    assert "secret" not in str(caught.value)


async def test_unreachable_providers_have_kinds_of_their_own(client: PooledUpstreamClient) -> None:
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await asyncio.sleep(0)
    error = await failure_of(client, f"http://127.0.0.1:{port}/")
    assert (error.kind, error.is_safe_to_retry) == ("connect", True)
    error = await failure_of(client, "http://no-such-host.invalid/")
    assert (error.kind, error.is_safe_to_retry) == ("resolve", True)
    with pytest.raises(UpstreamError) as caught:
        await call_provider(client, f"http://127.0.0.1:{port}/", allow_private_network=False)
    assert caught.value.kind == "refused_address"


async def test_idle_connections_go_after_the_limit() -> None:
    client = PooledUpstreamClient(idle_limit_s=0.5, max_idle_per_target=2)
    async with ScriptedProvider(answering(OK, pause_s=0.02)) as provider:
        await asyncio.gather(*(read_all(client, provider.url) for _ in range(5)))
        await asyncio.sleep(0)
        assert client.stats().idle_count == 2
        await until(lambda: client.stats().open_count == 0)
        assert client.stats().idle_count == 0
        await until(lambda: client._sweeper is None)
    await client.aclose()


def make_certificates(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate authority's file, and a server context with a certificate for localhost alone."""
    now = dt.datetime.now(dt.UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    authority = folder / "ca.pem"
    authority.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file = folder / "key.pem"
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority, key_file)
    context.set_alpn_protocols(["http/1.1"])
    return authority, context


async def test_tls_verifies_the_chain_and_the_host_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, context = make_certificates(tmp_path)
    stranger = PooledUpstreamClient()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    client = PooledUpstreamClient()
    body = os.urandom(3_000_000)

    async def script(call: Call) -> None:
        assert call.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        assert call.body in (b"{}", body)
        await call.send(OK)

    async with ScriptedProvider(script, tls=context) as provider:
        url = f"https://localhost:{provider.port}/"
        for _ in range(2):
            assert await read_all(client, url) == b"ok"
        response = await call_provider(client, url, body=body)
        assert await response.read(limit_bytes=10, timeout_s=5) == b"ok"
        response.close()
        assert provider.connection_count == 1
        assert client.stats().idle_count == 1
        error = await failure_of(client, provider.url)  # by its address, which the certificate does not name
        assert (error.kind, error.is_safe_to_retry) == ("tls", True)
        assert (await failure_of(stranger, url)).kind == "tls"
        assert client.stats().open_count == 1
    await client.aclose()
    await stranger.aclose()


async def test_a_plain_text_server_behind_https_and_a_silent_one_are_told_apart(
    client: PooledUpstreamClient,
) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    stop = asyncio.Event()

    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stop.wait()
        writer.close()

    for handler, kind, patience_s in ((shout, "tls", 30), (be_silent, "connect_timeout", 0.3)):
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(UpstreamError) as caught:
            await call_provider(client, f"https://127.0.0.1:{port}/", connect_timeout_s=patience_s)
        assert caught.value.kind == kind
        server.close()
    stop.set()
    await asyncio.sleep(0.05)


def open_sockets() -> int:
    return sum(
        os.path.realpath(f"/proc/self/fd/{fd}").rpartition("/")[2].startswith("socket:")
        for fd in os.listdir("/proc/self/fd")
    )


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_cancelled_calls_leave_no_connection_task_or_timer(count: int) -> None:
    client = PooledUpstreamClient()
    draw = random.Random(7).random

    async def script(call: Call) -> None:
        await asyncio.sleep(0.001)
        await call.send(CHUNKED + b"2\r\nok\r\n")
        await asyncio.sleep(0.001)
        await call.send(b"2\r\nok\r\n")
        await asyncio.sleep(0.001)
        await call.send(b"0\r\n\r\n")

    async def one(url: str) -> None:
        response = await call_provider(client, url, body=b"x" * (300_000 if draw() < 0.02 else 10))
        try:
            while await response.read_chunk(timeout_s=30):
                pass
        finally:
            response.close()

    async with ScriptedProvider(script) as provider:
        await one(provider.url)
        sockets = open_sockets()
        tasks = len(asyncio.all_tasks())
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        await asyncio.gather(*(one(provider.url) for _ in range(50)))
        # Cancelled all over the time that as many calls take here and now, half of them after they are done.
        within_s = 2 * (loop.time() - begun_s)
        finished = 0
        for _ in range(count // 50):
            batch = [asyncio.create_task(one(provider.url)) for _ in range(50)]
            for task in batch[1:]:
                loop.call_later(draw() * within_s, task.cancel)
            batch[-1].cancel()
            for result in await asyncio.gather(*batch, return_exceptions=True):
                assert result is None or isinstance(result, asyncio.CancelledError)
                finished += result is None
        # At least one of each batch was let finish, and one was not; nearly always about half.
        assert count // 50 <= finished <= count - count // 50
        await one(provider.url)

        def is_quiet() -> bool:
            stats = client.stats()
            return stats.open_count == stats.idle_count

        await until(is_quiet)
        assert all(connection._waiter is None and not connection.is_lost for connection in client._open)
        await client.aclose()
        await until(lambda: client.stats().open_count == 0)
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
        await until(lambda: open_sockets() <= sockets)


async def test_a_call_cancelled_during_the_handshake_closes_the_socket(client: PooledUpstreamClient) -> None:
    ended = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        ended.set()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    task = asyncio.create_task(call_provider(client, f"https://127.0.0.1:{port}/"))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait([task])
    async with asyncio.timeout(30):
        await ended.wait()
    server.close()
