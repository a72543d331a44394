"""What may this key ask for, and what became of a request? `GET /v1/models`, `/v1/models/{id}`, `/v1/requests/{id}`.

`GET /v1/key` and `GET /v1/generation?id=` say the same in the form that OpenRouter's clients read.

Calls: the RecordLookup port for requests; models come from the snapshot.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import Any, Literal

from gateway.dataplane.auth import authenticate
from gateway.dataplane.errors import GatewayError, GatewayUnready, NotFound
from gateway.dataplane.exchange import Send
from gateway.dataplane.gateway import Gateway
from gateway.dataplane.json_answers import send_error, send_json
from gateway.dataplane.request_ids import make_request_id
from policies.naming import names_of
from policies.snapshot import KeyGrant, RoutingSnapshot

logger = logging.getLogger(__name__)

ListingKind = Literal["models", "model", "request", "generation", "key"]


def list_models(snapshot: RoutingSnapshot, grant: KeyGrant) -> list[dict[str, Any]]:
    """Policies (with presets, where they have any) and models this key may name, as OpenAI lists models."""
    allowed = grant.allowed_models
    rows = [
        {"id": name, "object": "model", "created": policy.created_unix_s, "owned_by": "pointsman"}
        for policy in snapshot.policies.values()
        if policy.public_id in grant.tenant.policy_ids and (not allowed or policy.public_id in allowed)
        for name in names_of(policy)
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
    gateway: Gateway, scope: Mapping[str, Any], send: Send, kind: ListingKind, name: str
) -> None:
    """Serve one listing request."""
    request_id = make_request_id()
    headers = [(b"x-request-id", request_id.encode())]
    try:
        grant = authenticate(dict(scope["headers"]), gateway.configuration, now_unix_s=gateway.now_unix_s())
        if kind == "request":
            payload: Any = await _find_request(gateway, grant, name)
        elif kind == "generation":
            payload = {"data": _generation(await _find_request(gateway, grant, name))}
        elif kind == "key":
            payload = {"data": _key(grant)}
        elif kind == "model":
            payload = _find_model(gateway, grant, name)
        else:
            payload = {"object": "list", "data": list_models(gateway.configuration.snapshot, grant)}
    except GatewayError as error:
        await send_error(error, send, headers)
        return
    await send_json(payload, send, headers, is_head=scope["method"] == "HEAD")


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
        id_text = str(uuid.UUID(request_id))
    except ValueError:
        id_text = ""
    try:
        record = await gateway.records.find_request(id_text, grant.key_id) if id_text else None
    except Exception:  # an edge: whatever the port's database raises
        logger.exception("request records cannot be read")
        raise GatewayUnready(
            "Request records cannot be read right now.",
            code="records_unavailable",
            headers=[(b"retry-after", b"5")],
        ) from None
    if record is None:
        raise NotFound(
            "There is no request of this key with that id. A request appears about a second after its answer.",
            code="request_not_found",
            param="id",
        )
    return record


def _generation(record: Mapping[str, Any]) -> dict[str, Any]:
    """A request record in OpenRouter's words. Its id is ours (`x-request-id`), as everywhere in this gateway."""
    usage = record["usage"]
    cost = record["cost_nanousd"]
    return {
        "id": record["id"],
        "created_at": record["started_at"],
        "model": record["served_model"] or record["model"],
        "provider_name": record["provider"],
        "streamed": record["is_stream"],
        "cancelled": record["status"] == "cancelled",
        "latency": record["first_token_ms"],
        "generation_time": record["duration_ms"],
        "finish_reason": record["finish_reason"] or None,
        "tokens_prompt": usage["input_tokens"],
        "tokens_completion": usage["output_tokens"],
        "native_tokens_prompt": usage["input_tokens"],
        "native_tokens_completion": usage["output_tokens"],
        "native_tokens_reasoning": usage["reasoning_tokens"],
        "native_tokens_cached": usage["cache_read_tokens"],
        "total_cost": None if cost is None else cost / 1_000_000_000,  # a JSON number, for showing
    }


def _key(grant: KeyGrant) -> dict[str, Any]:
    """The key in OpenRouter's words. Budgets are not built yet: no limit is stated, and no spending."""
    return {
        "label": grant.key_name,
        "limit": None,
        "limit_remaining": None,
        "usage": None,
        "is_free_tier": False,
        "expires_at": grant.expires_unix_s,
    }
