"""What does a provider's error body say, in the OpenAI form?

Pure. A gateway's client always gets message, type, param and code, whatever the provider sent. Messages go to the
client and are written down nowhere, because providers quote in them what was asked; codes are, by `recorded_code`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import orjson

MAX_MESSAGE_CHARACTERS = 4000
MAX_READ_CHARACTERS = 16_000
MAX_KEYS = 64

# What providers echo of our credential when it is wrong ("Incorrect API key provided: sk-abc***xyz"), and any
# bearer token in a text. Never shown to a client, never recorded.
_SECRET = re.compile(
    r"(?i)(?:\b(?:sk|pk|rk|gsk|xai|key|api|hf|r8|pplx|csk|fw|nvapi|AIza)[-_][\w\-*.…]{6,}"
    r"|\bAIza[\w\-]{10,}|bearer\s+[\w\-.=+/]{6,}|(?<=api[-_ ]key[:=])\s*\S{6,})"
)
_OVERFLOW = re.compile(
    r"(?i)context[ _-]?(?:length|window)|maximum (?:context|prompt) length|prompt is too long"
    r"|too many (?:input )?tokens"
    r"|exceeds? the (?:available )?context|input (?:is )?too long|input length and .?max_tokens|token limit exceeded"
)

_WRONG_KEY = re.compile(
    r"(?i)(?:incorrect|invalid) api key|api key (?:not valid|expired|not found|is invalid)"
)

MAX_CODE_CHARACTERS = 80
# A code, type or parameter as all known providers write them; never a sentence.
_IDENTIFIER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/\[\]-]*\Z")

EMPTY: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class ProviderFault:
    """A provider's refusal, safe to show: secrets are masked. `extra` keeps its other keys (failed_generation)."""

    message: str
    type: str
    param: str | None
    code: str | None
    status: int
    extra: Mapping[str, Any] = field(default_factory=dict)
    is_explained: bool = True

    @property
    def is_about_credential(self) -> bool:
        """Whether the credential we sent was refused. xAI and Gemini say so with a 400.

        A 403 that is no error of an API (a firewall's page, which a prompt can provoke) is none.
        """
        if self.status == 400:
            return bool(_WRONG_KEY.match(self.message))
        return self.status == 401 or (self.status == 403 and self.is_explained and not self.is_about_content)

    @property
    def is_context_overflow(self) -> bool:
        """Whether a model with a larger context could have taken the request."""
        return self.code == "context_length_exceeded" or (
            self.status in (400, 413, 422, 429) and bool(_OVERFLOW.search(self.message))
        )

    @property
    def is_about_content(self) -> bool:
        """Whether a 403 is about what was asked (moderation), not about our credential."""
        metadata = self.extra.get("metadata")
        return isinstance(metadata, dict) and ("reasons" in metadata or "flagged_input" in metadata)


def mask_secrets(text: str) -> str:
    """Replace everything that looks like a credential."""
    return _SECRET.sub("[masked]", text)


def recorded_code(*texts: object) -> str:
    """The first code, type or parameter that may be written down: an identifier, never a text of its own."""
    for text in texts:
        code = str(text or "")
        if len(code) <= MAX_CODE_CHARACTERS and _IDENTIFIER.match(code):
            return code
    return ""


def read_fault(body: bytes, status: int, *, secret: str | None = None) -> ProviderFault:
    """Read any error body seen in the wild. `secret`: the credential we sent, masked wherever it stands."""
    payload = _parse(body)
    inner: Any = payload.get("error") if isinstance(payload, dict) else None
    source: dict[str, Any] = (
        inner if isinstance(inner, dict) else payload if isinstance(payload, dict) else {}
    )
    message = _message(source, payload, inner)
    is_explained = bool(message)
    if not message:
        message = f"The provider answered {status} without an explanation."
    message = _clean(message, secret)
    kind = source.get("type")
    code = source.get("code")
    param = source.get("param")
    extra = {
        key: _clean_value(value, secret)
        for key, value in islice(source.items(), MAX_KEYS)
        if key not in ("message", "type", "param", "code", "detail", "error", "object")
    }
    return ProviderFault(
        message=message,
        type=kind if isinstance(kind, str) and kind else _default_type(status),
        param=param if isinstance(param, str) else None,
        code=code if isinstance(code, str) else str(code) if isinstance(code, int) else None,
        status=status,
        extra=extra,
        is_explained=is_explained,
    )


def fault_in_answer(payload: Mapping[str, Any]) -> int | None:
    """The status meant by an answer that carries an error under HTTP 200; None when it is a real answer."""
    error = payload.get("error")
    if not error or payload.get("choices") or payload.get("data"):
        return None
    code = error.get("code") if isinstance(error, dict) else None
    status = error.get("status_code") if isinstance(error, dict) else None
    for value in (status, code):
        if isinstance(value, int) and 400 <= value <= 599:
            return value
    if code in ("content_filter", "invalid_request_error", "context_length_exceeded"):
        return 400
    return 502


def _parse(body: bytes) -> Any:
    try:
        payload = orjson.loads(body)
    except ValueError:
        return None
    # Gemini wraps its error object in a list.
    return payload[0] if isinstance(payload, list) and payload and isinstance(payload[0], dict) else payload


def _message(source: Mapping[str, Any], payload: Any, inner: Any) -> str:
    for candidate in (source.get("message"), inner, source.get("detail"), source.get("error")):
        if isinstance(candidate, str) and candidate.strip():
            return candidate
        if isinstance(candidate, (list, dict)) and candidate and candidate is not inner:
            with suppress(TypeError):  # nested too deep to be written
                return orjson.dumps(candidate).decode()
    return payload if isinstance(payload, str) else ""


def _clean(text: str, secret: str | None) -> str:
    if len(text) > MAX_READ_CHARACTERS:
        # Masking a megabyte takes 0.15 s. What might be half a secret at the cut goes too.
        text = text[:MAX_READ_CHARACTERS]
        text = text.rpartition(" ")[0] or text
    if secret:
        text = text.replace(secret, "[masked]")
    return mask_secrets(text)[:MAX_MESSAGE_CHARACTERS]


def _clean_value(value: Any, secret: str | None) -> Any:
    if isinstance(value, str):
        return _clean(value, secret)
    if isinstance(value, (dict, list)):
        try:
            dumped = orjson.dumps(value).decode()
            return orjson.loads(_clean(dumped, secret)) if len(dumped) <= MAX_MESSAGE_CHARACTERS else None
        except (ValueError, TypeError):
            return None  # masking or cutting broke the JSON, or it is too deep: better nothing than a leak
    return value


def _default_type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"
