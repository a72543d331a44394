"""Has somebody guessed too many passwords? Counts failed sign-ins in this process's cache.

Reads and writes: the Django cache. With several workers each counts for itself, so the limit is at most that many
times larger; the password hash is slow either way.
"""

from __future__ import annotations

import hashlib

from django.core.cache import cache
from django.http import HttpRequest

MAX_FAILURES = 5
WINDOW_S = 300


def _cache_key(request: HttpRequest, username: str) -> str:
    who = f"{request.META.get('REMOTE_ADDR', '')}\n{username.lower()}"
    return "sign-in-failures:" + hashlib.sha256(who.encode("utf-8", "replace")).hexdigest()


def is_blocked(request: HttpRequest, username: str) -> bool:
    """Say whether this address must wait before it tries this name again."""
    return int(cache.get(_cache_key(request, username), 0)) >= MAX_FAILURES


def count_failure(request: HttpRequest, username: str) -> None:
    """Remember one wrong password."""
    key = _cache_key(request, username)
    cache.add(key, 0, WINDOW_S)
    try:
        cache.incr(key)
    except ValueError:
        # It expired between the two calls: the next failure begins a new window.
        pass


def forget_failures(request: HttpRequest, username: str) -> None:
    """Start afresh after a successful sign-in."""
    cache.delete(_cache_key(request, username))
