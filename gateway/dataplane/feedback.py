"""What does a caller say about an answer it got? `POST /v1/feedback`.

Writes: one feedback line of the journal. Nothing is looked up: whether the request is one of this key is seen when
the line is collected (`billing.evidence_collecting`), so an answer can be rated before its record is stored.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from billing.request_times import ForeignIdError, started_at_of
from gateway.dataplane.auth import authenticate
from gateway.dataplane.errors import BadRequest, ClientGone, GatewayError, GatewayUnready
from gateway.dataplane.exchange import Send
from gateway.dataplane.gateway import Gateway
from gateway.dataplane.json_answers import send_error, send_json
from gateway.dataplane.limits import Receive, check_content_type, check_declared_size, read_body
from gateway.dataplane.request_ids import make_request_id
from gateway.journal import JournalError

MAX_BODY_BYTES = 16 * 1024


class Rating(NamedTuple):
    """A request and how good its answer was: 0 to 1, None for neither good nor bad."""

    request_id: str
    quality: float | None


async def serve_feedback(gateway: Gateway, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
    """Take one rating; 202 once it cannot be lost any more."""
    feedback_id = make_request_id()
    headers = [(b"x-request-id", feedback_id.encode())]
    try:
        answer = await _take(gateway, dict(scope["headers"]), receive, feedback_id)
    except ClientGone:
        return
    except GatewayError as error:
        await send_error(error, send, headers)
        return
    await send_json(answer, send, headers, status=202)


async def _take(
    gateway: Gateway, headers: Mapping[bytes, bytes], receive: Receive, feedback_id: str
) -> dict[str, Any]:
    check_declared_size(headers, max_bytes=MAX_BODY_BYTES)
    grant = authenticate(headers, gateway.configuration, now_unix_s=gateway.now_unix_s())
    check_content_type(headers)
    body = await read_body(receive, max_bytes=MAX_BODY_BYTES, timeout_s=gateway.timeouts.body_s)
    rating = read_rating(body)
    try:
        gateway.journal.append(
            {
                "k": "feedback",
                "v": 1,
                "id": feedback_id,
                "request": rating.request_id,
                "key": grant.key_id,
                "quality": rating.quality,
            }
        )
    except JournalError as error:
        gateway.stats.journal_errors += 1
        raise GatewayUnready(
            "The gateway cannot write its journal right now.",
            code="journal_unavailable",
            headers=[(b"retry-after", b"1")],
        ) from error
    return {
        "id": feedback_id,
        "object": "feedback",
        "request_id": rating.request_id,
        "quality": rating.quality,
    }


def read_rating(body: bytes) -> Rating:
    """Read `{"request_id": …, "rating": …}`. Raises BadRequest.

    `rating` is a thumb (-1 bad, 0 neither, 1 good) or a fraction between 0 and 1. A scale that begins at 0 meets the
    neutral thumb there, so its lowest mark is sent as `"quality": 0` instead, which is always 0 to 1. Ids of answers
    ("chatcmpl-…") are the provider's: the id is that of the header `x-request-id`.
    """
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest("The body is not JSON.", code="invalid_json") from None
    if not isinstance(payload, dict):
        raise BadRequest("The body must be a JSON object.", code="invalid_json")
    request_id = payload.get("request_id")
    try:
        found = uuid.UUID(request_id) if isinstance(request_id, str) else None
        if found is None:
            raise ValueError
        started_at_of(found)
    except (ForeignIdError, ValueError):
        raise BadRequest(
            "request_id must be the id of a request, as its answer's header x-request-id gives it.",
            code="invalid_value",
            param="request_id",
        ) from None
    if "quality" in payload:
        return Rating(str(found), _quality(payload["quality"]))
    if "rating" not in payload:
        raise BadRequest("rating is missing.", code="missing_required_parameter", param="rating")
    return Rating(str(found), _quality_of_thumb(payload["rating"]))


def _quality(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise BadRequest("quality must be a number from 0 to 1.", code="invalid_value", param="quality")
    return float(value)


def _quality_of_thumb(value: object) -> float | None:
    if not isinstance(value, bool) and isinstance(value, (int, float)):
        if value == 0:
            return None
        if value == -1:
            return 0.0
        if 0 < value <= 1:
            return float(value)
    raise BadRequest(
        "rating must be -1 (bad), 0 (neither), 1 (good) or a fraction between 0 and 1.",
        code="invalid_value",
        param="rating",
    )
