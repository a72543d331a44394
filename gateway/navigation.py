"""What stands in the console's menu for this person? Template context processor."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest


def navigation(request: HttpRequest) -> dict[str, Any]:
    """Return {"menu": [...]}; the console fills it."""
    return {"menu": []}
