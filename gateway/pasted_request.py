"""What would routing know of a request that somebody pasted into the console?

Pure. The data plane reads the same facts from a request's connection (`gateway.dataplane.inference`); here there are
no headers, so task, priority, quality and latency come from `metadata` alone. The text is read and not kept.
"""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import orjson

from gateway.wire.openai_request import Endpoint, parse_request
from policies.decision import Ask
from policies.features import Features
from policies.snapshot import KeyGrant


def read_pasted(
    body: bytes, *, grant: KeyGrant, default_model: str, now_unix_s: float, endpoint: Endpoint = "chat"
) -> tuple[Ask, Features]:
    """Read a body as the gateway would, at this time of the tenant's day. Raises GatewayError as the gateway would."""
    parsed = parse_request(_with_model(body, default_model), endpoint)
    tags = parsed.tags
    local = datetime.fromtimestamp(now_unix_s, ZoneInfo(grant.tenant.time_zone))
    latency = tags.get("max_latency_ms", "")
    features = Features(
        requested_model=parsed.model,
        endpoint=endpoint,
        tenant=grant.tenant.name,
        project=grant.project_name,
        key=grant.key_name,
        task=tags.get("task", ""),
        priority=tags.get("priority", ""),
        quality=tags.get("quality", ""),
        max_latency_ms=int(latency) if latency.isascii() and latency.isdigit() and len(latency) < 10 else 0,
        tags=tags,
        is_stream=parsed.is_stream,
        hour=local.hour,
        weekday=local.isoweekday(),
        **parsed.facts,
    )
    ask = Ask(
        parsed.model,
        parsed.models,
        grant.is_pinned,
        endpoint,
        parsed.provider_order,
        parsed.provider_only,
        parsed.provider_ignore,
        parsed.allow_fallbacks,
    )
    return ask, features


def _with_model(body: bytes, model: str) -> bytes:
    """A pasted request may leave its model out: it is tried under one policy anyway."""
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body
    return orjson.dumps({"model": model, **payload}) if isinstance(payload, dict) else body
