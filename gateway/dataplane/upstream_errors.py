"""How can a call to a provider fail below HTTP?

Pure. One class; its `kind` says where.
"""

from __future__ import annotations

from typing import Literal

UpstreamErrorKind = Literal[
    "refused_address",
    "resolve",
    "connect",
    "tls",
    "connect_timeout",
    "timeout",
    "broken",
    "bad_answer",
    "too_large",
]


class UpstreamError(Exception):
    """A call that brought no usable answer. The text never holds headers, bodies or credentials."""

    def __init__(self, kind: UpstreamErrorKind, message: str, *, is_safe_to_retry: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.is_safe_to_retry = is_safe_to_retry
