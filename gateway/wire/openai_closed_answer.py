"""What exactly does an answer say, if there are few ways to say it? Labels, numbers, JSON of such, tool calls.

Pure. Free text is told in too many ways to be compared without reading it: of that there is no closed form, and the
same holds for JSON or arguments of which one text is longer than a label.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

MAX_LABEL_CHARACTERS: Final = 40
MAX_LABEL_WORDS: Final = 3
MAX_LEAVES: Final = 50
MAX_DEPTH: Final = 8
# Ends of a label that are style: "Positive." is "positive".
_STYLE: Final = " \t\r\n.,;:!?'\"`*"


class _NotClosed(Exception):
    """Somewhere the answer says something in its own words."""


def closed_form(answer: Mapping[str, Any], request: Mapping[str, Any]) -> bytes | None:
    """Return the same bytes for chat answers that say exactly the same; None where nobody can tell."""
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and len(choices) == 1 else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return None
    if choice.get("finish_reason") not in ("stop", "tool_calls", None):
        return None
    try:
        calls = message.get("tool_calls")
        if calls:
            return b"calls " + b" ".join(sorted(_call(call) for call in calls))
        content = message.get("content")
        if not isinstance(content, str):
            return None
        if _wants_json(request):
            return b"json " + _dump(_closed(orjson.loads(content)))
        return b"label " + _label(content).encode()
    except (_NotClosed, ValueError, TypeError):
        return None


def _wants_json(request: Mapping[str, Any]) -> bool:
    wanted = request.get("response_format")
    return isinstance(wanted, dict) and wanted.get("type") in ("json_object", "json_schema")


def _call(call: Any) -> bytes:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise _NotClosed
    arguments = orjson.loads(function.get("arguments") or "{}")
    return _dump([function.get("name"), _closed(arguments)])


def _closed(value: Any) -> Any:
    """Return the value in its one form: labels without style, whole numbers as such. Raises _NotClosed."""
    left = MAX_LEAVES

    def walk(part: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > MAX_DEPTH:
            raise _NotClosed
        if isinstance(part, dict):
            return {name: walk(entry, depth + 1) for name, entry in part.items()}
        if isinstance(part, list):
            return [walk(entry, depth + 1) for entry in part]
        if isinstance(part, str):
            return _label(part)
        if isinstance(part, float) and part.is_integer() and abs(part) < 2**53:
            return int(part)
        return part

    return walk(value, 0)


def _label(text: str) -> str:
    words = text.strip(_STYLE).casefold().split()
    label = " ".join(words)
    if len(label) > MAX_LABEL_CHARACTERS or len(words) > MAX_LABEL_WORDS:
        raise _NotClosed
    return label


def _dump(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
