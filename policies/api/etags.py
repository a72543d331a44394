"""Which revision of a draft has the caller read? Entity tags, RFC 9110 section 13.

Pure.
"""

from __future__ import annotations

from django.utils.http import parse_etags
from rest_framework.request import Request

from policies.api.problems import ApiRefusal


def etag_of(revision: int) -> str:
    """The strong tag of a revision."""
    return f'"{revision}"'


def is_known_to_caller(request: Request, revision: int) -> bool:
    """Say whether `If-None-Match` names the revision, so that the answer is 304."""
    tags = parse_etags(request.headers.get("If-None-Match", ""))
    # Weak comparison: proxies that compress make W/ of our tags.
    return "*" in tags or etag_of(revision) in [tag.removeprefix("W/") for tag in tags]


def has_read(request: Request, revision: int) -> bool:
    """Say whether `If-Match` names the revision, or any (`*`). Raises ApiRefusal when the header is missing."""
    header = request.headers.get("If-Match", "")
    if not header.strip():
        raise ApiRefusal(
            "precondition-required", "A draft is only changed with If-Match, so that nobody's work is lost."
        )
    tags = parse_etags(header)
    return "*" in tags or etag_of(revision) in tags
