"""A client that reads slowly slows its provider down, and costs the gateway no memory."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

from tests.fake_provider import STREAM_END, STREAM_HEAD, chunk_event, fake_provider
from tests.running_gateway import AUTHORIZATION, RunningGateway, running_gateway, simple_config

pytestmark = pytest.mark.slow

EVENT = chunk_event("x" * 65_000)
EVENTS = 600  # about 40 MB


def resident_mib(gateway: RunningGateway) -> float:
    status = Path(f"/proc/{gateway.processes['serve-0'].pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def test_a_client_that_does_not_read_holds_the_provider_back() -> None:
    with fake_provider() as provider, running_gateway(simple_config(provider.url, ["m"])) as gateway:
        provider.default = [STREAM_HEAD, *[EVENT] * EVENTS, chunk_event(None, "stop"), STREAM_END]
        body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]})
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            f"authorization: {AUTHORIZATION['authorization']}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        before_mib = resident_mib(gateway)
        with socket.create_connection(("127.0.0.1", gateway.port)) as client:
            client.sendall((head + body).encode())
            time.sleep(2.0)
            stalled_mib = resident_mib(gateway)
            received = bytearray()
            while b"data: [DONE]" not in received[-64:]:
                data = client.recv(1 << 20)
                assert data, "the stream broke off"
                received += data
        assert stalled_mib - before_mib < 20
        assert received.count(b"x" * 65_000) == EVENTS
