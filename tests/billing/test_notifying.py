"""Does a mail leave as it should, and is a webhook signed, checked and delivered?"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
from django.core import mail

from billing import webhooks
from billing.notifying import Attachment, is_mail_address, send_mail


class Receiver(BaseHTTPRequestHandler):
    """A webhook's server. `status` is what it answers, `got` what came."""

    status = 204
    got: list[tuple[dict[str, str], bytes]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.status)
        self.send_header("location", "/elsewhere")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[str]:
    Receiver.status, Receiver.got = 204, []
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook"
    server.shutdown()
    server.server_close()
    thread.join()


def post(url: str, *, secret: str = "", allow_private_network: bool = True) -> None:
    webhooks.post(
        url,
        secret=secret or webhooks.make_secret(),
        message_id="msg_1",
        timestamp_s=1_700_000_000,
        body=b'{"type":"test"}',
        allow_private_network=allow_private_network,
    )


def test_a_webhook_is_signed_as_standard_webhooks_say(receiver: str) -> None:
    secret = webhooks.make_secret()
    post(receiver, secret=secret)
    ((headers, body),) = Receiver.got
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = hmac.new(key, b"msg_1.1700000000." + body, hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(expected).decode()
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("msg_1", "1700000000")
    assert len(key) == 32


def test_no_log_tells_where_it_went(receiver: str, caplog: pytest.LogCaptureFixture) -> None:
    """The path of a webhook is often its only secret, and httpx tells every URL at INFO."""
    caplog.set_level(logging.DEBUG)
    post(f"{receiver}/T0123/s3cret")
    assert len(Receiver.got) == 1
    assert "s3cret" not in caplog.text


def test_the_signature_is_that_of_the_published_example() -> None:
    """From the specification's own test vectors."""
    found = webhooks.sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp_s=1614265330,
        body=b'{"test": 2432232314}',
    )
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(("status", "is_final"), [(500, False), (302, False), (410, True)])
def test_what_is_not_taken_is_told_and_redirects_are_not_followed(
    receiver: str, status: int, is_final: bool
) -> None:
    Receiver.status = status
    with pytest.raises(webhooks.WebhookError, match=f"status {status}") as told:
        post(receiver)
    assert told.value.is_final is is_final
    assert len(Receiver.got) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/hook",
        "https://localhost/hook",
        "https://169.254.169.254/latest",
        "http://hooks.example.com/x",
        "https://hooks.example.com/x?token=1",
        "ftp://hooks.example.com",
        "simulated:",
    ],
)
def test_addresses_that_are_not_called(url: str) -> None:
    with pytest.raises(webhooks.WebhookError) as told:
        post(url, allow_private_network=False)
    assert told.value.is_final


def test_a_metadata_address_is_never_called() -> None:
    assert webhooks.problems_of_address("http://169.254.169.254/x", allow_private_network=True)


def test_a_mail_has_its_attachments_and_no_second_header() -> None:
    send_mail(
        to=["fin@example.com"],
        subject="Spend\nBcc: all@example.com",
        text="See the file.",
        attachments=[Attachment("spend.csv", b"a,b\n", "text/csv")],
        message_id="123",
    )
    (sent,) = mail.outbox
    assert (sent.subject, sent.body, sent.to) == (
        "Spend Bcc: all@example.com",
        "See the file.",
        ["fin@example.com"],
    )
    assert sent.attachments[0].filename == "spend.csv"
    assert sent.message()["Message-ID"].startswith("<123@")


@pytest.mark.parametrize("text", ["fin", "a@b@c", "fin@example.com, x@example.com", "a\n@example.com", ""])
def test_what_is_no_address(text: str) -> None:
    assert not is_mail_address(text)
