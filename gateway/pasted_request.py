"""What would routing know of a request that somebody pasted into the console?

Pure. Read by the data plane's own functions; there are no headers, so task, priority, quality and latency come from
`metadata` alone. What its words tell is read whatever the policy looks at. The text is not kept.
"""

from __future__ import annotations

import orjson

from gateway.dataplane.asking import NO_HEADERS, read_ask, read_features
from gateway.wire.openai_request import Endpoint, parse_request
from policies.asks import Ask
from policies.features import Features
from policies.snapshot import KeyGrant, RoutingSnapshot


def read_pasted(
    body: bytes,
    *,
    grant: KeyGrant,
    snapshot: RoutingSnapshot,
    default_model: str,
    now_unix_s: float,
    endpoint: Endpoint = "chat",
) -> tuple[Ask, Features]:
    """Read a body as the gateway would, at this time of the tenant's day. Raises GatewayError as the gateway would."""
    parsed = parse_request(_with_model(body, default_model), endpoint)
    features = read_features(parsed, NO_HEADERS, grant, snapshot, now_unix_s=now_unix_s, needs_all=True)
    return read_ask(parsed, is_pinned=grant.is_pinned), features


def _with_model(body: bytes, model: str) -> bytes:
    """A pasted request may leave its model out: it is tried under one policy anyway."""
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body
    return orjson.dumps({"model": model, **payload}) if isinstance(payload, dict) else body
