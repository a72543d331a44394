"""What would be tried for a request, and why? `POST /v1/route/explain`.

Calls: nothing. The body is that of a chat, completions or embeddings request; the answer's form is that of
`policies.trying`. No provider is called, nothing is written, no request record is made. Callers hear which of their
request's facts a rule missed, but not the texts of conditions. `notes` say whether their key's limits and budgets would
let it in; it counts for none of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, get_args

import orjson

from gateway.dataplane.asking import read_ask, read_features
from gateway.dataplane.auth import authenticate
from gateway.dataplane.errors import BadRequest, ClientGone, GatewayError
from gateway.dataplane.exchange import Exchange, Send
from gateway.dataplane.gateway import Gateway
from gateway.dataplane.inference import deployment_of_conversation, is_yes, routing_error
from gateway.dataplane.json_answers import send_error, send_json
from gateway.dataplane.limit_outlook import (
    list_outlook,
    look_at_budgets,
    look_at_deployment_budgets,
    look_at_rate_limits,
)
from gateway.dataplane.limits import Receive, Room, check_content_type, check_declared_size, read_body
from gateway.dataplane.request_ids import make_request_id
from gateway.wire.openai_request import Endpoint, parse_request
from policies.snapshot import KeyGrant
from policies.trying import explain_request

ENDPOINTS: tuple[Endpoint, ...] = get_args(Endpoint)


async def serve_explanation(gateway: Gateway, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
    """Explain one request."""
    headers = [(b"x-request-id", make_request_id().encode())]
    try:
        answer = await _explain(gateway, dict(scope["headers"]), receive)
    except ClientGone:
        return
    except GatewayError as error:
        await send_error(error, send, headers)
        return
    await send_json(answer, send, headers)


async def _explain(gateway: Gateway, headers: Mapping[bytes, bytes], receive: Receive) -> dict[str, Any]:
    declared_bytes = check_declared_size(headers)
    now_unix_s = gateway.now_unix_s()
    grant = authenticate(headers, gateway.configuration, now_unix_s=now_unix_s)
    check_content_type(headers)
    room = Room(gateway.stats)
    try:
        room.take(declared_bytes)
        body = await read_body(receive, timeout_s=gateway.timeouts.body_s, room=room)
        return await _explain_body(gateway, headers, grant, body, now_unix_s)
    finally:
        room.leave()


async def _explain_body(
    gateway: Gateway, headers: Mapping[bytes, bytes], grant: KeyGrant, body: bytes, now_unix_s: float
) -> dict[str, Any]:
    parsed = parse_request(body, _endpoint_of(body, headers))
    snapshot = gateway.configuration.snapshot
    features = read_features(parsed, headers, grant, snapshot, now_unix_s=now_unix_s)
    exchange = Exchange(gateway, parsed.endpoint)
    exchange.grant, exchange.parsed = grant, parsed
    await look_at_budgets(gateway, grant, at_unix_s=exchange.started_at_unix_s)
    if grant.budgets and gateway.budgets is not None:
        ratio = gateway.budgets.used_ratio(grant.budgets, at_unix_s=now_unix_s)
        features = features._replace(budget_used_ratio=ratio)
    ask = read_ask(
        parsed,
        is_pinned=grant.is_pinned or is_yes(headers.get(b"x-pointsman-pin")),
        conversation_deployment=deployment_of_conversation(gateway, features, snapshot),
    )
    # A policy of 200 rules takes 10 ms to explain: other requests do not wait for that.
    found = await asyncio.to_thread(
        explain_request,
        ask=ask,
        features=features,
        snapshot=snapshot,
        grant=grant,
        health=gateway.health,
        draw=gateway.draw(),
        is_for_caller=True,
    )
    if found.error is not None:
        raise routing_error(found.error)
    shown = found.as_json()
    exchange.features = features
    candidates = () if found.decision is None else found.decision.candidates
    await look_at_rate_limits(exchange, candidates)
    await look_at_deployment_budgets(exchange, candidates)
    shown["notes"] += list_outlook(exchange, candidates)
    return shown


def _endpoint_of(body: bytes, headers: Mapping[bytes, bytes]) -> Endpoint:
    """Which endpoint the request is meant for: as the header or the member `pointsman` says, else as it looks."""
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "chat"  # the parser says what is wrong with it
    if not isinstance(payload, dict):
        return "chat"
    ours = payload.get("pointsman")
    wanted: object = ours.get("endpoint") if isinstance(ours, dict) else None
    if b"x-pointsman-endpoint" in headers:
        wanted = headers[b"x-pointsman-endpoint"].decode("latin-1").strip().lower()
    if wanted is not None:
        for endpoint in ENDPOINTS:
            if endpoint == wanted:
                return endpoint
        raise BadRequest(
            f"The endpoint is one of {', '.join(ENDPOINTS)}.",
            code="invalid_value",
            param="pointsman.endpoint",
        )
    if "messages" in payload:
        return "chat"
    return "completions" if "prompt" in payload else "embeddings" if "input" in payload else "chat"
