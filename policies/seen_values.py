"""Has somebody changed a row since a form over it was opened?

Pure. A form carries a mark for each value that it was opened with, and brings the marks back when it is sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

# Enough that a change is not overlooked; a mark is no secret, whoever reads it reads the value beside it.
MARK_LENGTH = 12


def marks_of(values: Mapping[str, Any]) -> str:
    """Write the marks of all values, as NAME:MARK separated by spaces."""
    return " ".join(f"{name}:{_mark_of(value)}" for name, value in sorted(values.items()))


def list_changed(seen: str, values: Mapping[str, Any]) -> list[str]:
    """Name the values that are not as they were when `seen` was made, in their own order.

    What `seen` does not name counts as unchanged: a program that sends a form without marks means it so.
    """
    marks = dict(part.split(":", 1) for part in seen.split() if ":" in part)
    return [name for name, value in values.items() if marks.get(name, _mark_of(value)) != _mark_of(value)]


def _mark_of(value: Any) -> str:
    # The order in which names are chosen means nothing.
    text = repr(sorted(map(str, value))) if isinstance(value, (list, tuple, set, frozenset)) else repr(value)
    return hashlib.sha256(text.encode()).hexdigest()[:MARK_LENGTH]
