"""Does the connection test tell what is wrong with a provider, and never its credential?"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from policies.cataloguing import create_provider
from policies.models import Provider
from policies.provider_probe import probe_provider
from tests.console_people import operator

pytestmark = pytest.mark.django_db


class _Models(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        is_known = self.headers.get("Authorization") == "Bearer right-credential"
        body = json.dumps({"data": [{"id": "b"}, {"id": "a"}]}).encode() if is_known else b"{}"
        self.send_response(200 if is_known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def base_url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Models)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def provider(base_url: str, credential: str = "right-credential") -> Provider:
    return create_provider(
        name="local", actor="test", base_url=base_url, credential=credential, allow_private_network=True
    )


def test_an_answer_lists_the_models(base_url: str) -> None:
    row = provider(base_url)
    probe = probe_provider(row)
    assert (probe.outcome, probe.http_status, probe.model_names) == ("ok", 200, ("a", "b"))
    html = operator().post(f"/providers/{row.pk}/test", headers={"HX-Request": "true"}).content.decode()
    assert "accepts the credential" in html
    assert "<html" not in html


def test_a_wrong_credential_is_said_and_not_shown(base_url: str) -> None:
    probe = probe_provider(provider(base_url, "wrong-credential"))
    assert (probe.outcome, probe.http_status) == ("error", 401)
    assert "rejects the credential" in probe.sentence
    assert "wrong-credential" not in repr(probe)


def test_nobody_at_the_address_is_a_sentence() -> None:
    probe = probe_provider(provider("http://127.0.0.1:1/v1"))
    assert probe.outcome == "error"
    assert "Check the base URL" in probe.sentence


def test_an_address_of_the_private_network_is_not_called_unless_allowed(base_url: str) -> None:
    row = provider(base_url)
    row.allow_private_network = False
    assert "private network" in probe_provider(row).sentence


def test_the_name_is_resolved_once_so_that_the_checked_address_is_called(
    base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = provider(base_url.replace("127.0.0.1", "rebound.example"))
    resolve = socket.getaddrinfo
    asked: list[str] = []

    def fake(host: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        return resolve("127.0.0.1" if host == "rebound.example" else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", fake)
    assert probe_provider(row).outcome == "ok"
    row.allow_private_network = False
    assert "rebound.example is 127.0.0.1" in probe_provider(row).sentence
    assert asked == ["rebound.example", "127.0.0.1", "rebound.example"]


def test_a_metadata_address_is_never_called(monkeypatch: pytest.MonkeyPatch) -> None:
    row = provider("http://metadata.example/v1")
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *args, **kwargs: [(2, 1, 6, "", ("169.254.169.254", 0))]
    )
    assert "never called" in probe_provider(row).sentence


def test_a_reference_that_leads_nowhere_is_named() -> None:
    row = create_provider(
        name="x", actor="test", base_url="https://example.com/v1", credential_reference="env:NOT_SET_HERE"
    )
    assert "NOT_SET_HERE" in probe_provider(row).sentence
