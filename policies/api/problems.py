"""How does the management API say no? Every refusal becomes one problem document (RFC 9457), here and nowhere else.

Writes: the log, for faults of ours.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.core.signals import got_request_exception
from django.db import InterfaceError, OperationalError
from django.http import Http404
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.response import Response

from policies.document_checks import Problem
from policies.errors import (
    ConfigurationError,
    CredentialError,
    InUseError,
    InvalidValueError,
    NameTakenError,
    NotFoundError,
)
from policies.publishing import (
    ApprovalNeededError,
    CanaryRunningError,
    NeverLiveError,
    NothingToPublishError,
    PolicyError,
)

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
TYPE_PREFIX = "/api/v1/problems/"


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One kind of refusal: `slug` ends its `type` address, `advice` says what to do about it."""

    slug: str
    status: int
    title: str
    advice: str


PROBLEM_TYPES: dict[str, ProblemType] = {
    kind.slug: kind
    for kind in (
        ProblemType("malformed", 400, "The request cannot be read", "Send one JSON value in UTF-8."),
        ProblemType(
            "unauthenticated",
            401,
            "Nobody is signed in",
            "Send `Authorization: Bearer pmt_…` with a management token that is neither expired nor revoked.",
        ),
        ProblemType(
            "forbidden", 403, "This is not allowed", "Use a token with the scope that `detail` names."
        ),
        ProblemType("not-found", 404, "There is no such thing", "Check the address, or list what there is."),
        ProblemType("method-not-allowed", 405, "This method is not offered here", "See the `Allow` header."),
        ProblemType(
            "not-acceptable", 406, "No form that you accept is offered", "Accept `application/json`."
        ),
        ProblemType(
            "name-taken", 409, "The name is taken", "Choose another name, or change what has this one."
        ),
        ProblemType(
            "in-use",
            409,
            "Something else needs this as it is",
            "Change what `detail` names first, or disable.",
        ),
        ProblemType(
            "refused", 409, "The change is refused", "`detail` says why; nothing was changed by this request."
        ),
        ProblemType(
            "approval-needed",
            409,
            "Another person has to approve this",
            "Post a publication request; a person who did not ask for it approves it in the console.",
        ),
        ProblemType(
            "nothing-to-publish",
            409,
            "This is what is live",
            "Change the draft first; a version that changes nothing is not made.",
        ),
        ProblemType(
            "never-live",
            409,
            "This version was never live",
            "Promote the canary while it runs, or save its document as the draft and publish that.",
        ),
        ProblemType(
            "canary-running",
            409,
            "A canary is running",
            "Promote it or stop it first.",
        ),
        ProblemType(
            "stale-draft",
            412,
            "The draft was changed in the meantime",
            "The answer holds the draft as it is now. Put your change into it and send it with the new ETag.",
        ),
        ProblemType(
            "stale-row",
            412,
            "This was changed in the meantime",
            "`current` holds it as it is now. Put your change on that and send it with the new ETag.",
        ),
        ProblemType("unsupported-media-type", 415, "The body is not JSON", "Send `application/json`."),
        ProblemType(
            "invalid-value", 422, "A value is wrong", "`errors` names each member and what is wrong with it."
        ),
        ProblemType(
            "unsound-policy",
            422,
            "The policy document has errors",
            "`errors` names each place, and the column in a condition. Those of severity `warning` forbid nothing.",
        ),
        ProblemType(
            "credential-refused", 422, "The credential cannot be used", "Give it, or its reference, again."
        ),
        ProblemType(
            "precondition-required",
            428,
            "Say which revision you have read",
            "Read the draft and send its ETag as `If-Match`.",
        ),
        ProblemType(
            "too-many-failures",
            429,
            "Too many failed authentications",
            "Wait for the time in `Retry-After`.",
        ),
        ProblemType(
            "failed", 500, "The gateway failed", "The log of the gateway says more. Nothing was changed."
        ),
        ProblemType("unavailable", 503, "The database does not answer", "Try again in a moment."),
    )
}
_BY_STATUS = {
    400: "malformed",
    401: "unauthenticated",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    406: "not-acceptable",
    415: "unsupported-media-type",
    429: "too-many-failures",
}


_SLUGS: dict[type[ConfigurationError], str] = {
    NameTakenError: "name-taken",
    InUseError: "in-use",
    CredentialError: "credential-refused",
    ApprovalNeededError: "approval-needed",
    CanaryRunningError: "canary-running",
    NothingToPublishError: "nothing-to-publish",
    NeverLiveError: "never-live",
}


class ApiRefusal(Exception):
    """A refusal of the API's own: a problem type, a sentence, and members that only this type has."""

    def __init__(
        self,
        slug: str,
        detail: str,
        *,
        members: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.slug = slug
        self.detail = detail
        self.members = dict(members or {})
        self.headers = dict(headers or {})
        super().__init__(detail)


def handle(error: Exception, context: Mapping[str, Any]) -> Response:
    """Return the problem document of an exception. DRF's EXCEPTION_HANDLER."""
    request: Request | None = context.get("request")
    if isinstance(error, ApiRefusal):
        return build(error.slug, error.detail, members=error.members, headers=error.headers)
    if isinstance(error, ConfigurationError):
        return _of_configuration_error(error)
    if isinstance(error, exceptions.ValidationError):
        return build(
            "invalid-value", "The request was not carried out.", errors=list(_flatten(error.detail, ""))
        )
    if isinstance(error, (Http404, ObjectDoesNotExist)):
        return build("not-found", "There is nothing at this address.")
    if isinstance(error, PermissionDenied):
        return build("forbidden", str(error) or "This is not allowed.")
    if isinstance(error, exceptions.APIException) and error.status_code in _BY_STATUS:
        return _of_api_exception(error)
    if isinstance(error, (OperationalError, InterfaceError)):
        logger.warning("the database does not answer the management API: %s", type(error).__name__)
        return build("unavailable", "The database does not answer.", headers={"Retry-After": "5"})
    return _of_fault(error, request)


def build(
    slug: str,
    detail: str,
    *,
    errors: list[dict[str, Any]] | None = None,
    members: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Build the answer of a problem type."""
    document = document_of(slug, detail)
    if errors is not None:
        document["errors"] = errors
    document.update(members or {})
    return Response(
        document, status=document["status"], headers=dict(headers or {}), content_type=CONTENT_TYPE
    )


def document_of(slug: str, detail: str) -> dict[str, Any]:
    """The members that every problem document has."""
    kind = PROBLEM_TYPES[slug]
    return {"type": TYPE_PREFIX + slug, "title": kind.title, "status": kind.status, "detail": detail}


def problem_as_json(problem: Problem) -> dict[str, Any]:
    """One finding about a policy document, as `errors` and `problems` hold it."""
    return {
        "path": problem.path,
        "message": problem.message,
        "severity": problem.severity,
        "column": problem.column,
    }


def _of_configuration_error(error: ConfigurationError) -> Response:
    detail = _sentence(str(error))
    if isinstance(error, PolicyError):
        return build(
            "unsound-policy", detail, errors=[problem_as_json(problem) for problem in error.problems]
        )
    if isinstance(error, InvalidValueError):
        errors = [_error(path, text) for path, texts in error.problems.items() for text in texts]
        return build("invalid-value", detail, errors=errors)
    if isinstance(error, NotFoundError):
        # The address was right: what a member of the body names does not exist.
        return build("invalid-value", detail, errors=[_error("", str(error))])
    for kind, slug in _SLUGS.items():
        if isinstance(error, kind):
            return build(slug, detail)
    return build("refused", detail)


def _of_api_exception(error: exceptions.APIException) -> Response:
    slug = _BY_STATUS[error.status_code]
    headers: dict[str, str] = {}
    if challenge := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if wait := getattr(error, "wait", None):
        headers["Retry-After"] = str(int(wait))
    return build(slug, _sentence(str(error.detail)), headers=headers)


def _of_fault(error: Exception, request: Request | None) -> Response:
    http_request = None if request is None else request._request
    # The signal is what tests and error reporters listen to; Django sends it for views that raise.
    got_request_exception.send(sender=None, request=http_request)
    path = "" if http_request is None else http_request.path
    logger.error("the management API failed at %s", path, exc_info=error)
    return build("failed", "This is a fault of the gateway, not of the request.")


def _flatten(detail: Any, path: str) -> Iterable[dict[str, Any]]:
    """Turn DRF's nested details into places: {"rules": [{}, {"name": ["x"]}]} is rules[1].name."""
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            yield from _flatten(inner, _joined(path, name))
    elif isinstance(detail, list):
        for index, inner in enumerate(detail):
            if isinstance(inner, (Mapping, list)):
                yield from _flatten(inner, f"{path}[{index}]")
            else:
                yield _error(path, str(inner))
    else:
        yield _error(path, str(detail))


def _joined(path: str, name: object) -> str:
    if isinstance(name, int):  # the place in a list
        return f"{path}[{name}]"
    if name == "non_field_errors":
        return path
    return f"{path}.{name}" if path else str(name)


def _error(path: str, message: str) -> dict[str, Any]:
    return {"path": path, "message": _sentence(message), "severity": "error", "column": None}


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."
