"""What does a deployment answer to a case, and what may that cost at most?

Calls: this gateway's own endpoint, as any client does, with a pinned request: the call is recorded, priced and counted
like every other. Everything else here is pure.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import httpx

from billing import budget_arithmetic
from billing.pricebook import PriceVersion

TIMEOUT_S = 620.0  # the gateway gives a request 600
KEY_WAIT_S = 15.0
# What a message costs beside its text, and a request beside its messages, at the very most.
MESSAGE_TOKENS = 32
REQUEST_TOKENS = 64
APP = "Evaluation sets"


class Said(NamedTuple):
    """An answer, or why there is none (`problem`, a code). `cost_nanousd` None: nobody knows."""

    text: str
    problem: str = ""
    request_id: uuid.UUID | None = None
    cost_nanousd: int | None = None
    duration_ms: float | None = None
    output_tokens: int | None = None


class GatewayCaller:
    """Calls the gateway with one key. Safe to use from several threads."""

    def __init__(self, base_url: str, secret: str) -> None:
        headers = {"Authorization": f"Bearer {secret}", "X-Title": APP}
        self._client = httpx.Client(
            base_url=base_url, headers=headers, timeout=httpx.Timeout(TIMEOUT_S, connect=5.0), trust_env=False
        )

    def close(self) -> None:
        """Drop all connections."""
        self._client.close()

    def wait_until_known(self) -> bool:
        """Wait until the workers know the key, which takes up to two seconds; False: they do not come to know it."""
        give_up_s = time.monotonic() + KEY_WAIT_S
        while True:
            try:
                if self._client.get("/v1/models").status_code == 200:
                    return True
            except httpx.HTTPError:
                pass
            if time.monotonic() > give_up_s:
                return False
            time.sleep(0.1)

    def ask(self, deployment: str, messages: Sequence[Mapping[str, str]], max_output_tokens: int) -> Said:
        """Ask one deployment. Never raises for what the network or the provider does."""
        body = {"model": deployment, "messages": list(messages), "max_tokens": max_output_tokens}
        begun_s = time.perf_counter()
        try:
            response = self._client.post("/v1/chat/completions", json=body)
        except httpx.HTTPError as failure:
            return Said("", f"gateway_unreachable ({type(failure).__name__})")
        duration_ms = (time.perf_counter() - begun_s) * 1000
        try:
            payload = response.json()
        except ValueError:
            payload = None
        return read_answer(
            response.status_code, response.headers, payload if isinstance(payload, dict) else {}, duration_ms
        )


def read_answer(
    status: int, headers: Mapping[str, str], payload: Mapping[str, Any], duration_ms: float
) -> Said:
    """Read the gateway's answer. A refusal of the request itself cost nothing; of any other nobody knows."""
    try:
        request_id: uuid.UUID | None = uuid.UUID(headers.get("x-pointsman-request-id", ""))
    except ValueError:
        request_id = None
    if status != 200:
        error = payload.get("error")
        code = error.get("code") if isinstance(error, dict) else None
        return Said(
            "",
            str(code or f"http_{status}")[:80],
            request_id,
            0 if 400 <= status < 500 else None,
            duration_ms,
        )
    try:
        cost: int | None = int(Decimal(headers["x-pointsman-cost-usd"]) * 10**9)
    except (KeyError, InvalidOperation, ValueError):
        cost = None
    choices = payload.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message = first.get("message")
    text = message.get("content") if isinstance(message, dict) else None
    usage = payload.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return Said(
        text if isinstance(text, str) else "",
        "" if isinstance(text, str) and text.strip() else "empty_answer",
        request_id,
        cost,
        duration_ms,
        tokens if isinstance(tokens, int) and tokens >= 0 else None,
    )


def most_nanousd(messages: Sequence[Mapping[str, str]], max_output_tokens: int, price: PriceVersion) -> int:
    """The most that one answered call can cost: no tokenizer makes more tokens than a text has bytes."""
    sent = REQUEST_TOKENS + sum(
        MESSAGE_TOKENS + len(message["content"].encode("utf-8", "replace")) for message in messages
    )
    return budget_arithmetic.most_nanousd(price, input_tokens=sent, output_tokens=max_output_tokens)
