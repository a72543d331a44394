"""What does an API key look like, and how is it recognised without keeping it?

Pure. HMAC-SHA-256 with a pepper: keys are long random texts, so a slow password hash would buy nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

PREFIX = "pm-"


def make_secret() -> str:
    """Make a new key: 43 characters of 256 random bits after the prefix."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_secret(secret: str, *, pepper: str) -> bytes:
    """Return the 32-byte HMAC under which a key is stored and found."""
    return hmac.digest(pepper.encode(), secret.encode("utf-8", "surrogatepass"), hashlib.sha256)


def hint_of(secret: str) -> str:
    """Return enough of a key to recognise it in a list, and too little to guess it."""
    return f"{secret[:6]}…{secret[-4:]}" if len(secret) >= 20 else "…"
