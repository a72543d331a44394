"""Which revision of a draft, or which values of a row, has the caller read? Entity tags, RFC 9110 section 13.

Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from django.core.serializers.json import DjangoJSONEncoder
from django.utils.http import parse_etags
from rest_framework.request import Request

from policies.api.problems import ApiRefusal

# Enough that a change is not overlooked; a tag is no secret, whoever reads it reads the values beside it.
TAG_LENGTH: Final = 16


def etag_of(revision: int | str) -> str:
    """The strong tag of a revision."""
    return f'"{revision}"'


def etag_of_values(values: Mapping[str, Any]) -> str:
    """The tag of what can be set of a row: the same for as long as nobody changes any of it."""
    text = json.dumps(values, sort_keys=True, cls=DjangoJSONEncoder)
    return etag_of(hashlib.sha256(text.encode()).hexdigest()[:TAG_LENGTH])


def is_known_to_caller(request: Request, revision: int) -> bool:
    """Say whether `If-None-Match` names the revision, so that the answer is 304."""
    tags = parse_etags(request.headers.get("If-None-Match", ""))
    # Weak comparison: proxies that compress make W/ of our tags.
    return "*" in tags or etag_of(revision) in [tag.removeprefix("W/") for tag in tags]


def has_read(request: Request, revision: int) -> bool:
    """Say whether `If-Match` names the revision, or any (`*`). Raises ApiRefusal when the header is missing."""
    if not request.headers.get("If-Match", "").strip():
        raise ApiRefusal(
            "precondition-required", "A draft is only changed with If-Match, so that nobody's work is lost."
        )
    return names_tag(request, etag_of(revision))


def names_tag(request: Request, tag: str) -> bool:
    """Say whether `If-Match` names the tag, or any (`*`)."""
    tags = parse_etags(request.headers.get("If-Match", ""))
    return "*" in tags or tag in tags
