"""A data plane without a network, a database or a disk: hand-written fakes of its ports, and one log of what happened.

`happened` holds, in order: ("intent", line), ("call", deployment), ("outcome", line), ("sent", bytes, has_more).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson

from billing.pricebook import PriceVersion
from gateway.dataplane.gateway import Gateway, Timeouts
from gateway.dataplane.hangups import CONNECTION_KEY
from gateway.dataplane.health import Health
from gateway.dataplane.inference import serve
from gateway.dataplane.limits import LARGE_BODY_BYTES, Room
from gateway.dataplane.upstream_errors import UpstreamError
from gateway.journal import JournalError
from policies.snapshot import DeploymentSnapshot, KeyGrant, ModelSnapshot, ProviderSnapshot, RoutingSnapshot
from tests.make_routing import make_grant, make_snapshot

SECRET = "pm-in-process"
CHUNK = (
    b'data: {"model":"served","choices":[{"index":0,"delta":{"content":"word"},"finish_reason":null}]}\n\n'
)
LAST_CHUNK = b'data: {"model":"served","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE_CHUNK = b'data: {"model":"served","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}\n\n'
DONE = b"data: [DONE]\n\n"


class Answer:
    """One scripted answer: bytes, seconds (float) to wait, or an UpstreamError to raise."""

    def __init__(self, *pieces: Any, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> None:
        self.pieces = pieces
        self.status = status
        self.headers = headers


def chat(text: str = "hello") -> Answer:
    payload = {
        "model": "served",
        "choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
    return Answer(orjson.dumps(payload))


def refusal(status: int, message: str = "no", **headers: str) -> Answer:
    lines = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Answer(orjson.dumps({"error": {"message": message}}), status=status, headers=lines)


def stream(*pieces: Any) -> Answer:
    return Answer(
        *(pieces or (CHUNK, CHUNK, LAST_CHUNK, USAGE_CHUNK, DONE)),
        headers=(("content-type", "text/event-stream"),),
    )


class FakeResponse:
    def __init__(self, answer: Answer) -> None:
        self.status = answer.status
        self.headers = list(answer.headers)
        self.is_closed = False
        self._pieces = list(answer.pieces)

    async def read_chunk(self, *, timeout_s: float) -> bytes:
        assert not self.is_closed
        await asyncio.sleep(0)
        while self._pieces:
            piece = self._pieces.pop(0)
            if isinstance(piece, bytes):
                return piece
            if isinstance(piece, UpstreamError):
                raise piece
            await asyncio.sleep(min(piece, timeout_s))
            if piece > timeout_s:
                raise UpstreamError("timeout", "scripted")
        return b""

    async def read(self, *, limit_bytes: int, timeout_s: float, room: Room | None = None) -> bytes:
        parts = []
        while part := await self.read_chunk(timeout_s=timeout_s):
            parts.append(part)
        body = b"".join(parts)
        if len(body) >= LARGE_BODY_BYTES and room is not None:
            await room.take_for_answer(len(body), wait_s=timeout_s)
        return body

    def close(self) -> None:
        self.is_closed = True


class FakeUpstream:
    """Answers by deployment: a list of answers, one for each call; the last one repeats."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.answers: dict[str, list[Answer | UpstreamError]] = {}
        self.responses: list[FakeResponse] = []
        self.bodies: list[bytes] = []

    async def send(
        self, *, url: str, body: bytes | tuple[bytes | memoryview, ...], head_timeout_s: float, **others: Any
    ) -> FakeResponse:
        name = url.split("/")[2]
        self.plane.happened.append(("call", name))
        self.bodies.append(b"".join(body) if isinstance(body, tuple) else body)
        await asyncio.sleep(0)
        script = self.answers[name]
        answer = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(answer, UpstreamError):
            raise answer
        response = FakeResponse(answer)
        self.responses.append(response)
        return response

    async def aclose(self) -> None:
        pass


class FakeConfiguration:
    def __init__(self, snapshot: RoutingSnapshot, grant: KeyGrant) -> None:
        self.snapshot = snapshot
        self.is_ready = True
        self.grant = grant
        self.rates = {"input_usd_per_mtok": Decimal(1), "output_usd_per_mtok": Decimal(2)}

    def find_key(self, secret: str, /) -> KeyGrant | None:
        return self.grant if secret == SECRET else None

    def find_price(self, deployment_id: int, at_unix_s: float, /) -> PriceVersion | None:
        return PriceVersion(1, deployment_id, 0.0, self.rates)


class FakeConnection:
    """The server's side of `hangups`."""

    def __init__(self) -> None:
        self.on_hangup: Any = None
        self.is_lost = False
        self.refused_as: tuple[int, str] | None = None
        self.task: asyncio.Task[None] | None = None


class Plane:
    """One worker's data plane over fakes. Also the journal."""

    def __init__(
        self, *names: str, contexts: Mapping[str, int] | None = None, policies: Any = (), **timeouts: float
    ) -> None:
        self.happened: list[tuple[Any, ...]] = []
        self.is_journal_full = False
        self.now_s = 1000.0
        self.upstream = FakeUpstream(self)
        self.deployments = {
            name: make_fake_deployment(number, name, (contexts or {}).get(name))
            for number, name in enumerate(names, 1)
        }
        self.gateway = Gateway(
            configuration=FakeConfiguration(make_snapshot(self.deployments, *policies), make_grant()),
            journal=self,
            records=None,  # type: ignore[arg-type]  # no listing is asked for
            clients={"http": self.upstream},
            health=Health(lambda: self.now_s),
            timeouts=Timeouts(**timeouts),
            draw=lambda: 0.0,
        )

    def append(self, line: Mapping[str, Any], /) -> None:
        if self.is_journal_full:
            raise JournalError("full")
        orjson.dumps(line)
        self.happened.append((line["k"], line))

    def has_room(self) -> bool:
        return not self.is_journal_full

    async def ask(self, model: str, *, is_stream: bool = False, **fields: Any) -> Client:
        """Send one request and wait for its end."""
        client = Client(self, model, is_stream=is_stream, **fields)
        await client.run()
        return client

    def kinds(self) -> list[str]:
        return [event[0] for event in self.happened]

    def lines(self, kind: str) -> list[dict[str, Any]]:
        return [event[1] for event in self.happened if event[0] == kind]

    def calls(self) -> list[str]:
        return [event[1] for event in self.happened if event[0] == "call"]


class Client:
    """One request and what came back."""

    def __init__(self, plane: Plane, model: str, *, is_stream: bool = False, **fields: Any) -> None:
        headers = fields.pop("headers", {})
        payload = {
            "model": model,
            "stream": is_stream,
            "messages": [{"role": "user", "content": "hi"}],
            **fields,
        }
        self.plane = plane
        self.connection = FakeConnection()
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.is_complete = False
        self._payload = orjson.dumps(payload)
        self.scope = {
            "headers": [
                (b"authorization", f"Bearer {SECRET}".encode()),
                *((name.encode(), value.encode()) for name, value in headers.items()),
            ],
            CONNECTION_KEY: self.connection,
        }

    async def run(self) -> None:
        self.connection.task = asyncio.current_task()
        await serve(self.plane.gateway, self.scope, self.receive, self.send, "chat")

    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(self.body)["error"]
        return found

    async def receive(self) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"type": "http.request", "body": self._payload, "more_body": False}

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert not self.status
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        assert not self.is_complete
        self.body += message["body"]
        self.is_complete = not message.get("more_body", False)
        self.plane.happened.append(("sent", message["body"], not self.is_complete))


def make_fake_deployment(number: int, name: str, context_tokens: int | None) -> DeploymentSnapshot:
    """A deployment `name` of a model of the same name at a provider of the same name."""
    return DeploymentSnapshot(
        id=number,
        name=name,
        model=ModelSnapshot(number, f"model-{name}", context_tokens),
        provider=ProviderSnapshot(number, name, "openai_chat", f"http://{name}/v1"),
        upstream_model="u",
    )
