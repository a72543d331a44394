"""Which handler answers which path of the endpoint? Plain ASGI, before Django.

Calls: `inference`, `listings`, `feedback`, `route_explain`. Base URLs with and without `/v1` and with trailing slashes
are the same; a redirect would drop the body. Paths of the OpenAI API that are not offered get JSON, never HTML.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

from gateway.dataplane.errors import GatewayError, MethodNotAllowed, NotFound, NotOffered
from gateway.dataplane.exchange import Send
from gateway.dataplane.feedback import serve_feedback
from gateway.dataplane.gateway import Gateway
from gateway.dataplane.inference import serve
from gateway.dataplane.json_answers import send_error
from gateway.dataplane.limits import Receive
from gateway.dataplane.listings import ListingKind, serve_listing
from gateway.dataplane.request_ids import make_request_id
from gateway.dataplane.route_explain import serve_explanation
from gateway.wire.openai_request import Endpoint

INFERENCE: dict[str, Endpoint] = {
    "chat/completions": "chat",
    "completions": "completions",
    "embeddings": "embeddings",
}
NOT_OFFERED = (
    "responses", "messages", "moderations", "images", "audio", "files", "batches", "fine_tuning", "assistants",
    "threads", "vector_stores", "uploads", "realtime", "evals", "rerank", "conversations", "containers", "videos",
)  # fmt: skip
OFFERED = "It offers /v1/chat/completions, /v1/completions, /v1/embeddings and /v1/models."
INSTEAD = {
    "responses": "Send it as a chat: POST /v1/chat/completions, in the SDK client.chat.completions.create(…).",
    "messages": "Every model is reached in OpenAI's format, also Anthropic's: POST /v1/chat/completions.",
}
# Without /v1 these are console pages too; a client shows itself by its key.
ALSO_CONSOLE = ("models", "requests", "files", "feedback", "route")
POSTED = ("feedback", "route/explain")


def endpoint_path(scope: Mapping[str, Any]) -> str | None:
    """The path below the base URL when this request is the data plane's, else None (the console's)."""
    path: str = scope["path"]
    if path.startswith("/v1/"):
        return path[4:].strip("/")
    if path in ("/v1", "/healthz", "/readyz"):
        return path[1:]
    if path.startswith("//v1/"):  # a base URL that ends in a slash, to which a client has added another
        return path[5:].strip("/")
    path = path.strip("/")
    if path in INFERENCE or path.removeprefix("api/v1/") in INFERENCE:
        return path
    head = path.partition("/")[0]
    if head in ALSO_CONSOLE or head in NOT_OFFERED or head == "openai":
        for name, _ in scope["headers"]:
            if name in (b"authorization", b"x-api-key", b"api-key"):
                return path
    return None


class DataPlane:
    """The ASGI application of the endpoint."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send, path: str) -> None:
        """Answer a request whose `endpoint_path` is `path`."""
        endpoint = INFERENCE.get(path)
        if endpoint is not None and scope["method"] == "POST":
            await serve(self.gateway, scope, receive, send, endpoint)
            return
        if path == "feedback" and scope["method"] == "POST":
            await serve_feedback(self.gateway, scope, receive, send)
            return
        if path == "route/explain" and scope["method"] == "POST":
            await serve_explanation(self.gateway, scope, receive, send)
            return
        try:
            await self._other(scope, send, path, endpoint)
        except GatewayError as error:
            await send_error(error, send, _request_id())

    async def _other(
        self, scope: Mapping[str, Any], send: Send, path: str, endpoint: Endpoint | None
    ) -> None:
        method = scope["method"]
        if path in ("healthz", "readyz"):
            await self._send_health(send, is_ready_wanted=path == "readyz")
            return
        head, _, rest = path.partition("/")
        kind = _listing_kind(head, rest)
        is_posted = endpoint is not None or path in POSTED
        allowed = "POST" if is_posted else "GET, HEAD"
        if method == "OPTIONS":
            await _send_plain(send, 204, b"", [(b"allow", f"{allowed}, OPTIONS".encode())])
        elif is_posted:
            raise MethodNotAllowed("POST")
        elif kind is not None:
            if method not in ("GET", "HEAD"):
                raise MethodNotAllowed(allowed)
            await serve_listing(self.gateway, scope, send, kind, _name(scope, rest))
        elif head in NOT_OFFERED:
            raise NotOffered(
                f"This gateway does not offer /v1/{head}. {INSTEAD.get(head, OFFERED)}",
                code="not_offered",
                headers=[(b"x-should-retry", b"false")],  # SDKs repeat every 5xx
            )
        else:
            raise NotFound(_where_instead(path, scope["path"]), code="unknown_url")

    async def _send_health(self, send: Send, *, is_ready_wanted: bool) -> None:
        state = self._readiness() if is_ready_wanted else "ok"
        body = b'{"status":"%s"}' % state.encode()
        await _send_plain(send, 200 if state == "ok" else 503, body, [(b"content-type", b"application/json")])

    def _readiness(self) -> str:
        gateway = self.gateway
        if gateway.is_draining:
            return "draining"
        if not gateway.configuration.is_ready:
            return "starting"
        return "ok" if gateway.journal.has_room() else "disk_full"


def _where_instead(path: str, full_path: str) -> str:
    """Say what to use, for the addresses at which clients of others look for an endpoint."""
    head = path.partition("/")[0]
    if path == "v1":
        return f"This is the endpoint's base URL, at which nothing is. {OFFERED}"
    if head == "api":
        return "/api/v1 is the management API. The endpoint's base URL ends in /v1, without /api."
    if head == "openai":
        return (
            "Addresses of Azure OpenAI are not spoken here: use the SDK's OpenAI instead of its AzureOpenAI, "
            "with a base_url that ends in /v1 and the name of a model as `model`."
        )
    return f"There is nothing at {full_path[:200]}. The endpoint's base URL ends in /v1."


def _listing_kind(head: str, rest: str) -> ListingKind | None:
    if head == "models":
        return "model" if rest else "models"
    if head == "requests" and rest:
        return "request"
    if not rest and head == "key":
        return "key"
    return "generation" if not rest and head == "generation" else None


def _name(scope: Mapping[str, Any], rest: str) -> str:
    """Ids contain `/`, plain or as %2F; OpenRouter's clients name a generation by `?id=`."""
    if rest:
        return unquote(rest)
    query: bytes = scope.get("query_string", b"")
    return parse_qs(query.decode("latin-1")).get("id", [""])[0]


def _request_id() -> list[tuple[bytes, bytes]]:
    return [(b"x-request-id", make_request_id().encode())]


async def _send_plain(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    headers = [*headers, *_request_id()]
    if status != 204:
        headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
