"""What may this key ask for, and what became of a request? `GET /v1/models`, `/v1/models/{id}`, `/v1/requests/{id}`.

Calls: the RecordLookup port for requests; models come from the snapshot.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import orjson

from gateway.dataplane.auth import authenticate
from gateway.dataplane.errors import GatewayError, NotFound
from gateway.dataplane.exchange import Send
from gateway.dataplane.gateway import Gateway
from gateway.dataplane.inference import send_error
from gateway.dataplane.request_ids import make_request_id
from policies.snapshot import KeyGrant, RoutingSnapshot


def list_models(snapshot: RoutingSnapshot, grant: KeyGrant) -> list[dict[str, Any]]:
    """Policies and models this key may name, as OpenAI lists models."""
    allowed = grant.allowed_models
    rows = [
        {"id": policy.public_id, "object": "model", "created": policy.created_unix_s, "owned_by": "pointsman"}
        for policy in snapshot.policies.values()
        if policy.public_id in grant.tenant.policy_ids and (not allowed or policy.public_id in allowed)
    ]
    for name, deployments in snapshot.deployments_by_model.items():
        if deployments and (not allowed or name in allowed):
            providers = {deployment.provider.name for deployment in deployments}
            owner = next(iter(providers)) if len(providers) == 1 else "pointsman"
            created = deployments[0].model.created_unix_s
            rows.append({"id": name, "object": "model", "created": created, "owned_by": owner})
    rows.sort(key=lambda row: str(row["id"]))
    return rows


async def serve_listing(
    gateway: Gateway, scope: Mapping[str, Any], send: Send, kind: str, name: str | None
) -> None:
    """Serve one listing request. `kind`: models, model, request."""
    request_id = make_request_id()
    headers = [(b"x-request-id", request_id.encode())]
    try:
        grant = authenticate(dict(scope["headers"]), gateway.configuration, now_unix_s=gateway.now_unix_s())
        if kind == "request":
            payload: Any = await _find_request(gateway, grant, name or "")
        elif kind == "model":
            payload = _find_model(gateway, grant, name or "")
        else:
            payload = {"object": "list", "data": list_models(gateway.configuration.snapshot, grant)}
    except GatewayError as error:
        await send_error(error, send, headers)
        return
    body = orjson.dumps(payload)
    headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _find_model(gateway: Gateway, grant: KeyGrant, name: str) -> dict[str, Any]:
    for row in list_models(gateway.configuration.snapshot, grant):
        if row["id"] == name:
            return row
    raise NotFound(
        f"The model '{name}' does not exist or you do not have access to it.",
        code="model_not_found",
        param="model",
    )


async def _find_request(gateway: Gateway, grant: KeyGrant, request_id: str) -> Mapping[str, Any]:
    try:
        record = await gateway.records.find_request(str(uuid.UUID(request_id)), grant.key_id)
    except ValueError:
        record = None
    if record is None:
        raise NotFound(
            "There is no request of this key with that id. A request appears about a second after its answer.",
            code="request_not_found",
            param="id",
        )
    return record
