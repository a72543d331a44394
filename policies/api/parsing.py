"""Which JSON does the management API take? Strict: UTF-8, no NaN, no lone surrogates, no endless nesting.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

import orjson
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser


class StrictJSONParser(BaseParser):
    """orjson refuses what PostgreSQL could not store or the answer could not repeat."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        try:
            return orjson.loads(stream.read())
        except orjson.JSONDecodeError as refusal:
            raise ParseError(f"This is not JSON: {refusal.msg} (line {refusal.lineno}).") from None
