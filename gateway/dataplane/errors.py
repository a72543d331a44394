"""How does a refusal or failure look to a client?

Pure. The whole tree, and the one place where it becomes an HTTP answer.

    GatewayError
    ├── BadRequest            400  the request cannot be understood or served as written
    │   └── RequestTooLarge   413
    ├── Unauthorized          401  missing, malformed, unknown, expired: always the same answer
    ├── BudgetExceeded        402  a hard budget has no room for it
    ├── NotFound              404  model_not_found, unknown path, unknown request id
    ├── MethodNotAllowed      405  with Allow
    ├── NotOffered            501  an endpoint of the OpenAI API that this gateway does not offer
    ├── ClientTooSlow         408
    ├── RateLimited           429  a rate limit has no room for it (code rate_limit_exceeded)
    ├── NoCandidate           503 (400 when no deployment could ever serve it)
    ├── GatewayUnready        503  configuration not loaded, draining, journal cannot be written
    └── UpstreamFailed        the provider's status, or 502 / 503 / 504
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

Headers = list[tuple[bytes, bytes]]


class GatewayError(Exception):
    """A failure with an answer: OpenAI-shaped, all four keys, a stable code."""

    status = 500
    type = "server_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None,
        param: str | None = None,
        status: int | None = None,
        type: str | None = None,
        headers: Headers | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.headers = headers or []
        self.extra = extra or {}
        if status is not None:
            self.status = status
        if type is not None:
            self.type = type

    def body(self) -> bytes:
        """The JSON answer. Extra keys (a provider's own detail) never replace the four."""
        error = {
            **self.extra,
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return orjson.dumps({"error": error})


class BadRequest(GatewayError):
    status = 400
    type = "invalid_request_error"


class RequestTooLarge(BadRequest):
    status = 413


class Unauthorized(GatewayError):
    status = 401
    type = "invalid_request_error"

    def __init__(self) -> None:
        super().__init__(
            "Incorrect API key provided. Send a key of this gateway as 'Authorization: Bearer …'; "
            "an operator can issue one in the console under API keys. Management tokens (pmt_…) open /api/v1 alone.",
            code="invalid_api_key",
        )


class BudgetExceeded(GatewayError):
    status = 402
    type = "budget_exceeded"


class NotFound(GatewayError):
    status = 404
    type = "invalid_request_error"


class MethodNotAllowed(GatewayError):
    status = 405
    type = "invalid_request_error"

    def __init__(self, allowed: str) -> None:
        super().__init__(
            f"This path answers {allowed} only.",
            code="method_not_allowed",
            headers=[(b"allow", allowed.encode())],
        )


class NotOffered(GatewayError):
    status = 501
    type = "invalid_request_error"


class ClientTooSlow(GatewayError):
    status = 408
    type = "invalid_request_error"


class RateLimited(GatewayError):
    status = 429
    type = "requests"


class NoCandidate(GatewayError):
    status = 503


class GatewayUnready(GatewayError):
    status = 503


class UpstreamFailed(GatewayError):
    status = 502
    type = "upstream_error"


class ClientGone(Exception):
    """The client closed the connection; nobody is left to answer."""
