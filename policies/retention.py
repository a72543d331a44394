"""How long may a provider keep what it is sent, and what is that enough for? Classes of retention, strictest first.

Pure. What nobody has said of a deployment is taken for the worst: it serves only those who set no limit.
"""

from __future__ import annotations

from typing import Final, Literal

RetentionClass = Literal["", "none", "temporary", "training"]

# Class -> what it says of a deployment.
RETENTION_CLASSES: Final[dict[RetentionClass, str]] = {
    "none": "keeps nothing (zero data retention)",
    "temporary": "keeps it for a time, never trains on it",
    "training": "may keep it and train on it",
    "": "not said",
}
# Limit -> what a tenant (or a caller, for one request) accepts.
RETENTION_LIMITS: Final[dict[RetentionClass, str]] = {
    "": "any deployment",
    "temporary": "only those that never train on it",
    "none": "only those that keep nothing",
}
_RANKS: Final[dict[str, int]] = {name: rank for rank, name in enumerate(RETENTION_CLASSES)}
ANY_RANK: Final = len(RETENTION_CLASSES) - 1


def rank_of_class(retention: str) -> int:
    """Where a deployment stands: 0 keeps nothing; the highest is unknown. A class of a later release is unknown."""
    return _RANKS.get(retention, ANY_RANK)


def rank_of_limit(limit: str) -> int:
    """The highest rank that a limit accepts; no limit accepts all."""
    return _RANKS.get(limit, ANY_RANK)
