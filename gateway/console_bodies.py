"""May this request's body reach the console? Anybody may send one to the sign-in page, before any password.

Pure. The server keeps a body in memory until it is whole: up to 32 MiB are for callers with a key, and forms are small.
"""

from __future__ import annotations

from collections.abc import Iterable

# Django's own limit for a form; it would only look once the whole body is here.
MAX_FORM_BYTES = 2_621_440


def refuses_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Say whether the body is larger than any form, or does not say how large it is (browsers always do)."""
    for name, value in headers:
        if name == b"transfer-encoding":
            return True
        if name == b"content-length" and (not value.isdigit() or int(value) > MAX_FORM_BYTES):
            return True
    return False
