"""What may this key ask for, and what became of a request? `GET /v1/models`, `/v1/models/{id}`, `/v1/requests/{id}`.

`GET /v1/key` and `GET /v1/generation?id=` say the same in the form that OpenRouter's clients read.

Calls: the RecordLookup port for requests; models come from the snapshot.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

from gateway.dataplane.auth import authenticate
from gateway.dataplane.errors import GatewayError, GatewayUnready, NotFound
from gateway.dataplane.exchange import Send
from gateway.dataplane.gateway import Gateway
from gateway.dataplane.json_answers import send_error, send_json
from gateway.dataplane.limit_outlook import look_at_budgets
from gateway.dataplane.request_ids import make_request_id
from policies.naming import names_of, not_found_text
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
            payload = {"data": await _key(gateway, grant)}
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
        not_found_text(name, gateway.configuration.snapshot, grant), code="model_not_found", param="model"
    )


async def _find_request(gateway: Gateway, grant: KeyGrant, request_id: str) -> Mapping[str, Any]:
    try:
        record = await gateway.records.find_request(request_id, grant.key_id)
    except Exception:  # an edge: whatever the port's database raises
        logger.exception("request records cannot be read")
        raise GatewayUnready(
            "Request records cannot be read right now.",
            code="records_unavailable",
            headers=[(b"retry-after", b"5")],
        ) from None
    if record is None:
        raise NotFound(
            "There is no request of this key with that id. It is found by what stands in the answer's header"
            " x-request-id, for a day also by the `id` in its body, about a second after the answer.",
            code="request_not_found",
            param="id",
        )
    return record


def _generation(record: Mapping[str, Any]) -> dict[str, Any]:
    """A request record in OpenRouter's words. Its id is ours (`x-request-id`), as everywhere in this gateway."""
    usage = record["usage"]
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
        "total_cost": _usd(record["cost_nanousd"]),
    }


async def _key(gateway: Gateway, grant: KeyGrant) -> dict[str, Any]:
    """The key in OpenRouter's words, USD as JSON numbers: of its hard budgets the one of which the least is left.

    `usage` is what that budget counts, of all keys under it. Null without a budget, or while nobody says how it stands.
    """
    now_unix_s = gateway.now_unix_s()
    await look_at_budgets(gateway, grant, at_unix_s=now_unix_s)
    lefts = [
        (left, terms)
        for terms in grant.budgets
        if gateway.budgets is not None
        and (left := gateway.budgets.remaining_nanousd((terms,), at_unix_s=now_unix_s)) is not None
    ]
    left, tightest = min(lefts, key=lambda pair: pair[0], default=(None, None))
    limit = None if tightest is None else tightest.limit_nanousd
    return {
        "label": grant.key_name,
        "limit": _usd(limit),
        "limit_remaining": _usd(left),
        "limit_reset": None if tightest is None or tightest.window == "total" else tightest.window,
        "limit_of": None if tightest is None else tightest.name,
        "usage": None if limit is None or left is None else _usd(limit - left),
        "is_free_tier": False,
        "expires_at": grant.expires_unix_s,
    }


def _usd(nanousd: int | None) -> float | None:
    return None if nanousd is None else nanousd / 1_000_000_000  # a JSON number, for showing
